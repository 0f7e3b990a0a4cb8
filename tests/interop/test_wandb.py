"""Weights & Biases: what is uploaded are the run's numbers, and the run has nothing to fear from it."""

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
    """A stand-in for the package wandb that keeps what it is given."""

    class Error(Exception):
        """What the package raises."""

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
        assert step not in self.rows and step >= max(self.rows, default=0), "steps go up, each once"
        self.rows[step] = row

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    there = Server()
    monkeypatch.setitem(sys.modules, "wandb", there)
    return there


def test_every_number_of_a_step_is_logged_at_that_step(tiny_run, server):
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
    "failure", [Server.Error("no such entity"), OSError("network is down"), TimeoutError("slow")]
)
def test_a_server_that_fails_is_one_sentence_and_the_run_is_as_it_was(failure, run_copy, monkeypatch, saved):
    before = saved(run_copy)
    monkeypatch.setitem(sys.modules, "wandb", Server(failure))
    with pytest.raises(GrokscopeError, match=str(failure)):
        wandb.log(Trajectory.open(run_copy), "project")
    assert saved(run_copy) == before


def test_without_the_package_it_says_what_to_install(tiny_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(GrokscopeError, match=r"pip install 'grokscope\[wandb\]'"):
        wandb.log(Trajectory.open(tiny_run), "project")


def test_a_trajectory_in_memory_is_refused(tiny_run, server):
    run = Trajectory.open(tiny_run)
    memory = Trajectory.from_state_dicts(run.config, {0: run.at(0).parameters})
    with pytest.raises(GrokscopeError, match="in memory"):
        wandb.log(memory, "project")


def test_the_command_measures_first(run_copy, server, capsys, monkeypatch, tmp_path):
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
def test_the_real_package_writes_offline_and_gives_up_on_a_server_that_is_not_there(mode, run_copy, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    found = subprocess.run([sys.executable, "-c", REAL, run_copy, mode], capture_output=True, text=True)
    if mode == "unreachable":
        assert "GrokscopeError: wandb: " in found.stderr and found.returncode == 1
        return
    assert found.returncode == 0, found.stderr
    (written,) = (run_copy / "wandb").glob("offline-run-*/*.wandb")
    content = written.read_bytes()
    assert b"log/test_accuracy" in content and b"train_fraction" in content
