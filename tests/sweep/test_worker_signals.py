"""Sweeps that a signal stops or that are killed, and two sweeps at once: no cell is lost or damaged."""

import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from support.shared import Command, damage_of
from support.sweeps import Probe, failure_records, statuses

from grokscope.disk.lock import is_locked
from grokscope.store.run_store import RunStore
from grokscope.sweep import sweep_folder
from grokscope.sweep.plan import read_sweep

Read = Callable[[Path], dict[tuple[Any, ...], tuple[Any, ...]]]
WriteSweep = Callable[..., Path]

SLOW = """
def observe(step, row):
    if step == 10:
        note("reached")
    if step >= 10:
        time.sleep(0.5)
"""


@contextmanager
def sweep_process(path: Path, probe: Probe, *options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start `grokscope sweep` in another process; at the end, kill every process that is left."""
    start = [sys.executable, "-c", "import sys; from grokscope.cli import main; main(sys.argv[1:])"]
    process = subprocess.Popen(
        [*start, "sweep", *map(str, (path, "--root", path.parent / "runs", "--jobs", "2", *options))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=probe.environment,
    )
    try:
        yield process
    finally:
        probe.kill()
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "n_training", "seeds"),
    [(signal.SIGTERM, 1, [0, 1]), pytest.param(signal.SIGINT, 2, [0, 1, 2], marks=pytest.mark.slow)],
)
def test_signal_commits_cells_and_printed_command_finishes_them(
    number: signal.Signals,
    n_training: int,
    seeds: list[int],
    write_sweep: WriteSweep,
    grokscope: Command,
    make_probe: Callable[[str], Probe],
    wait_until: Callable[..., None],
    uninterrupted: Path,
    saved: Read,
):
    # Two cells start; those that do not train yet still import.
    path = write_sweep(f"[sweep]\nseeds = {seeds}")
    probe = make_probe(f'if int(cell[-1]) >= {n_training}:\n    wait_for("never")\n{SLOW}')
    plan, folder = read_sweep(path), path.parent / "runs" / "mine"
    with sweep_process(path, probe, "--run", "mine") as process:
        wait_until(lambda: len(probe.notes("reached")) == n_training, "the cells train")
        wait_until(lambda: len(probe.notes()) == 2, "two cells have started")
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    assert f"{folder} was stopped by {number.name} and is saved" in errors
    assert not any(probe.is_alive(cell.name) for cell in plan.cells), "a cell outlives its sweep"
    states = [sweep_folder.cell_state(cell, folder) for cell in plan.cells]
    assert [state.status for state in states] == ["unfinished"] * n_training + ["new"] * (len(seeds) - n_training)
    assert all(10 <= state.step < 40 for state in states[:n_training]) and failure_records(folder) == []

    command = shlex.split(errors.splitlines()[-1])
    assert command[:2] == ["grokscope", "sweep"]
    assert grokscope(*command[1:])[0] == 0
    assert set(statuses(plan, folder).values()) == {"finished"}
    assert [saved(folder / f"seed={seed}") == saved(uninterrupted / f"seed={seed}") for seed in seeds] == [
        True
    ] * len(seeds)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_during_import_leaves_cells_new(
    number: signal.Signals,
    write_sweep: WriteSweep,
    make_probe: Callable[[str], Probe],
    wait_until: Callable[..., None],
):
    path, probe = write_sweep("[sweep]\nseeds = [0, 1, 2]"), make_probe('wait_for("never")')
    with sweep_process(path, probe) as process:
        wait_until(lambda: len(probe.notes()) == 2, "two cells have started")
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    folder = path.parent / "runs" / "small"
    assert (process.returncode, "Traceback" in errors) == (128 + number, False)
    assert set(statuses(sweep_folder.load(folder), folder).values()) == {"new"}
    assert len(probe.notes()) == 2, "the third cell is not started"


@pytest.mark.slow
def test_cells_of_a_killed_sweep_commit_and_stop(
    write_sweep: WriteSweep, make_probe: Callable[[str], Probe], wait_until: Callable[..., None]
):
    path, probe = (
        write_sweep("[sweep]\nseeds = [0, 1]"),
        make_probe(f'if cell == "seed=1": wait_for("orphaned")\n{SLOW}'),
    )
    plan, folder = read_sweep(path), path.parent / "runs" / "small"
    with sweep_process(path, probe) as process:
        wait_until(lambda: probe.notes("reached") == ["seed=0"], "the first cell trains")
        wait_until(lambda: len(probe.notes()) == 2, "the second cell has started")
        process.kill()
        process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL
        wait_until(lambda: not probe.is_alive("seed=0"), "the cell that trains stops")
        (probe.folder / "orphaned").touch()
        wait_until(lambda: not probe.is_alive("seed=1"), "the cell that imported stops")
    assert not any(is_locked(folder / cell.name) for cell in plan.cells if (folder / cell.name).is_dir())
    first, second = (sweep_folder.cell_state(cell, folder) for cell in plan.cells)
    assert first.status == "unfinished" and 10 <= first.step < 40
    assert second.status in ("new", "unfinished") and second.step < 10, "it continued as an orphan"
    assert failure_records(folder) == [] and damage_of(RunStore(folder / "seed=0")) == []


@pytest.mark.slow
def test_random_signals_leave_cells_that_end_with_the_same_bits(
    write_sweep: WriteSweep,
    make_probe: Callable[[str], Probe],
    wait_until: Callable[..., None],
    uninterrupted: Path,
    saved: Read,
):
    choose, counts, n_rounds = random.Random(0), Counter[str](), 20
    for i in range(n_rounds):
        path = write_sweep("[sweep]\nseeds = [0, 1, 2]", f"round{i}.toml")
        plan, folder = read_sweep(path), path.parent / "runs" / f"round{i}"
        probe = make_probe("def observe(step, row):\n    time.sleep(0.05)")
        with sweep_process(path, probe) as process:
            time.sleep(choose.uniform(0.2, 11))
            pids = [int(lock.read_text() or 0) for lock in probe.folder.glob("*/lock") if is_locked(lock.parent)]
            hits_cell = i % 2 and any(pids)
            for _ in range(choose.choice([1, 2])):
                with suppress(ProcessLookupError):
                    os.kill(
                        choose.choice([pid for pid in pids if pid]) if hits_cell else process.pid,
                        choose.choice([signal.SIGINT, signal.SIGTERM]),
                    )
                time.sleep(choose.uniform(0, 0.05))
            _, errors = process.communicate(timeout=120)
            # A second signal ends the command at once; its cells notice this, commit and stop.
            wait_until(probe.is_idle, "every cell stops", 20)
        # Before and after it handles signals, a signal kills the command.
        allowed = (
            {0} if hits_cell else {0, 128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM}
        )
        assert process.returncode in allowed, errors
        counts["to a cell" if hits_cell else "to the sweep"] += 1
        for cell in plan.cells:
            if (folder / cell.name).is_dir():
                assert damage_of(RunStore(folder / cell.name)) == []
        with sweep_process(path, make_probe("")) as process:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
        assert set(statuses(plan, folder).values()) == {"finished"} and failure_records(folder) == []
        assert [
            cell.name for cell in plan.cells if saved(folder / cell.name) != saved(uninterrupted / cell.name)
        ] == []
    print(f"\nsignals to a sweep of three cells, 0 lost, 0 differ: {dict(counts)}")


@pytest.mark.slow
def test_two_sweeps_at_once_finish_every_cell(
    write_sweep: WriteSweep, make_probe: Callable[[str], Probe], uninterrupted: Path, saved: Read
):
    path, probe = write_sweep("[sweep]\nseeds = [0, 1, 2]"), make_probe("")
    plan, folder = read_sweep(path), path.parent / "runs" / "small"
    with sweep_process(path, probe) as first, sweep_process(path, probe) as second:
        for process in (first, second):
            _, errors = process.communicate(timeout=300)
            assert (process.returncode, "Traceback" in errors, "failed" in errors) == (0, False, False)
    assert len(probe.notes()) > 3, "they are meant to meet at some cell"
    assert set(statuses(plan, folder).values()) == {"finished"} and failure_records(folder) == []
    for cell in plan.cells:
        assert damage_of(RunStore(folder / cell.name)) == []
        assert saved(folder / cell.name) == saved(uninterrupted / cell.name)
    assert sweep_folder.load(folder) == plan
