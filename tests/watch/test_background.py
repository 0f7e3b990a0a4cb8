"""The background watcher: it starts once, its failures are reported once, and it ends with the training."""

import time

import pytest

from grokscope import Trajectory
from grokscope.watch import BackgroundWatcher, background


class Failure(Exception):
    """Ends a block."""


def test_training_with_a_watcher_is_the_same(grokscope, tiny_run, tiny_config, toml, tmp_path, monkeypatch):
    (tmp_path / "tiny.toml").write_text(toml(tiny_config.to_dict()))
    monkeypatch.setattr(background.sys, "executable", "/bin/echo")
    status, output, errors = grokscope("train", tmp_path / "tiny.toml", "--root", tmp_path / "runs", "--live")
    folder = tmp_path / "runs" / "tiny"
    assert status == 0 and "next: grokscope report" in output
    assert f"-m grokscope watch {folder} --until-end" in errors
    assert Trajectory.open(folder).digest == Trajectory.open(tiny_run).digest


def test_watcher_that_cannot_start_is_reported_once(tmp_path, monkeypatch):
    monkeypatch.setattr(background.sys, "executable", "/nowhere/python")
    messages: list[str] = []
    steps: list[int] = []
    with BackgroundWatcher(tmp_path, messages.append) as watcher:
        observe = watcher.wrap(lambda step, row: steps.append(step))
        for step in (1, 2, 3):
            observe(step, {})
    assert steps == [1, 2, 3]
    assert messages == ["The run cannot be watched: No such file or directory. Training continues."]


def test_watcher_ends_when_the_training_fails(tmp_path, monkeypatch):
    program = tmp_path / "sleeper"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(background.sys, "executable", str(program))
    started = time.monotonic()
    with pytest.raises(Failure), BackgroundWatcher(tmp_path, print) as watcher:
        watcher.wrap(lambda step, row: None)(1, {})
        process = watcher._process
        raise Failure
    assert process is not None and process.poll() is not None and time.monotonic() - started < 20
