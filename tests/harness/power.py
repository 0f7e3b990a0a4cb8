"""The possible states of a disk after a loss of power, in a model as careless as POSIX allows.

- Bytes that were written to a file but not synced may be present, partly present, zeros, or absent.
- A change of names in a folder that was not synced may have happened or not, regardless of earlier and later changes
  in this or another folder. A renaming happens as a whole or not at all.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.disks import CountingDisk

Operation = tuple[Any, ...]
LOSSES = ["all unsynced", "unsynced bytes", "unsynced names", "random"]
_BLOCK = 512


class RecordingDisk(CountingDisk):
    """A disk that records its operations, with the bytes. `add_note` adds other events to the record."""

    def __init__(self):
        super().__init__()
        self.record: list[Operation] = []
        self._file_numbers: dict[int, int] = {}
        """The number of the file, counted from 0, that each descriptor is open for."""
        self._n_files = 0

    def perform(self, number: int, name: str, arguments: Sequence[Any]) -> Any:
        """Perform operation `number`, and record it."""
        if name == "remove_folder":
            raise AssertionError("an undisturbed run must not remove a folder")
        recorded: Operation = tuple(arguments)
        if name in ("write", "write_owner", "sync"):
            recorded = (self._file_numbers[arguments[0]], *arguments[1:])
        exists = name == "open_lock" and arguments[0].exists()
        result = super().perform(number, name, arguments)
        if name == "write":
            recorded = (recorded[0], b"".join(arguments[1])[:result])
        if name in ("create", "open_lock"):
            self._file_numbers[result] = self._n_files
            recorded = (*arguments, self._n_files, exists)
            self._n_files += 1
        self.record.append((name, *recorded))
        return result

    def add_note(self, *values: Any) -> None:
        """Record an event that is not an operation, such as the acknowledgement of a commit."""
        self.record.append(("note", *values))


@dataclass
class File:
    """The bytes of a file, and those that are certainly on the disk."""

    data: bytes = b""
    synced: bytes = b""


@dataclass
class Folder:
    """The names in a folder, those that are certainly on the disk, and the changes since then."""

    names: dict[str, "File | Folder"] = field(default_factory=dict)
    synced: dict[str, "File | Folder"] = field(default_factory=dict)
    changes: list[dict[str, "File | Folder | None"]] = field(default_factory=list)

    def change(self, change: dict[str, "File | Folder | None"]) -> None:
        """Set names to files and folders, or remove them (None), as one change."""
        self.changes.append(change)
        _apply(self.names, change)

    def sync(self) -> None:
        """Put all names on the disk."""
        self.synced, self.changes = dict(self.names), []


class DiskModel:
    """The state of a folder on such a disk, updated by the operations of a record."""

    def __init__(self, root: Path):
        self.root, self.top = root, _load(root)
        self._files: dict[int, File] = {}
        self.notes: list[tuple[Any, ...]] = []

    def apply(self, operation: Operation) -> None:
        """Apply one entry of a record."""
        name, *arguments = operation
        if name in ("create", "open_lock"):
            path, number, exists = arguments
            folder = self._folder(path.parent)
            if exists:
                self._files[number] = folder.names[path.name]  # type: ignore[assignment]
            else:
                self._files[number] = File()
                folder.change({path.name: self._files[number]})
        elif name == "write":
            self._files[arguments[0]].data += arguments[1]
        elif name == "write_owner":
            self._files[arguments[0]].data = arguments[1]
        elif name == "sync":
            file = self._files[arguments[0]]
            file.synced = file.data
        elif name in ("replace", "rename_folder"):
            source, target = arguments
            assert source.parent == target.parent
            folder = self._folder(source.parent)
            folder.change({source.name: None, target.name: folder.names[source.name]})
        elif name == "sync_folder":
            if arguments[0] == self.root or self.root in arguments[0].parents:
                self._folder(arguments[0]).sync()
        elif name == "make_folder":
            self._folder(arguments[0].parent).change({arguments[0].name: Folder()})
        elif name == "remove":
            self._folder(arguments[0].parent).change({arguments[0].name: None})
        else:
            self.notes.append(tuple(arguments))

    def after_power_loss(self, loss: str, seed: int) -> dict[str, bytes | None]:
        """Return the disk after a loss of power: the bytes of each file by its path, None for a folder."""
        content: dict[str, bytes | None] = {}
        _lose_power(self.top, "", loss, random.Random(seed), content)
        return content

    def _folder(self, path: Path) -> Folder:
        folder = self.top
        for name in path.relative_to(self.root).parts:
            folder = folder.names[name]
            assert isinstance(folder, Folder)
        return folder


def replay(root: Path, record: Iterable[Operation]) -> Iterable[DiskModel]:
    """Yield the model of `root` as it is on the disk, and again after each operation of the record."""
    model = DiskModel(root)
    yield model
    for operation in record:
        model.apply(operation)
        yield model


def write_content(content: dict[str, bytes | None], root: Path) -> None:
    """Write the content of a disk into a new folder."""
    root.mkdir()
    for name, data in content.items():
        if data is None:
            (root / name).mkdir()
        else:
            (root / name).write_bytes(data)


def _apply(names: dict[str, File | Folder], change: dict[str, File | Folder | None]) -> None:
    for name, entry in change.items():
        if entry is None:
            names.pop(name, None)
        else:
            names[name] = entry


def _load(path: Path) -> Folder:
    """Return a folder of the real disk, with everything synced."""
    names: dict[str, File | Folder] = {}
    for child in path.iterdir():
        names[child.name] = _load(child) if child.is_dir() else File(child.read_bytes(), child.read_bytes())
    return Folder(names, dict(names))


def _lose_power(
    folder: Folder, prefix: str, loss: str, generator: random.Random, content: dict[str, bytes | None]
) -> None:
    """Add the content of a folder after a loss of power."""
    names = dict(folder.synced)
    for change in folder.changes:
        if loss == "unsynced bytes" or (loss == "random" and generator.random() < 0.5):
            _apply(names, change)
    for name, entry in sorted(names.items()):
        if isinstance(entry, Folder):
            content[prefix + name] = None
            _lose_power(entry, f"{prefix}{name}/", loss, generator, content)
        else:
            content[prefix + name] = _torn_bytes(entry, loss, generator)


def _torn_bytes(file: File, loss: str, generator: random.Random) -> bytes:
    """Return the bytes of a file after a loss of power."""
    if file.data == file.synced or loss == "unsynced names":
        return file.data
    if loss != "random":
        return file.synced
    kind = generator.randrange(4)
    if kind == 0:
        return file.synced
    if kind == 1:
        return file.data[: generator.randint(0, len(file.data))]
    if kind == 2:
        return bytes(len(file.data))
    blocks = [file.data[i : i + _BLOCK] for i in range(0, len(file.data), _BLOCK)]
    return b"".join(block if generator.random() < 0.5 else bytes(len(block)) for block in blocks)
