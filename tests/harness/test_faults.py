"""Every operation on the disk fails in every way, while a run is trained, resumed, densified or forked."""

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
from harness.disks import (
    CRASHES,
    ERRORS,
    FAULTS,
    MESSAGES,
    SHORT_WRITES,
    CountingDisk,
    CrashError,
    FaultyDisk,
    use_disk,
)
from harness.scenarios import SCENARIOS, AcknowledgedCommits, Scenario, fake_computation, report, run_folder

pytestmark = pytest.mark.usefixtures("segments_by_count")


def undisturbed_operations(scenario: Scenario, root: Path) -> list[str]:
    """Return the operations of a scenario on a disk without faults."""
    scenario.prepare(root)
    with use_disk(disk := CountingDisk()):
        scenario.run(root)
    shutil.rmtree(root)
    return disk.names


def check_message(message: str, disk: FaultyDisk, root: Path) -> None:
    """Assert that an error names the path and the operation, and for a full disk the bytes needed and free."""
    operation, path = MESSAGES[disk.failed or ""], re.escape(str(root.parent))
    assert re.match(rf"Could not {operation}.* {path}", message), message
    is_full = disk.fault in ("ENOSPC", "EDQUOT", "stays full")
    assert bool(re.search(r"\([\d,]+ bytes needed, [\d,]+ free\)", message)) == is_full, message
    assert message.endswith("Previously saved data is intact.")
    assert disk.fault not in ERRORS or os.strerror(getattr(errno, disk.fault)) in message


def break_everywhere(
    scenario: Scenario, folder: Path, select_faults: Callable[[int, str], list[str]]
) -> Counter[str]:
    """Run a scenario once for each operation and selected fault, check it, and return the counts of outcomes."""
    counts = Counter(operations=len(names := undisturbed_operations(scenario, folder / "undisturbed")))
    for number, name in enumerate(names, 1):
        for fault in select_faults(number, name):
            root = folder / "root"
            scenario.prepare(root)
            with pytest.MonkeyPatch.context() as patch, use_disk(disk := FaultyDisk(fault, number)):
                acknowledged = AcknowledgedCommits(patch)
                try:
                    scenario.run(root)
                    outcome = "ignored"
                    assert fault not in CRASHES and (fault not in ERRORS or name not in MESSAGES)
                except CrashError:
                    outcome = "crashed"
                except GrokscopeError as error:
                    outcome = "refused"
                    check_message(str(error), disk, root)
            assert disk.names[:number] == names[:number], "the operations differ from those of the undisturbed run"
            scenario.check_recovery(root, acknowledged.steps)
            shutil.rmtree(root)
            counts[outcome] += 1
    return counts


def all_faults(number: int, name: str) -> list[str]:
    """Return all faults that an operation can have."""
    return [fault for fault in FAULTS if name == "write" or fault not in SHORT_WRITES]


def one_fault(number: int, name: str) -> list[str]:
    """Return one fault, in turn a crash and another fault."""
    faults = CRASHES if number % 2 else [fault for fault in all_faults(number, name) if fault not in CRASHES]
    return [faults[number // 2 % len(faults)]]


@pytest.mark.parametrize(
    ("name", "select_faults", "trains"),
    [(name, one_fault, False) for name in SCENARIOS if name != "fork"]
    + [pytest.param(name, all_faults, False, marks=pytest.mark.slow) for name in SCENARIOS]
    + [pytest.param(name, one_fault, True, marks=pytest.mark.slow) for name in SCENARIOS],
)
def test_fault_at_any_operation_loses_and_changes_nothing(
    name: str,
    select_faults: Callable[[int, str], list[str]],
    trains: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    if not trains:
        fake_computation(monkeypatch)
    counts = break_everywhere(Scenario.make(name, tmp_path), tmp_path, select_faults)
    report(f"{name}, broken at each operation on the disk, 0 lost, 0 differ", counts)
    assert sum(counts.values()) - counts["operations"] >= counts["operations"] >= 9
    assert counts["crashed"] >= 4 and counts["refused"] >= 2


def test_writer_to_the_final_path_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The control: the bytes go straight to the final path, as in a plain `torch.save`."""

    def write_naively(path: Path, *parts: bytes | memoryview) -> None:
        file = syscalls.disk.create(path)
        try:
            atomic._write_all(file, parts)
        finally:
            os.close(file)

    fake_computation(monkeypatch)
    scenario = Scenario.make("train", tmp_path)
    monkeypatch.setattr(atomic, "write_atomic", write_naively)
    n_detected = 0
    for number in range(1, len(undisturbed_operations(scenario, tmp_path / "undisturbed")) + 1):
        scenario.prepare(tmp_path / str(number))
        with use_disk(FaultyDisk("crashes within", number)), pytest.raises(CrashError):
            scenario.run(tmp_path / str(number))
        try:
            scenario.read_committed(tmp_path / str(number))
        except (AssertionError, GrokscopeError):
            n_detected += 1
    report("a naive writer, broken at each operation", {"detected": n_detected})
    assert n_detected


def test_missing_segment_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The control of `check_recovery`: a complete run passes, and a run without a segment fails."""
    fake_computation(monkeypatch)
    scenario = Scenario.make("train", tmp_path)
    run = run_folder(tmp_path / "root")
    shutil.copytree(scenario.whole, run)
    scenario.check_recovery(tmp_path / "root", {0, 3, 6})
    next(segment.path for segment in RunStore(run).segments if 3 in segment.steps).unlink()
    with pytest.raises(AssertionError):
        scenario.check_recovery(tmp_path / "root", set())
