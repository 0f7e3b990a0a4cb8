"""Sweeps whose cells train together: the same tables, the same ensembles when they go on, and what befalls them."""

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
from support.shared import Command

from grokscope.store.run_store import Record
from grokscope.sweep import results, sweep_folder, train_cell, train_group, workers
from grokscope.sweep.plan import Cell, Sweep, read_sweep
from grokscope.sweep.sweep_folder import BUSY, IO_ERROR
from grokscope.training.signals import InterruptedRunError
from grokscope.training.train_ensemble import train_together

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

Read = Callable[[Path], dict[tuple[Any, ...], tuple[Any, ...]]]
Written = Callable[..., Path]

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
    return [[one.name for one in cells] for cells in groups]


@pytest.fixture
def began(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The groups so far, which train in this process instead of their own."""
    groups: list[list[str]] = []

    def process(cells: list[Cell], folder: Path, allow_drift: bool, _: object) -> tuple[int, str, str]:
        groups.append([one.name for one in cells])
        configs = {one.name: one.config.to_dict() for one in cells}
        module, place, given = train_group, folder, json.dumps(configs)
        if len(cells) == 1:
            module, place, given = train_cell, folder / cells[0].name, json.dumps(configs[cells[0].name])
        output, errors = io.StringIO(), io.StringIO()
        with monkeypatch.context() as patch:
            patch.setattr(train_cell, "_stop_with", lambda parent: None)
            for name, stream in (("stdin", io.StringIO(given)), ("stdout", output), ("stderr", errors)):
                patch.setattr(sys, name, stream)
            status = module.main([str(place), "1", *["--allow-drift"] * allow_drift])
        return status, output.getvalue(), errors.getvalue()

    monkeypatch.setattr(workers, "_process", process)
    return groups


@pytest.fixture
def runs(grokscope: Command, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """The function that runs a sweep's file with some options, one process at a time."""
    return lambda path, *options: grokscope("sweep", path, "--root", tmp_path / "runs", "--jobs", 1, *options)


@pytest.fixture
def stopped(written: Written, tmp_path: Path) -> tuple[Path, Path]:
    """The file and the folder of a sweep of three seeds that train together and were stopped at step 15."""
    path, folder = written(seeds(3)), tmp_path / "runs" / "small"
    plan = read_sweep(path)
    sweep_folder.save(plan, folder)

    def stop(step: int) -> None:
        if step == 15:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(InterruptedRunError):
        train_together([one.config for one in plan.cells], [folder / one.name for one in plan.cells], observer=stop)
    return path, folder


@pytest.fixture
def together(written: Written, tmp_path: Path) -> Path:
    """The folder of three runs of the same cells that nothing interrupted."""
    plan, folder = read_sweep(written(seeds(3), "whole.toml")), tmp_path / "together"
    train_together([one.config for one in plan.cells], [folder / one.name for one in plan.cells])
    return folder


def same_tables(found: list[results.Row], expected: list[results.Row]) -> bool:
    """Return whether two tables are the same within rounding."""
    return all(
        math.isclose(value, other, rel_tol=1e-3) if isinstance(value, float) else value == other
        for row, expected_row in zip(found, expected, strict=True)
        for value, other in zip(row.values(), expected_row.values(), strict=True)
    )


def test_cells_that_train_together_in_their_process_have_the_table_of_cells_that_train_alone(
    runs: Command, written: Written, whole: Path, tmp_path: Path
):
    path = written(seeds(3))
    status, output, errors = runs(path, "--ensemble", 3)
    assert (status, errors) == (0, "") and "\n3 cells, 3 finished\n" in output
    plan, folder = read_sweep(path), tmp_path / "runs" / "small"
    assert [Record.read(folder / one.name).environment["ensemble"].split(",")[0] for one in plan.cells] == [
        *("run 1 of 3", "run 2 of 3", "run 3 of 3"),
    ]
    expected = results.table(plan, whole)
    assert same_tables(results.table(plan, folder), expected)
    # The control: other seeds have another table.
    assert not same_tables(expected[:2], expected[1:])


def test_whatever_befalls_a_cell_the_others_finish_and_the_unlike_train_alone(
    runs: Command, written: Written, began: list[list[str]], tmp_path: Path
):
    path = written("[sweep]\n" + EVENTFUL)
    status, _, errors = runs(path, "--ensemble", 3)
    like = ["init_seed=1", "lr=100", "train_fraction=0.5"]
    assert sorted(began, key=len) == [["optimizer.name=sgd"], like]
    assert status == 1 and errors.startswith("grokscope: 1 cell failed;")
    assert f"{like[1]}: A loss, gradient or weight is not finite at step " in errors
    plan, folder = read_sweep(path), tmp_path / "runs" / "small"
    states = {one.name: sweep_folder.state(one, folder).status for one in plan.cells}
    assert states == {like[0]: "finished", like[1]: "failed", "optimizer.name=sgd": "finished", like[2]: "finished"}
    runs(path, "--ensemble", 3)
    assert len(began) == 2, "what failed is left"
    status, _, errors = runs(path, "--ensemble", 3, "--retry")
    assert began[2:] == [like] and "grokscope: 1 cell failed;" in errors


@pytest.mark.parametrize("ensemble", [1, 2, 3])
def test_cells_go_on_in_the_ensemble_they_began_in_whatever_the_sweep_has_become(
    ensemble: int,
    stopped: tuple[Path, Path],
    runs: Command,
    written: Written,
    began: list[list[str]],
    together: Path,
    saved: Read,
):
    first = [f"seed={seed}" for seed in range(3)]
    status, _, errors = runs(written("[sweep]\nseeds = [4, 2, 3, 1, 0]"), "--ensemble", ensemble)
    assert (status, errors) == (0, "")
    assert first in began and sorted(sum(began, [])) == [f"seed={seed}" for seed in range(5)]
    assert sorted(map(len, began)) == ([1, 1, 3] if ensemble == 1 else [2, 3])
    for name in first:
        assert saved(stopped[1] / name) == saved(together / name)


def test_cells_that_began_alone_go_on_alone(
    trained: tuple[Sweep, Path], runs: Command, written: Written, began: list[list[str]], whole: Path, saved: Read
):
    _, folder = trained
    assert runs(written(seeds(4)), "--ensemble", 4)[0] == 0
    assert began == [["seed=1"], ["seed=2", "seed=3"]]
    assert saved(folder / "seed=1") == saved(whole / "seed=1")


@pytest.mark.parametrize("lost", [("seed=1",), ("seed=1", "seed=2"), ("seed=0",)], ids=str)
def test_an_ensemble_that_lacks_some_folders_is_known_by_those_it_has(
    lost: tuple[str, ...],
    stopped: tuple[Path, Path],
    runs: Command,
    written: Written,
    began: list,
    together: Path,
    saved: Read,
):
    for name in lost:
        shutil.rmtree(stopped[1] / name)
    assert runs(written(seeds(5)), "--ensemble", 2)[0] == 0
    assert began == [["seed=0", "seed=1", "seed=2"], ["seed=3", "seed=4"]]
    assert saved(stopped[1] / lost[0]) == saved(together / lost[0])


def test_a_cell_whose_ensemble_is_gone_says_so(
    stopped: tuple[Path, Path], runs: Command, written: Written, began: list
):
    """A shard has other cells: none is taken for another."""
    status, _, errors = runs(written("[sweep]\nseeds = [0, 2]"), "--ensemble", 3)
    assert status == 1 and errors.count("ensemble was run") == 2 and began == [["seed=0"], ["seed=2"]]
    assert runs(written("[sweep]\nseeds = [0, 2]"), "--allow-drift", "--retry")[0] == 0


def test_new_cells_are_grouped_by_what_they_have_in_common(written: Written, tmp_path: Path):
    plan = read_sweep(written(seeds(3) + "\n[sweep.grid]\nmodel.d_model = [8, 16]"))
    small, large = [[f"d_model={d}+seed={seed}" for seed in range(3)] for d in (8, 16)]
    assert names(workers.groups(plan, 3, tmp_path)) == [small, large]
    assert names(workers.groups(plan, 2, tmp_path)) == [small[:2], small[2:], large[:2], large[2:]]
    assert names(workers.groups(plan, 1, tmp_path)) == [[name] for name in small + large]


@pytest.mark.parametrize(
    ("status", "said", "n_tried", "reason"),
    [
        (-signal.SIGKILL, "", 3, "Its process died 3 times, by signal 9."),
        (BUSY, "It is being written by process 1.", 1, ""),
        (IO_ERROR, "The disk is full.", 1, "The disk is full."),
        (1, "It cannot be.", 1, "It cannot be."),
        (1, "Traceback", 3, "Its process failed with status 1. Traceback"),
    ],
)
def test_what_ends_a_group_s_process_is_every_cell_s_reason(
    status: int,
    said: str,
    n_tried: int,
    reason: str,
    written: Written,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    plan, tried = read_sweep(written(seeds(2))), []
    monkeypatch.setattr(workers, "_process", lambda *given: tried.append(given) or (status, "", said))
    assert workers.run_cells(list(plan.cells), tmp_path) == {one.name: reason for one in plan.cells if reason}
    assert len(tried) == n_tried
    assert (tmp_path / "failures").exists() == (status not in (BUSY, IO_ERROR))


@pytest.mark.parametrize("n", [0, -3])
def test_an_ensemble_of_none_is_refused_in_a_sentence(n: int, runs: Command, written: Written, tmp_path: Path):
    status, _, errors = runs(written(seeds(2)), "--ensemble", n)
    assert (status, errors) == (1, f"grokscope: --ensemble {n}; allowed: a whole number from 1.\n")
    assert not (tmp_path / "runs").exists()
