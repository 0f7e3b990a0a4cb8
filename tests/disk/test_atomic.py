"""Writing whole or not at all, and the writer's lock, with real processes and injected I/O errors."""

import errno
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from grokscope.disk import atomic, lock
from grokscope.disk.lock import Lock, is_locked
from grokscope.disk.syscalls import disk
from grokscope.errors import GrokscopeError


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk() -> None:
    """Keep fsync as it is: here it is what is tested."""


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    """Set the umask for one test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def inject(monkeypatch: pytest.MonkeyPatch, operation: str, number: int) -> None:
    """Make one operation of the disk fail with an error number; a write has written half by then."""
    error, write = OSError(number, os.strerror(number)), disk.write

    def fail(*arguments: Any) -> Any:
        if operation == "write" and not written:
            written.append(write(arguments[0], [memoryview(b"".join(arguments[1])[:1500])]))
            return written[0]
        raise error

    written: list[int] = []
    monkeypatch.setattr(disk, operation, fail)


def test_the_bytes_are_written_and_nothing_else_is_left(tmp_path: Path):
    path, data = tmp_path / "new", bytes(range(256)) * 1000
    atomic.write_atomic(path, data)
    atomic.write_atomic(path, data[:0:-1], memoryview(data)[:1])
    assert path.read_bytes() == data[::-1]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002, 0o027])
def test_the_mode_of_files_and_run_folders_follows_the_umask(mask: int, tmp_path: Path, umask: Callable[[int], int]):
    umask(mask)
    atomic.write_atomic(tmp_path / "file", b"x")
    with atomic.building(tmp_path / "folder"):
        pass
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~mask


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize(
    ("operation", "name"), [("create",) * 2, ("write",) * 2, ("sync", "fsync"), ("replace",) * 2]
)
def test_a_write_that_fails_names_path_and_operation_and_leaves_the_old_file(
    operation: str, name: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        inject(patch, operation, number)
        with pytest.raises(GrokscopeError) as refusal:
            atomic.write_atomic(path, b"new" * 400, b"new" * 600)
    message = str(refusal.value)
    assert f"{name} {path}" in message and os.strerror(number) in message
    full = re.search(r"3,000 bytes needed, ([\d,]+) free", message)
    assert bool(full) == (number in (errno.ENOSPC, errno.EDQUOT))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_whatever_else_of_the_disk_fails_is_one_error_with_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(GrokscopeError, match=f"Could not remove {path}: "):
        atomic.remove(path)
    abandoned, new = tmp_path / ".new.1.writing", re.escape(str(tmp_path / "new"))
    abandoned.mkdir()
    os.utime(abandoned, (0, 0))
    for operation in ("remove_folder", "make_folder"):
        with monkeypatch.context() as patch:
            inject(patch, operation, errno.EIO)
            refusal = pytest.raises(GrokscopeError, match=f"Could not make the folder {new}: ")
            with refusal, atomic.building(tmp_path / "new"):
                pass
        disk.remove_folder(abandoned)
    with monkeypatch.context() as patch:
        patch.setattr(lock, "_take", lambda file: (_ for _ in ()).throw(OSError(errno.ENOLCK, "No locks available")))
        with pytest.raises(GrokscopeError, match=f"Could not lock {path / 'lock'}: No locks available"):
            Lock(path).__enter__()
    with monkeypatch.context() as patch:
        patch.setattr(disk, "write", lambda file, parts: 0)
        with pytest.raises(GrokscopeError, match=f"Could not write {tmp_path / 'file'}: nothing more is written"):
            atomic.write_atomic(tmp_path / "file", b"new")
    assert not (tmp_path / "file").exists()


def test_a_real_limit_on_a_file_s_size_is_one_error_too(tmp_path: Path):
    program = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from grokscope.disk import atomic\n"
        "from grokscope.errors import GrokscopeError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    atomic.write_atomic(Path(sys.argv[1]), bytes(5000))\n"
        "except GrokscopeError as error:\n"
        "    print(error)\n"
    )
    (tmp_path / "file").write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "file"], capture_output=True, text=True)
    assert f"Could not write {tmp_path / 'file'}: File too large" in done.stdout, done.stderr
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_the_data_reach_the_disk_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    done = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        done.append(("fsync", stat.S_ISDIR(os.fstat(descriptor).st_mode), os.path.exists(tmp_path / "file")))
        fsync(descriptor)

    def note_replace(source: Path, target: Path) -> None:
        assert Path(source).parent == tmp_path and Path(source).read_bytes() == b"data"
        done.append(("replace",))
        replace(source, target)

    monkeypatch.setattr(atomic.os, "fsync", note_fsync)
    monkeypatch.setattr(atomic.os, "replace", note_replace)
    atomic.write_atomic(tmp_path / "file", b"data")
    assert done == [("fsync", False, False), ("replace",), ("fsync", True, True)]


def test_ctrl_c_within_a_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(disk, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic.write_atomic(tmp_path / "new", b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_built_appears_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "deep" / "run"
    with atomic.building(path) as building:
        (building / "inside").write_bytes(b"x")
        assert not path.exists()
        assert building.parent == path.parent and building.name.startswith(".")
    assert [one.name for one in path.iterdir()] == ["inside"]

    with pytest.raises(ZeroDivisionError), atomic.building(tmp_path / "other") as building:
        (building / "inside").write_bytes(b"x")
        raise ZeroDivisionError
    assert [one.name for one in tmp_path.iterdir()] == ["deep"]


def test_of_two_who_build_one_folder_the_second_is_refused_and_the_first_kept(tmp_path: Path):
    path = tmp_path / "run"
    with pytest.raises(GrokscopeError, match=f"^{path} exists already"), atomic.building(path) as second:
        (second / "mine").touch()
        with atomic.building(path) as first:
            (first / "theirs").touch()
    assert [one.name for one in path.iterdir()] == ["theirs"]
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_dead_builder_left_is_removed_but_not_what_a_living_one_holds(tmp_path: Path):
    old = time.time() - 3600
    dead, alive = tmp_path / ".run.dead.writing", tmp_path / ".run.alive.writing"
    for folder in (dead, alive):
        folder.mkdir()
    with Lock(alive):
        for folder in (dead, alive):
            os.utime(folder, (old, old))
        with atomic.building(tmp_path / "run"):
            pass
    assert not dead.exists() and alive.exists()


def test_temporary_files_are_removed_and_others_are_not(tmp_path: Path):
    (tmp_path / ".000001.safetensors.12345.writing").touch()
    for name in ("000001.safetensors", ".hidden"):
        (tmp_path / name).touch()
    atomic.remove_temporary(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "000001.safetensors"]


# Takes the lock when a line arrives, says what came of it, and holds it until the input ends.
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
    """Another process that wants the lock of a folder."""

    def __init__(self, folder: Path):
        self.process = subprocess.Popen(
            [sys.executable, "-c", CONTENDER, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def say(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()


@pytest.fixture
def contender() -> Iterator[Callable[[Path], Contender]]:
    """Start other processes that want a lock, and end them after the test."""
    started: list[Contender] = []

    def start(folder: Path) -> Contender:
        started.append(Contender(folder))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


def test_of_many_processes_exactly_one_gets_the_lock_and_the_others_are_told_who_has_it(
    tmp_path: Path, contender: Callable[[Path], Contender]
):
    many = [contender(tmp_path) for _ in range(8)]
    assert [one.hear() for one in many] == ["ready"] * 8
    for one in many:
        one.say()
    answers = [one.hear() for one in many]
    assert answers.count("won") == 1
    assert all(answer.startswith(f"{tmp_path} is being written by ") for answer in answers if answer != "won")

    winner = many[answers.index("won")].process
    with pytest.raises(GrokscopeError) as refusal, Lock(tmp_path):
        pass
    told = re.fullmatch(
        rf"{tmp_path} is being written by process (\d+) on (\S+) since (\d+-\d+-\d+ \d+:\d+:\d+) UTC; .*",
        str(refusal.value),
    )
    assert told and int(told[1]) == winner.pid and told[2] == os.uname().nodename
    assert is_locked(tmp_path)

    winner.kill()
    winner.wait()
    assert not is_locked(tmp_path)
    with Lock(tmp_path):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)


def test_one_process_cannot_take_a_lock_twice(tmp_path: Path):
    with Lock(tmp_path), pytest.raises(GrokscopeError, match=f"process {os.getpid()} "):
        Lock(tmp_path).__enter__()
    with Lock(tmp_path):
        pass


def test_a_child_that_outlives_its_parent_does_not_keep_the_lock(tmp_path: Path):
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
            time.sleep(0.2)  # The child may still be on its way out of fork().
            assert is_locked(tmp_path)
            parent.kill()
            parent.wait()
            os.kill(child, 0)
            with Lock(tmp_path):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


def test_the_lock_of_a_folder_that_is_not_there_is_refused_by_name(tmp_path: Path):
    with pytest.raises(GrokscopeError, match=f"{tmp_path / 'none'}"), Lock(tmp_path / "none"):
        pass
    assert not is_locked(tmp_path / "none")
