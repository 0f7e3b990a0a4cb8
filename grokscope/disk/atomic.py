"""The only place that writes files, and the writer's lock.

A file is written whole or not at all: bytes → temporary file in the same folder → fsync → `os.replace` →
fsync of the folder. A failed fsync is final (retrying it lies: the kernel may have dropped the pages). Whatever
changes the disk is one of the operations of `grokscope.disk`.
"""

import errno
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from grokscope.disk import syscalls
from grokscope.disk.lock import is_locked
from grokscope.disk.syscalls import disk_error
from grokscope.errors import BusyError, GrokscopeError

TEMPORARY = ".writing"
_PARTS = 1024
"""How many parts Linux and macOS write in one call."""


def write_atomic(path: Path, *parts: bytes | memoryview) -> None:
    """Write `parts` to `path` so that a reader, or a machine that loses power, sees the old file or the new one.

    The file's mode follows the umask. Raise GrokscopeError that names the path and the operation, and for a
    full disk the bytes needed and free; the temporary file is then removed and `path` is as it was.
    """
    temporary = path.with_name(_temporary_name(path))
    operation = "create"
    try:
        file = syscalls.disk.create(temporary)
        try:
            operation = "write"
            _write_all(file, parts)
            operation = "fsync"
            syscalls.disk.sync(file)
        finally:
            os.close(file)
        operation = "replace"
        syscalls.disk.replace(temporary, path)
        operation = "fsync the folder of"
        syscalls.disk.sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            syscalls.disk.remove(temporary)
        if not isinstance(error, OSError):
            raise
        raise disk_error(error, operation, path, sum(map(len, parts))) from error


def reveal(path: Path, target: Path) -> None:
    """Give a file that was written under a hidden name its own, durably; raise GrokscopeError that names it."""
    operation = "replace"
    try:
        syscalls.disk.replace(path, target)
        operation = "fsync the folder of"
        syscalls.disk.sync_folder(target.parent)
    except OSError as error:
        raise disk_error(error, operation, target, 0) from error


def is_there(path: Path) -> bool:
    """Return whether something has a name; raise GrokscopeError if nobody can know, as behind a closed folder."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # No file can have a null byte in its name.
        return False
    except OSError as error:
        raise GrokscopeError(f"{path} cannot be reached: {error.strerror}.") from error
    return True


def make_folder(path: Path) -> None:
    """Make a folder and those above it, durably; raise GrokscopeError that names it if that fails."""
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            with suppress(FileExistsError):  # Another process may make it at this moment.
                syscalls.disk.make_folder(folder)
            syscalls.disk.sync_folder(folder.parent)
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as error:
        raise disk_error(error, "make the folder", path, 0) from error


def remove(path: Path) -> None:
    """Remove a file if it is there; raise GrokscopeError that names it if it cannot be removed."""
    try:
        with suppress(FileNotFoundError):
            syscalls.disk.remove(path)
    except OSError as error:
        raise disk_error(error, "remove", path, 0) from error


@contextmanager
def building(path: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `path`, whole and at once, when the block ends well.

    A process that dies inside the block leaves no `path`, only a hidden folder that the next call removes.
    Raise GrokscopeError if `path` exists by then, or the folder cannot be made.
    """
    make_folder(path.parent)
    try:
        for abandoned in path.parent.glob(f".{path.name}.*{TEMPORARY}"):
            # The minute is for one that has its folder already and not yet its lock.
            if not is_locked(abandoned) and time.time() - abandoned.stat().st_mtime > 60:
                syscalls.disk.remove_folder(abandoned)
        temporary = path.with_name(_temporary_name(path))
        syscalls.disk.make_folder(temporary)
    except OSError as error:
        raise disk_error(error, "make the folder", path, 0) from error
    try:
        yield temporary
        # Renaming onto an existing folder fails unless it is empty, so of several builders one wins.
        syscalls.disk.rename_folder(temporary, path)
        syscalls.disk.sync_folder(path.parent)
    except OSError as error:
        syscalls.disk.remove_folder(temporary)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise BusyError(f"{path} exists already; choose another name or remove it.") from error
        raise disk_error(error, "make the folder", path, 0) from error
    except BaseException:
        syscalls.disk.remove_folder(temporary)
        raise


def remove_temporary(folder: Path, *, older_than: float = 0.0) -> None:
    """Remove what writers that died have left half written; only the holder of the folder's lock may call it.

    Where there is no lock, what nobody has written to for `older_than` seconds is taken for abandoned.
    """
    for path in folder.glob(f".*{TEMPORARY}"):
        with suppress(OSError):
            if not older_than or time.time() - path.stat().st_mtime > older_than:
                syscalls.disk.remove(path)


def _temporary_name(path: Path) -> str:
    # Hosts that share a folder may share a process number.
    return f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}{TEMPORARY}"


def _write_all(file: int, parts: Sequence[bytes | memoryview]) -> None:
    """Write all parts, however little goes at a time; raise OSError if nothing goes any more."""
    waiting = [memoryview(part) for part in parts if len(part)]
    while waiting:
        n_written = syscalls.disk.write(file, waiting[:_PARTS])
        if not n_written:
            raise OSError(errno.EIO, "nothing more is written")
        while waiting and n_written >= len(waiting[0]):
            n_written -= len(waiting.pop(0))
        if n_written:
            waiting[0] = waiting[0][n_written:]
