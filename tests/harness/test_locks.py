"""Many processes and one lock; readers beside a writer. None of these processes imports torch."""

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
from harness.lives import said, small_config

CONTENDER = """
import os, sys
from pathlib import Path
from grokscope.disk.lock import Lock
from grokscope.errors import GrokscopeError
assert not {"torch", "numpy", "safetensors"} & set(sys.modules), "a lock needs none of these"
print("ready", flush=True)
os.read(0, 1)  # All begin at once, when the other end is closed.
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
folder, n, opened, seen = Path(sys.argv[1]), int(sys.argv[2]), 0, 0
print("ready", flush=True)
while seen < n:
    run = RunStore(folder)
    steps = run.steps.tolist()
    assert run.damaged == [] and run.gaps == [] and steps == list(range(len(steps))), steps
    assert len(steps) >= seen, "a checkpoint that was there is gone"
    last = steps[-2:]
    assert run.read(["w"], last)["w"][:, 0].tolist() == last
    opened, seen = opened + 1, len(steps)
assert "torch" not in sys.modules
print(opened, flush=True)
"""


def start(program: str, *arguments: object, **more) -> subprocess.Popen[str]:
    """Start a Python process that runs a program."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **more)


def heard(process: subprocess.Popen[str]) -> str:
    """Return the next line that a process prints."""
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.mark.parametrize("n_processes", [12, pytest.param(100, marks=pytest.mark.slow)])
def test_of_many_processes_that_take_a_lock_at_once_exactly_one_wins(n_processes: int, tmp_path: Path):
    begin, hold = os.pipe(), os.pipe()
    many = [start(CONTENDER, tmp_path, hold[0], stdin=begin[0], pass_fds=[hold[0]]) for _ in range(n_processes)]
    try:
        assert [heard(one) for one in many] == ["ready"] * n_processes
        os.close(begin[1])
        answers = [heard(one) for one in many]
        won = [answer for answer in answers if answer.startswith("won ")]
        owner = rf"process {won[0].split()[1]} on {re.escape(os.uname().nodename)} since \d+-\d+-\d+ \d+:\d+:\d+ UTC"
        told = [answer for answer in answers if re.match(rf"{tmp_path} is being written by {owner}; ", answer)]
        said("processes that take one lock", {"won": len(won), "were told who has it": len(told)})
        assert (len(won), len(told)) == (1, n_processes - 1)
    finally:
        os.close(hold[1])
        for one in many:
            one.communicate()
        os.close(begin[0])
        os.close(hold[0])
    with Lock(tmp_path):
        pass


def test_a_stopped_owner_keeps_its_lock_and_a_killed_one_does_not(tmp_path: Path):
    begin, hold = os.pipe(), os.pipe()
    os.close(begin[1])
    owner = start(CONTENDER, tmp_path, hold[0], stdin=begin[0], pass_fds=[hold[0]])
    try:
        assert [heard(owner), heard(owner)] == ["ready", f"won {owner.pid}"]
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
        for one in (begin[0], *hold):
            os.close(one)


@pytest.mark.parametrize("text", ["", "{", json.dumps({"pid": 1, "host": "another", "since": "2001"}), "[1]"])
def test_whatever_a_dead_owner_left_in_it_a_lock_is_free(text: str, tmp_path: Path):
    (tmp_path / "lock").write_text(text)
    with Lock(tmp_path), pytest.raises(BusyError, match=f"process {os.getpid()} "), Lock(tmp_path):
        pass


def test_an_owner_that_cannot_say_who_it_is_has_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(disk, "note", lambda file, text: (_ for _ in ()).throw(OSError(28, "full")))
    with Lock(tmp_path), pytest.raises(BusyError, match="by another process;"), Lock(tmp_path):
        pass


@pytest.mark.parametrize("n_commits", [100, pytest.param(2_000, marks=pytest.mark.slow)])
def test_readers_beside_a_writer_see_what_is_committed_and_nothing_else(n_commits: int, tmp_path: Path):
    run = create(tmp_path / "run", Record(small_config(), {}, ""))

    def commit(step: int) -> None:
        run.commit([step], [{"w": np.full(2_000, step, np.float32)}], coverage=(step - 1, step))

    commit(0)
    readers = [start(READER, tmp_path / "run", n_commits) for _ in range(4)]
    assert [heard(one) for one in readers] == ["ready"] * 4
    for step in range(1, n_commits):
        commit(step)
    opened = [one.communicate()[0].strip() for one in readers]
    assert [one.returncode for one in readers] == [0] * 4
    said(f"four readers during {n_commits:,} commits, 0 saw anything else", {"openings": sum(map(int, opened))})
