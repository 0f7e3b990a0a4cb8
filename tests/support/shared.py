"""Helpers of several test files: run a command, damage a file, and make configs that resume in different ways."""

import dataclasses
import errno
import json
import os
import threading
import warnings
from collections.abc import Callable, Container, Iterable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.numpy

from grokscope import Trajectory, cli, measures
from grokscope.config import ModelConfig, OptimizerConfig, RunConfig, TaskConfig
from grokscope.series import LabelledArrays
from grokscope.store import verify
from grokscope.store.run_store import RunStore

Command = Callable[..., tuple[int, str, str]]
Saved = dict[tuple[Any, ...], tuple[Any, ...]]
"""Everything that a run has saved, as raw bytes."""

SMALL: dict[str, dict[str, Any]] = {
    "keskar_sharpness": {"n_iterations": 3},
    "sam_sharpness": {"n_iterations": 2},
    "average_sharpness": {"n_pairs": 2, "n_radius_pairs": 2, "tolerance": 3.0},
    "hessian": {"n_top": 2, "n_probes": 2, "tolerance": 1e-3, "bottom_tolerance": 0.1, "blocks": ("positions",)},
    "hessian_spectrum": {"n_probes": 2, "n_products": 4},
    "local_learning_coefficient": {"n_draws": 8, "n_burn_in": 2, "n_chains": 2},
}
"""Cheap options of the slow measures, for tests that do not check the values."""
LOSSES = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
KINDS = ["full batch", "minibatch", "adaptive"]


def quick(cases: Iterable[Any], chosen: Container[Any]) -> list[Any]:
    """Return the cases of a parameter; all but the chosen are slow."""
    return [case if case in chosen else pytest.param(case, marks=pytest.mark.slow) for case in cases]


def command_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path) -> Command:
    """Return the function that runs one command here, in a new folder; it returns status, output and errors."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    monkeypatch.setenv("COLUMNS", "200")
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(*arguments: Any) -> tuple[int, str, str]:
        status = 0
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        output, errors = capsys.readouterr()
        assert "Traceback" not in output + errors
        return status, output, errors

    return run


def make_tiny_config() -> RunConfig:
    """Return a config that trains in a blink."""
    return RunConfig(
        task=TaskConfig(p=7, train_fraction=0.6),
        model=ModelConfig(d_model=16, n_heads=2, d_mlp=24),
        optimizer=OptimizerConfig(lr=1e-2, warmup_steps=4),
        n_steps=60,
        checkpoints="every 10",
        evaluate_every=10,
    )


def of_kind(config: RunConfig, kind: str) -> RunConfig:
    """Return one of the three configs that resume in different ways."""
    if kind == "minibatch":
        return dataclasses.replace(config, batch_size=8, training_seed=3)
    if kind == "adaptive":
        fast = OptimizerConfig(lr=3e-2, warmup_steps=5)
        return dataclasses.replace(config, checkpoints="every 25 + adaptive 0.1", evaluate_every=3, optimizer=fast)
    return config


def companions(config: RunConfig) -> list[RunConfig]:
    """Return a config and two others for one ensemble with it; every setting that may differ differs."""
    configs = [config]
    for seed, train_fraction in ((1, 0.5), (2, 0.7)):
        o = config.optimizer
        decay = o.weight_decay if o.name == "adam" else o.weight_decay * seed / 4
        configs.append(
            dataclasses.replace(
                config,
                task=dataclasses.replace(config.task, train_fraction=train_fraction),
                optimizer=dataclasses.replace(o, lr=o.lr / (1 + seed), weight_decay=decay),
                split_seed=seed,
                init_seed=seed,
                training_seed=seed,
            )
        )
    return configs


def refuse(monkeypatch: pytest.MonkeyPatch, closed: Path) -> None:
    """Let the system refuse to say anything of a folder or of what is in it, as it does root never."""

    def refusing(function: Callable[..., Any]) -> Callable[..., Any]:
        def ask(path: Any = ".", *rest: Any, **more: Any) -> Any:
            if not isinstance(path, int) and Path(os.fsdecode(path)).absolute().is_relative_to(closed.absolute()):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
            return function(path, *rest, **more)

        return ask

    for name in ("stat", "open", "listdir", "scandir"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))


def place(path: Path, name: str) -> tuple[int, int]:
    """Return the first and the last position of a tensor's bytes in a safetensors file."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    first, last = json.loads(data[8 : 8 + size])[name]["data_offsets"]
    return 8 + size + first, 8 + size + last


def flip(path: Path, bit: int) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def truncate(path: Path) -> None:
    """Cut a file in half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_of(run: RunStore) -> list[str]:
    """Return a sentence for each fault that `verify` reports in a run."""
    return [fault.sentence for fault in verify.faults(run)]


def writing() -> list[threading.Thread]:
    """Return the threads that are writing a segment at this moment."""
    return [thread for thread in threading.enumerate() if thread.name == "grokscope writer"]


def read_everything(folder: Path) -> Saved:
    """Return everything that a run has saved, from any segments, as raw bytes.

    That is every checkpoint, every log row, the resume state of the last step, and the config. safetensors alone
    reads the files, so that grokscope does not judge itself. A checkpoint or row in two segments must be equal.
    """
    saved: Saved = {}
    ends: list[int] = []

    def add(key: tuple[Any, ...], value: tuple[Any, ...]) -> None:
        assert saved.setdefault(key, value) == value, f"{key} differs between two segments"

    for path in sorted((folder / "segments").glob("[!.]*")):
        arrays = safetensors.numpy.load_file(path)
        with safetensors.safe_open(path, "np") as file:
            about = json.loads(file.metadata()["metadata"])
        for name, array in arrays.items():
            if name.startswith("checkpoints/"):
                for step, row in zip(about["steps"], array, strict=True):
                    add(("checkpoint", step, name), (str(row.dtype), row.shape, row.tobytes()))
            elif name.startswith("resume/"):
                key = ("resume", about["end"], name)
                add(key, (str(array.dtype), array.shape, array.tobytes()))
        for row in arrays["log"]:
            add(("log", int(row[0])), (row.tobytes(),))
        if about["end"] is not None:
            ends.append(about["end"])
    values = json.loads((folder / "config.json").read_bytes())
    saved["config",] = (json.dumps(values["config"]), values["data_digest"])
    last = max(ends)
    assert any(key[:2] == ("resume", last) for key in saved), "the last commit has no resume state"
    return {key: value for key, value in saved.items() if key[0] != "resume" or key[1] == last}


def own_losses(trajectory: Trajectory) -> Callable[[int], list[float]]:
    """Return the function that returns a checkpoint's own losses and accuracies, in the order of LOSSES."""
    series = measures.evaluate("loss", trajectory)
    return lambda step: [float(series[name][list(series.steps).index(step)]) for name in LOSSES]


def row(scan: LabelledArrays, *place: int) -> list[float]:
    """Return the losses and accuracies at a place of a scan, in the order of LOSSES."""
    return [float(scan[name][place]) for name in LOSSES]
