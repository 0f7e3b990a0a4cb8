"""The command `grokscope watch`: the run stays the same to the bit, Ctrl-C ends it, and mistakes are explained."""

import dataclasses
import hashlib
import json
import re
import signal
import socket
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from grokscope import Trajectory, training
from grokscope.cli import watching

MODES = pytest.mark.parametrize("flags", [[], ["--terminal"]], ids=["page", "terminal"])


def fingerprint(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Return everything that changes when somebody writes: of every path its bytes, size, time and inode."""
    prints = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        status = path.stat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        prints[str(path)] = (content, status.st_size, status.st_mtime_ns, status.st_ino)
    return prints


def start(*arguments: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "grokscope", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1)


def wait_for_line(process: subprocess.Popen[str], pattern: str) -> str:
    """Return the first line of a process's output that matches a pattern."""
    assert process.stdout is not None
    for line in process.stdout:
        if re.search(pattern, line):
            return line
    return pytest.fail(f"the process ended without {pattern}")


@MODES
def test_watching_does_not_change_the_run(grokscope, run_copy, flags):
    (run_copy / "lock").unlink()
    before = fingerprint(run_copy)
    status, output, errors = grokscope("watch", run_copy, "--until-end", "--every", "0.1", *flags)
    assert (status, errors) == (0, "") and "Training has finished at its last step, 60." in output
    assert ("http://127.0.0.1:" in output) == (not flags)
    assert fingerprint(run_copy) == before and not (run_copy / "lock").exists()


@MODES
def test_ctrl_c_ends_with_status_0(grokscope, tiny_run, monkeypatch, flags):
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watching.time, "sleep", interrupt)
    status, output, errors = grokscope("watch", tiny_run, *flags)
    assert (status, errors) == (0, "")
    assert output.splitlines()[-1].startswith(f"No longer watching {tiny_run}")


def test_invalid_options_are_refused(grokscope, run_copy):
    for flags, message in (
        (["--every", "0"], "--every 0"),
        (["--every", "nan"], "--every nan"),
        (["--port", "70000"], "--port 70000"),
        (["--terminal", "--open"], "--terminal serves no page"),
    ):
        status, _, errors = grokscope("watch", run_copy, "--until-end", *flags)
        assert status in (1, 2) and message in errors
        assert ("allowed" in errors.lower()) == (flags[0] != "--terminal")
    status, _, errors = grokscope("watch", "nothing")
    assert status == 1 and len(errors.splitlines()) == 1
    status, _, errors = grokscope("train", "quick", "--stay")
    assert status == 2 and "--stay" in errors and "--live" in errors


@pytest.mark.slow
@MODES
def test_real_ctrl_c_ends_watching_and_spares_the_run(run_copy, flags):
    before = fingerprint(run_copy)
    with start("watch", run_copy, "--every", "0.2", *flags) as process:
        wait_for_line(process, "Training has finished")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "No longer watching" in output and "Traceback" not in output
    assert fingerprint(run_copy) == before


@pytest.mark.slow
def test_live_training_serves_its_page_until_it_ends(tiny_config, toml, tmp_path):
    # The training is longer than the test: a Ctrl-C stops it once it was seen.
    config = dataclasses.replace(tiny_config, n_steps=20_000, checkpoints="every 20", evaluate_every=20)
    (tmp_path / "long.toml").write_text(toml(config.to_dict()))
    with start("train", tmp_path / "long.toml", "--root", tmp_path / "runs", "--live") as process:
        address = wait_for_line(process, r"http://127\.0\.0\.1:").split()[-1]
        match = re.fullmatch(r"http://127\.0\.0\.1:(\d+)(/.+/)", address)
        assert match is not None
        connection = HTTPConnection("127.0.0.1", int(match[1]), timeout=20)
        connection.request("GET", match[2] + "state")
        assert "Training is in progress" in json.loads(connection.getresponse().read())["status"]
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "grokscope resume" in output and "Traceback" not in output
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(match[1])), timeout=5)
    watched = Trajectory.open(tmp_path / "runs" / "long")
    steps = watched.steps.tolist()
    plain = training.train(dataclasses.replace(config, n_steps=max(steps)), "plain", tmp_path)
    assert len(steps) > 1 and plain.select(steps).digest == watched.digest
