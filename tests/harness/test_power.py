"""A loss of power after each operation on the disk: unsynced data is lost, torn or out of order."""

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from grokscope.disk import atomic, syscalls
from grokscope.errors import GrokscopeError
from harness import power
from harness.disks import use_disk
from harness.scenarios import SCENARIOS, AcknowledgedCommits, Scenario, fake_computation, report

pytestmark = pytest.mark.usefixtures("segments_by_count")

SelectLosses = Callable[[int], list[tuple[str, int]]]


def record_operations(scenario: Scenario, root: Path) -> list[power.Operation]:
    """Return the record of an undisturbed scenario, with a note for each acknowledged commit."""
    scenario.prepare(root)
    with pytest.MonkeyPatch.context() as patch, use_disk(disk := power.RecordingDisk()):
        AcknowledgedCommits(patch, lambda steps: disk.add_note(steps))
        scenario.run(root)
    return disk.record


def lose_power_everywhere(
    scenario: Scenario, folder: Path, select_losses: SelectLosses, counts: Counter[str]
) -> None:
    """Lose the power after each operation of a scenario, and check that it recovers; update the counts."""
    record = record_operations(scenario, folder / "recorded")
    scenario.prepare(folder / "initial")
    checked_states = set()
    counts["operations"] = len(record)
    for number, model in enumerate(power.replay(folder / "initial", move_record(record, folder))):
        acknowledged = set(model.notes[-1][0]) if model.notes else set()
        for loss, seed in select_losses(number):
            content = model.after_power_loss(loss, seed)
            counts["losses"] += 1
            # Several operations can leave the same state.
            state = hash((frozenset(content.items()), frozenset(acknowledged)))
            if state in checked_states:
                continue
            checked_states.add(state)
            power.write_content(content, folder / "root")
            counts["states"] += 1
            scenario.check_recovery(folder / "root", acknowledged)
            shutil.rmtree(folder / "root")


def move_record(record: list[power.Operation], folder: Path) -> list[power.Operation]:
    """Return the record with the paths of the folder `recorded` replaced by those of the folder `initial`."""

    def move(argument: object) -> object:
        if isinstance(argument, Path) and (folder / "recorded") in (argument, *argument.parents):
            return folder / "initial" / argument.relative_to(folder / "recorded")
        return argument

    return [tuple(map(move, operation)) for operation in record]


def one_loss(number: int) -> list[tuple[str, int]]:
    """Return one kind of loss, which changes from one operation to the next."""
    return [(power.LOSSES[number % len(power.LOSSES)], number)]


def complete_losses(number: int) -> list[tuple[str, int]]:
    """Return the kinds of loss that are not random."""
    return [(loss, 0) for loss in power.LOSSES[:-1]]


def all_losses(number: int) -> list[tuple[str, int]]:
    """Return all kinds of loss, the random one with 12 seeds."""
    return complete_losses(number) + [("random", seed) for seed in range(12)]


@pytest.mark.parametrize(
    ("name", "select_losses"),
    [(name, one_loss) for name in SCENARIOS if name != "fork"]
    + [pytest.param(name, all_losses, marks=pytest.mark.slow) for name in SCENARIOS],
)
def test_power_loss_loses_nothing_that_was_committed(
    name: str, select_losses: SelectLosses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fake_computation(monkeypatch)
    counts: Counter[str] = Counter()
    lose_power_everywhere(Scenario.make(name, tmp_path), tmp_path, select_losses, counts)
    report(f"{name}, power lost after each operation, 0 lost, 0 differ", counts)
    assert counts["losses"] > counts["operations"] > 9


def write_to_final_path(path: Path, *parts: bytes | memoryview) -> None:
    """Write to the final path with every fsync."""
    file = syscalls.disk.create(path)
    atomic._write_all(file, parts)
    syscalls.disk.sync(file)
    os.close(file)
    syscalls.disk.sync_folder(path.parent)


def write_without_fsync(path: Path, *parts: bytes | memoryview) -> None:
    """Write to a temporary file, and rename it without an fsync."""
    temporary = path.with_name(f".{path.name}{atomic.TEMPORARY_SUFFIX}")
    file = syscalls.disk.create(temporary)
    atomic._write_all(file, parts)
    os.close(file)
    syscalls.disk.replace(temporary, path)
    syscalls.disk.sync_folder(path.parent)


def write_without_folder_fsync(path: Path, *parts: bytes | memoryview) -> None:
    """Write as `write_atomic` does, but without the fsync of the folder."""
    temporary = path.with_name(f".{path.name}{atomic.TEMPORARY_SUFFIX}")
    file = syscalls.disk.create(temporary)
    atomic._write_all(file, parts)
    syscalls.disk.sync(file)
    os.close(file)
    syscalls.disk.replace(temporary, path)


@pytest.mark.parametrize("writer", [write_to_final_path, write_without_fsync, write_without_folder_fsync])
def test_incomplete_writer_is_detected(writer: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The control: these writers survive most or all SIGKILLs, but not a loss of power."""
    fake_computation(monkeypatch)
    scenario = Scenario.make("train", tmp_path)
    monkeypatch.setattr(atomic, "write_atomic", writer)
    with pytest.raises((AssertionError, GrokscopeError)):
        lose_power_everywhere(scenario, tmp_path, complete_losses, counts := Counter())
    report(writer.__name__, {"losses until detection": counts["losses"]})
