"""Atomic, durable writing of files and folders. Every file that grokscope writes is written here.

A file is written as a whole or not at all: bytes → temporary file in the same folder → fsync → `os.replace` → fsync
of the folder. A failed fsync is final. A retry would report success falsely, because the kernel may have dropped the
pages. Every system call that changes the disk is in `grokscope.disk.syscalls`.
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

TEMPORARY_SUFFIX = ".writing"
_MAX_PARTS = 1024
"""The most parts that Linux and macOS accept in one `writev`."""


def write_atomic(path: Path, *parts: bytes | memoryview) -> None:
    """Write the concatenated parts to a file, atomically and durably.

    Readers see either the old file or the new one, also after a loss of power. The file's mode follows the umask.

    Args:
        path: The file to create or replace; its folder must exist.
        parts: The content.

    Raises:
        GrokscopeError: An operation failed; the message names it and the path. For a full disk, the message states
            the bytes needed and the bytes free. The temporary file is removed. `path` is unchanged, unless only the
            fsync of its folder failed.
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
    """Rename a hidden file to its public name, durably.

    Args:
        path: The hidden file, already synced.
        target: The public name, in the same folder.

    Raises:
        GrokscopeError: The renaming failed.
    """
    operation = "replace"
    try:
        syscalls.disk.replace(path, target)
        operation = "fsync the folder of"
        syscalls.disk.sync_folder(target.parent)
    except OSError as error:
        raise disk_error(error, operation, target, 0) from error


def path_exists(path: Path) -> bool:
    """Return whether a file or folder exists.

    Raises:
        GrokscopeError: The system refuses to answer, for example because a parent folder is not readable.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # A name with a null byte raises ValueError.
        return False
    except OSError as error:
        raise GrokscopeError(f"{path} cannot be reached: {error.strerror}.") from error
    return True


def make_folder(path: Path) -> None:
    """Make a folder and its missing parents, durably.

    Raises:
        GrokscopeError: A folder could not be made.
    """
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            with suppress(FileExistsError):  # Another process may have made it in the meantime.
                syscalls.disk.make_folder(folder)
            syscalls.disk.sync_folder(folder.parent)
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as error:
        raise disk_error(error, "make the folder", path, 0) from error


def remove_file(path: Path) -> None:
    """Remove a file if it exists.

    Raises:
        GrokscopeError: The file could not be removed.
    """
    with _removal(path):
        syscalls.disk.remove(path)


def remove_folder(path: Path) -> None:
    """Remove a folder with everything in it, if it exists.

    Raises:
        GrokscopeError: The folder could not be removed.
    """
    with _removal(path):
        syscalls.disk.remove_folder(path)


@contextmanager
def _removal(path: Path) -> Iterator[None]:
    """Ignore that a path is absent, and turn any other error of its removal into a GrokscopeError."""
    try:
        with suppress(FileNotFoundError):
            yield
    except OSError as error:
        raise disk_error(error, "remove", path, 0) from error


@contextmanager
def build_folder(path: Path) -> Iterator[Path]:
    """Yield an empty hidden folder that is renamed to `path` at the end of the block.

    If the block raises, the folder is removed. A process that dies inside the block leaves a hidden folder, which the
    next call for the same `path` removes.

    Args:
        path: The folder to build; its missing parents are made.

    Raises:
        BusyError: `path` exists at the end of the block.
        GrokscopeError: The folder could not be made.
    """
    make_folder(path.parent)
    try:
        for abandoned in path.parent.glob(f".{path.name}.*{TEMPORARY_SUFFIX}"):
            # For a moment, a living builder has a folder without a lock.
            if not is_locked(abandoned) and time.time() - abandoned.stat().st_mtime > 60:
                syscalls.disk.remove_folder(abandoned)
        temporary = path.with_name(_temporary_name(path))
        syscalls.disk.make_folder(temporary)
    except OSError as error:
        raise disk_error(error, "make the folder", path, 0) from error
    try:
        yield temporary
        # A folder cannot replace one that is not empty, so only one of several builders succeeds.
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


def remove_temporary_files(folder: Path, *, older_than: float = 0.0) -> None:
    """Remove the temporary files that crashed writers left in a folder.

    Args:
        folder: The folder, whose lock the caller must hold unless `older_than` is set.
        older_than: Only files that are unchanged for so many seconds are removed. Used where writers take no lock.
    """
    for path in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        with suppress(OSError):
            if not older_than or time.time() - path.stat().st_mtime > older_than:
                syscalls.disk.remove(path)


def _temporary_name(path: Path) -> str:
    """Return a hidden path next to a file, unique among all processes and hosts that share the folder."""
    # Processes on two hosts may have the same number, so the name has a random part.
    return f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"


def _write_all(file: int, parts: Sequence[bytes | memoryview]) -> None:
    """Write all parts, in as many calls as the system needs; raise OSError if a call writes nothing."""
    waiting = [memoryview(part) for part in parts if len(part)]
    while waiting:
        n_written = syscalls.disk.write(file, waiting[:_MAX_PARTS])
        if not n_written:
            raise OSError(errno.EIO, "the system wrote 0 bytes")
        while waiting and n_written >= len(waiting[0]):
            n_written -= len(waiting.pop(0))
        if n_written:
            waiting[0] = waiting[0][n_written:]
