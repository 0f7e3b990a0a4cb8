"""The system calls that change a disk. Only `grokscope.disk.atomic` and `grokscope.disk.lock` use them."""

import errno
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from grokscope.errors import GrokscopeError


class Disk:
    """The operations that change a disk, each about one system call.

    Tests replace `disk` by a subclass that fails, tears, crashes or records at any operation.
    """

    def create(self, path: Path) -> int:
        """Open a new file for writing; its mode follows the umask."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)

    def write(self, file: int, parts: Sequence[memoryview]) -> int:
        """Write as many bytes of the parts as the system accepts in one call; return their number."""
        return os.writev(file, parts)

    def sync(self, file: int) -> None:
        """Wait until the bytes of a file are on the disk."""
        os.fsync(file)

    def replace(self, source: Path, target: Path) -> None:
        """Rename a file, and replace the target if it exists."""
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
        """Rename a folder; raise OSError if the target is a file or a folder that is not empty."""
        os.rename(source, target)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        os.unlink(path)

    def remove_folder(self, path: Path) -> None:
        """Remove a folder and its content, and ignore errors."""
        shutil.rmtree(path, ignore_errors=True)

    def open_lock(self, path: Path) -> int:
        """Open the file of a lock, and create it if necessary."""
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)

    def write_owner(self, file: int, text: bytes) -> None:
        """Replace the content of a lock's file."""
        os.ftruncate(file, 0)
        os.pwrite(file, text, 0)


disk = Disk()
"""The disk that every write uses."""


def disk_error(error: OSError, operation: str, path: Path, n_bytes: int) -> GrokscopeError:
    """Return the error for a failed operation on a path; for a full disk, with the bytes needed and free."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        with suppress(OSError):
            free = shutil.disk_usage(path.parent).free
            reason += f" ({n_bytes:,} bytes needed, {free:,} free)"
    return GrokscopeError(f"Could not {operation} {path}: {reason}. Previously saved data is intact.")
