"""Runs: what `train` makes, and that `resume` goes on exact to the bit. Kills are in test_killed."""

import dataclasses
import errno
import json
import os
import re
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.shared import KINDS, of_kind, refuse

from grokscope import Trajectory, environment, rng, training
from grokscope.config import OptimizerConfig, RunConfig
from grokscope.disk import atomic, tensor_file
from grokscope.disk.lock import LOCK, Lock, is_locked
from grokscope.errors import GrokscopeError
from grokscope.store.run_store import Record, RunStore, segments_folder
from grokscope.training import checkpointer, loop
from grokscope.training.loop import NotFiniteError
from grokscope.training.signals import InterruptedRunError

Read = Callable[[Path], dict[tuple[Any, ...], tuple[Any, ...]]]


@pytest.fixture(scope="module")
def trained() -> dict[str, dict]:
    """What uninterrupted runs have saved, by kind."""
    return {}


@pytest.fixture
def baseline(trained: dict[str, dict], tiny_config: RunConfig, tmp_path: Path, saved: Read) -> Callable[[str], dict]:
    """The function that returns everything that an uninterrupted run of a kind saves."""

    def make(kind: str) -> dict:
        if kind not in trained:
            training.train(of_kind(tiny_config, kind), "baseline", tmp_path)
            trained[kind] = saved(tmp_path / "baseline")
        return trained[kind]

    return make


def stopping_at(*steps: int) -> Callable[[int, dict[str, float]], None]:
    """Return an observer that interrupts the training at these steps, as Ctrl-C would."""
    return lambda step, row: signal.raise_signal(signal.SIGINT) if step in steps else None


def interrupted(config: RunConfig, root: Path, step: int) -> Path:
    """Train into root/run until a signal comes at a step, and return the run's folder."""
    with pytest.raises(InterruptedRunError):
        training.train(config, "run", root, observer=stopping_at(step))
    return root / "run"


def contents(folder: Path) -> dict[Path, bytes]:
    """Return every file of a folder, byte for byte, but for the lock."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != LOCK}


def rewritten(path: Path, about: dict[str, Any]) -> None:
    """Write a segment again with other metadata and sound checksums."""
    file = tensor_file.TensorFile(path)
    arrays = {name: file.read(name) for name in file.shapes}
    tensor_file.write(path, arrays, {**file.metadata, **about}, by_row=("checkpoints/",))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("kind", "step"), [("full batch", step) for step in (1, 9, 10, 59, 60)] + [(kind, 37) for kind in KINDS]
)
def test_an_interrupted_run_is_resumed_to_the_bit(
    step: int, kind: str, tiny_config: RunConfig, tmp_path: Path, baseline: Callable, saved: Read
):
    run = interrupted(of_kind(tiny_config, kind), tmp_path, step)
    assert RunStore(run).last_step == step
    training.resume(run)
    assert saved(run) == baseline(kind)


@pytest.mark.usefixtures("short_segments")
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_resumed_many_times_is_exact_to_the_bit(
    kind: str, tiny_config: RunConfig, tmp_path: Path, baseline: Callable, saved: Read
):
    run = interrupted(of_kind(tiny_config, kind), tmp_path, 3)
    for step in (4, 5, 17, 18, 40, 59):
        with pytest.raises(InterruptedRunError):
            training.resume(run, observer=stopping_at(step))
    training.resume(run)
    assert saved(run) == baseline(kind)


def test_a_resumed_run_has_left_of_its_adaptive_checkpoints_what_it_had(
    tiny_config: RunConfig, tmp_path: Path, saved: Read
):
    optimizer = dataclasses.replace(tiny_config.optimizer, lr=3e-2)
    config = dataclasses.replace(tiny_config, checkpoints="every 20 + adaptive 0.05", evaluate_every=1)
    config = dataclasses.replace(config, optimizer=optimizer, max_checkpoints=12)
    with pytest.warns(UserWarning, match="max_checkpoints = 12"):
        whole = training.train(config, "whole", tmp_path)
    run = interrupted(config, tmp_path, int(whole.steps[6]))
    assert len(RunStore(run).steps) == 7
    with pytest.warns(UserWarning, match="max_checkpoints = 12"):
        training.resume(run)
    assert len(whole) == 12 and saved(run) == saved(tmp_path / "whole")


@pytest.mark.parametrize("lost", ["the optimizer", "the schedule's reference", "the order of batches"])
def test_the_comparison_catches_a_resume_that_forgets_something(
    lost: str,
    tiny_config: RunConfig,
    tmp_path: Path,
    baseline: Callable,
    saved: Read,
    monkeypatch: pytest.MonkeyPatch,
):
    """The control of the two tests above: what they compare is fine enough to notice."""
    kind = {"the optimizer": "full batch", "the schedule's reference": "adaptive"}.get(lost, "minibatch")
    run, expected = interrupted(of_kind(tiny_config, kind), tmp_path, 37), baseline(kind)
    if lost == "the optimizer":
        monkeypatch.setattr(loop.Optimizer, "load", lambda self, state: None)
    elif lost == "the schedule's reference":
        start = checkpointer.Recorder.__init__

        def forgetful(self: Any, *arguments: Any) -> None:
            start(self, *arguments)
            self._reference = 1.0

        monkeypatch.setattr(checkpointer.Recorder, "__init__", forgetful)
    else:
        batch = loop.Setup.batch
        monkeypatch.setattr(loop.Setup, "batch", lambda self, step: batch(self, step - 37))
    training.resume(run)
    assert saved(run) != expected


@pytest.mark.parametrize("n_steps", [61, 95])
@pytest.mark.parametrize("kind", ["full batch", "minibatch"])
def test_a_lengthened_run_is_the_one_of_that_length_from_the_start(
    kind: str, n_steps: int, tiny_config: RunConfig, tmp_path: Path, saved: Read
):
    config = of_kind(tiny_config, kind)
    training.train(config, "run", tmp_path)
    lengthened = training.resume(tmp_path / "run", n_steps=n_steps)
    training.train(dataclasses.replace(config, n_steps=n_steps), "long", tmp_path)
    assert saved(tmp_path / "run") == saved(tmp_path / "long")
    assert lengthened.config.n_steps == n_steps and lengthened.last.step == n_steps
    assert Record.read(tmp_path / "run").history == ({"event": "lengthened", "step": 60, "from": 60, "to": n_steps},)


def test_an_unfinished_run_can_be_lengthened_too(tiny_config: RunConfig, tmp_path: Path, saved: Read):
    run = interrupted(tiny_config, tmp_path, 33)
    training.resume(run, n_steps=80)
    training.train(dataclasses.replace(tiny_config, n_steps=80), "long", tmp_path)
    assert saved(run) == saved(tmp_path / "long")


@pytest.mark.parametrize(
    ("n_steps", "said"), [(59, "59 would shorten .*from 60"), (0, "would shorten"), (10**10, "n_steps: 10000000000")]
)
def test_a_length_that_cannot_be_is_refused_and_changes_nothing(n_steps: int, said: str, run_copy: Path):
    before = contents(run_copy)
    with pytest.raises(GrokscopeError, match=said):
        training.resume(run_copy, n_steps=n_steps)
    assert contents(run_copy) == before


def test_a_length_that_takes_the_schedule_beyond_max_checkpoints_is_refused(tiny_config: RunConfig, tmp_path: Path):
    training.train(dataclasses.replace(tiny_config, max_checkpoints=8), "run", tmp_path)
    before = contents(tmp_path)
    with pytest.raises(GrokscopeError, match="9 checkpoints.*max_checkpoints = 8"):
        training.resume(tmp_path / "run", n_steps=80)
    assert contents(tmp_path) == before


def test_a_finished_run_is_returned_as_it_is_also_while_another_holds_its_lock(run_copy: Path):
    before = contents(run_copy)
    with Lock(run_copy):
        trajectory = training.resume(run_copy)
        assert training.resume(run_copy, n_steps=60).digest == trajectory.digest
    assert trajectory.last.step == 60 and contents(run_copy) == before


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this be another machine, with another torch."""
    present = environment.present
    changes = {"torch": "1.0.0", "threads": "77"}
    monkeypatch.setattr(environment, "present", lambda device: {**present(device), **changes})


def test_drift_is_refused_by_name_before_the_first_step(
    tiny_config: RunConfig, tmp_path: Path, request: pytest.FixtureRequest
):
    run = interrupted(tiny_config, tmp_path, 33)
    before = contents(run)
    request.getfixturevalue("elsewhere")
    with pytest.raises(GrokscopeError) as refusal:
        training.resume(run, observer=lambda step, row: pytest.fail("a step was made"))
    for part in ("threads was", "is 77", f"torch was {torch.__version__}, is 1.0.0", "--allow-drift"):
        assert part in str(refusal.value)
    assert contents(run) == before


def test_drift_that_is_allowed_is_recorded_and_asked_about_once(
    tiny_config: RunConfig, tmp_path: Path, request: pytest.FixtureRequest
):
    run = interrupted(tiny_config, tmp_path, 33)
    request.getfixturevalue("elsewhere")
    with pytest.raises(InterruptedRunError):
        training.resume(run, allow_drift=True, observer=stopping_at(40))
    (event,) = json.loads((run / "config.json").read_bytes())["history"]
    assert event["event"] == "drift allowed" and event["step"] == 33
    assert any("torch was" in clause for clause in event["drift"])
    training.resume(run)
    assert len(Record.read(run).history) == 1


def test_what_would_change_bits_is_recorded_with_a_run(tiny_run: Path):
    found = Record.read(tiny_run).environment
    assert found["torch"] == torch.__version__ and found["threads"] == str(torch.get_num_threads())
    assert {"instruction set", "device", "parameter dtype", "optimizer kernel"} <= set(found)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has what the test needs to be missing")
def test_a_run_from_a_gpu_is_refused_in_one_sentence_where_there_is_none(run_copy: Path):
    record = Record.read(run_copy)
    config = dataclasses.replace(record.config, device="cuda", n_steps=90)
    dataclasses.replace(record, config=config).write(run_copy)
    for path in (run_copy / "segments").iterdir():
        rewritten(path, {"config_digest": config.digest})
    assert Trajectory.open(run_copy).last.step == 60
    for go_on in (training.resume, lambda run: training.densify(run, 0, 5)):
        with pytest.raises(GrokscopeError, match="cuda"):
            go_on(run_copy)


def test_a_run_whose_data_have_changed_is_refused_before_it_is_written(
    tiny_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, permuted: Callable[..., Any]
):
    run = interrupted(tiny_config, tmp_path, 33)
    before = contents(run)
    monkeypatch.setattr(rng, "permutation", permuted)
    for go_on in (training.resume, lambda run: training.densify(run, 0, 5)):
        with pytest.raises(GrokscopeError, match="other examples or another split"):
            go_on(run)
        assert contents(run) == before


@pytest.mark.parametrize(
    "name", ["a/b", "../x", "/absolute/x", ".hidden", "", " ", "a b", "a\n", "-x", "x" * 101, "ü", "a\0b"], ids=repr
)
def test_a_name_that_is_no_name_is_refused_before_any_file(name: str, tiny_config: RunConfig, tmp_path: Path):
    with pytest.raises(GrokscopeError, match="is no name for a run; allowed: "):
        training.train(tiny_config, name, tmp_path / "root")
    assert list(tmp_path.iterdir()) == []


def test_a_name_in_use_is_refused_and_what_uses_it_is_left_alone(
    tiny_config: RunConfig, run_copy: Path, tmp_path: Path
):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    before = contents(tmp_path)
    for name in ("copy", "file", "folder"):
        with pytest.raises(GrokscopeError, match=f"{tmp_path / name} exists already"):
            training.train(tiny_config, name, tmp_path)
    assert contents(tmp_path) == before


def test_without_a_name_the_run_is_called_after_its_task_and_numbered(tiny_config: RunConfig, tmp_path: Path):
    short = dataclasses.replace(tiny_config, n_steps=1)
    paths = [training.train(short, root=tmp_path).path for _ in range(3)]
    assert paths == [tmp_path / name for name in ("addition", "addition-2", "addition-3")]


@pytest.mark.parametrize("changes", [{"n_steps": -1, "evaluate_every": 0}, {"device": "cuda:99"}], ids=str)
def test_a_config_that_cannot_be_used_is_refused_before_any_file(
    changes: dict[str, Any], tiny_config: RunConfig, tmp_path: Path
):
    with pytest.raises(GrokscopeError) as refusal:
        training.train(dataclasses.replace(tiny_config, **changes), "run", tmp_path / "root")
    assert all(name in str(refusal.value) for name in changes)
    assert list(tmp_path.iterdir()) == []


def test_while_a_run_trains_nobody_else_writes_and_a_resume_is_told_who_does(tiny_config: RunConfig, tmp_path: Path):
    told = []

    def intrude(step: int, row: dict[str, float]) -> None:
        if step == 30:
            for write in (training.resume, lambda run: training.densify(run, 0, 0)):
                with pytest.raises(GrokscopeError, match=f"being written by process {os.getpid()} ") as refusal:
                    write(tmp_path / "run")
                told.append(str(refusal.value))

    training.train(tiny_config, "run", tmp_path, observer=intrude)
    assert len(told) == 2 and not is_locked(tmp_path / "run")


def failing(function: Callable, calls: Iterable[int], number: int) -> Callable:
    """Return a function of the system's that fails with an error number at the given calls."""
    made, calls = iter(range(1, 10**9)), set(calls)

    def called(*arguments: Any) -> Any:
        if next(made) in calls:
            raise OSError(number, os.strerror(number))
        return function(*arguments)

    return called


@pytest.mark.parametrize(
    ("function", "number", "call"),
    [("replace", errno.ENOSPC, call) for call in (1, 2, 3, 8)]
    + [("fsync", errno.EIO, call) for call in (1, 4, 9, 18)],
)
def test_after_an_io_error_the_run_opens_and_is_resumed_to_the_bit(
    function: str,
    number: int,
    call: int,
    tiny_config: RunConfig,
    tmp_path: Path,
    baseline: Callable,
    saved: Read,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(checkpointer, "SEGMENT_CHECKPOINTS", 1)
    root = tmp_path / "root"
    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, function, failing(getattr(os, function), [call], number))
        with pytest.raises(GrokscopeError) as refusal:
            training.train(tiny_config, "run", root)
    assert os.strerror(number) in str(refusal.value) and str(tmp_path) in str(refusal.value)
    assert ("bytes needed" in str(refusal.value)) == (number == errno.ENOSPC)
    assert not [path for path in root.rglob("*") if atomic.TEMPORARY in path.name]
    if (root / "run").exists():
        assert list(RunStore(root / "run").damage()) == []
        training.resume(root / "run")
    else:
        training.train(tiny_config, "run", root)
    assert saved(root / "run") == baseline("full batch")


def test_resume_removes_what_a_dead_writer_left_half_written(tiny_config: RunConfig, tmp_path: Path):
    run = interrupted(tiny_config, tmp_path, 33)
    half = run / "segments" / f".000009.safetensors.1{atomic.TEMPORARY}"
    half.write_bytes(b"half")
    training.resume(run)
    assert not half.exists()


@pytest.mark.usefixtures("short_segments")
def test_a_run_whose_last_segments_are_lost_is_trained_again_from_what_is_left(
    tiny_config: RunConfig, tmp_path: Path, baseline: Callable, saved: Read
):
    training.train(tiny_config, "run", tmp_path)
    paths = sorted((tmp_path / "run" / "segments").iterdir())
    truncate(paths[-1])
    for path in paths[-15:-1]:
        path.unlink()
    trajectory = training.resume(tmp_path / "run")
    assert trajectory.damaged and str(paths[-1]) in trajectory.damaged[0] and trajectory.gaps == []
    paths[-1].unlink()
    assert saved(tmp_path / "run") == baseline("full batch")


@pytest.mark.usefixtures("short_segments")
@pytest.mark.parametrize("name", ["resume/parameters/embed.W_E", "log"])
def test_one_flipped_bit_in_a_segment_does_not_keep_a_run_from_going_on(
    name: str, tiny_config: RunConfig, tmp_path: Path
):
    run = interrupted(tiny_config, tmp_path, 33)
    path = sorted((run / "segments").iterdir())[-1]
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[:8], "little")
    data[8 + size + json.loads(data[8 : 8 + size])[name]["data_offsets"][0]] ^= 1 << 4
    if name == "log":  # The row of step 33 is none: step 30's segment has one.
        path = sorted((run / "segments").iterdir())[-4]
        data = bytearray(path.read_bytes())
        size = int.from_bytes(data[:8], "little")
        data[8 + size + json.loads(data[8 : 8 + size])[name]["data_offsets"][0]] ^= 1 << 4
    path.write_bytes(data)
    expected = training.train(tiny_config, "expected", tmp_path)
    resumed = training.resume(run)
    assert resumed.digest == expected.digest


def test_a_run_without_any_resume_state_is_refused(run_copy: Path):
    for path in (run_copy / "segments").iterdir():
        truncate(path)
    with pytest.raises(GrokscopeError, match="no readable"):
        training.resume(run_copy)


@pytest.mark.parametrize("what", ["a folder", "nothing"])
def test_what_is_no_run_is_neither_resumed_nor_densified_nor_touched(what: str, tmp_path: Path):
    path = tmp_path / "stranger"
    if what == "a folder":
        path.mkdir()
    for write in (training.resume, lambda run: training.densify(run, 0, 0)):
        with pytest.raises(GrokscopeError, match=f"^{path} is no "):
            write(path)
    assert list(tmp_path.rglob("*")) == ([path] if what == "a folder" else [])


@pytest.mark.usefixtures("short_segments")
def test_a_run_that_overflows_keeps_what_is_finite_and_stops_again_when_it_is_resumed(
    tiny_config: RunConfig, tmp_path: Path
):
    wild = OptimizerConfig(lr=2.0, weight_decay=2.0, warmup_steps=0)
    config = dataclasses.replace(tiny_config, optimizer=wild, checkpoints="every 1", evaluate_every=1)
    said: list[str] = []
    for _ in range(3):
        with pytest.raises(NotFiniteError) as refusal:
            training.resume(tmp_path / "run") if said else training.train(config, "run", tmp_path)
        said += re.findall(r"^The .+ is not finite at step (\d+; the last finite step is \d+)\.", str(refusal.value))
    assert len(said) == 3 and len(set(said)) == 1
    last = int(said[0].split()[-1])
    assert 5 < last < 59, "the case is meant to be telling"
    trajectory = Trajectory.open(tmp_path / "run")
    assert trajectory.steps.tolist() == list(range(last + 1))
    assert trajectory.log.steps.tolist() == trajectory.steps.tolist()
    assert all(np.isfinite(trajectory.log[name]).all() for name in trajectory.log.arrays)
    for name in trajectory.model.shapes:
        assert torch.isfinite(trajectory.parameter(name)).all()
    assert list(RunStore(tmp_path / "run").damage()) == []


def test_a_run_does_not_go_past_an_evaluation_that_is_not_finite_by_being_resumed(
    tiny_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    evaluate = loop.Setup.evaluate

    def poisoned(self: loop.Setup, state: loop.State) -> loop.Row:
        if state.step == 30:
            raise NotFiniteError("The test_loss", 30, 29, resumable=False)
        return evaluate(self, state)

    monkeypatch.setattr(loop.Setup, "evaluate", poisoned)
    with pytest.raises(NotFiniteError, match="at step 30"):
        training.train(tiny_config, "run", tmp_path)
    before = contents(tmp_path)
    for _ in range(2):
        with pytest.raises(NotFiniteError, match="at step 30"):
            training.resume(tmp_path / "run")
    assert contents(tmp_path) == before, "an attempt that gains nothing leaves nothing"
    assert Trajectory.open(tmp_path / "run").steps.tolist() == [0, 10, 20]


def test_a_weight_that_is_not_finite_is_in_no_resume_state(
    tiny_config: RunConfig, tmp_path: Path, baseline: Callable, saved: Read, monkeypatch: pytest.MonkeyPatch
):
    """The cause is gone when the run is resumed, so it must come out as if it had never been."""
    update = loop.Optimizer.update

    def poisoned(self: Any, gradients: Any, u: int) -> None:
        update(self, gradients, u)
        if u == 34:
            self._parameters["unembed.W_U"].data[2, 1] = torch.nan

    with monkeypatch.context() as patch:
        patch.setattr(loop.Optimizer, "update", poisoned)
        with pytest.raises(
            NotFiniteError, match=r"The parameter unembed\.W_U is not finite at step 35;.* step is 34"
        ):
            training.train(tiny_config, "run", tmp_path)
    assert Trajectory.open(tmp_path / "run").steps.tolist() == [0, 10, 20, 30]
    training.resume(tmp_path / "run")
    assert saved(tmp_path / "run") == baseline("full batch")


def test_the_estimate_of_disk_use_is_near_what_is_used(tiny_config: RunConfig, tmp_path: Path):
    config = dataclasses.replace(tiny_config, checkpoints="every 1", n_steps=200)
    path = training.train(config, "run", tmp_path).path
    assert path is not None
    used = sum(one.stat().st_size for one in segments_folder(path).iterdir())
    assert 0.8 < checkpointer.disk_use(loop.Setup(config)) / used < 1.25


@pytest.mark.parametrize("fault", [OSError(errno.EIO, "The terminal is gone"), SystemExit(1)], ids=repr)
def test_what_an_observer_raises_comes_through_with_its_step_committed(
    fault: BaseException, tiny_config: RunConfig, tmp_path: Path, baseline: Callable, saved: Read
):
    def fail(step: int, row: dict[str, float]) -> None:
        if step == 37:
            raise fault

    with pytest.raises(type(fault)) as raised:
        training.train(tiny_config, "run", tmp_path, observer=fail)
    assert raised.value is fault
    assert RunStore(tmp_path / "run").last_step == 37
    training.resume(tmp_path / "run")
    assert saved(tmp_path / "run") == baseline("full batch")


def test_a_folder_that_cannot_be_looked_into_is_one_error(
    tiny_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    refuse(monkeypatch, tmp_path / "closed")
    for name in (None, "run"):
        with pytest.raises(GrokscopeError, match=r"closed/\w+ cannot be reached: Permission denied\."):
            training.train(tiny_config, name, tmp_path / "closed")
    with pytest.raises(GrokscopeError, match=r"closed/run/config\.json cannot be read: Permission denied\."):
        Record.read(tmp_path / "closed" / "run")
    with pytest.raises(GrokscopeError, match="is no folder, so no run"):
        Record.read(tmp_path / "none")
