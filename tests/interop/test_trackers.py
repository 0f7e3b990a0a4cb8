"""Trackers: the real packages, offline, get the run's numbers; a tracker that fails leaves the run unchanged."""

import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from support.shared import Command, command_line

from grokscope import measures
from grokscope.errors import GrokscopeError
from grokscope.interop import trackers
from grokscope.interop.trackers import Target
from grokscope.series import Series
from grokscope.trajectory import Trajectory


class Recorder:
    """A tracker that records what it gets, or fails."""

    def __init__(self, failure: Exception | None = None):
        self.rows: dict[int, dict[str, float]] = {}
        self.summary: dict[str, Any] = {}
        self.failure = failure

    def __call__(self, trajectory: Trajectory, target: Target) -> "Recorder":
        return self

    def log(self, step: int, row: dict[str, float]) -> None:
        if self.failure:
            raise self.failure
        assert step > max(self.rows, default=-1), "steps increase strictly"
        self.rows[step] = row

    def summarize(self, values: dict[str, Any]) -> None:
        self.summary |= values

    def finish(self) -> str:
        return "there"


@pytest.fixture
def grokscope(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    return command_line(capsys, monkeypatch, tmp_path / "here")


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(trackers, "TRACKERS", {"tensorboard": recorder})
    return recorder


def log_rows(trajectory: Trajectory) -> dict[int, dict[str, float]]:
    log = trajectory.log
    return {
        int(step): {f"log/{name}": float(array[i]) for name, array in log.arrays.items()}
        for i, step in enumerate(log.steps)
    }


def test_finished_run_is_tracked_with_its_measures(run_copy: Path, recorder: Recorder, grokscope: Command):
    status, output, errors = grokscope("track", run_copy, "--to", "tensorboard", "--measure", "weight_norm")
    assert (status, output) == (0, "tracked in there\n"), errors
    trajectory = Trajectory.open(run_copy)
    norms = measures.saved("weight_norm", trajectory)
    for step, row in log_rows(trajectory).items():
        assert recorder.rows[step].items() >= row.items()
    assert recorder.rows[60]["weight_norm/weight_norm"] == norms["weight_norm"][-1]


def test_follower_writes_each_row_once_until_training_ends(
    run_copy: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
):
    log = Trajectory.open(run_copy).log
    expected = log_rows(Trajectory.open(run_copy))
    parts = [
        Series("log", log.steps[:n], {name: array[:n] for name, array in log.arrays.items()}, log.constants)
        for n in (2, 5, len(log))
    ]
    opened, is_trained = iter(parts), iter([True, True, False])
    monkeypatch.setattr(Trajectory, "log", property(lambda self: next(opened)))
    monkeypatch.setattr(trackers, "is_locked", lambda folder: next(is_trained))
    assert trackers.follow(run_copy, Target("tensorboard"), every=0) == "there"
    assert recorder.rows == expected


@pytest.mark.parametrize("failure", [OSError("network is down"), RuntimeError("quota"), TimeoutError("slow")])
def test_failing_tracker_leaves_the_run_unchanged(failure: Exception, run_copy: Path, recorder: Recorder, saved):
    before, recorder.failure = saved(run_copy), failure
    with pytest.raises(GrokscopeError, match=f"tensorboard: .*{failure}.* The run is unchanged"):
        trackers.track(Trajectory.open(run_copy), Target("tensorboard"))
    assert saved(run_copy) == before


def test_missing_package_is_named_with_its_extra(tiny_run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(GrokscopeError, match=r"trackio is not installed: pip install 'grokscope\[trackio\]'"):
        trackers.track(Trajectory.open(tiny_run), Target("trackio"))


def test_training_goes_on_when_its_tracker_fails(
    tiny_config, tiny_run: Path, toml, tmp_path: Path, grokscope: Command, monkeypatch: pytest.MonkeyPatch
):
    from grokscope.watch import background

    tool = tmp_path / "python"
    tool.write_text('#!/bin/sh\necho "grokscope: $6: the server refuses."\nexit 1\n')
    tool.chmod(0o755)
    monkeypatch.setattr(background.sys, "executable", str(tool))
    (tmp_path / "tiny.toml").write_text(toml(tiny_config.to_dict()))
    status, _, errors = grokscope("train", tmp_path / "tiny.toml", "--root", tmp_path / "runs", "--track", "wandb")
    assert status == 0 and "grokscope: wandb: the server refuses." in errors
    assert Trajectory.open(tmp_path / "runs" / "tiny").digest == Trajectory.open(tiny_run).digest


def test_tensorboard_file_contains_the_log(run_copy: Path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trajectory = Trajectory.open(run_copy)
    events = EventAccumulator(trackers.track(trajectory, Target("tensorboard")))
    events.Reload()
    written = {event.step: event.value for event in events.Scalars("log/test_accuracy")}
    assert written == pytest.approx({step: row["log/test_accuracy"] for step, row in log_rows(trajectory).items()})


def test_trackio_database_contains_the_log(run_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    trackers.track(Trajectory.open(run_copy), Target("trackio", "grokking", "copy"))
    (path,) = (tmp_path / "trackio").glob("grokking*.db")
    with sqlite3.connect(path) as database:
        (count,) = database.execute("SELECT count(*) FROM metrics WHERE run_name = 'copy'").fetchone()
    assert count >= len(Trajectory.open(run_copy).log)
