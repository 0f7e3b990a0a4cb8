"""Sweeps whose cells train in ensembles: their tables, their groups after a restart, and their failures."""

import io
import json
import math
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.shared import Command, quick

from grokscope.store.run_store import Record
from grokscope.sweep import results, sweep_folder, train_cell, train_group, workers
from grokscope.sweep.plan import Cell, Sweep, read_sweep
from grokscope.sweep.sweep_folder import BUSY, IO_ERROR
from grokscope.training.signals import InterruptedRunError
from grokscope.training.train_ensemble import train_ensemble

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

Read = Callable[[Path], dict[tuple[Any, ...], tuple[Any, ...]]]
WriteSweep = Callable[..., Path]

EVENTFUL = """
[[sweep.cells]]
init_seed = 1
[[sweep.cells]]
optimizer.lr = 100
[[sweep.cells]]
optimizer.name = "sgd"
[[sweep.cells]]
task.train_fraction = 0.5
"""


def seeds(n: int) -> str:
    return f"[sweep]\nseeds = {[*range(n)]}"


def names(groups: list[list[Cell]]) -> list[list[str]]:
    return [[cell.name for cell in cells] for cells in groups]


@pytest.fixture
def started_groups(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The groups that have started; they train in this process instead of another one."""
    groups: list[list[str]] = []

    def run_process(cells: list[Cell], folder: Path, allow_drift: bool, _: object) -> tuple[int, str, str]:
        groups.append([cell.name for cell in cells])
        configs = {cell.name: cell.config.to_dict() for cell in cells}
        module, path, text = train_group, folder, json.dumps(configs)
        if len(cells) == 1:
            module, path, text = train_cell, folder / cells[0].name, json.dumps(configs[cells[0].name])
        output, errors = io.StringIO(), io.StringIO()
        with monkeypatch.context() as patch:
            patch.setattr(train_cell, "_stop_with_parent", lambda parent: None)
            for name, stream in (("stdin", io.StringIO(text)), ("stdout", output), ("stderr", errors)):
                patch.setattr(sys, name, stream)
            options = ["--allow-drift"] if allow_drift else []
            status = module.main([str(path), "1", *options])
        return status, output.getvalue(), errors.getvalue()

    monkeypatch.setattr(workers, "_run_process", run_process)
    return groups


@pytest.fixture
def runs(grokscope: Command, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """The function that runs a sweep's file with options, one process at a time."""
    return lambda path, *options: grokscope("sweep", path, "--root", tmp_path / "runs", "--jobs", 1, *options)


@pytest.fixture
def stopped(write_sweep: WriteSweep, tmp_path: Path) -> tuple[Path, Path]:
    """The file and the folder of a sweep of three seeds that trained together and stopped at step 15."""
    path, folder = write_sweep(seeds(3)), tmp_path / "runs" / "small"
    plan = read_sweep(path)
    sweep_folder.save(plan, folder)

    def stop(step: int) -> None:
        if step == 15:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(InterruptedRunError):
        train_ensemble(
            [cell.config for cell in plan.cells], [folder / cell.name for cell in plan.cells], observer=stop
        )
    return path, folder


@pytest.fixture
def together(write_sweep: WriteSweep, tmp_path: Path) -> Path:
    """The folder of an uninterrupted ensemble of the same three cells."""
    plan, folder = read_sweep(write_sweep(seeds(3), "whole.toml")), tmp_path / "together"
    train_ensemble([cell.config for cell in plan.cells], [folder / cell.name for cell in plan.cells])
    return folder


def same_tables(rows: list[results.Row], expected_rows: list[results.Row]) -> bool:
    """Return whether two tables are equal within rounding."""
    return all(
        math.isclose(value, expected, rel_tol=1e-3) if isinstance(value, float) else value == expected
        for row, expected_row in zip(rows, expected_rows, strict=True)
        for value, expected in zip(row.values(), expected_row.values(), strict=True)
    )


@pytest.mark.slow
def test_ensemble_has_the_table_of_cells_trained_alone(
    runs: Command, write_sweep: WriteSweep, uninterrupted: Path, tmp_path: Path
):
    path = write_sweep(seeds(3))
    status, output, errors = runs(path, "--ensemble", 3)
    assert (status, errors) == (0, "") and "\n3 cells, 3 finished\n" in output
    plan, folder = read_sweep(path), tmp_path / "runs" / "small"
    assert [Record.read(folder / cell.name).environment["ensemble"].split(",")[0] for cell in plan.cells] == [
        *("run 1 of 3", "run 2 of 3", "run 3 of 3"),
    ]
    expected = results.cell_rows(plan, uninterrupted)
    assert same_tables(results.cell_rows(plan, folder), expected)
    # Control: other seeds have another table.
    assert not same_tables(expected[:2], expected[1:])


def test_failing_cell_leaves_the_rest_of_its_ensemble(
    runs: Command, write_sweep: WriteSweep, started_groups: list[list[str]], tmp_path: Path
):
    path = write_sweep("[sweep]\n" + EVENTFUL)
    status, _, errors = runs(path, "--ensemble", 3)
    group = ["init_seed=1", "lr=100", "train_fraction=0.5"]
    assert sorted(started_groups, key=len) == [["optimizer.name=sgd"], group]
    assert status == 1 and errors.startswith("grokscope: 1 cell failed. ")
    assert f"{group[1]}: A loss, gradient or weight is not finite at step " in errors
    plan, folder = read_sweep(path), tmp_path / "runs" / "small"
    states = {cell.name: sweep_folder.cell_state(cell, folder).status for cell in plan.cells}
    assert states == {
        group[0]: "finished",
        group[1]: "failed",
        "optimizer.name=sgd": "finished",
        group[2]: "finished",
    }
    runs(path, "--ensemble", 3)
    assert len(started_groups) == 2, "failed cells are skipped"
    status, _, errors = runs(path, "--ensemble", 3, "--retry")
    assert started_groups[2:] == [group] and "grokscope: 1 cell failed. " in errors


@pytest.mark.parametrize("ensemble", quick([1, 2, 3], [2]))
def test_cells_resume_in_their_ensemble_after_the_sweep_grew(
    ensemble: int,
    stopped: tuple[Path, Path],
    runs: Command,
    write_sweep: WriteSweep,
    started_groups: list[list[str]],
    together: Path,
    saved: Read,
):
    first = [f"seed={seed}" for seed in range(3)]
    status, _, errors = runs(write_sweep("[sweep]\nseeds = [4, 2, 3, 1, 0]"), "--ensemble", ensemble)
    assert (status, errors) == (0, "")
    assert first in started_groups and sorted(sum(started_groups, [])) == [f"seed={seed}" for seed in range(5)]
    assert sorted(map(len, started_groups)) == ([1, 1, 3] if ensemble == 1 else [2, 3])
    for name in first:
        assert saved(stopped[1] / name) == saved(together / name)


def test_cells_started_alone_resume_alone(
    partial_sweep: tuple[Sweep, Path],
    runs: Command,
    write_sweep: WriteSweep,
    started_groups: list[list[str]],
    uninterrupted: Path,
    saved: Read,
):
    _, folder = partial_sweep
    assert runs(write_sweep(seeds(4)), "--ensemble", 4)[0] == 0
    assert started_groups == [["seed=1"], ["seed=2", "seed=3"]]
    assert saved(folder / "seed=1") == saved(uninterrupted / "seed=1")


@pytest.mark.parametrize(
    "lost", quick([("seed=1",), ("seed=1", "seed=2"), ("seed=0",)], [("seed=1", "seed=2")]), ids=str
)
def test_ensemble_with_missing_folders_is_completed(
    lost: tuple[str, ...],
    stopped: tuple[Path, Path],
    runs: Command,
    write_sweep: WriteSweep,
    started_groups: list,
    together: Path,
    saved: Read,
):
    for name in lost:
        shutil.rmtree(stopped[1] / name)
    assert runs(write_sweep(seeds(5)), "--ensemble", 2)[0] == 0
    assert started_groups == [["seed=0", "seed=1", "seed=2"], ["seed=3", "seed=4"]]
    assert saved(stopped[1] / lost[0]) == saved(together / lost[0])


def test_cell_of_an_incomplete_ensemble_fails_with_a_reason(
    stopped: tuple[Path, Path], runs: Command, write_sweep: WriteSweep, started_groups: list
):
    """A shard may lack cells of the ensemble; other cells must not replace them."""
    status, _, errors = runs(write_sweep("[sweep]\nseeds = [0, 2]"), "--ensemble", 3)
    assert status == 1 and errors.count("ensemble was run") == 2 and started_groups == [["seed=0"], ["seed=2"]]
    assert runs(write_sweep("[sweep]\nseeds = [0, 2]"), "--allow-drift", "--retry")[0] == 0


def test_new_cells_are_grouped_by_shared_settings(write_sweep: WriteSweep, tmp_path: Path):
    plan = read_sweep(write_sweep(seeds(3) + "\n[sweep.grid]\nmodel.d_model = [8, 16]"))
    small, large = [[f"d_model={d}+seed={seed}" for seed in range(3)] for d in (8, 16)]
    assert names(workers.group_cells(plan, 3, tmp_path)) == [small, large]
    assert names(workers.group_cells(plan, 2, tmp_path)) == [small[:2], small[2:], large[:2], large[2:]]
    assert names(workers.group_cells(plan, 1, tmp_path)) == [[name] for name in small + large]


@pytest.mark.parametrize(
    ("status", "errors", "n_attempts", "reason"),
    [
        (-signal.SIGKILL, "", 3, "Its process was killed 3 times, by signal 9."),
        (BUSY, "It is being write_sweep by process 1.", 1, ""),
        (IO_ERROR, "The disk is full.", 1, "The disk is full."),
        (1, "It cannot be.", 1, "It cannot be."),
        (1, "Traceback", 3, "Its process failed with status 1. Traceback"),
    ],
)
def test_failure_of_a_group_is_the_reason_of_every_cell(
    status: int,
    errors: str,
    n_attempts: int,
    reason: str,
    write_sweep: WriteSweep,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    plan, attempts = read_sweep(write_sweep(seeds(2))), []
    monkeypatch.setattr(workers, "_run_process", lambda *given: attempts.append(given) or (status, "", errors))
    assert workers.train_cells(list(plan.cells), tmp_path) == {cell.name: reason for cell in plan.cells if reason}
    assert len(attempts) == n_attempts
    assert (tmp_path / "failures").exists() == (status not in (BUSY, IO_ERROR))


@pytest.mark.parametrize("n", [0, -3])
def test_ensemble_below_one_is_refused(n: int, runs: Command, write_sweep: WriteSweep, tmp_path: Path):
    status, _, errors = runs(write_sweep(seeds(2)), "--ensemble", n)
    assert (status, errors) == (2, f"grokscope: --ensemble {n}; allowed: a whole number from 1.\n")
    assert not (tmp_path / "runs").exists()
