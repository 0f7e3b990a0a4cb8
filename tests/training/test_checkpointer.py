"""The checkpoints and log rows that a run takes: by schedule, and independent of the clock."""

import dataclasses
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch

from grokscope import Trajectory, measures, training
from grokscope.config import OptimizerConfig, RunConfig
from grokscope.errors import GrokscopeError
from grokscope.model import losses
from grokscope.store.run_store import RunStore, segments_folder
from grokscope.training import checkpointer
from grokscope.training.checkpointer import estimate_disk_use
from grokscope.training.loop import Setup


@pytest.fixture
def moving(tiny_config: RunConfig) -> RunConfig:
    """A config whose test loss rises and falls by whole nats within its few steps."""
    return dataclasses.replace(tiny_config, optimizer=OptimizerConfig(lr=3e-2, warmup_steps=5), evaluate_every=1)


def measured_test_losses(trajectory: Trajectory) -> dict[int, float]:
    """Return the test loss at every checkpoint, measured from the checkpoints alone."""
    series = measures.evaluate("loss", trajectory)
    return dict(zip(series.steps.tolist(), series["test_loss"].tolist(), strict=True))


# The adaptive schedule.


@pytest.mark.parametrize("amount", [0.05, 1.5])
@pytest.mark.parametrize("fixed", ["every 1000", "every 7 + log 5"])
def test_adaptive_checkpoint_follows_a_change_of_the_test_loss(
    amount: float, fixed: str, moving: RunConfig, tmp_path: Path
):
    """The change counts since the last checkpoint of any kind."""
    config = dataclasses.replace(moving, checkpoints=f"{fixed} + adaptive {amount}")
    trajectory = training.train(config, "run", tmp_path)
    fixed_run = training.train(dataclasses.replace(moving, checkpoints=fixed), "fixed", tmp_path)
    fixed_steps = set(fixed_run.steps.tolist())

    test_losses, reference, expected = trajectory.log["test_loss"], math.nan, []
    for step, test_loss in enumerate(test_losses.tolist()):
        if step in fixed_steps or abs(math.log(test_loss / reference)) >= amount:
            expected.append(step)
            reference = test_loss
    assert trajectory.steps.tolist() == expected
    assert len(expected) > len(fixed_steps) or amount > 1, "the schedule must take adaptive checkpoints"


def test_fixed_checkpoint_between_evaluations_is_a_reference(moving: RunConfig, tmp_path: Path):
    config = dataclasses.replace(moving, checkpoints="every 10 + adaptive 0.2", evaluate_every=7)
    trajectory = training.train(config, "run", tmp_path)
    dense = training.train(dataclasses.replace(config, checkpoints="every 1"), "dense", tmp_path)
    test_losses, reference, expected = measured_test_losses(dense), math.nan, []
    for step in range(61):
        is_evaluated, is_fixed = step % 7 == 0 or step == 60, step % 10 == 0
        if is_fixed or (is_evaluated and abs(math.log(test_losses[step] / reference)) >= 0.2):
            expected.append(step)
            reference = test_losses[step]
    assert trajectory.steps.tolist() == expected
    assert set(expected) - set(range(0, 61, 10)), "the schedule must take adaptive checkpoints"
    assert trajectory.log.steps.tolist() == [*range(0, 60, 7), 60]


def test_adaptive_schedule_warns_and_stops_at_max_checkpoints(moving: RunConfig, tmp_path: Path):
    config = dataclasses.replace(moving, checkpoints="every 20 + adaptive 0.05")
    unlimited = training.train(config, "unlimited", tmp_path).steps.tolist()
    assert len(unlimited) > 12
    with pytest.warns(UserWarning, match="max_checkpoints = 12") as warned:
        limited = training.train(dataclasses.replace(config, max_checkpoints=12), "limited", tmp_path)
    assert len(warned) == 1
    steps = limited.steps.tolist()
    assert len(steps) == 12 and {0, 20, 40, 60} <= set(steps)
    adaptive = [step for step in steps if step % 20]
    assert adaptive == [step for step in unlimited if step % 20][:8], "these are not the first ones"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training.train(dataclasses.replace(config, max_checkpoints=len(unlimited)), "enough", tmp_path)


def test_fixed_schedule_beyond_max_checkpoints_writes_no_file(tiny_config: RunConfig, tmp_path: Path):
    with pytest.raises(GrokscopeError, match="61 checkpoints.*max_checkpoints = 60"):
        training.train(dataclasses.replace(tiny_config, checkpoints="every 1", max_checkpoints=60), "run", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_test_loss_of_zero_does_not_break_the_adaptive_schedule(
    moving: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cross_entropy = losses.cross_entropy
    monkeypatch.setattr(losses, "cross_entropy", lambda *arguments: cross_entropy(*arguments) * 0)
    trajectory = training.train(dataclasses.replace(moving, checkpoints="adaptive 0.1"), "run", tmp_path)
    assert trajectory.steps.tolist() == [0, 60]


# The log.


@pytest.mark.parametrize(("n_steps", "evaluate_every"), [(60, 10), (60, 7), (23, 100), (5, 1)])
def test_log_has_rows_at_the_first_step_evaluations_and_end(
    n_steps: int, evaluate_every: int, tiny_config: RunConfig, tmp_path: Path
):
    config = dataclasses.replace(tiny_config, n_steps=n_steps, evaluate_every=evaluate_every)
    log = training.train(config, "run", tmp_path).log
    assert log.steps.tolist() == sorted({*range(0, n_steps + 1, evaluate_every), n_steps})


def test_log_row_of_step_t_evaluates_parameters_after_t_updates(tiny_config: RunConfig, tmp_path: Path):
    config = dataclasses.replace(tiny_config, checkpoints="every 1", evaluate_every=1, n_steps=30)
    trajectory = training.train(config, "run", tmp_path)
    measured = measures.evaluate("loss", trajectory)
    for name in ("train_loss", "test_loss", "train_accuracy", "test_accuracy"):
        assert trajectory.log[name].tobytes() == measured[name].tobytes()
    # The measure and the log share code, so HookedTransformer gives the expected numbers.
    task, split = trajectory.task, trajectory.split
    for step in (0, 1, 17, 30):
        logits = trajectory.at(step).model(task.inputs)[:, -1].detach().double()
        loss = torch.nn.functional.cross_entropy(logits, task.labels, reduction="none")
        is_right = (logits.argmax(-1) == task.labels).double()
        row = {name: trajectory.log[name][step] for name in measured.arrays if name in trajectory.log}
        assert row["train_loss"] == pytest.approx(float(loss[split.train].mean()), rel=1e-5)
        assert row["test_loss"] == pytest.approx(float(loss[split.test].mean()), rel=1e-5)
        assert row["train_accuracy"] == float(is_right[split.train].mean())
        assert row["test_accuracy"] == float(is_right[split.test].mean())


# Saved data.


def test_step_0_is_the_initialization_and_warm_up_starts_at_zero(tiny_config: RunConfig, tmp_path: Path):
    trajectory = training.train(dataclasses.replace(tiny_config, checkpoints="every 1", n_steps=3), "run", tmp_path)
    initialization = trajectory.model.initialize(tiny_config.init_seed)
    for step, has_moved in ((0, False), (1, False), (2, True)):
        parameters = trajectory.at(step).parameters
        assert any(not torch.equal(parameters[name], tensor) for name, tensor in initialization.items()) == has_moved


def test_saved_files_do_not_depend_on_the_clock(
    tiny_run: Path, tiny_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Two runs that commit at the same counts have the same files with the same tensors and metadata."""
    monkeypatch.setattr(checkpointer, "SEGMENT_CHECKPOINTS", 2)
    path = training.train(tiny_config, "second", tmp_path).path
    assert path is not None
    assert (path / "config.json").read_bytes() == (tiny_run / "config.json").read_bytes()
    contents = []
    for run in (path, tiny_run):
        content = {}
        for segment in (run / "segments").iterdir():
            with safetensors.safe_open(segment, "np") as file:
                arrays = {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118
                content[segment.name] = (file.metadata(), arrays)
        contents.append(content)
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("limit", "value", "n_segments"),
    [
        ("SEGMENT_CHECKPOINTS", 1, 7),
        ("SEGMENT_CHECKPOINTS", 3, 3),
        ("SEGMENT_CHECKPOINTS", 10**9, 2),
        ("SEGMENT_BYTES", 1, 7),
        ("SEGMENT_SECONDS", 0.0, 61),
    ],
)
def test_segment_limits_do_not_change_saved_data(
    limit: str,
    value: Any,
    n_segments: int,
    tiny_run: Path,
    tiny_config: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    saved: Callable[[Path], Any],
):
    monkeypatch.setattr(checkpointer, limit, value)
    training.train(tiny_config, "run", tmp_path)
    assert saved(tmp_path / "run") == saved(tiny_run)
    assert len(RunStore(tmp_path / "run").segments) == n_segments


def test_finer_recording_and_observer_do_not_change_parameters(
    tiny_run: Path, tiny_config: RunConfig, tmp_path: Path
):
    observations = []

    def observe(step: int, row: dict[str, float]) -> None:
        observations.append((step, dict(row)))
        torch.rand(step)
        np.random.rand(step)
        row.clear()

    config = dataclasses.replace(tiny_config, checkpoints="every 1 + adaptive 0.01", evaluate_every=1)
    fine, coarse = training.train(config, "fine", tmp_path, observe), Trajectory.open(tiny_run)
    for snapshot in coarse:
        parameters = fine.at(snapshot.step).parameters
        for name, tensor in snapshot.parameters.items():
            assert parameters[name].numpy().tobytes() == tensor.numpy().tobytes()
    assert [step for step, _ in observations] == list(range(1, 61))
    assert [row["test_loss"] for _, row in observations] == fine.log["test_loss"][1:].tolist()
    common_rows = fine.log["test_loss"][coarse.log.steps]
    assert common_rows.tobytes() == coarse.log["test_loss"].tobytes()


def test_segment_metadata_have_fixed_names_and_no_time(tiny_run: Path):
    for path in (tiny_run / "segments").iterdir():
        with safetensors.safe_open(path, "np") as file:
            metadata = json.loads(file.metadata()["metadata"])
        assert set(metadata) == {"kind", "format", "config_digest", "steps", "begin", "end"}


def test_estimate_of_disk_use_is_close_to_the_real_use(tiny_config: RunConfig, tmp_path: Path):
    config = dataclasses.replace(tiny_config, checkpoints="every 1", n_steps=200)
    path = training.train(config, "run", tmp_path).path
    assert path is not None
    n_bytes = sum(file.stat().st_size for file in segments_folder(path).iterdir())
    assert 0.8 < estimate_disk_use(Setup(config)) / n_bytes < 1.25
