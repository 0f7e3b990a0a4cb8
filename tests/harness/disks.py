"""Disks in the place of ``files.disk``: the operations of writing are numbered, and something happens at one."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from grokscope.disk import syscalls

OPERATIONS = [name for name in vars(syscalls.Disk) if not name.startswith("_")]
NAMES = {
    "create": "create",
    "write": "write",
    "sync": "fsync",
    "replace": "replace",
    "sync_folder": "(fsync the folder of|make the folder)",
    "make_folder": "make the folder",
    "rename_folder": "make the folder",
    "open_lock": "open the lock",
}
"""What an error calls each operation; those that are not here are a courtesy, and their errors no matter."""
ERRORS = ["ENOSPC", "EIO", "EACCES", "EROFS", "EDQUOT"]
DEATHS = ["dies before", "dies within", "dies after"]
SHORTS = ["writes short once", "writes short for ever", "writes nothing for ever"]
FAULTS = [*DEATHS, *ERRORS, "stays full", *SHORTS]
_GROWING = ("create", "write", "make_folder")


class Died(BaseException):
    """The process ended here: nothing that it does from now on reaches the disk."""


class Disk(syscalls.Disk):
    """A disk that counts its operations; `happen` is what each does."""

    def __init__(self):
        self.names: list[str] = []
        """The operations so far."""

    def happen(self, number: int, name: str, arguments: Sequence[Any]) -> Any:
        """Do operation `number`, from 1."""
        return getattr(syscalls.Disk, name)(self, *arguments)


def _numbered(name: str) -> Any:
    def operation(self: Disk, *arguments: Any) -> Any:
        self.names.append(name)
        return self.happen(len(self.names), name, arguments)

    return operation


for _name in OPERATIONS:
    setattr(Disk, _name, _numbered(_name))


class Faulty(Disk):
    """A disk with one of FAULTS at operation number `at`."""

    def __init__(self, fault: str, at: int):
        super().__init__()
        self.fault, self.at, self.is_dead = fault, at, False
        self.failed: str | None = None
        """The first operation that raised OSError."""

    def happen(self, number: int, name: str, arguments: Sequence[Any]) -> Any:
        """Do operation `number`, with the fault if it is time."""
        if self.is_dead:
            raise Died
        is_now, half = number == self.at, name == "write" and self._half(arguments)
        if is_now and self.fault in DEATHS:
            self.is_dead = True
            if self.fault == "dies within" and half:
                syscalls.Disk.write(self, arguments[0], half)
            elif self.fault == "dies after":
                done = super().happen(number, name, arguments)
                if name in ("create", "open_lock"):
                    os.close(done)  # As the end of a process does.
            raise Died
        if is_now and self.fault in ERRORS or number >= self.at and self.fault == "stays full" and name in _GROWING:
            if half:
                syscalls.Disk.write(self, arguments[0], half)
            self.failed = self.failed or name
            code = getattr(errno, self.fault, errno.ENOSPC)
            raise OSError(code, os.strerror(code))
        if half and (is_now if self.fault == "writes short once" else number >= self.at):
            if self.fault == "writes nothing for ever":
                self.failed = name
                return 0
            if self.fault in SHORTS:
                return syscalls.Disk.write(self, arguments[0], half)
        return super().happen(number, name, arguments)

    @staticmethod
    def _half(arguments: Sequence[Any]) -> list[memoryview]:
        """Return the first half of what was to be written, at least a byte."""
        data = b"".join(arguments[1])
        return [memoryview(data[: -(-len(data) // 2)])]


@contextmanager
def put(instead: syscalls.Disk) -> Iterator[None]:
    """Let all writing go to it within the block."""
    before, syscalls.disk = syscalls.disk, instead
    try:
        yield
    finally:
        syscalls.disk = before
