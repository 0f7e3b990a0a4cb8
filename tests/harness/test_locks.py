"""Many processes that compete for a lock, and readers during writes. None of these processes imports torch."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from grokscope.disk.lock import Lock
from grokscope.disk.syscalls import disk
from grokscope.errors import BusyError
from grokscope.store.record import Record
from grokscope.store.run_store import create
from harness.scenarios import report, small_config

CONTENDER = """
import os, sys
from pathlib import Path
from grokscope.disk.lock import Lock
from grokscope.errors import GrokscopeError
assert not {"torch", "numpy", "safetensors"} & set(sys.modules), "a lock must not import these"
print("ready", flush=True)
os.read(0, 1)  # All start together, when the parent closes the other end.
try:
    with Lock(Path(sys.argv[1])):
        print(f"won {os.getpid()}", flush=True)
        os.read(int(sys.argv[2]), 1)
except GrokscopeError as error:
    print(error, flush=True)
"""

READER = """
import sys
from pathlib import Path
from grokscope.store.run_store import RunStore
from grokscope.errors import GrokscopeError
folder, n_commits, n_openings, n_seen = Path(sys.argv[1]), int(sys.argv[2]), 0, 0
print("ready", flush=True)
while n_seen < n_commits:
    run = RunStore(folder)
    steps = run.steps.tolist()
    assert run.damaged == [] and run.gaps == [] and steps == list(range(len(steps))), steps
    assert len(steps) >= n_seen, "a checkpoint has disappeared"
    last = steps[-2:]
    assert run.read(["w"], last)["w"][:, 0].tolist() == last
    n_openings, n_seen = n_openings + 1, len(steps)
assert "torch" not in sys.modules
print(n_openings, flush=True)
"""


def start(program: str, *arguments: object, **options) -> subprocess.Popen[str]:
    """Start a Python process that runs a program."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


def read_line(process: subprocess.Popen[str]) -> str:
    """Return the next line that a process prints."""
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.mark.parametrize("n_processes", [12, pytest.param(100, marks=pytest.mark.slow)])
def test_one_of_many_simultaneous_processes_gets_the_lock(n_processes: int, tmp_path: Path):
    begin, hold = os.pipe(), os.pipe()
    contenders = [start(CONTENDER, tmp_path, hold[0], stdin=begin[0], pass_fds=[hold[0]]) for _ in range(n_processes)]
    try:
        assert [read_line(process) for process in contenders] == ["ready"] * n_processes
        os.close(begin[1])
        answers = [read_line(process) for process in contenders]
        winners = [answer for answer in answers if answer.startswith("won ")]
        owner = (
            rf"process {winners[0].split()[1]} on {re.escape(os.uname().nodename)} since \d+-\d+-\d+ \d+:\d+:\d+ UTC"
        )
        refusals = [answer for answer in answers if re.match(rf"{tmp_path} is being written by {owner}\. ", answer)]
        report("processes that take one lock", {"winners": len(winners), "refusals with owner": len(refusals)})
        assert (len(winners), len(refusals)) == (1, n_processes - 1)
    finally:
        os.close(hold[1])
        for process in contenders:
            process.communicate()
        os.close(begin[0])
        os.close(hold[0])
    with Lock(tmp_path):
        pass


def test_stopped_owner_keeps_the_lock_and_killed_does_not(tmp_path: Path):
    begin, hold = os.pipe(), os.pipe()
    os.close(begin[1])
    owner = start(CONTENDER, tmp_path, hold[0], stdin=begin[0], pass_fds=[hold[0]])
    try:
        assert [read_line(owner), read_line(owner)] == ["ready", f"won {owner.pid}"]
        owner.send_signal(signal.SIGSTOP)
        with pytest.raises(BusyError, match=f"process {owner.pid} "), Lock(tmp_path):
            pass
        owner.kill()
        owner.wait()
        with Lock(tmp_path):
            pass
    finally:
        owner.kill()
        owner.communicate()
        for descriptor in (begin[0], *hold):
            os.close(descriptor)


@pytest.mark.parametrize("text", ["", "{", json.dumps({"pid": 1, "host": "a", "since": "2001"}), "[1]"])
def test_lock_file_of_dead_owner_does_not_lock(text: str, tmp_path: Path):
    (tmp_path / "lock").write_text(text)
    with Lock(tmp_path), pytest.raises(BusyError, match=f"process {os.getpid()} "), Lock(tmp_path):
        pass


def test_owner_that_cannot_write_its_name_has_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(disk, "write_owner", lambda file, text: (_ for _ in ()).throw(OSError(28, "full")))
    with Lock(tmp_path), pytest.raises(BusyError, match=r"by another process\."), Lock(tmp_path):
        pass


@pytest.mark.parametrize("n_commits", [100, pytest.param(2_000, marks=pytest.mark.slow)])
def test_readers_during_writes_see_committed_data_only(n_commits: int, tmp_path: Path):
    run = create(tmp_path / "run", Record(small_config(), {}, ""))

    def commit(step: int) -> None:
        run.commit([step], [{"w": np.full(2_000, step, np.float32)}], coverage=(step - 1, step))

    commit(0)
    readers = [start(READER, tmp_path / "run", n_commits) for _ in range(4)]
    assert [read_line(reader) for reader in readers] == ["ready"] * 4
    for step in range(1, n_commits):
        commit(step)
    n_openings = [int(reader.communicate()[0]) for reader in readers]
    assert [reader.returncode for reader in readers] == [0] * 4
    report(f"four readers during {n_commits:,} commits, 0 read other data", {"openings": sum(n_openings)})
