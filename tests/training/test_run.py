"""`train`: the folder of a new run, its name and its lock, and what is saved after an error."""

import dataclasses
import errno
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.shared import Saved, damage_of, refuse

from grokscope import Trajectory, environment, training
from grokscope.config import OptimizerConfig, RunConfig
from grokscope.disk import atomic
from grokscope.disk.lock import LOCK_NAME, is_locked
from grokscope.errors import BusyError, GrokscopeError
from grokscope.store.run_store import Record, RunStore
from grokscope.training import checkpointer
from grokscope.training.evaluation import Evaluator, Row
from grokscope.training.optimizers import Optimizer
from grokscope.training.state import NotFiniteError, State

Read = Callable[[Path], Saved]


@pytest.fixture(scope="module")
def _cache() -> dict[str, Saved]:
    return {}


@pytest.fixture
def uninterrupted(_cache: dict[str, Saved], tiny_config: RunConfig, tmp_path: Path, saved: Read) -> Saved:
    """Everything that an uninterrupted run saves."""
    if not _cache:
        training.train(tiny_config, "uninterrupted", tmp_path)
        _cache["tiny"] = saved(tmp_path / "uninterrupted")
    return _cache["tiny"]


def file_contents(folder: Path) -> dict[Path, bytes]:
    """Return every file of a folder byte for byte, except for the lock."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != LOCK_NAME}


# The name and the folder.


@pytest.mark.parametrize(
    "name", ["a/b", "../x", "/absolute/x", ".hidden", "", " ", "a b", "a\n", "-x", "x" * 101, "ü", "a\0b"], ids=repr
)
def test_invalid_name_writes_no_file(name: str, tiny_config: RunConfig, tmp_path: Path):
    with pytest.raises(GrokscopeError, match=r"is not a valid name for a run\. Allowed: "):
        training.train(tiny_config, name, tmp_path / "root")
    assert list(tmp_path.iterdir()) == []


def test_taken_name_is_refused_and_its_files_do_not_change(tiny_config: RunConfig, run_copy: Path, tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    before = file_contents(tmp_path)
    for name in ("copy", "file", "folder"):
        with pytest.raises(BusyError, match=f"{tmp_path / name} already exists.* `grokscope resume "):
            training.train(tiny_config, name, tmp_path)
    assert file_contents(tmp_path) == before


def test_run_without_a_name_is_named_after_its_task(tiny_config: RunConfig, tmp_path: Path):
    short = dataclasses.replace(tiny_config, n_steps=1)
    paths = [training.train(short, root=tmp_path).path for _ in range(3)]
    assert paths == [tmp_path / name for name in ("addition", "addition-2", "addition-3")]


@pytest.mark.parametrize("changes", [{"n_steps": -1, "evaluate_every": 0}, {"device": "cuda:99"}], ids=str)
def test_invalid_config_writes_no_file(changes: dict[str, Any], tiny_config: RunConfig, tmp_path: Path):
    with pytest.raises(GrokscopeError) as raised:
        training.train(dataclasses.replace(tiny_config, **changes), "run", tmp_path / "root")
    assert all(name in str(raised.value) for name in changes)
    assert list(tmp_path.iterdir()) == []


def test_unreadable_root_raises_one_error(tiny_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    refuse(monkeypatch, tmp_path / "closed")
    for name in (None, "run"):
        with pytest.raises(GrokscopeError, match=r"closed/\w+ cannot be reached: Permission denied\."):
            training.train(tiny_config, name, tmp_path / "closed")
    with pytest.raises(GrokscopeError, match=r"closed/run/config\.json cannot be read: Permission denied\."):
        Record.read(tmp_path / "closed" / "run")
    with pytest.raises(GrokscopeError, match="is not a run: the folder does not exist"):
        Record.read(tmp_path / "none")


def test_record_contains_what_decides_bits(tiny_run: Path):
    recorded = Record.read(tiny_run).environment
    assert recorded == environment.describe("cpu")
    assert recorded["torch"] == torch.__version__ and recorded["threads"] == str(torch.get_num_threads())
    assert {"instruction set", "device", "parameter dtype", "optimizer kernel"} <= set(recorded)


def test_running_training_blocks_other_writers(tiny_config: RunConfig, tmp_path: Path):
    messages = []

    def try_to_write(step: int, row: dict[str, float]) -> None:
        if step == 30:
            for write in (training.resume, lambda run: training.densify(run, 0, 0)):
                with pytest.raises(BusyError, match=f"being written by process {os.getpid()} ") as raised:
                    write(tmp_path / "run")
                messages.append(str(raised.value))

    training.train(tiny_config, "run", tmp_path, observer=try_to_write)
    assert len(messages) == 2 and not is_locked(tmp_path / "run")


# Errors of the system and of the observer.


def fail_at(function: Callable, calls: Iterable[int], number: int) -> Callable:
    """Return a system function that fails with an error number at the given calls."""
    counter, calls = iter(range(1, 10**9)), set(calls)

    def failing(*arguments: Any) -> Any:
        if next(counter) in calls:
            raise OSError(number, os.strerror(number))
        return function(*arguments)

    return failing


@pytest.mark.parametrize(
    ("function", "number", "call"),
    [("replace", errno.ENOSPC, call) for call in (1, 2, 3, 8)]
    + [("fsync", errno.EIO, call) for call in (1, 4, 9, 18)],
)
def test_run_after_an_io_error_opens_and_resumes_to_the_bit(
    function: str,
    number: int,
    call: int,
    tiny_config: RunConfig,
    tmp_path: Path,
    uninterrupted: Saved,
    saved: Read,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(checkpointer, "SEGMENT_CHECKPOINTS", 1)
    root = tmp_path / "root"
    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, function, fail_at(getattr(os, function), [call], number))
        with pytest.raises(GrokscopeError) as raised:
            training.train(tiny_config, "run", root)
    assert os.strerror(number) in str(raised.value) and str(tmp_path) in str(raised.value)
    assert ("bytes needed" in str(raised.value)) == (number == errno.ENOSPC)
    assert not [path for path in root.rglob("*") if atomic.TEMPORARY_SUFFIX in path.name]
    if (root / "run").exists():
        assert damage_of(RunStore(root / "run")) == []
        training.resume(root / "run")
    else:
        training.train(tiny_config, "run", root)
    assert saved(root / "run") == uninterrupted


@pytest.mark.parametrize("error", [OSError(errno.EIO, "The terminal is gone"), SystemExit(1)], ids=repr)
def test_observer_s_exception_passes_through_after_a_commit(
    error: BaseException, tiny_config: RunConfig, tmp_path: Path, uninterrupted: Saved, saved: Read
):
    def fail(step: int, row: dict[str, float]) -> None:
        if step == 37:
            raise error

    with pytest.raises(type(error)) as raised:
        training.train(tiny_config, "run", tmp_path, observer=fail)
    assert raised.value is error
    assert RunStore(tmp_path / "run").last_step == 37
    training.resume(tmp_path / "run")
    assert saved(tmp_path / "run") == uninterrupted


# Numbers that are not finite.


@pytest.mark.usefixtures("short_segments")
def test_overflowing_run_keeps_finite_steps_and_fails_on_resume(tiny_config: RunConfig, tmp_path: Path):
    optimizer = OptimizerConfig(lr=2.0, weight_decay=2.0, warmup_steps=0)
    config = dataclasses.replace(tiny_config, optimizer=optimizer, checkpoints="every 1", evaluate_every=1)
    pattern = r"^The .+ is not finite at step (\d+; the last finite step is \d+)\."
    steps: list[str] = []
    for _ in range(3):
        with pytest.raises(NotFiniteError) as raised:
            training.resume(tmp_path / "run") if steps else training.train(config, "run", tmp_path)
        steps += re.findall(pattern, str(raised.value))
    assert len(steps) == 3 and len(set(steps)) == 1
    last = int(steps[0].split()[-1])
    assert 5 < last < 59, "the run must fail midway"
    trajectory = Trajectory.open(tmp_path / "run")
    assert trajectory.steps.tolist() == list(range(last + 1))
    assert trajectory.log.steps.tolist() == trajectory.steps.tolist()
    assert all(np.isfinite(trajectory.log[name]).all() for name in trajectory.log.arrays)
    for name in trajectory.model.shapes:
        assert torch.isfinite(trajectory.parameter(name)).all()
    assert damage_of(RunStore(tmp_path / "run")) == []


def test_resume_fails_at_the_same_evaluation_and_adds_nothing(
    tiny_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    evaluate = Evaluator.evaluate

    def poisoned_evaluate(self: Evaluator, state: State) -> Row:
        if state.step == 30:
            raise NotFiniteError("The test_loss", 30, 29, resumable=False)
        return evaluate(self, state)

    monkeypatch.setattr(Evaluator, "evaluate", poisoned_evaluate)
    with pytest.raises(NotFiniteError, match="at step 30"):
        training.train(tiny_config, "run", tmp_path)
    before = file_contents(tmp_path)
    for _ in range(2):
        with pytest.raises(NotFiniteError, match="at step 30"):
            training.resume(tmp_path / "run")
    assert file_contents(tmp_path) == before, "a failed attempt must leave no file"
    assert Trajectory.open(tmp_path / "run").steps.tolist() == [0, 10, 20]


def test_weight_that_is_not_finite_is_not_saved(
    tiny_config: RunConfig, tmp_path: Path, uninterrupted: Saved, saved: Read, monkeypatch: pytest.MonkeyPatch
):
    """The cause is gone before the resume, so the resumed run must equal the uninterrupted one."""
    update = Optimizer.update

    def poisoned_update(self: Any, gradients: Any, u: int) -> None:
        update(self, gradients, u)
        if u == 34:
            self._parameters["unembed.W_U"].data[2, 1] = torch.nan

    message = r"The parameter unembed\.W_U is not finite at step 35;.* step is 34"
    with monkeypatch.context() as patch:
        patch.setattr(Optimizer, "update", poisoned_update)
        with pytest.raises(NotFiniteError, match=message):
            training.train(tiny_config, "run", tmp_path)
    assert Trajectory.open(tmp_path / "run").steps.tolist() == [0, 10, 20, 30]
    training.resume(tmp_path / "run")
    assert saved(tmp_path / "run") == uninterrupted
