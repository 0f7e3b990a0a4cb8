"""Initial parameters and training sets that a training takes from a file or from another run."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from grokscope import tasks
from grokscope.config import RunConfig
from grokscope.errors import GrokscopeError
from grokscope.interop import formats, sources, train_sets
from grokscope.interop.conversion import Conversion, completed, detect
from grokscope.model import families
from grokscope.model.state_dicts import initial_parameters, parameters_digest
from grokscope.opened_run import open_store
from grokscope.store.record import packed_indices
from grokscope.trajectory import Trajectory


def with_train_set(config: RunConfig, path: Path) -> RunConfig:
    """Return a config with the training set that a file names.

    The config contains the set itself, so the file is not needed again.

    Args:
        config: The config, of which only the task matters.
        path: A file of training indices, as `train_sets.read_indices` reads it.

    Raises:
        GrokscopeError: The file cannot be read, or does not name different examples of the task.
    """
    task = tasks.build(config.task)
    split = train_sets.split_of_indices(train_sets.read_indices(path), task, f"--split-from {path}")
    train_set = packed_indices(split.train.numpy(), len(task.inputs))
    return dataclasses.replace(config, task=dataclasses.replace(config.task, train_set=train_set))


def with_initialization(config: RunConfig, source: str, root: Path) -> tuple[RunConfig, dict[str, Tensor]]:
    """Return a config with the digest of initial parameters, and the parameters.

    Args:
        config: The config.
        source: A file with one state dict, in any form that `grokscope import` reads; or RUN@STEP, a checkpoint of a
            run, where RUN is a folder or a name under `root`. Step 0 of a fork is that of its origin.
        root: The folder that contains the runs.

    Raises:
        GrokscopeError: The source cannot be read, or its parameters do not fit the model.
    """
    task = tasks.build(config.task)
    model = families.build(config.model, task)
    run, at, step = source.rpartition("@")
    try:
        if at and step.isdecimal() and not Path(source).exists():
            folder = root / run if (root / run).is_dir() else Path(run)
            values = _checkpoint(folder, int(step))
        else:
            values = _file_parameters(Path(source), model, task)
        parameters = initial_parameters(model, values)
    except GrokscopeError as error:
        raise GrokscopeError(f"--init-from {source}: {error}") from error
    return dataclasses.replace(config, initialization=parameters_digest(parameters)), parameters


def _checkpoint(folder: Path, step: int) -> Mapping[str, Tensor]:
    store = open_store(folder)
    origin = store.initialization()
    if step == 0 and origin:
        return {name: torch.from_numpy(array) for name, array in origin.items()}
    return Trajectory.of_store(store).at(step).parameters


def _file_parameters(path: Path, model: families.Model, task: tasks.Task) -> Mapping[str, Tensor]:
    """Return the parameters in a file under TransformerLens names and shapes; missing biases are zero."""
    (source,) = sources.find([path])
    file = formats.parse_content(source.read(), source.path, False)
    if len(file.state_dicts) != 1:
        raise GrokscopeError(
            f"it contains {len(file.state_dicts)} state dicts, not one. `grokscope import` makes a run of them, and "
            f"--init-from RUN@STEP takes one of its checkpoints."
        )
    conversion = Conversion(n_heads=model.config.n_heads)
    return completed(conversion.convert(detect(file.state_dicts[0]), task), model.shapes)
