"""`densify`: a window of a run trained once more gives the bits the run had, or says where it does not."""

import dataclasses
import json
import signal
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.shared import flip, place, writing

from grokscope import Trajectory, environment, training
from grokscope.config import RunConfig
from grokscope.disk import atomic, tensor_file
from grokscope.disk.lock import Lock, is_locked
from grokscope.errors import GrokscopeError
from grokscope.store.run_store import RunStore
from grokscope.training import densification, loop
from grokscope.training.signals import InterruptedRunError

Bits = dict[int, dict[str, bytes]]


def bits(trajectory: Trajectory) -> Bits:
    """Return every checkpoint's parameters as bytes."""
    return {s.step: {name: one.numpy().tobytes() for name, one in s.parameters.items()} for s in trajectory}


@pytest.fixture(scope="module")
def every_step(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Bits:
    """Every step's parameters, from a run of the same config that took a checkpoint at each."""
    config = dataclasses.replace(Trajectory.open(tiny_run).config, checkpoints="every 1")
    return bits(training.train(config, "run", tmp_path_factory.mktemp("every")))


def segments(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "segments").glob("[!.]*")}


def holding(run: Path, step: int) -> list[Path]:
    """Return the segments that hold a checkpoint."""
    found = (run / "segments").glob("*.safetensors")
    return [path for path in found if step in tensor_file.TensorFile(path).metadata["steps"]]


def alter(run: Path, step: int, name: str) -> None:
    """Change one weight of one checkpoint and write its segment again with sound checksums."""
    for path in (run / "segments").glob("*.safetensors"):
        file = tensor_file.TensorFile(path)
        if step in file.metadata["steps"]:
            content = {one: file.read(one).copy() for one in file.shapes}
            row = content[f"checkpoints/{name}"][file.metadata["steps"].index(step)]
            row.flat[0] = np.nextafter(row.flat[0], np.float32(np.inf))
            tensor_file.write(path, content, file.metadata, by_row=("checkpoints/",))
            return


@pytest.mark.parametrize(
    ("start", "stop", "every"),
    [(0, 60, 1), (13, 27, 1), (13, 27, 2), (13, 26, 5), (20, 20, 1), (31, 31, 1), (51, 60, 3), (5, 6, 100)],
)
def test_exactly_the_missing_steps_are_added_with_the_bits_the_training_had(
    start: int, stop: int, every: int, run_copy: Path, every_step: Bits, saved: Callable[[Path], Any]
):
    before, files_before = Trajectory.open(run_copy), segments(run_copy)
    content = saved(run_copy)
    denser = training.densify(run_copy, start, stop, every)
    wanted = set(range(start, stop + 1, every)) | set(before.steps.tolist())
    assert denser.steps.tolist() == sorted(wanted)
    assert bits(denser) == {step: every_step[step] for step in wanted}

    added = {name: data for name, data in segments(run_copy).items() if name not in files_before}
    assert {name: data for name, data in segments(run_copy).items() if name in files_before} == files_before
    assert bool(added) == (len(denser) > len(before))
    after = saved(run_copy)
    assert {key: value for key, value in after.items() if key in content} == content
    assert all(key[0] == "checkpoint" for key in set(after) - set(content))
    assert denser.log["test_loss"].tobytes() == before.log["test_loss"].tobytes()
    assert list(RunStore(run_copy).damage()) == []


def test_a_second_time_nothing_is_added(run_copy: Path):
    first = training.densify(run_copy, 10, 30, 2)
    before = segments(run_copy)
    assert training.densify(run_copy, 10, 30, 2).digest == first.digest
    assert segments(run_copy) == before


@pytest.mark.parametrize(("limit", "at_20", "at_30"), [(1, 8, 15), (4, 2, 4), (64, 0, 1)])
def test_steps_are_added_in_segments_as_soon_as_a_saved_step_has_confirmed_them(
    limit: int, at_20: int, at_30: int, run_copy: Path, every_step: Bits, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(densification, "SEGMENT_CHECKPOINTS", limit)
    before, seen = len(segments(run_copy)), {}

    def look(step: int, row: dict[str, float]) -> None:
        for thread in writing():
            thread.join()
        seen[step] = len(segments(run_copy)) - before

    expected = {step: every_step[step] for step in {*range(0, 61, 10), *range(12, 28)}}
    assert bits(training.densify(run_copy, 12, 27, observer=look)) == expected
    assert (seen[19], seen[20], seen[29], seen[30]) == (0, at_20, at_20, at_30)


@pytest.mark.parametrize(("start", "stop", "every"), [(-1, 5, 1), (6, 5, 1), (0, 61, 1), (0, 5, 0), (70, 80, 1)])
def test_a_window_that_cannot_be_is_refused_with_what_can(start: int, stop: int, every: int, run_copy: Path):
    before = segments(run_copy)
    with pytest.raises(GrokscopeError, match=rf"start {start}, stop {stop}, every {every}; .*<= 60.*every from 1"):
        training.densify(run_copy, start, stop, every)
    assert segments(run_copy) == before


@pytest.mark.parametrize(
    ("step", "name"), [(20, "blocks.0.mlp.W_out"), (30, "embed.W_E"), (0, "unembed.W_U"), (40, "unembed.b_U")]
)
def test_a_difference_in_bits_is_named_and_nothing_more_is_added(
    step: int, name: str, run_copy: Path, every_step: Bits, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(densification, "SEGMENT_CHECKPOINTS", 3)
    alter(run_copy, step, name)
    with pytest.raises(GrokscopeError, match=rf"other bits at step {step}, first in {name}; .*What drifted: nothing"):
        training.densify(run_copy, 0, 55)
    after = Trajectory.open(run_copy)
    assert all(one < step for one in after.steps.tolist() if one % 10)
    assert all(bits(after)[one] == every_step[one] for one in after.steps.tolist() if one != step)


def test_a_change_in_what_is_computed_is_noticed_where_a_checkpoint_is_passed(
    run_copy: Path, monkeypatch: pytest.MonkeyPatch
):
    before, update, present = segments(run_copy), loop.Optimizer.update, environment.present
    monkeypatch.setattr(
        loop.Optimizer,
        "update",
        lambda self, gradients, u: update(self, {name: 1.01 * one for name, one in gradients.items()}, u),
    )
    monkeypatch.setattr(environment, "present", lambda device: {**present(device), "torch": "1.0.0"})
    with pytest.raises(
        GrokscopeError, match=r"other bits at step \d+, first in .*What drifted: torch was .* 1\.0\.0"
    ):
        training.densify(run_copy, 12, 48)
    assert segments(run_copy) == before


@pytest.mark.parametrize(("start", "stop"), [(1, 9), (52, 55)])
def test_a_window_that_passes_no_checkpoint_adds_no_other_bits_either(
    start: int, stop: int, run_copy: Path, every_step: Bits, monkeypatch: pytest.MonkeyPatch
):
    """Between two checkpoints nothing is passed: the training must be followed to the next one, or refused."""
    update, present = loop.Optimizer.update, environment.present
    monkeypatch.setattr(
        loop.Optimizer,
        "update",
        lambda self, gradients, u: update(self, {name: 1.01 * one for name, one in gradients.items()}, u),
    )
    monkeypatch.setattr(environment, "present", lambda device: {**present(device), "torch": "1.0.0"})
    with pytest.raises(GrokscopeError, match="torch"):
        training.densify(run_copy, start, stop)
    found = bits(Trajectory.open(run_copy))
    assert found == {step: every_step[step] for step in found}


def test_the_checkpoints_of_a_lost_segment_come_back(run_copy: Path, every_step: Bits):
    lost = next(
        path for path in (run_copy / "segments").glob("*") if 30 in tensor_file.TensorFile(path).metadata["steps"]
    )
    steps = tensor_file.TensorFile(lost).metadata["steps"]
    lost.unlink()
    assert set(Trajectory.open(run_copy).steps.tolist()) == set(range(0, 61, 10)) - set(steps)
    for step in steps:
        training.densify(run_copy, step, step)
    assert bits(Trajectory.open(run_copy)) == {step: every_step[step] for step in range(0, 61, 10)}


def test_a_signal_commits_what_is_confirmed_so_far(run_copy: Path, every_step: Bits):
    def stop(step: int, row: dict[str, float]) -> None:
        if step == 23:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(InterruptedRunError) as interruption:
        training.densify(run_copy, 11, 29, observer=stop)
    assert interruption.value.signal_number == signal.SIGTERM
    expected = {*range(0, 61, 10), *range(11, 21)}
    assert bits(Trajectory.open(run_copy)) == {step: every_step[step] for step in expected}
    assert len(training.densify(run_copy, 11, 29)) == 7 + 18


def test_it_takes_the_writer_s_lock(run_copy: Path):
    before = segments(run_copy)
    with Lock(run_copy), pytest.raises(GrokscopeError, match="is being written by process"):
        training.densify(run_copy, 0, 5)
    training.densify(run_copy, 0, 5, observer=lambda step, row: None if is_locked(run_copy) else pytest.fail())
    assert len(segments(run_copy)) == len(before) + 1


def test_a_run_that_is_lengthened_later_resumes_from_its_own_end(
    run_copy: Path, tiny_config: RunConfig, tmp_path: Path
):
    training.densify(run_copy, 41, 59)
    lengthened = training.resume(run_copy, n_steps=80)
    expected = training.train(dataclasses.replace(tiny_config, n_steps=80), "long", tmp_path)
    assert lengthened.select(expected.steps).digest == expected.digest
    assert json.loads((run_copy / "config.json").read_bytes())["history"][0]["step"] == 60


def damage(run: Path, step: int) -> None:
    """Flip a bit in every tensor that says what the parameters were at a step."""
    for path in (run / "segments").glob("*.safetensors"):
        file = tensor_file.TensorFile(path)
        if step in file.metadata["steps"]:
            row = file.metadata["steps"].index(step)
            for name in file.shapes:
                first, last = place(path, name)
                if name.startswith("checkpoints/"):
                    flip(path, 8 * (first + (last - first) // len(file.metadata["steps"]) * row))
                elif name.startswith("resume/parameters/") and file.metadata["end"] == step:
                    flip(path, 8 * first)


@pytest.mark.parametrize("limit", [3, 64])
def test_what_a_damaged_checkpoint_cannot_confirm_the_next_does(
    limit: int, run_copy: Path, every_step: Bits, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(densification, "SEGMENT_CHECKPOINTS", limit)
    damage(run_copy, 20)
    training.densify(run_copy, 11, 19)
    found = RunStore(run_copy)
    added = list(range(11, 20))
    assert set(added) <= set(found.steps.tolist())
    for name in found.checksums(11):
        rows = found.read([name], added)[name]
        assert [row.tobytes() for row in rows] == [every_step[step][name] for step in added]


def test_what_nothing_readable_confirms_is_not_added(run_copy: Path):
    damage(run_copy, 60)
    before = segments(run_copy)
    with pytest.raises(GrokscopeError, match=r"to the last step, 60, nothing more can be read.* step 60, .*checksum"):
        training.densify(run_copy, 51, 59)
    assert segments(run_copy) == before and not list((run_copy / "segments").glob(f".*{atomic.TEMPORARY}"))


def test_what_waits_to_be_confirmed_waits_on_the_disk_and_is_no_segment_before(
    tiny_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Between two checkpoints there may be thousands of steps: in memory there are never more than a segment's."""
    training.train(dataclasses.replace(tiny_config, checkpoints="every 60"), "run", tmp_path)
    monkeypatch.setattr(densification, "SEGMENT_CHECKPOINTS", 4)
    alive, taken = [], []
    as_arrays = densification.as_arrays

    def note(parameters: Any) -> dict[str, np.ndarray]:
        arrays = as_arrays(parameters)
        taken.append(weakref.ref(arrays["embed.W_E"]))
        return arrays

    def look(step: int, row: dict[str, float]) -> None:
        alive.append(sum(one() is not None for one in taken))
        if step == 40:
            assert Trajectory.open(tmp_path / "run").steps.tolist() == [0, 60]

    monkeypatch.setattr(densification, "as_arrays", note)
    assert len(training.densify(tmp_path / "run", 0, 60, observer=look)) == 61
    # Four that are being written, and four taken meanwhile.
    assert len(taken) == 59 and max(alive) <= 8
    assert list(RunStore(tmp_path / "run").damage()) == []


@pytest.mark.parametrize("step", [0, 30, 60])
def test_a_damaged_checkpoint_is_trained_again_and_stands_in_for_it(step: int, run_copy: Path, every_step: Bits):
    before = Trajectory.open(run_copy).digest
    for i in range(3):
        # What was mended may be damaged in its turn.
        for path in sorted((run_copy / "segments").glob("*"))[-i:] if i else holding(run_copy, step):
            if step in tensor_file.TensorFile(path).metadata["steps"]:
                row = tensor_file.TensorFile(path).metadata["steps"].index(step)
                first, last = place(path, "checkpoints/embed.W_E")
                n_rows = len(tensor_file.TensorFile(path).metadata["steps"])
                flip(path, 8 * (first + (last - first) // n_rows * row) + i)
        mended = training.densify(run_copy, step, step)
        assert bits(mended) == {one: every_step[one] for one in range(0, 61, 10)}
        assert (mended.damaged, mended.gaps, mended.digest) == ([], [], before)
        assert all("has this checkpoint whole" in one for one in RunStore(run_copy).damage())


def test_of_a_checkpoint_in_two_segments_the_whole_one_is_read(run_copy: Path, every_step: Bits):
    (path,) = holding(run_copy, 30)
    flip(path, 8 * place(path, "checkpoints/embed.W_E")[0])
    flip(path, 8 * (place(path, "checkpoints/embed.W_E")[1] - 1))
    training.densify(run_copy, 30, 30)
    # Whichever comes last.
    path.rename(path.with_name("zzz.safetensors"))
    opened = Trajectory.open(run_copy)
    assert bits(opened.select([30])) == {30: every_step[30]} and opened.damaged == []


def test_the_first_segment_s_checkpoints_come_back_from_initialization(run_copy: Path, every_step: Bits):
    (path,) = holding(run_copy, 0)
    path.unlink()
    training.densify(run_copy, 0, 0)
    assert bits(Trajectory.open(run_copy)) == {one: every_step[one] for one in range(0, 61, 10)}
