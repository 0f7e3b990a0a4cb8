"""The two tables of a sweep: their rows, their medians and intervals, and their CSV files."""

import dataclasses
import io
import itertools
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from grokscope import Trajectory, phases, training
from grokscope.config import RunConfig
from grokscope.disk.lock import Lock
from grokscope.errors import GrokscopeError
from grokscope.sweep import results, sweep_folder
from grokscope.sweep.plan import Cell, Sweep

INF = math.inf


# Medians and their intervals.


def by_enumeration(values: list[float]) -> tuple[float, float, float]:
    """Return the median and its 95% percentile bootstrap interval over every possible resample, in plain Python."""

    def median(resample: Any) -> float:
        ordered = sorted(resample)
        return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2

    medians = sorted(median(resample) for resample in itertools.product(values, repeat=len(values)))
    low, high = (medians[math.ceil(share * len(medians)) - 1] for share in (0.025, 0.975))
    return median(values), low, high


@pytest.mark.parametrize(
    "values",
    [
        [30.0, 10.0, 20.0],
        [10.0, 10.0, 20.0],
        [10.0, INF, 20.0],
        [INF, 10.0, INF],
        [INF, INF, INF],
        [7.0],
        [INF],
        [40.0, 10.0],
        [10.0, INF],
        [INF, INF],
        [10.0, 20.0, 40.0, INF],
        [10.0, 20.0, INF, INF],
        [50.0, 10.0, 20.0, 40.0, 30.0],
        [50.0, 10.0, INF, INF, 30.0],
    ],
    ids=str,
)
def test_interval_matches_all_resamples(values: list[float]):
    assert results.bootstrap_median(np.array(values)) == by_enumeration(values)


def test_interval_of_seven_seeds_excludes_the_extremes():
    # The median of seven draws is the smallest value if at least four draws are: in 1.0% of resamples. The second
    # smallest value or less: in 10%.
    values = np.array([70.0, 10.0, 30.0, 20.0, 50.0, 40.0, 60.0])
    assert results.bootstrap_median(values) == (40.0, 20.0, 60.0)
    share = sum(math.comb(7, k) * 6 ** (7 - k) for k in range(4, 8)) / 7**7
    assert share < 0.025 < sum(math.comb(7, k) * 2**k * 5 ** (7 - k) for k in range(4, 8)) / 7**7


def test_interval_is_deterministic_and_widens_with_level():
    values = np.random.default_rng(0).normal(size=25)
    assert results.bootstrap_median(values) == results.bootstrap_median(values)
    widths = [np.diff(results.bootstrap_median(values, level)[1:])[0] for level in (0.5, 0.8, 0.95, 0.999)]
    assert widths == sorted(widths) and len(set(widths)) == 4


# Grouping.


def row(state: str = "finished", memorized: float = 10, generalised: float = 20, **settings: Any) -> dict[str, Any]:
    return {
        "cell": str(settings),
        **settings,
        "state": state,
        "memorized": memorized,
        "generalised": generalised,
        "test_accuracy": generalised / 100 if math.isfinite(generalised) else 0.0,
        "best_test_accuracy": 1.0,
    }


def test_summary_merges_seeds_and_separates_settings():
    rows = [row(p=p, seed=seed, generalised=10 * p + seed) for seed in range(3) for p in (5, 7)]
    summary = results.summarize(rows, ["p", "seed"])
    assert [(line["p"], line["n"], line["generalised_median"]) for line in summary] == [(5, 3, 51.0), (7, 3, 71.0)]
    assert [(line["generalised_low"], line["generalised_high"]) for line in summary] == [(50, 52), (70, 72)]
    assert [line["test_accuracy_median"] for line in summary] == [0.51, 0.71]
    assert all("seed" not in line for line in summary)


def test_median_counts_a_seed_without_the_event_as_infinite():
    rows = [row(p=5, seed=seed, generalised=at) for seed, at in enumerate([30, INF, 20])]
    rows += [row(p=7, seed=seed, generalised=at) for seed, at in enumerate([30, INF, INF])]
    first, second = results.summarize(rows, ["p", "seed"])
    assert (first["n"], first["n_memorized"], first["n_generalised"]) == (3, 3, 2)
    assert (first["generalised_median"], first["generalised_low"], first["generalised_high"]) == (30, 20, INF)
    assert (second["n_generalised"], second["generalised_median"], second["generalised_low"]) == (1, INF, 30)


def test_summary_counts_only_finished_cells():
    unfinished = [
        row(state, p=5, seed=seed, generalised=1) for seed, state in enumerate(["failed", "running", "unfinished"])
    ]
    rows = [row(p=5, seed=9, generalised=50), *unfinished, {"cell": "x", "p": 5, "seed": 4, "state": "new"}]
    (line,) = results.summarize(rows, ["p", "seed"])
    assert (line["n"], line["generalised_median"]) == (1, 50)
    assert results.summarize(unfinished, ["p", "seed"]) == []


def test_lists_and_missing_settings_are_grouped():
    rows = [row(betas=betas, seed=seed) for betas in ([0.9, 0.98], [0.5, 0.5]) for seed in (0, 1)]
    rows += [row(p=5, seed=0), row(p=7, seed=0), row(p=7, seed=1)]
    summary = results.summarize(rows, ["betas", "p", "seed"])
    assert [(line["betas"], line["p"], line["n"]) for line in summary] == [
        ([0.9, 0.98], None, 2),
        ([0.5, 0.5], None, 2),
        (None, 5, 1),
        (None, 7, 2),
    ]


def test_single_seed_that_varies_is_a_setting():
    rows = [row(init_seed=init, seed=seed) for init in (0, 1) for seed in (0, 1, 2)]
    summary = results.summarize(rows, ["init_seed", "seed"])
    assert [(line["init_seed"], line["n"]) for line in summary] == [(0, 3), (1, 3)]


# The table of cells, from runs that are trained here.


@pytest.fixture
def grokked(tmp_path: Path, tiny_run: Path, tiny_config: RunConfig) -> tuple[Sweep, Path]:
    """A sweep of two cells: the tiny run, which memorizes, and a new cell."""
    settings = {"optimizer.betas": [0.9, 0.98], "seed": 0}
    plan = Sweep((Cell("tiny", settings, tiny_config), Cell("other", {**settings, "seed": 1}, tiny_config)), "Why.")
    shutil.copytree(tiny_run, tmp_path / "sweep" / "tiny")
    sweep_folder.save(plan, tmp_path / "sweep")
    return plan, tmp_path / "sweep"


def test_row_of_a_cell_matches_its_log(grokked: tuple[Sweep, Path]):
    plan, folder = grokked
    finished, new = results.cell_rows(plan, folder)
    log = Trajectory.open(folder / "tiny").log
    for event, accuracy in (("memorized", "train_accuracy"), ("generalised", "test_accuracy")):
        reached = [int(step) for step, value in zip(log.steps, log[accuracy], strict=True) if value >= 0.99]
        if reached:
            before = [int(step) for step in log.steps if step < reached[0]]
            assert (finished[event], finished[f"{event}_after"]) == (reached[0], before[-1] if before else -1)
        else:
            assert (finished[event], finished[f"{event}_after"]) == (INF, INF)
    assert math.isfinite(finished["memorized"]), "the tiny run is meant to memorize"
    assert (finished["cell"], finished["state"], finished["reason"], finished["steps"]) == (
        "tiny",
        "finished",
        "",
        60,
    )
    assert finished["best_test_accuracy"] == max(log["test_accuracy"])
    for name in ("train_loss", "test_loss", "train_accuracy", "test_accuracy"):
        assert finished[name] == log[name][-1]
    assert finished["phase"] == phases.liu_phase(log)
    assert new == {"cell": "other", "optimizer.betas": [0.9, 0.98], "seed": 1, "state": "new", "reason": ""}


def test_pandas_reads_the_tables_unchanged(grokked: tuple[Sweep, Path]):
    plan, folder = grokked
    rows = results.cell_rows(plan, folder)
    paths = results.write_tables(rows, plan.axes, folder)
    assert paths == [folder / name for name in ("results.csv", "summary.csv", "results.parquet")]
    pandas.testing.assert_frame_equal(pandas.read_parquet(paths[2]), results.frame(rows), check_dtype=False)
    for path, expected in zip(paths[:2], (rows, results.summarize(rows, plan.axes)), strict=True):
        read = pandas.read_csv(path).to_dict("records")
        names = {name for line in expected for name in line}
        for line, expected_line in zip(read, expected, strict=True):
            assert set(line) == names
            for name, value in line.items():
                wanted = expected_line.get(name)
                if wanted is None or wanted == "":
                    assert isinstance(value, float) and math.isnan(value), name
                elif isinstance(wanted, float):  # pandas before 3 may differ in the last digits.
                    assert value == pytest.approx(wanted, rel=1e-14, abs=0), name
                else:
                    assert value == (str(wanted) if isinstance(wanted, list) else wanted), name
    assert "inf" in paths[0].read_text(), "a censored event is infinite, not empty"


def test_reason_with_commas_quotes_and_lines_is_read_back(grokked: tuple[Sweep, Path]):
    plan, folder = grokked
    reason = 'It said "no", then\nnothing; "∘".'
    sweep_folder.mark_failed(plan.cells[1], folder, reason)
    results.write_tables(results.cell_rows(plan, folder), plan.axes, folder)
    read = pandas.read_csv(folder / "results.csv")
    assert read["state"].tolist() == ["finished", "failed"] and read["reason"].tolist()[1] == reason


def test_sweep_without_finished_cells_has_tables(grokked: tuple[Sweep, Path]):
    plan, folder = grokked
    shutil.rmtree(folder / "tiny")
    paths = results.write_tables(results.cell_rows(plan, folder), plan.axes, folder)
    assert pandas.read_csv(paths[0])["state"].tolist() == ["new", "new"]
    assert paths[1].exists() and results.summarize(results.cell_rows(plan, folder), plan.axes) == []


def test_cell_in_every_state_has_a_row(partial_sweep: tuple[Sweep, Path]):
    plan, folder = partial_sweep
    with Lock(folder / "seed=1"):
        rows = results.cell_rows(plan, folder)
    assert [(line["state"], line.get("steps")) for line in rows] == [("finished", 40), ("running", 10), ("new", None)]
    sweep_folder.mark_failed(plan.cells[1], folder, "So.")
    rows = results.cell_rows(plan, folder)
    assert [(line["state"], line["reason"]) for line in rows] == [("finished", ""), ("failed", "So."), ("new", "")]
    assert rows[1]["train_loss"] == Trajectory.open(folder / "seed=1").log["train_loss"][-1]
    (merged,) = results.summarize(rows, plan.axes)
    assert merged["n"] == 1


def test_damaged_cell_leaves_other_rows_unchanged(partial_sweep: tuple[Sweep, Path]):
    plan, folder = partial_sweep
    before = results.cell_rows(plan, folder)
    for path in (folder / "seed=0" / "segments").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    after = results.cell_rows(plan, folder)
    assert after[0]["state"] in ("failed", "unfinished") and "train_loss" not in after[0]
    assert after[1:] == before[1:]
    assert (
        io.StringIO(results.write_tables(after, plan.axes, folder)[0].read_text())
        .readline()
        .startswith("cell,seed,state")
    )


def test_row_of_a_cell_matches_the_run_trained_alone(partial_sweep: tuple[Sweep, Path], tmp_path: Path):
    plan, folder = partial_sweep
    log = training.train(plan.cells[0].config, "alone", tmp_path).log
    row_of_cell = results.cell_rows(plan, folder)[0]
    assert [row_of_cell[name] for name in log.arrays] == [float(array[-1]) for array in log.arrays.values()]


def test_unfinished_and_diverged_cells_have_no_phase(tmp_path: Path, tiny_run: Path, tiny_config: RunConfig):
    longer = dataclasses.replace(tiny_config, n_steps=tiny_config.n_steps + 40)
    cells = tuple(Cell(name, {"seed": i}, longer) for i, name in enumerate(("stopped", "diverged")))
    plan, folder = Sweep(cells, "Why."), tmp_path / "sweep"
    for cell in cells:
        shutil.copytree(tiny_run, folder / cell.name)
    sweep_folder.mark_failed(cells[1], folder, "The training loss is not finite at step 61.")
    stopped, diverged = results.cell_rows(plan, folder)
    assert (stopped["state"], stopped["phase"], stopped["steps"]) == ("unfinished", "", 60)
    assert (diverged["state"], diverged["phase"]) == ("diverged", "")
    assert diverged["reason"] == "The training loss is not finite at step 61."
    assert results.summarize([stopped, diverged], plan.axes) == []


# The table of all cells.

CELLS: list[dict[str, Any]] = [
    {
        "cell": "a",
        "optimizer.lr": 1e-3,
        "task.p": 59,
        "betas": [0.9, 0.98],
        "generalised": 200.0,
        "test_accuracy": 1.0,
    },
    {"cell": "b", "optimizer.lr": 1e-2, "task.p": 59, "betas": None, "generalised": INF, "test_accuracy": 0.4},
    {
        "cell": "c",
        "optimizer.lr": 1e-2,
        "task.p": 97,
        "betas": [0.9, 0.99],
        "generalised": 90.0,
        "test_accuracy": 0.995,
    },
]


@pytest.mark.parametrize(
    ("where", "cells"),
    [
        ("", "abc"),
        ("test_accuracy > 0.99", "ac"),
        ('"optimizer.lr" > 0.005 AND "task.p" = 59', "b"),
        ("generalised < 100", "c"),
        ("betas IS NULL OR betas = '[0.9, 0.98]'", "ab"),
        ("test_accuracy > 2", ""),
    ],
)
def test_condition_selects_the_cells_of_plain_python(where: str, cells: str):
    assert results.query(CELLS, where)["cell"].tolist() == list(cells)


def test_columns_are_selected_in_order_and_unknown_ones_refused():
    table = results.query(CELLS, "cell = 'b'", ["test_accuracy", "optimizer.lr"])
    assert table.columns.tolist() == ["test_accuracy", "optimizer.lr"] and table.to_numpy().tolist() == [[0.4, 0.01]]
    with pytest.raises(GrokscopeError, match="Unknown column 'test_acuracy'.*Did you mean 'test_accuracy'"):
        results.query(CELLS, columns=["test_acuracy"])


@pytest.mark.parametrize("where", ["test_acuracy > 0.9", "test_accuracy >", "1; DROP TABLE cells"])
def test_wrong_condition_is_refused_with_the_columns(where: str):
    with pytest.raises(GrokscopeError, match="where: .* is not a condition: .*Columns: cell, optimizer.lr"):
        results.query(CELLS, where)


def test_duckdb_and_pandas_read_the_same_table(grokked: tuple[Sweep, Path]):
    duckdb = pytest.importorskip("duckdb")
    plan, folder = grokked
    rows = results.cell_rows(plan, folder)
    path = results.write_tables(rows, plan.axes, folder)[2]
    cells = duckdb.sql(f"SELECT cell, test_accuracy FROM '{path}' WHERE state = 'finished' ORDER BY cell").fetchall()
    assert cells == [(row["cell"], row["test_accuracy"]) for row in rows if row["state"] == "finished"] and cells
