"""The power goes after each operation on the disk, and what was not yet synced is lost, torn or out of order."""

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from grokscope.disk import atomic, syscalls
from grokscope.errors import GrokscopeError
from harness import power
from harness.disks import put
from harness.lives import LIVES, Acknowledged, Life, compute_little, said

pytestmark = pytest.mark.usefixtures("segments_by_count")

Losses = Callable[[int], list[tuple[str, int]]]


def recorded(life: Life, root: Path) -> list[power.Operation]:
    """Return the record of a life, with notes of what it told that it had committed."""
    life.begin(root)
    with pytest.MonkeyPatch.context() as patch, put(disk := power.Recorder()):
        Acknowledged(patch, lambda steps: disk.note_that(steps))
        life.go_on(root)
    return disk.record


def lose_power_everywhere(life: Life, folder: Path, losses: Losses, counts: Counter[str]) -> None:
    """Let the power go after each operation of a life, lose what may be lost, and check and end the life there."""
    record = recorded(life, folder / "recorded")
    life.begin(folder / "first")
    seen = set()
    counts["operations"] = len(record)
    for number, model in enumerate(power.after(folder / "first", relative(record, folder))):
        acknowledged = set(model.noted[-1][0]) if model.noted else set()
        for loss, seed in losses(number):
            left = model.left(loss, seed)
            counts["losses"] += 1
            # The same may be left after several operations.
            key = hash((frozenset(left.items()), frozenset(acknowledged)))
            if key in seen:
                continue
            seen.add(key)
            power.lay_out(left, folder / "root")
            counts["states"] += 1
            life.check(folder / "root", acknowledged)
            shutil.rmtree(folder / "root")


def relative(record: list[power.Operation], folder: Path) -> list[power.Operation]:
    """Return the record as if it were of the folder `first`, which is as `recorded` was before."""

    def moved(one: object) -> object:
        if isinstance(one, Path) and (folder / "recorded") in (one, *one.parents):
            return folder / "first" / one.relative_to(folder / "recorded")
        return one

    return [tuple(map(moved, operation)) for operation in record]


def some(number: int) -> list[tuple[str, int]]:
    """Return one way to lose what is not synced, another from one operation to the next."""
    return [(power.LOSSES[number % len(power.LOSSES)], number)]


def all_at_once(number: int) -> list[tuple[str, int]]:
    """Return the ways to lose all that is not synced, of one kind or of both."""
    return [(loss, 0) for loss in power.LOSSES[:-1]]


def all_of(number: int) -> list[tuple[str, int]]:
    """Return every way to lose what is not synced, with 12 seeds where it is by chance."""
    return all_at_once(number) + [("random", seed) for seed in range(12)]


@pytest.mark.parametrize(
    ("name", "losses"),
    [(name, some) for name in LIVES if name != "fork"]
    + [pytest.param(name, all_of, marks=pytest.mark.slow) for name in LIVES],
)
def test_a_machine_that_loses_power_loses_nothing_that_was_committed(
    name: str, losses: Losses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    compute_little(monkeypatch)
    counts: Counter[str] = Counter()
    lose_power_everywhere(Life.make(name, tmp_path), tmp_path, losses, counts)
    said(f"{name}, the power lost after each operation, 0 lost, 0 differ", counts)
    assert counts["losses"] > counts["operations"] > 9


def over_it(path: Path, *parts: bytes | memoryview) -> None:
    """Write to the final path, with every fsync, as a careful `torch.save` would."""
    file = syscalls.disk.create(path)
    atomic._write_all(file, parts)
    syscalls.disk.sync(file)
    os.close(file)
    syscalls.disk.sync_folder(path.parent)


def no_sync(path: Path, *parts: bytes | memoryview) -> None:
    """Write to a temporary file that is renamed without an fsync."""
    temporary = path.with_name(f".{path.name}{atomic.TEMPORARY}")
    file = syscalls.disk.create(temporary)
    atomic._write_all(file, parts)
    os.close(file)
    syscalls.disk.replace(temporary, path)
    syscalls.disk.sync_folder(path.parent)


def no_sync_of_the_folder(path: Path, *parts: bytes | memoryview) -> None:
    """Write as `write_atomic` does, but for the fsync of the folder."""
    temporary = path.with_name(f".{path.name}{atomic.TEMPORARY}")
    file = syscalls.disk.create(temporary)
    atomic._write_all(file, parts)
    syscalls.disk.sync(file)
    os.close(file)
    syscalls.disk.replace(temporary, path)


@pytest.mark.parametrize("writer", [over_it, no_sync, no_sync_of_the_folder])
def test_a_writer_that_leaves_something_out_is_caught(
    writer: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The control: each of these survives every SIGKILL, or most, and none a loss of power."""
    compute_little(monkeypatch)
    life = Life.make("train", tmp_path)
    monkeypatch.setattr(atomic, "write_atomic", writer)
    with pytest.raises((AssertionError, GrokscopeError)):
        lose_power_everywhere(life, tmp_path, all_at_once, counts := Counter())
    said(f"a writer with {writer.__name__}", {"caught after operations": counts["losses"]})
