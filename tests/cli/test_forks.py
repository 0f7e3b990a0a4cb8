"""`grokscope fork`: the new run, its settings, and the messages for mistakes."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from support.shared import Command, command_line, make_tiny_config

from grokscope.store.run_store import Record
from grokscope.trajectory import Trajectory
from grokscope.watch import background


@pytest.fixture
def grokscope(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """A function that runs a command in an empty folder."""
    return command_line(capsys, monkeypatch, tmp_path / "here")


def test_fork_has_the_origin_s_settings_except_for_flags(grokscope: Command, run_copy: Path):
    status, output, errors = grokscope(
        "fork", run_copy, "--step", 25, "--run", "new", "--optimizer.weight-decay", 0, "--n-steps", 70
    )
    assert status == 0, errors
    assert "Step 25 has no resume state" in output
    assert "Continues copy from step 25 with optimizer.weight_decay 1.0 → 0.0; n_steps 60 → 70." in output
    tiny = make_tiny_config()
    expected = dataclasses.replace(tiny, optimizer=dataclasses.replace(tiny.optimizer, weight_decay=0.0), n_steps=70)
    assert Record.read(Path("checkpoints/new")).config == expected
    assert grokscope("verify", "new")[0] == 0
    assert "forked from copy at 25" in grokscope("list", "runs")[1]


def test_forked_run_can_be_forked_and_resumed(grokscope: Command, run_copy: Path):
    assert grokscope("fork", run_copy, "--step", 50, "--run", "new")[0] == 0
    assert grokscope("fork", "new", "--step", 60, "--n-steps", 62)[0] == 0
    assert Path("checkpoints/new-fork").is_dir()
    assert grokscope("resume", "new-fork", "--n-steps", 65)[0] == 0
    assert json.loads(grokscope("log", "new-fork")[1].splitlines()[0])["step"] == 60


def test_fork_starts_the_tracker_of_its_new_run(grokscope: Command, run_copy: Path, monkeypatch: pytest.MonkeyPatch):
    assert grokscope("fork", run_copy, "--step", 50, "--run", "plain")[0] == 0
    monkeypatch.setattr(background.sys, "executable", "/bin/echo")
    flags = ["--step", 50, "--run", "tracked", "--track", "tensorboard", "--track-project", "forks"]
    status, _, errors = grokscope("fork", run_copy, *flags)
    folder = Path("checkpoints/tracked").resolve()
    assert status == 0 and f"-m grokscope track {folder} --to tensorboard --project forks --follow" in errors
    assert Record.read(Path("checkpoints/tracked")).config == Record.read(Path("checkpoints/plain")).config
    assert Trajectory.open(folder).digest == Trajectory.open("checkpoints/plain").digest


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["--step", 25, "--model.d-model", 32], 1, "model.d_model: 32 changes the parameters' shapes"),
        (["--step", 99], 1, "step: 99 is not a trained step"),
        (["--step", 25, "--optimizer.lr", -1], 2, "optimizer.lr: -1"),
        (["--step", 25, "--run", "../x"], 2, "is not a valid name for a run"),
        ([], 2, "--step"),
    ],
)
def test_mistake_prints_one_message(flags: list[Any], status: int, message: str, grokscope: Command, run_copy: Path):
    exit_status, _, errors = grokscope("fork", run_copy, *flags)
    assert (exit_status, message in errors) == (status, True), errors
    assert not Path("checkpoints").exists()


def test_taken_name_is_refused_before_any_training(grokscope: Command, run_copy: Path):
    assert grokscope("fork", run_copy, "--step", 50, "--run", "new", "--batch-size", "none")[0] == 0
    status, output, errors = grokscope("fork", run_copy, "--step", 25, "--run", "new")
    assert status == 1 and "already exists" in errors and output == ""
    assert "is not a run" in grokscope("fork", "nothing", "--step", 1)[2]
