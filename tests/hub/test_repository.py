"""Push and pull against a local server: what arrives equals what was sent, also after interruptions and damage."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.hub_server import HubServer, hub_server
from support.shared import quick

from grokscope import report
from grokscope.errors import BusyError, GrokscopeError
from grokscope.hub import repository as hub
from grokscope.trajectory import Trajectory

# huggingface_hub passes bytes to its HTTP client in a way that the client deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    import huggingface_hub
    from huggingface_hub import constants, hf_api

    with hub_server() as running:
        # HF_ENDPOINT is read when the package is imported, which another test may have done.
        api = hf_api.HfApi(endpoint=running.address, token="hf_test")
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", api.snapshot_download)
        monkeypatch.setattr(constants, "ENDPOINT", running.address)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix("https://huggingface.co")
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", running.address + template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        yield running


@pytest.fixture(scope="module")
def reported_run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose page is measured, so that a push only renders it."""
    run = shutil.copytree(tiny_run, tmp_path_factory.mktemp("reported") / "tiny")
    report.write(Trajectory.open(run))
    return run


@pytest.fixture
def run_copy(reported_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(reported_run, tmp_path / "copy")


@pytest.fixture
def pushed(server: HubServer, run_copy: Path) -> str:
    assert hub.push(run_copy, "org/grokked", licence="cc-by-4.0") == f"{server.address}/org/grokked"
    return "org/grokked"


def test_pulled_run_equals_the_pushed_run(pushed: str, server: HubServer, run_copy: Path, tmp_path: Path, saved):
    files = server.repos[pushed]
    assert {"README.md", "config.json", "report.html", "losses.png", hub.SUMS} < set(files)
    assert files["losses.png"].startswith(b"\x89PNG")
    pulled = hub.pull(pushed, tmp_path / "there", "mine")
    assert saved(tmp_path / "there" / "mine") == saved(run_copy)
    assert pulled.digest == Trajectory.open(run_copy).digest
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["mine"]
    assert not (tmp_path / "there" / "mine" / ".cache").exists()
    with pytest.raises(BusyError, match="exists already"):
        hub.pull(pushed, tmp_path / "there", "mine")


@pytest.mark.slow
def test_interrupted_push_sends_only_what_is_missing(server: HubServer, run_copy: Path, monkeypatch):
    monkeypatch.setattr(hub, "FILES_PER_COMMIT", 2)
    server.fails_after = 2
    with pytest.raises(GrokscopeError, match="org/r: .*Repeat the command to continue"):
        hub.push(run_copy, "org/r")
    assert server.n_received == [2, 2]
    server.fails_after = None
    hub.push(run_copy, "org/r")
    assert sum(server.n_received) == len(server.repos["org/r"])
    n_commits = len(server.n_received)
    hub.push(run_copy, "org/r")
    assert len(server.n_received) == n_commits, "nothing is sent twice"


def test_interrupted_pull_continues(pushed: str, server: HubServer, tmp_path: Path, monkeypatch):
    server.fails_after = 3
    with pytest.raises(GrokscopeError, match="Repeat the command to continue"):
        hub.pull(pushed, tmp_path / "there")
    assert not (tmp_path / "there" / "grokked").exists()
    server.fails_after = None
    hub.pull(pushed, tmp_path / "there")
    assert server.n_sent <= len(server.repos[pushed]) + 1


@pytest.mark.parametrize("kind", quick(["segments/", "README.md"], ["segments/"]))
def test_file_changed_on_the_server_is_noticed(kind: str, pushed: str, server: HubServer, tmp_path: Path):
    name = next(name for name in server.repos[pushed] if name.startswith(kind))
    server.repos[pushed][name] = server.repos[pushed][name][:-1] + b"~"
    with pytest.raises(GrokscopeError, match=f"the checksum of {name} differs"):
        hub.pull(pushed, tmp_path / "there")
    assert not (tmp_path / "there" / "grokked").exists()


def test_upload_that_arrives_damaged_is_noticed(server: HubServer, run_copy: Path, monkeypatch):
    monkeypatch.setattr(hub, "_remote_sums", lambda api, repo: {"config.json": {"sha1": "0"}})
    with pytest.raises(GrokscopeError, match="the checksum of config.json differs after the upload"):
        hub.push(run_copy, "org/r")


def test_repository_without_a_run_and_names_outside_are_refused(server: HubServer, tmp_path: Path):
    server.repos["org/other"] = {"README.md": b"a model"}
    with pytest.raises(GrokscopeError, match="org/other is not a run of grokscope: it has no SHA256SUMS"):
        hub.pull("org/other", tmp_path)
    server.repos["org/evil"] = {hub.SUMS: b"0  ../../etc/passwd\n"}
    with pytest.raises(GrokscopeError, match="names a file outside the run"):
        hub.pull("org/evil", tmp_path)
    with pytest.raises(GrokscopeError, match="org/none"):
        hub.pull("org/none", tmp_path)
    assert not (tmp_path / "other").exists() and not (tmp_path / "evil").exists()


def test_damaged_run_is_not_pushed(server: HubServer, run_copy: Path):
    segment = max((run_copy / "segments").iterdir())
    content = bytearray(segment.read_bytes())
    content[-20] ^= 1
    segment.write_bytes(content)
    with pytest.raises(GrokscopeError, match="is damaged and was not pushed"):
        hub.push(run_copy, "org/r")
    assert not server.repos


@pytest.mark.slow
def test_commands_use_the_server_of_the_environment(reported_run: Path, tmp_path: Path, saved):
    with hub_server() as running:
        environment = {**os.environ, "HF_ENDPOINT": running.address, "HF_TOKEN": "hf_test", "HF_HUB_DISABLE_XET": "1"}
        environment |= {"HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}

        def run(*arguments: object) -> str:
            command = [sys.executable, "-m", "grokscope", *map(str, arguments)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr
            return done.stdout

        sent = run("push", reported_run, "org/grokked")
        assert sent == f"pushed and verified: {running.address}/org/grokked\n"
        arrived = run("pull", "org/grokked", "--run", "theirs", "--root", tmp_path)
        assert arrived == f"{tmp_path}/theirs: 7 checkpoints, all intact.\n"
    assert saved(tmp_path / "theirs") == saved(reported_run)
