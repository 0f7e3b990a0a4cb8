"""Runs that train together: each in its folder as any run is, and stopped, killed and gone on with to the bit."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.shared import KINDS, companions, flip, make_tiny_config, of_kind, place

from grokscope import Trajectory, environment, training
from grokscope.config import RunConfig, checkpoint_schedule
from grokscope.disk.lock import LOCK, Lock, is_locked
from grokscope.errors import BusyError, GrokscopeError
from grokscope.store.run_store import Record, RunStore
from grokscope.training import checkpointer
from grokscope.training.ensemble import Ensemble
from grokscope.training.signals import InterruptedRunError
from grokscope.training.train_ensemble import train_together

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

Saved = dict[tuple[Any, ...], tuple[Any, ...]]
Whole = Callable[..., list[Path]]
N_STEPS = 20


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Compute with one thread, as the child processes do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def three(kind: str = "full batch", n_steps: int = N_STEPS) -> list[RunConfig]:
    """Return the configs of three runs that train together."""
    start = dataclasses.replace(make_tiny_config(), n_steps=n_steps, checkpoints="every 4", evaluate_every=5)
    return companions(of_kind(start, kind))


def folders(root: Path, n: int = 3) -> list[Path]:
    return [root / name for name in "abc"[:n]]


def stopping_at(step: int) -> Callable[[int], None]:
    return lambda now: signal.raise_signal(signal.SIGTERM) if now == step else None


def stopped(root: Path, step: int, configs: list[RunConfig] | None = None) -> list[Path]:
    """Train three runs together until a signal comes at a step, and return their folders."""
    with pytest.raises(InterruptedRunError):
        train_together(configs or three(), folders(root), observer=stopping_at(step))
    assert {RunStore(one).last_step for one in folders(root)} == {step}
    return folders(root)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The function that returns the folders of three runs that nothing interrupted. Read them, or copy them."""
    root = tmp_path_factory.mktemp("whole")

    def make(kind: str = "full batch", n_steps: int = N_STEPS) -> list[Path]:
        found = folders(root / f"{kind} {n_steps}")
        if not found[0].exists():
            assert train_together(three(kind, n_steps), found) == {}
        return found

    return make


@pytest.fixture
def finished(whole: Whole, tmp_path: Path) -> list[Path]:
    """Copies of three finished runs that a test may change."""
    shutil.copytree(whole()[0].parent, tmp_path / "finished")
    return folders(tmp_path / "finished")


@pytest.fixture
def everything(saved: Callable[[Path], Saved]) -> Callable[[list[Path]], list[Saved]]:
    """The function that reads all that runs have saved, as raw bytes."""
    return lambda paths: [saved(path) for path in paths]


def test_each_run_is_kept_as_if_it_had_trained_alone(whole: Whole, tmp_path: Path):
    for i, (path, config) in enumerate(zip(whole(), three(), strict=True)):
        together, alone = Trajectory.open(path), training.train(config, path.name, tmp_path)
        assert list(RunStore(path).damage()) == []
        fixed = checkpoint_schedule.parse(config.checkpoints).fixed_steps(N_STEPS)
        assert together.steps.tolist() == fixed.tolist() == alone.steps.tolist()
        assert together.log.steps.tolist() == [0, 5, 10, 15, 20]
        for name, column in alone.log.arrays.items():
            assert together.log.arrays[name] == pytest.approx(column, rel=1e-3)
        record = Record.read(path)
        assert (record.config, record.history) == (config, ())
        own = record.environment["ensemble"]
        assert record.environment == {**Record.read(tmp_path / path.name).environment, "ensemble": own}
        assert own.startswith(f"run {i + 1} of 3, ")


@pytest.mark.parametrize("kind", KINDS)
def test_runs_stopped_twice_go_on_to_the_bit(kind: str, whole: Whole, tmp_path: Path, everything: Callable):
    paths = stopped(tmp_path, 7, three(kind))
    with pytest.raises(InterruptedRunError):
        train_together(three(kind), paths, observer=stopping_at(13))
    assert train_together(three(kind), paths) == {}
    assert everything(paths) == everything(whole(kind))
    assert [Record.read(path).history for path in paths] == [()] * 3


def test_the_comparison_catches_a_resume_that_forgets_what_the_optimizer_remembers(
    whole: Whole, tmp_path: Path, everything: Callable, monkeypatch: pytest.MonkeyPatch
):
    """The control of the tests around it."""
    paths, load = stopped(tmp_path, 7), Ensemble.load

    def forgetful(self: Ensemble, i: int, resumed: dict[str, torch.Tensor]) -> None:
        load(self, i, {name: one * (i != 1 or not name.endswith("exp_avg")) for name, one in resumed.items()})

    monkeypatch.setattr(Ensemble, "load", forgetful)
    train_together(three(), paths)
    same = [one == other for one, other in zip(everything(paths), everything(whole()), strict=True)]
    assert same == [True, False, True]


CHILD = """
import json, os, signal, sys, time
from pathlib import Path
import torch
from grokscope.disk import atomic
from grokscope.training import checkpointer
from grokscope.config import from_dict
from grokscope.training.train_ensemble import train_together

torch.set_num_threads(1)
checkpointer.SEGMENT_SECONDS = 0.0
os.fsync = lambda descriptor: None

def live(root, configs, name, n):
    left, write = n, atomic.write_atomic

    def dying(path, *parts):
        nonlocal left
        if any(part == name or part.startswith(f".{name}.") for part in path.parts):
            left -= 1
            if left == 0:
                time.sleep(0.5)  # The others write at this moment: now they have what this one lacks.
                os.kill(os.getpid(), signal.SIGKILL)
        write(path, *parts)

    atomic.write_atomic = dying
    train_together(configs, [root / one for one in "abc"])

given = json.load(sys.stdin)
for root, name, n in given["kills"]:
    if (child := os.fork()) == 0:
        try:
            live(Path(root), [from_dict(one) for one in given["configs"]], name, n)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
"""


def test_killed_between_the_commits_of_different_runs_they_go_on_to_the_bit(
    whole: Whole, tmp_path: Path, everything: Callable
):
    """The first two writes of a run make its folder, the others are its segments after steps 4, 5, 8, 10, …"""
    last_of_it = {("b", 1): -1, ("a", 3): 0, ("b", 8): 12, ("c", 10): 16}
    kills = [(str(tmp_path / f"{name}{n}"), name, n) for name, n in last_of_it]
    job = json.dumps({"configs": [one.to_dict() for one in three()], "kills": kills})
    command = [sys.executable, "-W", "ignore", "-c", CHILD]
    subprocess.run(command, input=job, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    for root, name, n in kills:
        paths = folders(Path(root))
        lasts = {path.name: RunStore(path).last_step if path.exists() else -1 for path in paths}
        assert lasts[name] == last_of_it[name, n] < max(lasts.values()), "it is to die with the others ahead of it"
        assert train_together(three(), paths) == {}
        assert everything(paths) == everything(whole()), root


def test_runs_whose_folder_is_lost_are_made_again(finished: list[Path], whole: Callable, everything: Callable):
    shutil.rmtree(finished[1])
    assert train_together(three(), finished) == {}
    assert everything(finished) == everything(whole())


def test_runs_are_made_longer_as_if_they_had_been_so_from_the_start(
    finished: list[Path], whole: Whole, everything: Callable
):
    train_together(three(n_steps=30), finished)
    for longer, expected in zip(everything(finished), everything(whole(n_steps=30)), strict=True):
        assert expected.items() <= longer.items()
    assert {Record.read(path).history[0]["event"] for path in finished} == {"lengthened"}
    with pytest.raises(GrokscopeError, match="n_steps: 20 would shorten .*; allowed: from 30"):
        train_together(three(), finished)
    assert {Record.read(path).config.n_steps for path in finished} == {30}


def test_finished_runs_are_left_as_they_are(finished: list[Path], monkeypatch: pytest.MonkeyPatch):
    before = {path: path.stat().st_mtime_ns for path in finished[0].parent.rglob("*") if path.name != LOCK}
    monkeypatch.setattr(environment, "NUMERICS", "0")  # Where there is nothing to do, nothing can drift.
    assert train_together(three(), finished) == {}
    assert {path: path.stat().st_mtime_ns for path in before} == before


# Drift.


def test_alone_a_run_goes_on_only_with_drift_allowed_and_that_is_recorded(tmp_path: Path):
    path = stopped(tmp_path, 7)[1]
    with pytest.raises(GrokscopeError, match="ensemble was run 2 of 3, [0-9a-f]{16}, is none.*--allow-drift"):
        training.resume(path)
    assert training.resume(path, allow_drift=True).last.step == N_STEPS
    (event,) = Record.read(path).history
    assert event["step"] == 7 and event["drift"][0].startswith("ensemble was run 2 of 3")
    with pytest.raises(GrokscopeError, match="ensemble was not recorded, is run 2 of 3"):
        train_together(three(), folders(tmp_path))


@pytest.mark.parametrize("chosen", [(0, 1), (2, 1, 0), (0, 2, 1)], ids=str)
def test_with_other_companions_or_in_another_order_runs_do_not_go_on(chosen: tuple[int, ...], tmp_path: Path):
    paths = stopped(tmp_path, 7)
    given = [three()[i] for i in chosen], [paths[i] for i in chosen]
    with pytest.raises(GrokscopeError, match=r"ensemble was run \d of 3, \w+, is run \d of \d"):
        train_together(*given)
    assert train_together(*given, allow_drift=True) == {}
    for path in given[1]:
        assert RunStore(path).last_step == N_STEPS and list(RunStore(path).damage()) == []


def test_a_run_that_drift_would_take_back_is_refused(tmp_path: Path, everything: Callable):
    """Its later checkpoints would be of one trajectory, and what follows of another."""
    paths = stopped(tmp_path, 7)
    training.resume(paths[1], allow_drift=True)
    before = everything(paths)
    with pytest.raises(GrokscopeError, match=f"{paths[1]} is at step 20, .* at 7"):
        train_together(three(), paths, allow_drift=True)
    assert everything(paths) == before and len(Record.read(paths[1]).history) == 1


def test_a_folder_with_another_config_is_refused_whatever_is_allowed(tmp_path: Path):
    paths = stopped(tmp_path, 7)
    others = [dataclasses.replace(one, init_seed=9) for one in three()]
    with pytest.raises(GrokscopeError, match=f"{paths[0]} has other settings"):
        train_together(others, paths, allow_drift=True)


def test_with_a_segment_that_cannot_be_read_all_go_on_from_the_last_step_that_all_can(
    tmp_path: Path, whole: Whole, everything: Callable, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(checkpointer, "SEGMENT_CHECKPOINTS", 2)
    paths = stopped(tmp_path, 13)
    segment = RunStore(paths[2]).resume_points()[-1].path
    flip(segment, 8 * place(segment, "resume/parameters/unembed.W_U")[0])
    train_together(three(), paths)
    assert everything(paths) == everything(whole())


def test_a_run_that_another_process_writes_is_left_and_the_others_with_it(tmp_path: Path):
    paths = stopped(tmp_path, 7)
    with Lock(paths[1]), pytest.raises(BusyError, match=f"{paths[1]} is being written by process"):
        train_together(three(), paths)
    assert not any(is_locked(path) for path in paths)
    assert {RunStore(path).last_step for path in paths} == {7}


# A number that is not finite.


def wild() -> list[RunConfig]:
    """Return three runs of which the second diverges."""
    first, second, third = three(n_steps=40)
    return [first, dataclasses.replace(second, optimizer=dataclasses.replace(second.optimizer, lr=100.0)), third]


def test_a_run_that_diverges_keeps_what_it_saved_and_the_others_finish(
    tmp_path: Path, everything: Callable, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(checkpointer, "SEGMENT_CHECKPOINTS", 2)
    paths = folders(tmp_path)
    failed = train_together(wild(), paths)
    assert list(failed) == [paths[1]]
    assert str(failed[paths[1]]).startswith("A loss, gradient or weight is not finite at step ")
    kept = Trajectory.open(paths[1])
    assert 0 < kept.last.step < 40 and all(torch.isfinite(one).all() for one in kept.last.parameters.values())
    others = [paths[0], paths[2]]
    for path, config in zip(others, (wild()[0], wild()[2]), strict=True):
        alone, together = training.train(config, path.name, tmp_path / "alone"), Trajectory.open(path)
        assert together.steps.tolist() == alone.steps.tolist()
        assert together.log.arrays["test_loss"] == pytest.approx(alone.log.arrays["test_loss"], rel=1e-2)
    before = everything(others)
    assert str(train_together(wild(), paths)[paths[1]]) == str(failed[paths[1]])
    assert everything(others) == before and Trajectory.open(paths[1]).steps.tolist() == kept.steps.tolist()


def test_a_run_that_diverged_does_not_hold_the_others_back_when_they_go_on(
    tmp_path: Path, everything: Callable, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(checkpointer, "SEGMENT_CHECKPOINTS", 2)
    whole, paths, began = folders(tmp_path / "whole"), folders(tmp_path), []
    expected = train_together(wild(), whole)[whole[1]]
    with pytest.raises(InterruptedRunError):
        train_together(wild(), paths, observer=stopping_at(33))
    assert RunStore(paths[1]).last_step < 33, "it has failed by then"
    assert str(train_together(wild(), paths, observer=began.append)[paths[1]]) == str(expected)
    others = [0, 2]
    assert began[0] == 34
    assert everything([paths[i] for i in others]) == everything([whole[i] for i in others])
    # Nor does it when all is done: nothing is trained once more.
    assert str(train_together(wild(), paths, observer=began.append)[paths[1]]) == str(expected)
    assert len(began) == 40 - 33
