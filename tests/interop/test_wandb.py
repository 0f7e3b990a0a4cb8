"""Weights & Biases: an upload contains the run's numbers and leaves the run unchanged."""

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.shared import command_line

from grokscope import measures
from grokscope.errors import GrokscopeError
from grokscope.interop import wandb
from grokscope.series import Series
from grokscope.trajectory import Trajectory


class Server:
    """A stand-in for the package wandb that records its calls."""

    class Error(Exception):
        """The package's own exception."""

    def __init__(self, failure: Exception | None = None):
        self.rows: dict[int, dict[str, float]] = {}
        self.summary: dict[str, Any] = {}
        self.about: dict[str, Any] = {}
        self.failure, self.url = failure, "https://example.org/run"
        self.settings = SimpleNamespace(sync_dir="there")
        self.Settings = lambda **settings: settings

    def init(self, **about: Any) -> "Server":
        if self.failure:
            raise self.failure
        self.about = about
        return self

    def log(self, row: dict[str, float], step: int) -> None:
        assert step not in self.rows and step >= max(self.rows, default=0), "steps increase strictly"
        self.rows[step] = row

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    recorder = Server()
    monkeypatch.setitem(sys.modules, "wandb", recorder)
    return recorder


def test_numbers_are_logged_at_their_steps(tiny_run, server):
    trajectory = Trajectory.open(tiny_run)
    norms = Series("n", np.array([5, 60]), {"a": np.array([1.0, 2.0]), "b": np.ones((2, 3))}, {"c": np.array(7)})
    assert wandb.log(trajectory, "project", series=[norms]) == server.url
    log = trajectory.log
    for name, array in log.arrays.items():
        assert [server.rows[step][f"log/{name}"] for step in log.steps.tolist()] == array.tolist()
    assert server.rows[5] == {"n/a": 1.0} and server.rows[60]["n/a"] == 2.0
    assert server.summary == {"n/c": 7}
    assert server.about["name"] == "tiny" and server.about["mode"] == "online"
    assert server.about["config"]["task"]["p"] == 7


@pytest.mark.parametrize(
    "failure",
    [Server.Error("no such entity"), OSError("network is down"), TimeoutError("slow")],
    ids=["wandb", "network", "timeout"],
)
def test_failing_server_leaves_the_run_unchanged(failure, run_copy, monkeypatch, saved):
    before = saved(run_copy)
    monkeypatch.setitem(sys.modules, "wandb", Server(failure))
    with pytest.raises(GrokscopeError, match=str(failure)):
        wandb.log(Trajectory.open(run_copy), "project")
    assert saved(run_copy) == before


def test_missing_package_is_an_error_with_the_command(tiny_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(GrokscopeError, match=r"pip install 'grokscope\[wandb\]'"):
        wandb.log(Trajectory.open(tiny_run), "project")


def test_trajectory_in_memory_is_refused(tiny_run, server):
    run = Trajectory.open(tiny_run)
    memory = Trajectory.from_state_dicts(run.config, {0: run.at(0).parameters})
    with pytest.raises(GrokscopeError, match="in memory"):
        wandb.log(memory, "project")


def test_command_measures_before_it_uploads(run_copy, server, capsys, monkeypatch, tmp_path):
    run = command_line(capsys, monkeypatch, tmp_path / "here")
    status, output, errors = run("wandb", run_copy, "--project", "p", "--measure", "weight_norm", "--offline")
    assert (status, output) == (0, "saved there\n") and errors.startswith("weight_norm")
    norms = measures.saved("weight_norm", Trajectory.open(run_copy))
    assert server.rows[60]["weight_norm/weight_norm"] == norms["weight_norm"][-1]
    assert server.about["mode"] == "offline"
    assert "Did you mean 'weight_norm'" in run("wandb", run_copy, "--project", "p", "--measure", "weight_nrm")[2]


REAL = """
import sys
from grokscope import Trajectory, wandb
print(wandb.log(Trajectory.open(sys.argv[1]), "project", offline=sys.argv[2] == "offline"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["offline", "unreachable"])
def test_real_package_writes_offline_or_times_out(mode, run_copy, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    process = subprocess.run([sys.executable, "-c", REAL, run_copy, mode], capture_output=True, text=True)
    if mode == "unreachable":
        assert "GrokscopeError: wandb: " in process.stderr and process.returncode == 1
        return
    assert process.returncode == 0, process.stderr
    (written,) = (run_copy / "wandb").glob("offline-run-*/*.wandb")
    content = written.read_bytes()
    assert b"log/test_accuracy" in content and b"train_fraction" in content
