"""Runs that train together: stored like any run, and exact to the bit after stops, kills and lost files."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from support.shared import KINDS, Saved, companions, damage_of, flip, make_tiny_config, of_kind, place

from grokscope import Trajectory, environment, training
from grokscope.config import RunConfig, checkpoint_schedule
from grokscope.disk.lock import LOCK_NAME, Lock, is_locked
from grokscope.errors import BusyError, GrokscopeError
from grokscope.store.run_store import Record, RunStore
from grokscope.training import checkpointer
from grokscope.training.ensemble import Ensemble
from grokscope.training.signals import InterruptedRunError
from grokscope.training.train_ensemble import POSITION, ensemble_positions, train_ensemble

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

Uninterrupted = Callable[..., list[Path]]
ReadAll = Callable[[list[Path]], list[Saved]]
N_STEPS = 20


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Compute with one thread, as the child processes do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def three_configs(kind: str = "full batch", n_steps: int = N_STEPS) -> list[RunConfig]:
    config = dataclasses.replace(make_tiny_config(), n_steps=n_steps, checkpoints="every 4", evaluate_every=5)
    return companions(of_kind(config, kind))


def three_folders(root: Path) -> list[Path]:
    return [root / name for name in "abc"]


def interrupt_at(step: int) -> Callable[[int], None]:
    """Return an observer that raises SIGTERM at a step."""
    return lambda now: signal.raise_signal(signal.SIGTERM) if now == step else None


def train_until(root: Path, step: int, configs: list[RunConfig] | None = None) -> list[Path]:
    """Train three runs together until a signal at a step, and return their folders."""
    paths = three_folders(root)
    with pytest.raises(InterruptedRunError):
        train_ensemble(configs or three_configs(), paths, observer=interrupt_at(step))
    assert {RunStore(path).last_step for path in paths} == {step}
    return paths


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Uninterrupted:
    """A function that returns the folders of three uninterrupted runs; tests must not change them."""
    root = tmp_path_factory.mktemp("uninterrupted")

    def train(kind: str = "full batch", n_steps: int = N_STEPS) -> list[Path]:
        paths = three_folders(root / f"{kind} {n_steps}")
        if not paths[0].exists():
            assert train_ensemble(three_configs(kind, n_steps), paths) == {}
        return paths

    return train


@pytest.fixture
def finished(uninterrupted: Uninterrupted, tmp_path: Path) -> list[Path]:
    """Copies of three finished runs that a test may change."""
    shutil.copytree(uninterrupted()[0].parent, tmp_path / "finished")
    return three_folders(tmp_path / "finished")


@pytest.fixture
def saved_by(saved: Callable[[Path], Saved]) -> ReadAll:
    """A function that reads everything that some runs have saved."""
    return lambda paths: [saved(path) for path in paths]


# Exact training and resume.


def test_each_run_is_stored_as_if_it_trained_alone(uninterrupted: Uninterrupted, tmp_path: Path):
    for i, (path, config) in enumerate(zip(uninterrupted(), three_configs(), strict=True)):
        together, alone = Trajectory.open(path), training.train(config, path.name, tmp_path)
        assert damage_of(RunStore(path)) == []
        fixed = checkpoint_schedule.parse(config.checkpoints).fixed_steps(N_STEPS)
        assert together.steps.tolist() == fixed.tolist() == alone.steps.tolist()
        assert together.log.steps.tolist() == [0, 5, 10, 15, 20]
        for name, column in alone.log.arrays.items():
            assert together.log.arrays[name] == pytest.approx(column, rel=1e-3)
        record = Record.read(path)
        assert (record.config, record.history) == (config, ())
        position = record.environment["ensemble"]
        assert record.environment == {**Record.read(tmp_path / path.name).environment, "ensemble": position}
        assert position.startswith(f"run {i + 1} of 3, ")


def test_position_names_the_run_and_its_ensemble():
    positions = [POSITION.fullmatch(position) for position in ensemble_positions(three_configs())]
    assert [match["i"] for match in positions if match] == ["1", "2", "3"]
    assert len({match["ensemble"] for match in positions if match}) == 1
    assert ensemble_positions(three_configs()[::-1])[0] != ensemble_positions(three_configs())[0]


@pytest.mark.parametrize("kind", KINDS)
def test_runs_stopped_twice_resume_to_the_bit(
    kind: str, uninterrupted: Uninterrupted, tmp_path: Path, saved_by: ReadAll
):
    paths = train_until(tmp_path, 7, three_configs(kind))
    with pytest.raises(InterruptedRunError):
        train_ensemble(three_configs(kind), paths, observer=interrupt_at(13))
    assert train_ensemble(three_configs(kind), paths) == {}
    assert saved_by(paths) == saved_by(uninterrupted(kind))
    assert [Record.read(path).history for path in paths] == [()] * 3


def test_comparison_notices_a_forgotten_optimizer_state(
    uninterrupted: Uninterrupted, tmp_path: Path, saved_by: ReadAll, monkeypatch: pytest.MonkeyPatch
):
    """The control of the tests around it."""
    paths, load = train_until(tmp_path, 7), Ensemble.load

    def forgetful_load(self: Ensemble, i: int, resume_state: dict[str, torch.Tensor]) -> None:
        is_lost = {name: i == 1 and name.endswith("exp_avg") for name in resume_state}
        load(self, i, {name: tensor * (not is_lost[name]) for name, tensor in resume_state.items()})

    monkeypatch.setattr(Ensemble, "load", forgetful_load)
    train_ensemble(three_configs(), paths)
    is_equal = [
        content == expected for content, expected in zip(saved_by(paths), saved_by(uninterrupted()), strict=True)
    ]
    assert is_equal == [True, False, True]


CHILD = """
import json, os, signal, sys, time
from pathlib import Path
import torch
from grokscope.disk import atomic
from grokscope.training import checkpointer
from grokscope.config import from_dict
from grokscope.training.train_ensemble import train_ensemble

torch.set_num_threads(1)
checkpointer.SEGMENT_SECONDS = 0.0
os.fsync = lambda descriptor: None

def train(root, configs, name, n):
    n_left, write = n, atomic.write_atomic

    def deadly_write(path, *parts):
        nonlocal n_left
        if any(part == name or part.startswith(f".{name}.") for part in path.parts):
            n_left -= 1
            if n_left == 0:
                time.sleep(0.5)  # The other runs write meanwhile, so they get ahead of this one.
                os.kill(os.getpid(), signal.SIGKILL)
        write(path, *parts)

    atomic.write_atomic = deadly_write
    train_ensemble(configs, [root / folder for folder in "abc"])

job = json.load(sys.stdin)
for root, name, n in job["kills"]:
    if (child := os.fork()) == 0:
        try:
            train(Path(root), [from_dict(config) for config in job["configs"]], name, n)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
"""


@pytest.mark.slow
def test_runs_killed_between_their_commits_resume_to_the_bit(
    uninterrupted: Uninterrupted, tmp_path: Path, saved_by: ReadAll
):
    """The first two writes of a run create its folder; the others are its segments after steps 4, 5, 8, 10, …"""
    last_steps = {("b", 1): -1, ("a", 3): 0, ("b", 8): 12, ("c", 10): 16}
    kills = [(str(tmp_path / f"{name}{n}"), name, n) for name, n in last_steps]
    job = json.dumps({"configs": [config.to_dict() for config in three_configs()], "kills": kills})
    command = [sys.executable, "-W", "ignore", "-c", CHILD]
    subprocess.run(command, input=job, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    for root, name, n in kills:
        paths = three_folders(Path(root))
        lasts = {path.name: RunStore(path).last_step if path.exists() else -1 for path in paths}
        assert lasts[name] == last_steps[name, n] < max(lasts.values()), "the other runs must be ahead"
        assert train_ensemble(three_configs(), paths) == {}
        assert saved_by(paths) == saved_by(uninterrupted()), root


def test_lost_folder_is_retrained(finished: list[Path], uninterrupted: Uninterrupted, saved_by: ReadAll):
    shutil.rmtree(finished[1])
    assert train_ensemble(three_configs(), finished) == {}
    assert saved_by(finished) == saved_by(uninterrupted())


@pytest.mark.slow
def test_lengthened_runs_equal_long_runs(finished: list[Path], uninterrupted: Uninterrupted, saved_by: ReadAll):
    train_ensemble(three_configs(n_steps=30), finished)
    for content, expected in zip(saved_by(finished), saved_by(uninterrupted(n_steps=30)), strict=True):
        assert expected.items() <= content.items()
    assert {Record.read(path).history[0]["event"] for path in finished} == {"lengthened"}
    with pytest.raises(GrokscopeError, match=r"n_steps: 20 would shorten .*\. Allowed: from 30"):
        train_ensemble(three_configs(), finished)
    assert {Record.read(path).config.n_steps for path in finished} == {30}


def test_finished_runs_do_not_change(finished: list[Path], monkeypatch: pytest.MonkeyPatch):
    before = {path: path.stat().st_mtime_ns for path in finished[0].parent.rglob("*") if path.name != LOCK_NAME}
    # Drift does not matter, because no step remains.
    monkeypatch.setattr(environment, "NUMERICS", "0")
    assert train_ensemble(three_configs(), finished) == {}
    assert {path: path.stat().st_mtime_ns for path in before} == before


# Drift, other settings and damaged files.


def test_run_continues_alone_only_with_allowed_drift(tmp_path: Path):
    path = train_until(tmp_path, 7)[1]
    with pytest.raises(GrokscopeError, match="ensemble was run 2 of 3, [0-9a-f]{16}, is none.*--allow-drift"):
        training.resume(path)
    assert training.resume(path, allow_drift=True).last.step == N_STEPS
    (event,) = Record.read(path).history
    assert event["step"] == 7 and event["drift"][0].startswith("ensemble was run 2 of 3")
    with pytest.raises(GrokscopeError, match="ensemble was not recorded, is run 2 of 3"):
        train_ensemble(three_configs(), three_folders(tmp_path))


@pytest.mark.parametrize("order", [(0, 1), (2, 1, 0), (0, 2, 1)], ids=str)
def test_other_companions_or_order_need_allowed_drift(order: tuple[int, ...], tmp_path: Path):
    paths = train_until(tmp_path, 7)
    configs, folders = [three_configs()[i] for i in order], [paths[i] for i in order]
    with pytest.raises(GrokscopeError, match=r"ensemble was run \d of 3, \w+, is run \d of \d"):
        train_ensemble(configs, folders)
    assert train_ensemble(configs, folders, allow_drift=True) == {}
    for path in folders:
        assert RunStore(path).last_step == N_STEPS and damage_of(RunStore(path)) == []


def test_run_ahead_of_its_ensemble_is_not_rewritten_under_drift(tmp_path: Path, saved_by: ReadAll):
    """Its later checkpoints would belong to one trajectory, and the following ones to another."""
    paths = train_until(tmp_path, 7)
    training.resume(paths[1], allow_drift=True)
    before = saved_by(paths)
    with pytest.raises(GrokscopeError, match=f"{paths[1]} is at step 20 and its ensemble at step 7"):
        train_ensemble(three_configs(), paths, allow_drift=True)
    assert saved_by(paths) == before and len(Record.read(paths[1]).history) == 1


def test_folder_with_another_config_is_always_refused(tmp_path: Path):
    paths = train_until(tmp_path, 7)
    other_configs = [dataclasses.replace(config, init_seed=9) for config in three_configs()]
    with pytest.raises(GrokscopeError, match=f"{paths[0]} has other settings"):
        train_ensemble(other_configs, paths, allow_drift=True)


def test_all_runs_resume_from_the_last_common_readable_step(
    tmp_path: Path, uninterrupted: Uninterrupted, saved_by: ReadAll, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(checkpointer, "SEGMENT_CHECKPOINTS", 2)
    paths = train_until(tmp_path, 13)
    segment = RunStore(paths[2]).resume_points()[-1].path
    flip(segment, 8 * place(segment, "resume/parameters/unembed.W_U")[0])
    train_ensemble(three_configs(), paths)
    assert saved_by(paths) == saved_by(uninterrupted())


def test_one_locked_run_leaves_all_runs_unchanged(tmp_path: Path):
    paths = train_until(tmp_path, 7)
    with Lock(paths[1]), pytest.raises(BusyError, match=f"{paths[1]} is being written by process"):
        train_ensemble(three_configs(), paths)
    assert not any(is_locked(path) for path in paths)
    assert {RunStore(path).last_step for path in paths} == {7}


# Numbers that are not finite.


def configs_with_a_diverging_run() -> list[RunConfig]:
    """Return three configs, of which the second diverges."""
    first, second, third = three_configs(n_steps=40)
    return [first, dataclasses.replace(second, optimizer=dataclasses.replace(second.optimizer, lr=100.0)), third]


def test_diverging_run_keeps_its_steps_and_others_finish(
    tmp_path: Path, saved_by: ReadAll, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(checkpointer, "SEGMENT_CHECKPOINTS", 2)
    configs, paths = configs_with_a_diverging_run(), three_folders(tmp_path)
    failures = train_ensemble(configs, paths)
    assert list(failures) == [paths[1]]
    assert str(failures[paths[1]]).startswith("A loss, gradient or weight is not finite at step ")
    diverged = Trajectory.open(paths[1])
    assert 0 < diverged.last.step < 40
    assert all(torch.isfinite(tensor).all() for tensor in diverged.last.parameters.values())
    finite = [paths[0], paths[2]]
    for path, config in zip(finite, (configs[0], configs[2]), strict=True):
        alone, together = training.train(config, path.name, tmp_path / "alone"), Trajectory.open(path)
        assert together.steps.tolist() == alone.steps.tolist()
        assert together.log.arrays["test_loss"] == pytest.approx(alone.log.arrays["test_loss"], rel=1e-2)
    before = saved_by(finite)
    assert str(train_ensemble(configs, paths)[paths[1]]) == str(failures[paths[1]])
    assert saved_by(finite) == before and Trajectory.open(paths[1]).steps.tolist() == diverged.steps.tolist()


def test_diverged_run_does_not_hold_back_the_others_on_resume(
    tmp_path: Path, saved_by: ReadAll, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(checkpointer, "SEGMENT_CHECKPOINTS", 2)
    configs, steps = configs_with_a_diverging_run(), []
    whole, paths = three_folders(tmp_path / "whole"), three_folders(tmp_path)
    expected = train_ensemble(configs, whole)[whole[1]]
    with pytest.raises(InterruptedRunError):
        train_ensemble(configs, paths, observer=interrupt_at(33))
    assert RunStore(paths[1]).last_step < 33, "the run must fail before the signal"
    assert str(train_ensemble(configs, paths, observer=steps.append)[paths[1]]) == str(expected)
    assert steps[0] == 34
    assert saved_by([paths[0], paths[2]]) == saved_by([whole[0], whole[2]])
    # A call after the end trains nothing.
    assert str(train_ensemble(configs, paths, observer=steps.append)[paths[1]]) == str(expected)
    assert len(steps) == 40 - 33
