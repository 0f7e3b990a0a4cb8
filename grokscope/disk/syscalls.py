"""The one door through which grokscope changes a disk; `files` alone goes through it."""

import errno
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from grokscope.errors import GrokscopeError


class Disk:
    """The operations that change a disk, about a system call each.

    The tests put another in its place, which fails, tears, dies or keeps a record at any operation.
    """

    def create(self, path: Path) -> int:
        """Open a file that is not there yet, for writing; its mode follows the umask."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)

    def write(self, file: int, parts: Sequence[memoryview]) -> int:
        """Write as much of the parts as goes in one call; return how many bytes that were."""
        return os.writev(file, parts)

    def sync(self, file: int) -> None:
        """Wait until a file's bytes are on the disk."""
        os.fsync(file)

    def replace(self, source: Path, target: Path) -> None:
        """Give a file its name, in the place of the file that has it."""
        os.replace(source, target)

    def sync_folder(self, path: Path) -> None:
        """Wait until the names in a folder are on the disk."""
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def make_folder(self, path: Path) -> None:
        """Make one folder; its mode follows the umask."""
        os.mkdir(path)

    def rename_folder(self, source: Path, target: Path) -> None:
        """Give a folder its name, unless a folder that is not empty or a file has it."""
        os.rename(source, target)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        os.unlink(path)

    def remove_folder(self, path: Path) -> None:
        """Remove a folder with all that is in it, as far as that goes."""
        shutil.rmtree(path, ignore_errors=True)

    def open_lock(self, path: Path) -> int:
        """Open the file of a lock, making it if need be."""
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)

    def note(self, file: int, text: bytes) -> None:
        """Let the file of a lock say `text`."""
        os.ftruncate(file, 0)
        os.pwrite(file, text, 0)


disk = Disk()
"""The disk that all writing goes to; the tests put another in its place."""


def disk_error(error: OSError, operation: str, path: Path, n_bytes: int) -> GrokscopeError:
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        with suppress(OSError):
            free = shutil.disk_usage(path.parent).free
            reason += f" ({n_bytes:,} bytes needed, {free:,} free)"
    return GrokscopeError(f"Could not {operation} {path}: {reason}. What was saved before is intact.")
