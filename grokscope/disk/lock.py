"""The writer's lock: one process at a time may write to a run."""

import errno
import fcntl
import json
import os
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from grokscope.disk import syscalls
from grokscope.disk.syscalls import disk_error
from grokscope.errors import BusyError

LOCK = "lock"
_LOOKS = 10
"""How often a lock that is taken is tried again, within some 50 milliseconds."""


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
            file = syscalls.disk.open_lock(self.path)
        except OSError as error:
            raise disk_error(error, "open the lock", self.path, 0) from error
        try:
            _take(file)
        except OSError as error:
            holder = _holder(file)
            os.close(file)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise disk_error(error, "lock", self.path, 0) from error
            raise BusyError(
                f"{self.path.parent} is being written by {holder}; wait for it to end, or stop it."
            ) from error
        self._file = file
        _held.add(self)
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now(UTC):%F %T} UTC"}
        try:
            syscalls.disk.note(file, json.dumps(owner).encode())
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
                    syscalls.disk.note(self._file, b"")
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


def _holder(file: int) -> str:
    for _ in range(_LOOKS):
        try:
            owner = json.loads(os.pread(file, 4096, 0))
            return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            time.sleep(0.02)  # It may have the lock, and not yet have said so.
    return "another process"
