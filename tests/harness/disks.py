"""Replacements of `syscalls.disk` that count the operations, and fail or crash at one of them."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from grokscope.disk import syscalls

OPERATIONS = [name for name in vars(syscalls.Disk) if not name.startswith("_")]
MESSAGES = {
    "create": "create",
    "write": "write",
    "sync": "fsync",
    "replace": "replace",
    "sync_folder": "(fsync the folder of|make the folder)",
    "make_folder": "make the folder",
    "rename_folder": "make the folder",
    "open_lock": "open the lock",
}
"""The operation as error messages name it. The errors of all other operations are ignored by grokscope."""
ERRORS = ["ENOSPC", "EIO", "EACCES", "EROFS", "EDQUOT"]
CRASHES = ["crashes before", "crashes within", "crashes after"]
SHORT_WRITES = ["writes half once", "writes half always", "writes nothing always"]
FAULTS = [*CRASHES, *ERRORS, "stays full", *SHORT_WRITES]
_GROWING = ("create", "write", "make_folder")


class CrashError(BaseException):
    """The simulated process has crashed: none of its later operations reaches the disk."""


class CountingDisk(syscalls.Disk):
    """A disk that counts its operations. Subclasses override `perform`."""

    def __init__(self):
        self.names: list[str] = []
        """The names of all operations so far."""

    def perform(self, number: int, name: str, arguments: Sequence[Any]) -> Any:
        """Perform operation `number`, counted from 1, and return its result."""
        return getattr(syscalls.Disk, name)(self, *arguments)


def _counted(name: str) -> Any:
    """Return a method that counts an operation and performs it."""

    def operation(self: CountingDisk, *arguments: Any) -> Any:
        self.names.append(name)
        return self.perform(len(self.names), name, arguments)

    return operation


for _name in OPERATIONS:
    setattr(CountingDisk, _name, _counted(_name))


class FaultyDisk(CountingDisk):
    """A disk with one of FAULTS at operation `fault_number`."""

    def __init__(self, fault: str, fault_number: int):
        super().__init__()
        self.fault, self.fault_number, self.has_crashed = fault, fault_number, False
        self.failed: str | None = None
        """The name of the first operation that raised OSError."""

    def perform(self, number: int, name: str, arguments: Sequence[Any]) -> Any:
        """Perform operation `number`, with the fault if this is its turn."""
        if self.has_crashed:
            raise CrashError
        is_faulty, half = number == self.fault_number, name == "write" and self._first_half(arguments)
        if is_faulty and self.fault in CRASHES:
            self.has_crashed = True
            if self.fault == "crashes within" and half:
                syscalls.Disk.write(self, arguments[0], half)
            elif self.fault == "crashes after":
                result = super().perform(number, name, arguments)
                if name in ("create", "open_lock"):
                    os.close(result)  # The end of a process closes its files.
            raise CrashError
        is_full = self.fault == "stays full" and number >= self.fault_number and name in _GROWING
        if is_full or (is_faulty and self.fault in ERRORS):
            if half:
                syscalls.Disk.write(self, arguments[0], half)
            self.failed = self.failed or name
            code = getattr(errno, self.fault, errno.ENOSPC)
            raise OSError(code, os.strerror(code))
        is_short = is_faulty if self.fault == "writes half once" else number >= self.fault_number
        if half and is_short and self.fault in SHORT_WRITES:
            if self.fault == "writes nothing always":
                self.failed = name
                return 0
            return syscalls.Disk.write(self, arguments[0], half)
        return super().perform(number, name, arguments)

    @staticmethod
    def _first_half(arguments: Sequence[Any]) -> list[memoryview]:
        """Return the first half of the bytes to write, rounded up."""
        data = b"".join(arguments[1])
        return [memoryview(data[: -(-len(data) // 2)])]


@contextmanager
def use_disk(disk: syscalls.Disk) -> Iterator[None]:
    """Send all writing to a disk within the block."""
    previous, syscalls.disk = syscalls.disk, disk
    try:
        yield
    finally:
        syscalls.disk = previous
