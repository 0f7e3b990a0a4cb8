"""Runs that their rule ends, resumed across the stop, beyond it, forked, densified and in an ensemble."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.shared import Saved, command_line, make_tiny_config

from grokscope import Trajectory, training
from grokscope.config import RunConfig
from grokscope.report.sentences import summary
from grokscope.store.run_store import RunStore
from grokscope.sweep import results, sweep_folder
from grokscope.sweep.plan import Cell, Sweep
from grokscope.training import checkpointer
from grokscope.training.fork import fork
from grokscope.training.train_ensemble import train_ensemble

Read = Callable[[Path], Saved]
RULE = "train_loss < 1.7 for 6"


def config(**changes: Any) -> RunConfig:
    tiny = dataclasses.replace(
        make_tiny_config(), n_steps=40, checkpoints="every 10 + adaptive 0.3", evaluate_every=2, max_checkpoints=12
    )
    return dataclasses.replace(tiny, **changes)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same run without a rule ("free") and with one ("stopped")."""
    root = tmp_path_factory.mktemp("stopping")
    training.train(config(), "free", root)
    training.train(config(stop=RULE), "stopped", root)
    return root


@pytest.fixture
def stopped(runs: Path, tmp_path: Path) -> Path:
    return shutil.copytree(runs / "stopped", tmp_path / "stopped")


def content(folder: Path, read: Read, kinds: tuple[str, ...] = ("checkpoint", "log")) -> Saved:
    return {key: value for key, value in read(folder).items() if key[0] in kinds}


def first_stop(runs: Path) -> int:
    """Return the step at which the rule is met, computed from the log of the run without a rule."""
    log = Trajectory.open(runs / "free").log
    low = {int(step): loss < 1.7 for step, loss in zip(log.steps, log["train_loss"], strict=True)}
    return next(step for step in low if step >= 6 and all(low[step - before] for before in (0, 2, 4, 6)))


def test_run_ends_where_its_log_first_meets_the_rule(runs: Path, saved: Read):
    step, run = first_stop(runs), RunStore(runs / "stopped")
    assert 10 < step < 40 and step % 10, "the stop must be no scheduled checkpoint, and before the last step"
    assert run.last_step == run.end_step == step == run.log.rows[-1, 0] == run.steps[-1]
    assert str(run.stopped) == f"stopped at {step}: train loss < 1.7 for 6 steps"
    free = content(runs / "free", saved)
    own = content(runs / "stopped", saved)
    assert own.items() - free.items() <= {item for item in own.items() if step in item[0]}
    assert Trajectory.open(runs / "free").stopped is None and RunStore(runs / "free").end_step == 40


def test_resume_leaves_a_stopped_run_unchanged(stopped: Path, saved: Read):
    before = saved(stopped)
    training.resume(stopped)
    assert saved(stopped) == before


@pytest.mark.parametrize("n_steps", [40, 50])
def test_run_continues_beyond_its_stop_to_the_bit(
    n_steps: int, runs: Path, stopped: Path, tmp_path: Path, saved: Read
):
    step = first_stop(runs)
    training.resume(stopped, n_steps)
    run = RunStore(stopped)
    assert run.last_step == run.end_step == n_steps and run.stopped is not None and run.stopped.step == step
    free = runs / "free"
    if n_steps > 40:
        training.train(config(n_steps=50), "long", tmp_path)
        free = tmp_path / "long"
    expected, own = content(free, saved), content(stopped, saved)
    assert expected.items() <= own.items(), "every checkpoint and row of a run without a rule, with the same bits"
    assert len(own.keys() - expected.keys()) >= 1, "and the checkpoint of the stop"


def test_interrupted_run_stops_at_the_same_step(
    runs: Path, tmp_path: Path, saved: Read, monkeypatch: pytest.MonkeyPatch
):
    step = first_stop(runs)

    class Interruption(Exception): ...

    def interrupt(now: int, row: dict[str, float]) -> None:
        if now == step - 3:
            raise Interruption

    with pytest.raises(Interruption):
        training.train(config(stop=RULE), "stopped", tmp_path, observer=interrupt)
    assert RunStore(tmp_path / "stopped").stopped is None
    training.resume(tmp_path / "stopped")
    kinds = ("checkpoint", "log", "resume")
    own, expected = content(tmp_path / "stopped", saved, kinds), content(runs / "stopped", saved, kinds)
    last = {key: value for key, value in own.items() if key in expected}
    assert last == expected


def test_rule_that_holds_at_once_leaves_one_step(tmp_path: Path):
    trajectory = training.train(config(stop="train_accuracy >= 0"), "run", tmp_path)
    assert trajectory.steps.tolist() == [0] and str(trajectory.stopped) == "stopped at 0: train accuracy ≥ 0%"
    assert training.resume(tmp_path / "run", n_steps=40).steps[-1] == 40


def test_fork_continues_the_rule_of_its_origin(runs: Path, tmp_path: Path, saved: Read):
    step = first_stop(runs)
    before = fork(runs / "stopped", step - 2, run="before", root=tmp_path)
    assert before.stopped is not None and before.stopped.step == step and before.steps[-1] == step
    after = fork(runs / "stopped", step, run="after", root=tmp_path)
    assert after.steps[-1] == 40
    other = config(stop="train_loss < 1.7 for 8")
    changed = fork(runs / "stopped", step - 2, other, run="changed", root=tmp_path)
    assert changed.stopped is not None and changed.stopped.step > step + 2, "a changed rule counts from the fork"


def test_stopped_run_is_densified_up_to_its_stop(stopped: Path, runs: Path):
    step = first_stop(runs)
    trajectory = training.densify(stopped, step - 4, step)
    assert set(range(step - 4, step + 1)) <= set(trajectory.steps.tolist())


def test_ensemble_stops_each_run_and_resumes_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    configs = [config(stop=RULE, checkpoints="every 10", init_seed=seed) for seed in (0, 1)]
    configs[1] = dataclasses.replace(configs[1], optimizer=dataclasses.replace(configs[1].optimizer, lr=1e-5))
    folders = [tmp_path / "fast", tmp_path / "slow"]

    def interrupt(step: int) -> None:
        if step == 36:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpointer, "SEGMENT_CHECKPOINTS", 1)
    with pytest.raises(KeyboardInterrupt):
        train_ensemble(configs, folders, observer=interrupt)
    fast = RunStore(folders[0])
    assert fast.stopped is not None and fast.end_step == fast.last_step < 36
    train_ensemble(configs, folders)
    assert RunStore(folders[0]).last_step == fast.last_step
    assert RunStore(folders[1]).last_step == 40 and RunStore(folders[1]).stopped is None


def test_sweep_table_tells_stopped_from_censored(tmp_path: Path):
    slow = dataclasses.replace(config().optimizer, lr=1e-5)
    cells = [
        Cell("a", {"lr": 1}, config(stop=RULE, checkpoints="every 20")),
        Cell("b", {"lr": 2}, config(stop=RULE, checkpoints="every 20", optimizer=slow)),
    ]
    plan = Sweep(tuple(cells))
    sweep_folder.save(plan, tmp_path)
    for cell in cells:
        training.train(cell.config, cell.name, tmp_path)
    stopped, censored = results.cell_rows(plan, tmp_path)
    assert stopped["state"] == censored["state"] == "finished"
    assert stopped["stopped_by"] == "train loss < 1.7 for 6 steps" and censored["stopped_by"] == ""
    assert stopped["steps"] < censored["steps"] == 40
    assert [row["n_stopped"] for row in results.summarize([stopped, censored], ["lr"])] == [1, 0]


def test_commands_state_where_and_why_a_run_stopped(
    stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    run, step = command_line(capsys, monkeypatch, tmp_path / "cwd"), RunStore(stopped).last_step
    sentence = f"stopped at {step}: train loss < 1.7 for 6 steps"
    status, output, _ = run("resume", stopped)
    assert status == 0 and f"{stopped} is finished: {sentence}. To train further, add --n-steps N." in output
    rows = [json.loads(line) for line in run("log", stopped)[1].splitlines()]
    assert rows[-1] == {"stopped_at": step, "reason": "train loss < 1.7 for 6 steps"} and rows[-2]["step"] == step
    assert sentence in run("list", "runs", "--root", stopped.parent)[1]
    status, output, _ = run("resume", stopped, "--n-steps", 40)
    assert status == 0 and f"{sentence}, and the run was continued to step 40." in output
    assert RunStore(stopped).last_step == 40


def test_summary_of_a_stopped_run_is_that_of_a_finished_one(runs: Path):
    trajectory = Trajectory.open(runs / "stopped")
    assert trajectory.end_step == trajectory.steps[-1]
    assert trajectory.stopped is not None
    assert (
        trajectory.stopped.sentence(trajectory.end_step)
        == f"Training stopped at {trajectory.end_step}: train loss < 1.7 for 6 steps."
    )
    assert f"within {trajectory.end_step}" in summary(trajectory.log, trajectory.end_step)
    assert "of 40" in summary(trajectory.log, trajectory.config.n_steps)
