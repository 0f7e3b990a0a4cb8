"""The writer's lock: at most one process at a time writes to a run."""

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

LOCK_NAME = "lock"
_N_ATTEMPTS = 10
"""The number of attempts to take the lock, and to read its owner."""


class Lock:
    """The right of one process to write to a run's folder, as a context manager. Readers do not need it.

    It is an flock on a file of its own. The kernel releases it when its owner dies in any way, so a lock is never
    stale. The file names the owner.

    Raises:
        BusyError: Another process holds the lock; the message names it.
        GrokscopeError: The lock could not be opened or taken.
    """

    def __init__(self, folder: Path):
        self.path = folder / LOCK_NAME
        self._file: int | None = None

    def __enter__(self) -> "Lock":
        try:
            file = syscalls.disk.open_lock(self.path)
        except OSError as error:
            raise disk_error(error, "open the lock", self.path, 0) from error
        try:
            _acquire(file)
        except OSError as error:
            holder = _describe_holder(file)
            os.close(file)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise disk_error(error, "lock", self.path, 0) from error
            raise BusyError(
                f"{self.path.parent} is being written by {holder}. Wait until it has finished, or stop it."
            ) from error
        self._file = file
        _held.add(self)
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now(UTC):%F %T} UTC"}
        try:
            syscalls.disk.write_owner(file, json.dumps(owner).encode())
        except OSError:
            pass  # The owner is only for messages, so a full disk must not prevent locking.
        except BaseException:
            self.release()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            if self._file is not None:
                with suppress(OSError):  # The owner is only for messages.
                    syscalls.disk.write_owner(self._file, b"")
        finally:
            self.release()

    def release(self) -> None:
        """Close the lock's file in this process. A parent or child that has it open keeps the lock."""
        _held.discard(self)
        if self._file is not None:
            os.close(self._file)
            self._file = None


_held: set[Lock] = set()
"""The locks that this process holds."""
# A forked child inherits open files, and would keep the locks of a parent that has died.
os.register_at_fork(after_in_child=lambda: [lock.release() for lock in tuple(_held)])


def is_locked(folder: Path) -> bool:
    """Return whether a process holds the folder's lock at this moment."""
    try:
        file = os.open(folder / LOCK_NAME, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError as error:
        # A file system without locks raises another error.
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    finally:
        os.close(file)


def _acquire(file: int) -> None:
    """Take the lock or raise OSError, after several attempts: `is_locked` may hold it for a moment."""
    for _ in range(_N_ATTEMPTS):
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.005)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _describe_holder(file: int) -> str:
    """Return the lock's owner for a message."""
    for _ in range(_N_ATTEMPTS):
        try:
            owner = json.loads(os.pread(file, 4096, 0))
            return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            time.sleep(0.02)  # The owner may not have written its name yet.
    return "another process"
