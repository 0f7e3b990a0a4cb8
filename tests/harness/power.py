"""What may be left on a disk that lost its power: a model of it that is as careless as POSIX allows.

What was written to a file and not fsynced may be there, in part, as zeros, or not at all. A change of a folder's
names that was not followed by an fsync of that folder may have happened or not, whatever came before or after it in
this or another folder; a renaming alone is whole or not at all.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.disks import Disk

Operation = tuple[Any, ...]
LOSSES = ["everything unsynced", "unsynced bytes alone", "unsynced names alone", "random"]
_BLOCK = 512


class Recorder(Disk):
    """A disk that keeps a record of all that it does, with the bytes; `note_that` writes into the record."""

    def __init__(self):
        super().__init__()
        self.record: list[Operation] = []
        self._opened: dict[int, int] = {}
        """Which file, counted from 0, a descriptor stands for."""
        self._n_files = 0

    def happen(self, number: int, name: str, arguments: Sequence[Any]) -> Any:
        """Do operation `number`, and keep a record of it once it is done."""
        if name == "remove_folder":
            raise AssertionError("nothing is to be given up in a life that nothing happens to")
        kept: Operation = tuple(arguments)
        if name in ("write", "note", "sync"):
            kept = (self._opened[arguments[0]], *arguments[1:])
        is_there = name == "open_lock" and arguments[0].exists()
        done = super().happen(number, name, arguments)
        if name == "write":
            kept = (kept[0], b"".join(arguments[1])[:done])
        if name in ("create", "open_lock"):
            self._opened[done] = self._n_files
            kept = (*arguments, self._n_files, is_there)
            self._n_files += 1
        self.record.append((name, *kept))
        return done

    def note_that(self, *what: Any) -> None:
        """Write into the record what is no operation, such as that somebody was told of a commit."""
        self.record.append(("note that", *what))


@dataclass
class File:
    """A file: its bytes, and those that the disk is sure to have."""

    data: bytes = b""
    synced: bytes = b""


@dataclass
class Folder:
    """A folder: its names, those that the disk is sure to have, and the changes since."""

    names: dict[str, "File | Folder"] = field(default_factory=dict)
    synced: dict[str, "File | Folder"] = field(default_factory=dict)
    changes: list[dict[str, "File | Folder | None"]] = field(default_factory=list)

    def change(self, change: dict[str, "File | Folder | None"]) -> None:
        """Give names to files and folders, or take them from them, all at once."""
        self.changes.append(change)
        _apply(self.names, change)

    def sync(self) -> None:
        """Let the disk have all names."""
        self.synced, self.changes = dict(self.names), []


class Model:
    """A folder on such a disk, and what a record of operations makes of it."""

    def __init__(self, root: Path):
        self.root, self.top = root, _loaded(root)
        self._files: dict[int, File] = {}
        self.noted: list[tuple[Any, ...]] = []

    def do(self, operation: Operation) -> None:
        """Do one operation of a record."""
        name, *given = operation
        if name in ("create", "open_lock"):
            path, number, is_there = given
            folder = self._folder(path.parent)
            if is_there:
                self._files[number] = folder.names[path.name]  # type: ignore[assignment]
            else:
                self._files[number] = File()
                folder.change({path.name: self._files[number]})
        elif name == "write":
            self._files[given[0]].data += given[1]
        elif name == "note":
            self._files[given[0]].data = given[1]
        elif name == "sync":
            file = self._files[given[0]]
            file.synced = file.data
        elif name in ("replace", "rename_folder"):
            source, target = given
            assert source.parent == target.parent
            folder = self._folder(source.parent)
            folder.change({source.name: None, target.name: folder.names[source.name]})
        elif name == "sync_folder":
            if given[0] == self.root or self.root in given[0].parents:
                self._folder(given[0]).sync()
        elif name == "make_folder":
            self._folder(given[0].parent).change({given[0].name: Folder()})
        elif name == "remove":
            self._folder(given[0].parent).change({given[0].name: None})
        else:
            self.noted.append(tuple(given))

    def _folder(self, path: Path) -> Folder:
        folder = self.top
        for name in path.relative_to(self.root).parts:
            folder = folder.names[name]
            assert isinstance(folder, Folder)
        return folder

    def left(self, loss: str, seed: int) -> dict[str, bytes | None]:
        """Return what is left if the power goes now: the bytes of each file by its path, None for a folder."""
        found: dict[str, bytes | None] = {}
        _leave(self.top, "", loss, random.Random(seed), found)
        return found


def after(root: Path, record: Iterable[Operation]) -> Iterable[Model]:
    """Yield the model before the first operation on a copy of `root` as it is now, and after each."""
    model = Model(root)
    yield model
    for operation in record:
        model.do(operation)
        yield model


def lay_out(left: dict[str, bytes | None], root: Path) -> None:
    """Write what is left into a new folder."""
    root.mkdir()
    for name, data in left.items():
        if data is None:
            (root / name).mkdir()
        else:
            (root / name).write_bytes(data)


def _apply(names: dict[str, File | Folder], change: dict[str, File | Folder | None]) -> None:
    for name, what in change.items():
        if what is None:
            names.pop(name, None)
        else:
            names[name] = what


def _loaded(path: Path) -> Folder:
    names: dict[str, File | Folder] = {}
    for one in path.iterdir():
        names[one.name] = _loaded(one) if one.is_dir() else File(one.read_bytes(), one.read_bytes())
    return Folder(names, dict(names))


def _leave(folder: Folder, at: str, loss: str, choose: random.Random, found: dict[str, bytes | None]) -> None:
    names = dict(folder.synced)
    for change in folder.changes:
        if loss == "unsynced bytes alone" or (loss == "random" and choose.random() < 0.5):
            _apply(names, change)
    for name, what in sorted(names.items()):
        if isinstance(what, Folder):
            found[at + name] = None
            _leave(what, f"{at}{name}/", loss, choose, found)
        else:
            found[at + name] = _torn(what, loss, choose)


def _torn(file: File, loss: str, choose: random.Random) -> bytes:
    if file.data == file.synced or loss == "unsynced names alone":
        return file.data
    if loss != "random":
        return file.synced
    kind = choose.randrange(4)
    if kind == 0:
        return file.synced
    if kind == 1:
        return file.data[: choose.randint(0, len(file.data))]
    if kind == 2:
        return bytes(len(file.data))
    blocks = [file.data[i : i + _BLOCK] for i in range(0, len(file.data), _BLOCK)]
    return b"".join(block if choose.random() < 0.5 else bytes(len(block)) for block in blocks)
