"""The only place that writes files, and the writer's lock.

A file is written whole or not at all: bytes → temporary file in the same folder → fsync → `os.replace` →
fsync of the folder. A failed fsync is final (retrying it lies: the kernel may have dropped the pages). Whatever
changes the disk is one of the operations of `grokscope.disk`.
"""

import errno
import fcntl
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from grokscope.disk import Disk
from grokscope.errors import Busy, GrokscopeError

TEMPORARY = ".writing"
LOCK = "lock"
_LOOKS = 10
"""How often a lock that is taken is tried again, within some 50 milliseconds."""
_PARTS = 1024
"""How many parts Linux and macOS write in one call."""


disk = Disk()
"""The disk that all writing goes to; the tests put another in its place."""


def write_atomic(path: Path, *parts: bytes | memoryview) -> None:
    """Write `parts` to `path` so that a reader, or a machine that loses power, sees the old file or the new one.

    The file's mode follows the umask. Raise GrokscopeError that names the path and the operation, and for a
    full disk the bytes needed and free; the temporary file is then removed and `path` is as it was.
    """
    temporary = path.with_name(_temporary_name(path))
    operation = "create"
    try:
        file = disk.create(temporary)
        try:
            operation = "write"
            _write_all(file, parts)
            operation = "fsync"
            disk.sync(file)
        finally:
            os.close(file)
        operation = "replace"
        disk.replace(temporary, path)
        operation = "fsync the folder of"
        disk.sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            disk.remove(temporary)
        if not isinstance(error, OSError):
            raise
        raise _explained(error, operation, path, sum(map(len, parts))) from error


def reveal(path: Path, target: Path) -> None:
    """Give a file that was written under a hidden name its own, durably; raise GrokscopeError that names it."""
    operation = "replace"
    try:
        disk.replace(path, target)
        operation = "fsync the folder of"
        disk.sync_folder(target.parent)
    except OSError as error:
        raise _explained(error, operation, target, 0) from error


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
                disk.make_folder(folder)
            disk.sync_folder(folder.parent)
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as error:
        raise _explained(error, "make the folder", path, 0) from error


def remove(path: Path) -> None:
    """Remove a file if it is there; raise GrokscopeError that names it if it cannot be removed."""
    try:
        with suppress(FileNotFoundError):
            disk.remove(path)
    except OSError as error:
        raise _explained(error, "remove", path, 0) from error


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
                disk.remove_folder(abandoned)
        temporary = path.with_name(_temporary_name(path))
        disk.make_folder(temporary)
    except OSError as error:
        raise _explained(error, "make the folder", path, 0) from error
    try:
        yield temporary
        # Renaming onto an existing folder fails unless it is empty, so of several builders one wins.
        disk.rename_folder(temporary, path)
        disk.sync_folder(path.parent)
    except OSError as error:
        disk.remove_folder(temporary)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise Busy(f"{path} exists already; choose another name or remove it.") from error
        raise _explained(error, "make the folder", path, 0) from error
    except BaseException:
        disk.remove_folder(temporary)
        raise


class Lock:
    """The right to write into a run's folder, held by at most one process; readers never need it.

    It is an flock on a file of its own: the kernel releases it when its owner dies, however it dies, so there
    is no stale lock. The file says who holds it. Use as a context manager; `GrokscopeError` names the holder.
    """

    def __init__(self, folder: Path):
        self.path = folder / LOCK
        self._file: int | None = None

    def __enter__(self) -> "Lock":
        try:
            file = disk.open_lock(self.path)
        except OSError as error:
            raise _explained(error, "open the lock", self.path, 0) from error
        try:
            _take(file)
        except OSError as error:
            holder = _holder(file)
            os.close(file)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise _explained(error, "lock", self.path, 0) from error
            raise Busy(f"{self.path.parent} is being written by {holder}; wait for it to end, or stop it.") from error
        self._file = file
        _held.add(self)
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now(UTC):%F %T} UTC"}
        try:
            disk.note(file, json.dumps(owner).encode())
        except OSError:
            pass  # A full disk must not keep anybody from the lock: who holds it is a courtesy.
        except BaseException:
            self.let_go()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            if self._file is not None:
                with suppress(OSError):  # Nobody is told of an owner that has gone.
                    disk.note(self._file, b"")
        finally:
            self.let_go()

    def let_go(self) -> None:
        """Close the lock's file without a word; another process that has it open keeps the lock."""
        _held.discard(self)
        if self._file is not None:
            os.close(self._file)
            self._file = None


_held: set[Lock] = set()
"""The locks that this process holds."""


# A forked child has its parent's open files, and would keep the parent's locks when that has died.
os.register_at_fork(after_in_child=lambda: [lock.let_go() for lock in tuple(_held)])


def _take(file: int) -> None:
    """Take the lock; `is_locked` may hold it for a moment, so the first refusals count for nothing."""
    for _ in range(_LOOKS):
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.005)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_locked(folder: Path) -> bool:
    """Return whether some process holds the folder's lock at this moment."""
    try:
        file = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError as error:
        # Where there are no locks at all, nobody holds one.
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    finally:
        os.close(file)


def remove_temporary(folder: Path, *, older_than: float = 0.0) -> None:
    """Remove what writers that died have left half written; only the holder of the folder's lock may call it.

    Where there is no lock, what nobody has written to for `older_than` seconds is taken for abandoned.
    """
    for path in folder.glob(f".*{TEMPORARY}"):
        with suppress(OSError):
            if not older_than or time.time() - path.stat().st_mtime > older_than:
                disk.remove(path)


def _temporary_name(path: Path) -> str:
    # Hosts that share a folder may share a process number.
    return f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}{TEMPORARY}"


def _write_all(file: int, parts: Sequence[bytes | memoryview]) -> None:
    """Write all parts, however little goes at a time; raise OSError if nothing goes any more."""
    waiting = [memoryview(part) for part in parts if len(part)]
    while waiting:
        n_written = disk.write(file, waiting[:_PARTS])
        if not n_written:
            raise OSError(errno.EIO, "nothing more is written")
        while waiting and n_written >= len(waiting[0]):
            n_written -= len(waiting.pop(0))
        if n_written:
            waiting[0] = waiting[0][n_written:]


def _holder(file: int) -> str:
    for _ in range(_LOOKS):
        try:
            owner = json.loads(os.pread(file, 4096, 0))
            return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            time.sleep(0.02)  # It may have the lock, and not yet have said so.
    return "another process"


def _explained(error: OSError, operation: str, path: Path, n_bytes: int) -> GrokscopeError:
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        with suppress(OSError):
            free = shutil.disk_usage(path.parent).free
            reason += f" ({n_bytes:,} bytes needed, {free:,} free)"
    return GrokscopeError(f"Could not {operation} {path}: {reason}. What was saved before is intact.")
