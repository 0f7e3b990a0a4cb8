"""`densify`: retraining a window reproduces the bits of the run, or names the difference."""

import dataclasses
import json
import signal
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.shared import Saved, damage_of, flip, place, writing

from grokscope import Trajectory, environment, training
from grokscope.config import RunConfig
from grokscope.disk import atomic, tensor_file
from grokscope.disk.lock import Lock, is_locked
from grokscope.errors import GrokscopeError
from grokscope.store.run_store import RunStore
from grokscope.training import densification
from grokscope.training.optimizers import Optimizer
from grokscope.training.signals import InterruptedRunError

Bits = dict[int, dict[str, bytes]]
"""Every parameter as bytes, by step and name."""
SCHEDULED = range(0, 61, 10)
"""The checkpoints of the tiny run."""


def bits(trajectory: Trajectory) -> Bits:
    return {
        snapshot.step: {name: tensor.numpy().tobytes() for name, tensor in snapshot.parameters.items()}
        for snapshot in trajectory
    }


@pytest.fixture(scope="module")
def every_step(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Bits:
    """The parameters at every step, from a run of the same config with a checkpoint at each."""
    config = dataclasses.replace(Trajectory.open(tiny_run).config, checkpoints="every 1")
    return bits(training.train(config, "run", tmp_path_factory.mktemp("every")))


def segments(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "segments").glob("[!.]*")}


def segments_with(run: Path, step: int) -> list[Path]:
    """Return the segments that contain a checkpoint."""
    paths = (run / "segments").glob("*.safetensors")
    return [path for path in paths if step in tensor_file.TensorFile(path).metadata["steps"]]


def alter(run: Path, step: int, name: str) -> None:
    """Change one weight of a checkpoint, and write its segment with valid checksums."""
    path = segments_with(run, step)[0]
    file = tensor_file.TensorFile(path)
    arrays = {array: file.read(array).copy() for array in file.shapes}
    row = arrays[f"checkpoints/{name}"][file.metadata["steps"].index(step)]
    row.flat[0] = np.nextafter(row.flat[0], np.float32(np.inf))
    tensor_file.write(path, arrays, file.metadata, by_row=("checkpoints/",))


def damage(run: Path, step: int) -> None:
    """Flip a bit in every tensor that contains parameters of a step."""
    for path in segments_with(run, step):
        file = tensor_file.TensorFile(path)
        steps = file.metadata["steps"]
        for name in file.shapes:
            first, last = place(path, name)
            if name.startswith("checkpoints/"):
                flip(path, 8 * (first + (last - first) // len(steps) * steps.index(step)))
            elif name.startswith("resume/parameters/") and file.metadata["end"] == step:
                flip(path, 8 * first)


def scale_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Change the updates slightly, and the environment's torch, as another version of torch might."""
    update, describe = Optimizer.update, environment.describe

    def changed_update(self: Optimizer, gradients: Any, u: int) -> None:
        update(self, {name: 1.01 * gradient for name, gradient in gradients.items()}, u)

    monkeypatch.setattr(Optimizer, "update", changed_update)
    monkeypatch.setattr(environment, "describe", lambda *arguments: {**describe(*arguments), "torch": "1.0.0"})


# Added checkpoints.


@pytest.mark.parametrize(
    ("start", "stop", "every"),
    [(0, 60, 1), (13, 27, 1), (13, 27, 2), (13, 26, 5), (20, 20, 1), (31, 31, 1), (51, 60, 3), (5, 6, 100)],
)
def test_missing_steps_are_added_with_their_original_bits(
    start: int, stop: int, every: int, run_copy: Path, every_step: Bits, saved: Callable[[Path], Saved]
):
    before, files_before = Trajectory.open(run_copy), segments(run_copy)
    content = saved(run_copy)
    denser = training.densify(run_copy, start, stop, every)
    expected = set(range(start, stop + 1, every)) | set(before.steps.tolist())
    assert denser.steps.tolist() == sorted(expected)
    assert bits(denser) == {step: every_step[step] for step in expected}

    files = segments(run_copy)
    assert {name: data for name, data in files.items() if name in files_before} == files_before
    assert (len(files) > len(files_before)) == (len(denser) > len(before))
    content_after = saved(run_copy)
    assert {key: value for key, value in content_after.items() if key in content} == content
    assert all(key[0] == "checkpoint" for key in set(content_after) - set(content))
    assert denser.log["test_loss"].tobytes() == before.log["test_loss"].tobytes()
    assert damage_of(RunStore(run_copy)) == []


def test_second_call_adds_nothing(run_copy: Path):
    first = training.densify(run_copy, 10, 30, 2)
    before = segments(run_copy)
    assert training.densify(run_copy, 10, 30, 2).digest == first.digest
    assert segments(run_copy) == before


@pytest.mark.parametrize(("limit", "at_20", "at_30"), [(1, 8, 15), (4, 2, 4), (64, 0, 1)])
def test_segments_are_added_once_a_saved_step_confirms_them(
    limit: int, at_20: int, at_30: int, run_copy: Path, every_step: Bits, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(densification, "SEGMENT_CHECKPOINTS", limit)
    n_before, n_added = len(segments(run_copy)), {}

    def count_added(step: int, row: dict[str, float]) -> None:
        for thread in writing():
            thread.join()
        n_added[step] = len(segments(run_copy)) - n_before

    expected = {step: every_step[step] for step in {*SCHEDULED, *range(12, 28)}}
    assert bits(training.densify(run_copy, 12, 27, observer=count_added)) == expected
    assert (n_added[19], n_added[20], n_added[29], n_added[30]) == (0, at_20, at_20, at_30)


def test_unconfirmed_checkpoints_wait_in_hidden_files(
    tiny_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Thousands of steps may lie between two checkpoints, but memory holds at most two segments."""
    training.train(dataclasses.replace(tiny_config, checkpoints="every 60"), "run", tmp_path)
    monkeypatch.setattr(densification, "SEGMENT_CHECKPOINTS", 4)
    n_alive, references = [], []
    as_arrays = densification.as_arrays

    def watched_as_arrays(parameters: Any) -> dict[str, np.ndarray]:
        arrays = as_arrays(parameters)
        references.append(weakref.ref(arrays["embed.W_E"]))
        return arrays

    def count_alive(step: int, row: dict[str, float]) -> None:
        n_alive.append(sum(reference() is not None for reference in references))
        if step == 40:
            assert Trajectory.open(tmp_path / "run").steps.tolist() == [0, 60]

    monkeypatch.setattr(densification, "as_arrays", watched_as_arrays)
    assert len(training.densify(tmp_path / "run", 0, 60, observer=count_alive)) == 61
    # Four checkpoints are being written, and four are taken meanwhile.
    assert len(references) == 59 and max(n_alive) <= 8
    assert damage_of(RunStore(tmp_path / "run")) == []


def test_signal_saves_the_confirmed_checkpoints(run_copy: Path, every_step: Bits):
    def raise_signal(step: int, row: dict[str, float]) -> None:
        if step == 23:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(InterruptedRunError) as interruption:
        training.densify(run_copy, 11, 29, observer=raise_signal)
    assert interruption.value.signal_number == signal.SIGTERM
    expected = {*SCHEDULED, *range(11, 21)}
    assert bits(Trajectory.open(run_copy)) == {step: every_step[step] for step in expected}
    assert len(training.densify(run_copy, 11, 29)) == 7 + 18


def test_densify_holds_the_run_s_lock(run_copy: Path):
    n_before = len(segments(run_copy))
    with Lock(run_copy), pytest.raises(GrokscopeError, match="is being written by process"):
        training.densify(run_copy, 0, 5)
    training.densify(run_copy, 0, 5, observer=lambda step, row: None if is_locked(run_copy) else pytest.fail())
    assert len(segments(run_copy)) == n_before + 1


def test_densified_run_can_still_be_lengthened(run_copy: Path, tiny_config: RunConfig, tmp_path: Path):
    training.densify(run_copy, 41, 59)
    lengthened = training.resume(run_copy, n_steps=80)
    expected = training.train(dataclasses.replace(tiny_config, n_steps=80), "long", tmp_path)
    assert lengthened.select(expected.steps).digest == expected.digest
    assert json.loads((run_copy / "config.json").read_bytes())["history"][0]["step"] == 60


@pytest.mark.parametrize(("start", "stop", "every"), [(-1, 5, 1), (6, 5, 1), (0, 61, 1), (0, 5, 0), (70, 80, 1)])
def test_invalid_window_raises_with_the_allowed_steps(start: int, stop: int, every: int, run_copy: Path):
    before = segments(run_copy)
    message = rf"start {start}, stop {stop}, every {every}\. Allowed: .*<= 60.*every from 1"
    with pytest.raises(GrokscopeError, match=message):
        training.densify(run_copy, start, stop, every)
    assert segments(run_copy) == before


# Differences.


@pytest.mark.parametrize(
    ("step", "name"), [(20, "blocks.0.mlp.W_out"), (30, "embed.W_E"), (0, "unembed.W_U"), (40, "unembed.b_U")]
)
def test_altered_checkpoint_is_named_and_stops_densify(
    step: int, name: str, run_copy: Path, every_step: Bits, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(densification, "SEGMENT_CHECKPOINTS", 3)
    alter(run_copy, step, name)
    message = rf"other bits at step {step}, first in {name}\. .*environment: none that is recorded"
    with pytest.raises(GrokscopeError, match=message):
        training.densify(run_copy, 0, 55)
    trajectory = Trajectory.open(run_copy)
    assert all(added < step for added in trajectory.steps.tolist() if added % 10)
    assert all(bits(trajectory)[other] == every_step[other] for other in trajectory.steps.tolist() if other != step)


def test_changed_update_is_noticed_at_the_next_checkpoint(run_copy: Path, monkeypatch: pytest.MonkeyPatch):
    before = segments(run_copy)
    scale_gradients(monkeypatch)
    with pytest.raises(GrokscopeError, match=r"other bits at step \d+, first in .*environment: torch was .* 1\.0\.0"):
        training.densify(run_copy, 12, 48)
    assert segments(run_copy) == before


@pytest.mark.parametrize(("start", "stop"), [(1, 9), (52, 55)])
def test_window_between_two_checkpoints_is_checked_too(
    start: int, stop: int, run_copy: Path, every_step: Bits, monkeypatch: pytest.MonkeyPatch
):
    """The window passes no checkpoint, so retraining must continue to the next one."""
    scale_gradients(monkeypatch)
    with pytest.raises(GrokscopeError, match="torch"):
        training.densify(run_copy, start, stop)
    stored = bits(Trajectory.open(run_copy))
    assert stored == {step: every_step[step] for step in stored}


@pytest.mark.parametrize("limit", [3, 64])
def test_next_checkpoint_confirms_when_one_is_damaged(
    limit: int, run_copy: Path, every_step: Bits, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(densification, "SEGMENT_CHECKPOINTS", limit)
    damage(run_copy, 20)
    training.densify(run_copy, 11, 19)
    run = RunStore(run_copy)
    added = list(range(11, 20))
    assert set(added) <= set(run.steps.tolist())
    for name in run.checksums(11):
        rows = run.read([name], added)[name]
        assert [row.tobytes() for row in rows] == [every_step[step][name] for step in added]


def test_nothing_is_added_when_nothing_readable_confirms(run_copy: Path):
    damage(run_copy, 60)
    before = segments(run_copy)
    with pytest.raises(
        GrokscopeError, match=r"no readable .* up to the last step 60, confirms.* step 60, .*checksum"
    ):
        training.densify(run_copy, 51, 59)
    assert segments(run_copy) == before
    assert not list((run_copy / "segments").glob(f".*{atomic.TEMPORARY_SUFFIX}"))


# Recovery of lost and damaged checkpoints.


def test_checkpoints_of_a_lost_segment_are_recovered(run_copy: Path, every_step: Bits):
    (lost,) = segments_with(run_copy, 30)
    steps = tensor_file.TensorFile(lost).metadata["steps"]
    lost.unlink()
    assert set(Trajectory.open(run_copy).steps.tolist()) == set(SCHEDULED) - set(steps)
    for step in steps:
        training.densify(run_copy, step, step)
    assert bits(Trajectory.open(run_copy)) == {step: every_step[step] for step in SCHEDULED}


def test_lost_first_segment_is_recovered_from_initialization(run_copy: Path, every_step: Bits):
    (path,) = segments_with(run_copy, 0)
    path.unlink()
    training.densify(run_copy, 0, 0)
    assert bits(Trajectory.open(run_copy)) == {step: every_step[step] for step in SCHEDULED}


@pytest.mark.parametrize("step", [0, 30, 60])
def test_damaged_checkpoint_is_replaced_by_a_copy(step: int, run_copy: Path, every_step: Bits):
    digest = Trajectory.open(run_copy).digest
    for i in range(3):
        # A copy may be damaged in its turn.
        for path in sorted((run_copy / "segments").glob("*"))[-i:] if i else segments_with(run_copy, step):
            steps = tensor_file.TensorFile(path).metadata["steps"]
            if step in steps:
                first, last = place(path, "checkpoints/embed.W_E")
                flip(path, 8 * (first + (last - first) // len(steps) * steps.index(step)) + i)
        repaired = training.densify(run_copy, step, step)
        assert bits(repaired) == {scheduled: every_step[scheduled] for scheduled in SCHEDULED}
        assert (repaired.damaged, repaired.gaps, repaired.digest) == ([], [], digest)
        assert all("has an undamaged copy" in sentence for sentence in damage_of(RunStore(run_copy)))


def test_undamaged_copy_of_a_checkpoint_is_read(run_copy: Path, every_step: Bits):
    (path,) = segments_with(run_copy, 30)
    first, last = place(path, "checkpoints/embed.W_E")
    flip(path, 8 * first)
    flip(path, 8 * (last - 1))
    training.densify(run_copy, 30, 30)
    # The order of the files does not matter.
    path.rename(path.with_name("zzz.safetensors"))
    trajectory = Trajectory.open(run_copy)
    assert bits(trajectory.select([30])) == {30: every_step[30]} and trajectory.damaged == []
