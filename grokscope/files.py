"""The only place that opens a file for writing, and the writer's lock.

A file is written whole or not at all: bytes → temporary file in the same folder → fsync → `os.replace` →
fsync of the folder. A failed fsync is final (retrying it lies: the kernel may have dropped the pages).
"""

import errno
import fcntl
import json
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from grokscope.errors import Busy, GrokscopeError

TEMPORARY = ".writing"
LOCK = "lock"
_LOOKS = 10
"""How often a lock that is taken is tried again, within some 50 milliseconds."""


def write_atomic(path: Path, *parts: bytes | memoryview) -> None:
    """Write `parts` to `path` so that a reader, or a machine that loses power, sees the old file or the new one.

    The file's mode follows the umask. Raise GrokscopeError that names the path and the operation, and for a
    full disk the bytes needed and free; the temporary file is then removed and `path` is as it was.
    """
    # Hosts that share a folder may share a process number.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}{TEMPORARY}")
    operation = "create"
    try:
        with open(temporary, "wb") as file:
            operation = "write"
            file.writelines(parts)
            file.flush()
            operation = "fsync"
            os.fsync(file.fileno())
        operation = "replace"
        os.replace(temporary, path)
        operation = "fsync the folder of"
        _fsync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise _explained(error, operation, path, sum(map(len, parts))) from error


def make_folder(path: Path) -> None:
    """Make a folder and those above it, durably; raise GrokscopeError that names it if that fails."""
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            _fsync_folder(folder.parent)
    except OSError as error:
        raise _explained(error, "make the folder", path, 0) from error


def remove(path: Path) -> None:
    """Remove a file if it is there; raise GrokscopeError that names it if it cannot be removed."""
    try:
        path.unlink(missing_ok=True)
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
                shutil.rmtree(abandoned, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(TEMPORARY, f".{path.name}.", path.parent))
        temporary.chmod(0o777 & ~_umask())
    except OSError as error:
        raise _explained(error, "make the folder", path, 0) from error
    try:
        yield temporary
        # Renaming onto an existing folder fails unless it is empty, so of several builders one wins.
        os.rename(temporary, path)
        _fsync_folder(path.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise Busy(f"{path} exists already; choose another name or remove it.") from error
        raise _explained(error, "make the folder", path, 0) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
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
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
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
        os.register_at_fork(after_in_child=self._close)
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now(UTC):%F %T} UTC"}
        with suppress(OSError):  # A full disk must not keep anybody from the lock: who holds it is a courtesy.
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(owner).encode(), 0)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            with suppress(OSError):  # Nobody is told of an owner that has gone.
                os.ftruncate(self._file, 0)
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


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


def remove_temporary(folder: Path) -> None:
    """Remove what writers that died have left half written; only the holder of the folder's lock may call it."""
    for path in folder.glob(f".*{TEMPORARY}"):
        with suppress(OSError):
            path.unlink()


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _fsync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _holder(file: int) -> str:
    try:
        owner = json.loads(os.pread(file, 4096, 0))
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _explained(error: OSError, operation: str, path: Path, n_bytes: int) -> GrokscopeError:
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        with suppress(OSError):
            free = shutil.disk_usage(path.parent).free
            reason += f" ({n_bytes:,} bytes needed, {free:,} free)"
    return GrokscopeError(f"Could not {operation} {path}: {reason}. What was saved before is intact.")
