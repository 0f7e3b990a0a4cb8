"""Every operation on the disk fails in every way, in a run that trains, goes on, is densified or forks."""

import errno
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from grokscope.disk import atomic, syscalls
from grokscope.errors import GrokscopeError
from grokscope.store.run_store import RunStore
from harness.disks import DEATHS, ERRORS, FAULTS, NAMES, SHORTS, Died, Disk, Faulty, put
from harness.lives import LIVES, Acknowledged, Life, compute_little, run_in, said

pytestmark = pytest.mark.usefixtures("segments_by_count")


def operations(life: Life, root: Path) -> list[str]:
    """Return the operations of the life when nothing happens to it."""
    life.begin(root)
    with put(disk := Disk()):
        life.go_on(root)
    shutil.rmtree(root)
    return disk.names


def check_message(message: str, disk: Faulty, root: Path) -> None:
    """Check that an error names the path and the operation, and for a full disk the bytes needed and free."""
    operation, path = NAMES[disk.failed or ""], re.escape(str(root.parent))
    assert re.match(rf"Could not {operation}.* {path}", message), message
    full = disk.fault in ("ENOSPC", "EDQUOT", "stays full")
    assert bool(re.search(r"\([\d,]+ bytes needed, [\d,]+ free\)", message)) == full, message
    assert message.endswith("What was saved before is intact.")
    assert disk.fault not in ERRORS or os.strerror(getattr(errno, disk.fault)) in message


def break_everywhere(life: Life, folder: Path, faults_at: Callable[[int, str], list[str]]) -> Counter[str]:
    """Live the life once for each operation and fault; return how often what came of it. Any loss is an error."""
    counts = Counter(operations=len(names := operations(life, folder / "plain")))
    for at in range(1, len(names) + 1):
        for fault in faults_at(at, names[at - 1]):
            root = folder / "root"
            life.begin(root)
            with pytest.MonkeyPatch.context() as patch, put(disk := Faulty(fault, at)):
                acknowledged = Acknowledged(patch)
                try:
                    life.go_on(root)
                    outcome = "no matter"
                    assert fault not in DEATHS and (fault not in ERRORS or names[at - 1] not in NAMES)
                except Died:
                    outcome = "died"
                except GrokscopeError as error:
                    outcome = "refused"
                    check_message(str(error), disk, root)
            assert disk.names[:at] == names[:at], "the life takes its own course, and the count says nothing"
            life.check(root, acknowledged.steps)
            shutil.rmtree(root)
            counts[outcome] += 1
    return counts


def faults_of(at: int, name: str) -> list[str]:
    """Return all faults that an operation can have."""
    return [fault for fault in FAULTS if name == "write" or fault not in SHORTS]


def some_of(at: int, name: str) -> list[str]:
    """Return one of the faults, a death or another; they change from one operation to the next."""
    possible = DEATHS if at % 2 else [fault for fault in faults_of(at, name) if fault not in DEATHS]
    return [possible[at // 2 % len(possible)]]


@pytest.mark.parametrize(
    ("name", "faults", "trains"),
    [(name, some_of, False) for name in LIVES if name != "fork"]
    + [pytest.param(name, faults_of, False, marks=pytest.mark.slow) for name in LIVES]
    + [pytest.param(name, some_of, True, marks=pytest.mark.slow) for name in LIVES],
)
def test_whatever_happens_at_any_operation_nothing_is_lost_and_the_bits_are_the_same(
    name: str, faults: Callable[[int, str], list[str]], trains: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if not trains:
        compute_little(monkeypatch)
    counts = break_everywhere(Life.make(name, tmp_path), tmp_path, faults)
    said(f"{name}, broken at each operation on the disk, 0 lost, 0 differ", counts)
    assert sum(counts.values()) - counts["operations"] >= counts["operations"] >= 9
    assert counts["died"] >= 4 and counts["refused"] >= 2


def test_a_writer_that_writes_over_what_is_there_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The control: the bytes go straight to the final path, as with a plain `torch.save`."""

    def naive(path: Path, *parts: bytes | memoryview) -> None:
        file = syscalls.disk.create(path)
        try:
            atomic._write_all(file, parts)
        finally:
            os.close(file)

    compute_little(monkeypatch)
    life = Life.make("train", tmp_path)
    monkeypatch.setattr(atomic, "write_atomic", naive)
    caught = 0
    for at in range(1, len(operations(life, tmp_path / "plain")) + 1):
        life.begin(tmp_path / str(at))
        with put(Faulty("dies within", at)), pytest.raises(Died):
            life.go_on(tmp_path / str(at))
        try:
            life.look(tmp_path / str(at))
        except (AssertionError, GrokscopeError):
            caught += 1
    said("a naive writer, broken at each operation", {"caught": caught})
    assert caught


def test_a_run_that_forgets_what_it_committed_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The control of what is compared afterwards: a segment less, and a bit more."""
    compute_little(monkeypatch)
    life = Life.make("train", tmp_path)
    shutil.copytree(life.whole, run_in(tmp_path / "root"))
    life.check(tmp_path / "root", {0, 3, 6})
    next(one.path for one in RunStore(run_in(tmp_path / "root")).segments if 3 in one.steps).unlink()
    with pytest.raises(AssertionError):
        life.check(tmp_path / "root", set())
