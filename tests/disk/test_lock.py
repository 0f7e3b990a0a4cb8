"""The writer's lock, with real processes."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from grokscope.disk import lock
from grokscope.disk.lock import Lock, is_locked
from grokscope.errors import GrokscopeError

# Takes the lock when a line arrives, prints the result, and holds the lock until the input ends.
CONTENDER = """
import sys
from pathlib import Path
from grokscope.errors import GrokscopeError
from grokscope.disk.lock import Lock
print("ready", flush=True)
sys.stdin.readline()
try:
    with Lock(Path(sys.argv[1])):
        print("won", flush=True)
        sys.stdin.read()
except GrokscopeError as error:
    print(error, flush=True)
    sys.stdin.read()
"""


class Contender:
    """Another process that tries to take the lock of a folder."""

    def __init__(self, folder: Path):
        self.process = subprocess.Popen(
            [sys.executable, "-c", CONTENDER, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self) -> None:
        """Let the process try to take the lock."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def read_line(self) -> str:
        """Return the next line of the process's output."""
        assert self.process.stdout
        return self.process.stdout.readline().strip()


@pytest.fixture
def contender() -> Iterator[Callable[[Path], Contender]]:
    """The function that starts a process that tries to take a lock; the process ends with the test."""
    contenders: list[Contender] = []

    def start(folder: Path) -> Contender:
        contenders.append(Contender(folder))
        return contenders[-1]

    yield start
    for contender in contenders:
        contender.process.kill()
        contender.process.communicate()


def test_one_of_many_processes_gets_the_lock_and_is_named(tmp_path: Path, contender: Callable[[Path], Contender]):
    contenders = [contender(tmp_path) for _ in range(8)]
    assert [process.read_line() for process in contenders] == ["ready"] * 8
    for process in contenders:
        process.start()
    answers = [process.read_line() for process in contenders]
    assert answers.count("won") == 1
    assert all(answer.startswith(f"{tmp_path} is being written by ") for answer in answers if answer != "won")

    winner = contenders[answers.index("won")].process
    with pytest.raises(GrokscopeError) as refusal, Lock(tmp_path):
        pass
    owner = re.fullmatch(
        rf"{tmp_path} is being written by process (\d+) on (\S+) since (\d+-\d+-\d+ \d+:\d+:\d+) UTC\. .*",
        str(refusal.value),
    )
    assert owner and int(owner[1]) == winner.pid and owner[2] == os.uname().nodename
    assert is_locked(tmp_path)

    winner.kill()
    winner.wait()
    assert not is_locked(tmp_path)
    with Lock(tmp_path):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)


def test_process_cannot_take_a_lock_twice(tmp_path: Path):
    with Lock(tmp_path), pytest.raises(GrokscopeError, match=f"process {os.getpid()} "):
        Lock(tmp_path).__enter__()
    with Lock(tmp_path):
        pass


def test_child_does_not_keep_the_lock_of_a_dead_parent(tmp_path: Path):
    program = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from grokscope.disk.lock import Lock\n"
        "with Lock(Path(sys.argv[1])):\n"
        "    child = os.fork()\n"
        "    if child:\n"
        "        print(child, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        try:
            time.sleep(0.2)  # The child may still be inside fork().
            assert is_locked(tmp_path)
            parent.kill()
            parent.wait()
            os.kill(child, 0)
            with Lock(tmp_path):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


def test_lock_of_missing_folder_raises_with_its_path(tmp_path: Path):
    with pytest.raises(GrokscopeError, match=f"{tmp_path / 'none'}"), Lock(tmp_path / "none"):
        pass
    assert not is_locked(tmp_path / "none")


def test_lock_that_the_system_refuses_raises_with_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    refusal = OSError(errno.ENOLCK, "No locks available")
    monkeypatch.setattr(lock, "_acquire", lambda file: (_ for _ in ()).throw(refusal))
    with pytest.raises(GrokscopeError, match=f"Could not lock {tmp_path / 'lock'}: No locks available"):
        Lock(tmp_path).__enter__()
