"""The store: damage is found and named, and everything else stays readable."""

import dataclasses
import errno
import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.shared import damage_of, flip, place, truncate

from grokscope import Trajectory, measures, report, training
from grokscope.config import RunConfig
from grokscope.disk import atomic, tensor_file
from grokscope.disk.lock import Lock
from grokscope.errors import DamagedError, GrokscopeError, UnreadableError
from grokscope.measures import _parallel
from grokscope.store import verify
from grokscope.store.run_store import FORMAT, Record, RunStore, create


def segments(run: Path) -> list[Path]:
    return sorted((run / "segments").glob("*.safetensors"))


def holding(run: Path, step: int) -> Path:
    """Return the segment that contains a checkpoint."""
    (path,) = [path for path in segments(run) if step in tensor_file.TensorFile(path).metadata["steps"]]
    return path


def flip_header(path: Path) -> None:
    flip(path, 8 * 40 + 1)


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def swap_for_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"W": [1.0]}))


def swap_for_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def swap_for_stranger(path: Path) -> None:
    """Replace a segment by a series, a file with valid checksums."""
    tensor_file.write(path, {"steps": np.arange(3)}, {"kind": "series"})


UNREADABLE = [truncate, flip_header, zero, empty, swap_for_pickle, swap_for_folder, swap_for_stranger]


@pytest.mark.parametrize("harm", UNREADABLE, ids=lambda harm: harm.__name__)
def test_unreadable_segment_leaves_the_others_and_is_named(
    harm: Callable[[Path], None], tiny_run: Path, run_copy: Path
):
    path = holding(run_copy, 30)
    lost = tensor_file.TensorFile(path).metadata["steps"]
    begin, end = tensor_file.TensorFile(path).metadata["begin"], tensor_file.TensorFile(path).metadata["end"]
    harm(path)

    whole, damaged = Trajectory.open(tiny_run), Trajectory.open(run_copy)
    assert damaged.steps.tolist() == [step for step in whole.steps.tolist() if step not in lost]
    for step in damaged.steps:
        for name, tensor in damaged.at(int(step)).parameters.items():
            assert tensor.numpy().tobytes() == whole.at(int(step)).parameters[name].numpy().tobytes()
    (sentence,) = damaged.damaged
    assert str(path) in sentence
    assert damaged.gaps == [(begin + 1, end)]
    assert damaged.log.steps.tolist() == [t for t in whole.log.steps.tolist() if not begin < t <= end]
    assert measures.evaluate("weight_norm", damaged)["gaps"].tolist() == [[begin + 1, end]]

    sentences = damage_of(RunStore(run_copy))
    assert any(path.name in sentence for sentence in sentences)
    assert any(f"steps {begin + 1} to {end}" in sentence for sentence in sentences)


def test_a_segment_that_is_deleted_is_a_gap(run_copy: Path):
    path = holding(run_copy, 30)
    about = tensor_file.TensorFile(path).metadata
    path.unlink()
    damaged = Trajectory.open(run_copy)
    assert damaged.damaged == [] and damaged.gaps == [(about["begin"] + 1, about["end"])]
    assert not set(about["steps"]) & set(damaged.steps.tolist())
    (sentence,) = damage_of(RunStore(run_copy))
    assert f"steps {about['begin'] + 1} to {about['end']}" in sentence


def test_the_loss_of_the_first_segment_is_a_gap_at_step_0(run_copy: Path):
    holding(run_copy, 0).unlink()
    damaged = Trajectory.open(run_copy)
    assert damaged.gaps == [(0, 0)] and damaged.initialization is None
    assert np.isnan(measures.evaluate("weight_norm", damaged)["distance_from_initialization"]).all()


def test_run_without_readable_segment_is_refused_and_named(run_copy: Path):
    for path in segments(run_copy):
        truncate(path)
    with pytest.raises(GrokscopeError) as refusal:
        Trajectory.open(run_copy)
    assert all(str(path) in str(refusal.value) for path in segments(run_copy))


@pytest.mark.parametrize(("step", "name"), [(30, "embed.W_E"), (40, "blocks.0.mlp.W_in"), (0, "unembed.b_U")])
def test_flipped_bit_is_named_by_segment_step_and_tensor(run_copy: Path, step: int, name: str):
    path = holding(run_copy, step)
    steps = tensor_file.TensorFile(path).metadata["steps"]
    first, last = place(path, f"checkpoints/{name}")
    row_bytes = (last - first) // len(steps)
    flip(path, 8 * (first + row_bytes * steps.index(step)) + 5)

    (sentence,) = damage_of(RunStore(run_copy))
    assert path.name in sentence and f"step {step}, {name} " in sentence
    damaged = Trajectory.open(run_copy)
    with pytest.raises(DamagedError, match=rf"{path} is damaged: checkpoints/{name}") as raised:
        damaged.at(step)
    assert (raised.value.path, raised.value.step, raised.value.parameter) == (path, step, name)
    assert f"densify {run_copy} --start {step} --stop {step}`" in verify.explained(raised.value)
    with pytest.raises(DamagedError):
        damaged.parameter(name)
    assert len(damaged) == 7 and damaged.gaps == [] and damaged.damaged == []
    damaged = damaged.without_damaged()
    assert step not in damaged.steps and damaged.gaps == [(step, step)] and len(damaged.parameter(name)) == 6
    (sentence,) = damaged.damaged
    assert str(path) in sentence and f"(step {step})" in sentence
    for other in set(damaged.steps.tolist()) - {step}:
        damaged.at(other)


@pytest.mark.parametrize("name", ["log", "resume/parameters/embed.W_E", "resume/optimizer/embed.W_E/exp_avg"])
def test_flipped_bit_outside_checkpoints_is_named(run_copy: Path, name: str):
    path = holding(run_copy, 30)
    flip(path, 8 * place(path, name)[0])
    (sentence,) = damage_of(RunStore(run_copy))
    assert path.name in sentence and name in sentence
    Trajectory.open(run_copy).at(30)


def test_a_damaged_log_leaves_the_other_segments_rows_readable(tiny_run: Path, run_copy: Path):
    path = holding(run_copy, 30)
    begin, end = tensor_file.TensorFile(path).metadata["begin"], tensor_file.TensorFile(path).metadata["end"]
    flip(path, 8 * place(path, "log")[0])
    rows, expected = Trajectory.open(run_copy).log, Trajectory.open(tiny_run).log
    assert rows.steps.tolist() == [step for step in expected.steps.tolist() if not begin < step <= end]
    assert rows["gaps"].tolist() == [[begin + 1, end]], "a figure draws a line across what is lost"


def outcome(run: Path, original: dict[int, bytes]) -> str:
    """Return how damage to a run shows; fail on an exception other than GrokscopeError, and on changed data."""
    try:
        opened = RunStore(run)
    except GrokscopeError:
        return "refused"
    sentences = damage_of(opened)
    for step in opened.steps.tolist():
        try:
            read = opened.read([name for name in opened.checksums(step)], [step])
        except GrokscopeError:
            continue
        assert b"".join(read[name].tobytes() for name in sorted(read)) == original[step]
    return "found" if sentences else "unnoticed"


@pytest.mark.parametrize("n_flips", [100, pytest.param(10_000, marks=pytest.mark.slow)])
def test_every_flipped_bit_of_a_segment_is_found(n_flips: int, run_copy: Path):
    path = holding(run_copy, 30)
    intact = RunStore(run_copy)
    original = {
        step: b"".join(array.tobytes() for _, array in sorted(intact.read(intact.checksums(step), [step]).items()))
        for step in intact.steps.tolist()
    }
    for other in segments(run_copy):
        if other != path:
            other.unlink()
    data, choose = path.read_bytes(), random.Random(n_flips)
    size = int.from_bytes(data[:8], "little")
    for i in range(n_flips):
        # A quarter of the flips in the header, which is small and where most can go wrong.
        bit = choose.randrange(8 * (8 + size)) if i % 4 == 0 else choose.randrange(8 * len(data))
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        opened = RunStore(run_copy)
        assert path.name in " ".join(damage_of(opened)), f"bit {bit % 8} of byte {bit // 8}"
        assert outcome(run_copy, original) == "found"


@pytest.mark.parametrize("n_flips", [2_000, pytest.param(None, marks=pytest.mark.slow)], ids=["2000", "every"])
def test_flipped_bit_of_config_is_found_or_changes_nothing(n_flips: int | None, run_copy: Path):
    path = run_copy / "config.json"
    data, record = path.read_bytes(), Record.read(run_copy)
    every = range(8 * len(data))
    for bit in random.Random(0).sample(every, n_flips) if n_flips else every:
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            assert Record.read(run_copy) == record, f"bit {bit % 8} of byte {bit // 8}"
        except GrokscopeError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize("length", [0, 1, 100, -1, -2])
def test_a_config_json_that_is_cut_short_is_refused(length: int, run_copy: Path):
    path = run_copy / "config.json"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(GrokscopeError, match=f"{path} is damaged"):
        Trajectory.open(run_copy)


@pytest.mark.parametrize("text", ["[]", "3", "null", '{"format": "x"}', '{"format": 1}', "[" * 100_000, "9" * 5000])
def test_a_config_json_that_is_another_s_is_refused(text: str, run_copy: Path):
    (run_copy / "config.json").write_text(text)
    with pytest.raises(GrokscopeError, match=str(run_copy / "config.json")):
        Trajectory.open(run_copy)


def test_a_config_json_that_was_edited_is_refused(run_copy: Path):
    path = run_copy / "config.json"
    values = json.loads(path.read_bytes())
    values["config"]["optimizer"]["lr"] *= 2
    path.write_text(json.dumps(values))
    for read in (Trajectory.open, training.resume):
        with pytest.raises(GrokscopeError, match=f"{path} is damaged or was edited"):
            read(run_copy)


def test_a_newer_format_is_refused_with_both_versions(run_copy: Path):
    from grokscope import __version__

    path = run_copy / "config.json"
    values = json.loads(path.read_bytes())
    path.write_text(json.dumps({**values, "format": 7, "grokscope": "9.8.7", "unheard": "of"}))
    with pytest.raises(GrokscopeError) as refusal:
        Trajectory.open(run_copy)
    for part in (str(path), "format 7", "9.8.7", __version__, f"up to {FORMAT}"):
        assert part in str(refusal.value)


def test_folder_that_is_not_a_run_is_refused(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name in ("empty", "file", "none"):
        with pytest.raises(GrokscopeError, match=f"^{tmp_path / name} is not a run"):
            Trajectory.open(tmp_path / name)


def test_segment_of_another_run_is_refused(tiny_config: RunConfig, run_copy: Path, tmp_path: Path):
    other = dataclasses.replace(tiny_config, init_seed=7, n_steps=10)
    stranger = training.train(other, "other", tmp_path).path
    assert stranger is not None
    target = run_copy / "segments" / "999999.safetensors"
    target.write_bytes(segments(stranger)[0].read_bytes())
    opened = Trajectory.open(run_copy)
    assert opened.damaged == [f"{target} is not a segment of this run."]
    assert opened.digest == Trajectory.open(run_copy).digest


@pytest.mark.parametrize(
    "change",
    [
        {"steps": None},
        {"steps": [0, 1]},
        {"steps": ["0"]},
        {"end": "60"},
        {"begin": None},
        {"config_digest": None},
        {"kind": 3},
    ],
    ids=str,
)
def test_valid_checksums_with_invalid_content_are_refused(change: dict[str, Any], run_copy: Path):
    path = holding(run_copy, 0)
    file = tensor_file.TensorFile(path)
    content = {name: file.read(name) for name in file.shapes}
    tensor_file.write(path, content, {**file.metadata, **change}, by_row=("checkpoints/",))
    opened = RunStore(run_copy)
    assert opened.damaged == [f"{path} is not a segment of this run."]
    assert 0 not in opened.steps


def test_readers_ignore_unfinished_files_and_need_no_lock(tiny_run: Path, run_copy: Path):
    half = run_copy / "segments" / f".999999.safetensors.12345{atomic.TEMPORARY_SUFFIX}"
    half.write_bytes(b"half")
    (run_copy / "segments" / "notes.txt").write_text("mine")
    with Lock(run_copy):
        opened = Trajectory.open(run_copy)
    assert opened.damaged == [] and damage_of(RunStore(run_copy)) == []
    assert opened.digest == Trajectory.open(tiny_run).digest


def test_segments_merge_by_step_under_any_file_name(tiny_run: Path, run_copy: Path):
    paths = segments(run_copy)
    names = [f"{i:03d}-renamed.safetensors" for i in range(len(paths))]
    random.Random(0).shuffle(names)
    for path, name in zip(paths, names, strict=True):
        path.rename(path.with_name(name))
    renamed, original = Trajectory.open(run_copy), Trajectory.open(tiny_run)
    assert renamed.steps.tolist() == original.steps.tolist()
    assert renamed.digest == original.digest
    assert renamed.log.steps.tolist() == original.log.steps.tolist()


def test_a_run_of_30_000_checkpoints_lists_every_step(tiny_config: RunConfig, tmp_path: Path):
    config = dataclasses.replace(tiny_config, checkpoints="every 1", n_steps=29_999, max_checkpoints=30_000)
    run = create(tmp_path / "long", Record(config, {}, ""))
    steps = np.sort(np.random.default_rng(0).permutation(30_000).reshape(-1, 60), axis=1)
    for end, segment_steps in enumerate(steps.tolist()):
        checkpoints: list[Any] = [{"w": np.full(1, step, np.float32)} for step in segment_steps]
        run.commit(segment_steps, checkpoints, coverage=(end - 1, end))
    opened = RunStore(tmp_path / "long")
    assert opened.steps.tolist() == list(range(30_000))
    chosen = [29_999, 0, 17, 12_345, 17]
    assert opened.read(["w"], chosen)["w"].ravel().tolist() == chosen


def test_a_segment_is_never_written_over(run_copy: Path):
    before = {path: path.read_bytes() for path in segments(run_copy)}
    segments(run_copy)[1].unlink()
    RunStore(run_copy).commit([], [], coverage=(60, 61))
    after = {path: path.read_bytes() for path in segments(run_copy)}
    assert len(after) == len(before)
    assert all(after[path] == data for path, data in before.items() if path in after)
    assert len(set(after) - set(before)) == 1


def test_the_record_survives_writing_and_reading(tiny_config: RunConfig, tmp_path: Path):
    record = Record(tiny_config, {"torch": "∘ 1"}, "abc", ({"event": "x", "step": 3, "drift": ["a"]},))
    record.write(tmp_path)
    assert Record.read(tmp_path) == record


def test_run_contains_only_config_lock_and_segments(tiny_run: Path):
    names = {os.path.relpath(path, tiny_run) for path in tiny_run.rglob("*") if path.is_file()}
    assert {name for name in names if not name.startswith("segments/")} == {"config.json", "lock"}
    assert all(name.endswith(".safetensors") for name in names if name.startswith("segments/"))


def flip_checkpoint(run: Path, step: int, name: str) -> Path:
    """Flip a bit of one parameter of one checkpoint; return its segment."""
    path = holding(run, step)
    steps = tensor_file.TensorFile(path).metadata["steps"]
    first, last = place(path, f"checkpoints/{name}")
    flip(path, 8 * (first + (last - first) // len(steps) * steps.index(step)))
    return path


@pytest.mark.parametrize("step", [0, 30, 60])
def test_measure_leaves_out_damaged_checkpoint_with_a_gap(step: int, run_copy: Path):
    path = flip_checkpoint(run_copy, step, "unembed.W_U")
    trajectory = Trajectory.open(run_copy)
    with pytest.warns(UserWarning, match=rf"{step}\. {path} .*grokscope densify"):
        series = measures.saved("loss", trajectory)
    assert series.steps.tolist() == [t for t in range(0, 61, 10) if t != step]
    assert series["gaps"].tolist() == [[step, step]]
    # Another process knows it from what was saved, and measures nothing again.
    again = Trajectory.open(run_copy)
    saved = measures.found("loss", again)
    assert saved is not None and saved.digest == series.digest and len(again) == 7
    sound = measures.sound_trajectory(saved, again)
    assert sound is not None and sound.lost.keys() == {step}
    # A recovered checkpoint is measured.
    training.densify(run_copy, step, step)
    mended = Trajectory.open(run_copy)
    assert measures.found("loss", mended) is None
    assert len(measures.saved("loss", mended)) == 7


@pytest.mark.parametrize("step", [30, 60])
def test_earlier_series_loses_only_the_damaged_checkpoint(step: int, run_copy: Path):
    flip_checkpoint(run_copy, step, "unembed.W_U")
    trajectory = Trajectory.open(run_copy)
    # It reads no unembedding.
    assert len(measures.saved("embedding", trajectory)) == 7
    with pytest.warns(UserWarning, match="densify"):
        report.write(trajectory)
    kept = {series.measure: series for series in measures.kept(trajectory)}
    sound = trajectory.without_damaged()
    assert kept["embedding"].steps.tolist() == sound.steps.tolist() == kept["weight_norm"].steps.tolist()
    assert kept["embedding"].digest == sound.digest


def test_thinning_replaces_a_damaged_checkpoint(run_copy: Path):
    flip_checkpoint(run_copy, 60, "embed.W_E")
    with pytest.warns(UserWarning, match="densify"):
        series = measures.saved("loss", Trajectory.open(run_copy), 3)
    assert len(series) == 3 and series.steps[-1] == 50
    again = measures.found("loss", Trajectory.open(run_copy), 3)
    assert again is not None and again.digest == series.digest


@pytest.mark.slow
def test_parallel_measure_leaves_out_damaged_checkpoint(run_copy: Path):
    flip_checkpoint(run_copy, 30, "embed.W_E")
    trajectory = Trajectory.open(run_copy)
    with pytest.warns(UserWarning, match="checkpoint at step 30"):
        (series,) = _parallel.measure(["weight_norm"], trajectory, 2)
    assert series.steps.tolist() == [0, 10, 20, 40, 50, 60] and series["gaps"].tolist() == [[30, 30]]
    assert series.digest == trajectory.without_damaged().digest


@pytest.mark.parametrize("harm", [shutil.rmtree, lambda folder: [path.unlink() for path in folder.iterdir()]])
def test_run_without_any_segment_is_damaged(harm: Callable[[Path], Any], run_copy: Path):
    harm(run_copy / "segments")
    opened = RunStore(run_copy)
    assert str(run_copy / "segments") in opened.damaged[0] and opened.gaps == [(0, 0)]
    for read in (Trajectory.open, training.resume):
        with pytest.raises(GrokscopeError, match=rf"no readable checkpoint\. {run_copy / 'segments'} is"):
            read(run_copy)


def test_refused_segments_are_named_and_not_called_damaged(run_copy: Path, monkeypatch: pytest.MonkeyPatch):
    path, folder, open_file = holding(run_copy, 30), run_copy / "segments", os.open

    def refuse(name: Any, *arguments: Any, **keywords: Any) -> int:
        if Path(name) == path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return open_file(name, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        opened = RunStore(run_copy)
    assert opened.damaged == [f"{path} cannot be read: Permission denied."]
    assert isinstance(opened.faults[0], UnreadableError)

    def deny(self: Path) -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "iterdir", deny)
    with pytest.raises(GrokscopeError, match=f"^{folder} cannot be listed: Permission denied"):
        RunStore(run_copy)


def test_pipe_in_a_run_is_ignored_without_waiting(run_copy: Path):
    pipe = run_copy / "segments" / "000099.safetensors"
    os.mkfifo(pipe)
    assert Trajectory.open(run_copy).damaged == [f"{pipe} is not a regular file, so it is not a file of grokscope."]
    (run_copy / "measures").mkdir()
    os.mkfifo(run_copy / "measures" / "weight_norm.safetensors")
    trajectory = Trajectory.open(run_copy)
    assert measures.kept(trajectory) == []
    measures.saved("weight_norm", trajectory)
    assert len(measures.kept(trajectory)) == 1


def test_saving_removes_abandoned_files_only(run_copy: Path):
    folder = run_copy / "measures"
    folder.mkdir()
    old, young = (folder / f".loss.safetensors.{i}{atomic.TEMPORARY_SUFFIX}" for i in (1, 2))
    for path in (old, young):
        path.touch()
    os.utime(old, (0, 0))
    measures.saved("weight_norm", Trajectory.open(run_copy))
    assert not old.exists() and young.exists()
