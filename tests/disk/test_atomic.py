"""Atomic writing, with injected I/O errors and a real file size limit."""

import errno
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from grokscope.disk import atomic
from grokscope.disk.lock import Lock
from grokscope.disk.syscalls import disk
from grokscope.errors import GrokscopeError


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk() -> None:
    """Replace the fixture that disables fsync, because these tests are about fsync."""


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    """The function that sets the umask until the end of the test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def inject(monkeypatch: pytest.MonkeyPatch, operation: str, number: int) -> None:
    """Make one operation of the disk fail with an error number, a write after half of its bytes."""
    error, write = OSError(number, os.strerror(number)), disk.write

    def fail(*arguments: Any) -> Any:
        if operation == "write" and not written:
            written.append(write(arguments[0], [memoryview(b"".join(arguments[1])[:1500])]))
            return written[0]
        raise error

    written: list[int] = []
    monkeypatch.setattr(disk, operation, fail)


def test_write_leaves_the_bytes_and_no_other_file(tmp_path: Path):
    path, data = tmp_path / "new", bytes(range(256)) * 1000
    atomic.write_atomic(path, data)
    atomic.write_atomic(path, data[:0:-1], memoryview(data)[:1])
    assert path.read_bytes() == data[::-1]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002, 0o027])
def test_mode_of_files_and_folders_follows_umask(mask: int, tmp_path: Path, umask: Callable[[int], int]):
    umask(mask)
    atomic.write_atomic(tmp_path / "file", b"x")
    with atomic.build_folder(tmp_path / "folder"):
        pass
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~mask


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize(
    ("operation", "name"), [("create",) * 2, ("write",) * 2, ("sync", "fsync"), ("replace",) * 2]
)
def test_failed_write_names_path_and_keeps_the_old_file(
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
    sizes = re.search(r"3,000 bytes needed, ([\d,]+) free", message)
    assert bool(sizes) == (number in (errno.ENOSPC, errno.EDQUOT))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_failed_removal_raises_with_its_path(tmp_path: Path):
    with pytest.raises(GrokscopeError, match=f"Could not remove {tmp_path}: "):
        atomic.remove_file(tmp_path)


def test_failed_building_raises_with_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    abandoned, new = tmp_path / ".new.1.writing", re.escape(str(tmp_path / "new"))
    abandoned.mkdir()
    os.utime(abandoned, (0, 0))
    for operation in ("remove_folder", "make_folder"):
        with monkeypatch.context() as patch:
            inject(patch, operation, errno.EIO)
            refusal = pytest.raises(GrokscopeError, match=f"Could not make the folder {new}: ")
            with refusal, atomic.build_folder(tmp_path / "new"):
                pass
        disk.remove_folder(abandoned)


def test_write_of_zero_bytes_raises_with_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(disk, "write", lambda file, parts: 0)
    with pytest.raises(GrokscopeError, match=f"Could not write {tmp_path / 'file'}: the system wrote 0 bytes"):
        atomic.write_atomic(tmp_path / "file", b"new")
    assert not (tmp_path / "file").exists()


def test_file_size_limit_raises_and_keeps_the_old_file(tmp_path: Path):
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
    process = subprocess.run([sys.executable, "-c", program, tmp_path / "file"], capture_output=True, text=True)
    assert f"Could not write {tmp_path / 'file'}: File too large" in process.stdout, process.stderr
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_data_is_synced_before_the_name_and_then_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(descriptor: int) -> None:
        calls.append(("fsync", stat.S_ISDIR(os.fstat(descriptor).st_mode), os.path.exists(tmp_path / "file")))
        fsync(descriptor)

    def recorded_replace(source: Path, target: Path) -> None:
        assert Path(source).parent == tmp_path and Path(source).read_bytes() == b"data"
        calls.append(("replace",))
        replace(source, target)

    monkeypatch.setattr(atomic.os, "fsync", recorded_fsync)
    monkeypatch.setattr(atomic.os, "replace", recorded_replace)
    atomic.write_atomic(tmp_path / "file", b"data")
    assert calls == [("fsync", False, False), ("replace",), ("fsync", True, True)]


def test_interrupted_write_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(disk, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic.write_atomic(tmp_path / "new", b"x")
    assert list(tmp_path.iterdir()) == []


def test_built_folder_appears_as_a_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "deep" / "run"
    with atomic.build_folder(path) as hidden:
        (hidden / "inside").write_bytes(b"x")
        assert not path.exists()
        assert hidden.parent == path.parent and hidden.name.startswith(".")
    assert [file.name for file in path.iterdir()] == ["inside"]

    with pytest.raises(ZeroDivisionError), atomic.build_folder(tmp_path / "other") as hidden:
        (hidden / "inside").write_bytes(b"x")
        raise ZeroDivisionError
    assert [folder.name for folder in tmp_path.iterdir()] == ["deep"]


def test_second_builder_of_a_folder_is_refused(tmp_path: Path):
    path = tmp_path / "run"
    with pytest.raises(GrokscopeError, match=f"^{path} exists already"), atomic.build_folder(path) as second:
        (second / "mine").touch()
        with atomic.build_folder(path) as first:
            (first / "theirs").touch()
    assert [file.name for file in path.iterdir()] == ["theirs"]
    assert list(tmp_path.iterdir()) == [path]


def test_building_removes_only_folders_of_dead_builders(tmp_path: Path):
    old = time.time() - 3600
    dead, alive = tmp_path / ".run.dead.writing", tmp_path / ".run.alive.writing"
    for folder in (dead, alive):
        folder.mkdir()
    with Lock(alive):
        for folder in (dead, alive):
            os.utime(folder, (old, old))
        with atomic.build_folder(tmp_path / "run"):
            pass
    assert not dead.exists() and alive.exists()


def test_removal_of_temporary_files_keeps_other_files(tmp_path: Path):
    (tmp_path / ".000001.safetensors.12345.writing").touch()
    for name in ("000001.safetensors", ".hidden"):
        (tmp_path / name).touch()
    atomic.remove_temporary_files(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "000001.safetensors"]
