"""What a run records: checkpoints by their schedule, the log, and nothing that depends on the clock."""

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
from grokscope.store.run_store import RunStore
from grokscope.training import checkpointer


@pytest.fixture
def moving(tiny_config: RunConfig) -> RunConfig:
    """A config whose test loss moves up and down by whole nats within its few steps."""
    return dataclasses.replace(tiny_config, optimizer=OptimizerConfig(lr=3e-2, warmup_steps=5), evaluate_every=1)


def measured_test_losses(trajectory: Trajectory) -> dict[int, float]:
    """Return the test loss at every checkpoint, measured from the checkpoints alone."""
    series = measures.evaluate("loss", trajectory)
    return dict(zip(series.steps.tolist(), series["test_loss"].tolist(), strict=True))


@pytest.mark.parametrize("amount", [0.05, 1.5])
@pytest.mark.parametrize("fixed", ["every 1000", "every 7 + log 5"])
def test_adaptive_checkpoints_are_where_the_test_loss_has_moved_since_the_last_of_any_kind(
    amount: float, fixed: str, moving: RunConfig, tmp_path: Path
):
    config = dataclasses.replace(moving, checkpoints=f"{fixed} + adaptive {amount}")
    trajectory = training.train(config, "run", tmp_path)
    taken = set(training.train(dataclasses.replace(moving, checkpoints=fixed), "fixed", tmp_path).steps.tolist())

    loss, reference, expected = trajectory.log["test_loss"], math.nan, []
    for step, here in enumerate(loss.tolist()):
        if step in taken or abs(math.log(here / reference)) >= amount:
            expected.append(step)
            reference = here
    assert trajectory.steps.tolist() == expected
    assert len(expected) > len(taken) or amount > 1, "the case is meant to be telling"


def test_a_fixed_checkpoint_between_evaluations_is_a_reference_too(moving: RunConfig, tmp_path: Path):
    config = dataclasses.replace(moving, checkpoints="every 10 + adaptive 0.2", evaluate_every=7)
    trajectory = training.train(config, "run", tmp_path)
    dense = training.train(dataclasses.replace(config, checkpoints="every 1"), "dense", tmp_path)
    loss, reference, expected = measured_test_losses(dense), math.nan, []
    for step in range(61):
        evaluated, fixed = step % 7 == 0 or step == 60, step % 10 == 0
        if fixed or (evaluated and abs(math.log(loss[step] / reference)) >= 0.2):
            expected.append(step)
            reference = loss[step]
    assert trajectory.steps.tolist() == expected
    assert set(expected) - set(range(0, 61, 10)), "the case is meant to be telling"
    assert trajectory.log.steps.tolist() == [*range(0, 60, 7), 60]


def test_adaptive_stops_at_max_checkpoints_and_says_so(moving: RunConfig, tmp_path: Path):
    config = dataclasses.replace(moving, checkpoints="every 20 + adaptive 0.05")
    free = training.train(config, "free", tmp_path).steps.tolist()
    assert len(free) > 12
    with pytest.warns(UserWarning, match="max_checkpoints = 12") as said:
        bounded = training.train(dataclasses.replace(config, max_checkpoints=12), "bounded", tmp_path)
    assert len(said) == 1
    steps = bounded.steps.tolist()
    assert len(steps) == 12 and {0, 20, 40, 60} <= set(steps)
    adaptive = [step for step in steps if step % 20]
    assert adaptive == [step for step in free if step % 20][:8], "the first ones are taken, then no more"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training.train(dataclasses.replace(config, max_checkpoints=len(free)), "enough", tmp_path)


def test_a_fixed_schedule_beyond_max_checkpoints_is_refused_before_any_file(tiny_config: RunConfig, tmp_path: Path):
    with pytest.raises(GrokscopeError, match="61 checkpoints.*max_checkpoints = 60"):
        training.train(dataclasses.replace(tiny_config, checkpoints="every 1", max_checkpoints=60), "run", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("n_steps", "evaluate_every"), [(60, 10), (60, 7), (23, 100), (5, 1)])
def test_the_log_has_a_row_at_0_at_every_evaluation_and_at_the_end(
    n_steps: int, evaluate_every: int, tiny_config: RunConfig, tmp_path: Path
):
    config = dataclasses.replace(tiny_config, n_steps=n_steps, evaluate_every=evaluate_every)
    log = training.train(config, "run", tmp_path).log
    assert log.steps.tolist() == sorted({*range(0, n_steps + 1, evaluate_every), n_steps})


def test_the_row_of_a_step_belongs_to_the_parameters_after_as_many_updates(tiny_config: RunConfig, tmp_path: Path):
    config = dataclasses.replace(tiny_config, checkpoints="every 1", evaluate_every=1, n_steps=30)
    trajectory = training.train(config, "run", tmp_path)
    measured = measures.evaluate("loss", trajectory)
    for name in ("train_loss", "test_loss", "train_accuracy", "test_accuracy"):
        assert trajectory.log[name].tobytes() == measured[name].tobytes()
    # The measure and the log share code: the numbers themselves are HookedTransformer's.
    task, split = trajectory.task, trajectory.split
    for step in (0, 1, 17, 30):
        logits = trajectory.at(step).model(task.inputs)[:, -1].detach().double()
        loss = torch.nn.functional.cross_entropy(logits, task.labels, reduction="none")
        right = (logits.argmax(-1) == task.labels).double()
        row = {name: trajectory.log[name][step] for name in measured.arrays if name in trajectory.log}
        assert row["train_loss"] == pytest.approx(float(loss[split.train].mean()), rel=1e-5)
        assert row["test_loss"] == pytest.approx(float(loss[split.test].mean()), rel=1e-5)
        assert row["train_accuracy"] == float(right[split.train].mean())
        assert row["test_accuracy"] == float(right[split.test].mean())


def test_step_0_is_the_initialization_and_the_first_update_of_a_warm_up_moves_nothing(
    tiny_config: RunConfig, tmp_path: Path
):
    trajectory = training.train(dataclasses.replace(tiny_config, checkpoints="every 1", n_steps=3), "run", tmp_path)
    start = trajectory.model.initialize(tiny_config.init_seed)
    for step, moved in ((0, False), (1, False), (2, True)):
        parameters = trajectory.at(step).parameters
        assert any(not torch.equal(parameters[name], start[name]) for name in start) == moved


def test_nothing_that_is_saved_depends_on_the_clock(
    tiny_run: Path, tiny_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Two runs that commit at the same counts have the same files with the same tensors and the same metadata."""
    monkeypatch.setattr(checkpointer, "SEGMENT_CHECKPOINTS", 2)
    again = training.train(tiny_config, "again", tmp_path).path
    assert again is not None
    assert (again / "config.json").read_bytes() == (tiny_run / "config.json").read_bytes()
    contents = []
    for run in (again, tiny_run):
        content = {}
        for path in (run / "segments").iterdir():
            with safetensors.safe_open(path, "np") as file:
                arrays = {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118
                content[path.name] = (file.metadata(), arrays)
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
def test_where_a_segment_ends_changes_nothing_that_is_saved(
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


def test_finer_recording_and_an_observer_do_not_move_the_parameters(
    tiny_run: Path, tiny_config: RunConfig, tmp_path: Path
):
    seen = []

    def observe(step: int, row: dict[str, float]) -> None:
        seen.append((step, dict(row)))
        torch.rand(step)
        np.random.rand(step)
        row.clear()

    config = dataclasses.replace(tiny_config, checkpoints="every 1 + adaptive 0.01", evaluate_every=1)
    fine, coarse = training.train(config, "fine", tmp_path, observe), Trajectory.open(tiny_run)
    for snapshot in coarse:
        parameters = fine.at(snapshot.step).parameters
        assert all(
            parameters[name].numpy().tobytes() == one.numpy().tobytes() for name, one in snapshot.parameters.items()
        )
    assert [step for step, _ in seen] == list(range(1, 61))
    assert [row["test_loss"] for _, row in seen] == fine.log["test_loss"][1:].tolist()
    both = fine.log["test_loss"][coarse.log.steps]
    assert both.tobytes() == coarse.log["test_loss"].tobytes()


def test_a_test_loss_of_exactly_zero_is_no_reason_to_fail(
    moving: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cross_entropy = losses.cross_entropy
    monkeypatch.setattr(losses, "cross_entropy", lambda *arguments: cross_entropy(*arguments) * 0)
    trajectory = training.train(dataclasses.replace(moving, checkpoints="adaptive 0.1"), "run", tmp_path)
    assert trajectory.steps.tolist() == [0, 60]


def test_a_segment_says_in_plain_json_what_it_holds(tiny_run: Path):
    """The metadata are a fixed set of names, none of which is a time."""
    for path in (tiny_run / "segments").iterdir():
        with safetensors.safe_open(path, "np") as file:
            about = json.loads(file.metadata()["metadata"])
        assert set(about) == {"kind", "format", "config_digest", "steps", "begin", "end"}
