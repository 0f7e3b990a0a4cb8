"""The two tables of a sweep: what stands in them, what its medians are, and that they are read again as written."""

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
from grokscope.sweep import results, sweep_folder
from grokscope.sweep.plan import Cell, Sweep

INF = math.inf


# Medians and their intervals.


def by_enumeration(values: list[float]) -> tuple[float, float, float]:
    """The median and its 95% percentile bootstrap interval over every possible resample, by Python's own sums."""

    def median(drawn: Any) -> float:
        ordered = sorted(drawn)
        return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2

    medians = sorted(median(drawn) for drawn in itertools.product(values, repeat=len(values)))
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
def test_the_interval_is_that_of_all_resamples(values: list[float]):
    assert results.bootstrap_median(np.array(values)) == by_enumeration(values)


def test_with_seven_seeds_the_interval_leaves_out_the_ends():
    # The median of seven draws is the smallest value if four or more are: 1.0% of resamples, and 10% for the next.
    values = np.array([70.0, 10.0, 30.0, 20.0, 50.0, 40.0, 60.0])
    assert results.bootstrap_median(values) == (40.0, 20.0, 60.0)
    chance = sum(math.comb(7, k) * 6 ** (7 - k) for k in range(4, 8)) / 7**7
    assert chance < 0.025 < sum(math.comb(7, k) * 2**k * 5 ** (7 - k) for k in range(4, 8)) / 7**7


def test_the_interval_is_the_same_every_time_and_widens_with_its_level():
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


def test_seeds_are_merged_and_settings_are_not():
    rows = [row(p=p, seed=seed, generalised=10 * p + seed) for seed in range(3) for p in (5, 7)]
    found = results.summary(rows, ["p", "seed"])
    assert [(one["p"], one["n"], one["generalised_median"]) for one in found] == [(5, 3, 51.0), (7, 3, 71.0)]
    assert [(one["generalised_low"], one["generalised_high"]) for one in found] == [(50, 52), (70, 72)]
    assert [one["test_accuracy_median"] for one in found] == [0.51, 0.71]
    assert all("seed" not in one for one in found)


def test_a_median_counts_seeds_without_the_event_as_later_than_any_step():
    rows = [row(p=5, seed=seed, generalised=at) for seed, at in enumerate([30, INF, 20])]
    rows += [row(p=7, seed=seed, generalised=at) for seed, at in enumerate([30, INF, INF])]
    few, most = results.summary(rows, ["p", "seed"])
    assert (few["n"], few["n_memorized"], few["n_generalised"]) == (3, 3, 2)
    assert (few["generalised_median"], few["generalised_low"], few["generalised_high"]) == (30, 20, INF)
    assert (most["n_generalised"], most["generalised_median"], most["generalised_low"]) == (1, INF, 30)


def test_only_finished_cells_count():
    others = [
        row(state, p=5, seed=seed, generalised=1) for seed, state in enumerate(["failed", "running", "unfinished"])
    ]
    rows = [row(p=5, seed=9, generalised=50), *others, {"cell": "x", "p": 5, "seed": 4, "state": "new"}]
    (found,) = results.summary(rows, ["p", "seed"])
    assert (found["n"], found["generalised_median"]) == (1, 50)
    assert results.summary(others, ["p", "seed"]) == []


def test_lists_are_settings_and_so_is_a_setting_that_a_cell_lacks():
    rows = [row(betas=betas, seed=seed) for betas in ([0.9, 0.98], [0.5, 0.5]) for seed in (0, 1)]
    rows += [row(p=5, seed=0), row(p=7, seed=0), row(p=7, seed=1)]
    found = results.summary(rows, ["betas", "p", "seed"])
    assert [(one["betas"], one["p"], one["n"]) for one in found] == [
        ([0.9, 0.98], None, 2),
        ([0.5, 0.5], None, 2),
        (None, 5, 1),
        (None, 7, 2),
    ]


def test_a_seed_that_varies_by_itself_is_a_setting():
    rows = [row(init_seed=init, seed=seed) for init in (0, 1) for seed in (0, 1, 2)]
    assert [(one["init_seed"], one["n"]) for one in results.summary(rows, ["init_seed", "seed"])] == [(0, 3), (1, 3)]


# The table of cells, from runs trained here.


@pytest.fixture
def grokked(tmp_path: Path, tiny_run: Path, tiny_config: RunConfig) -> tuple[Sweep, Path]:
    """A sweep with the tiny run as one of its cells, which memorizes, and one cell that is not begun."""
    settings = {"optimizer.betas": [0.9, 0.98], "seed": 0}
    plan = Sweep((Cell("tiny", settings, tiny_config), Cell("other", {**settings, "seed": 1}, tiny_config)), "Why.")
    shutil.copytree(tiny_run, tmp_path / "sweep" / "tiny")
    sweep_folder.save(plan, tmp_path / "sweep")
    return plan, tmp_path / "sweep"


def test_a_cell_s_row_says_what_its_log_says(grokked: tuple[Sweep, Path]):
    plan, folder = grokked
    found, new = results.table(plan, folder)
    log = Trajectory.open(folder / "tiny").log
    for event, accuracy in (("memorized", "train_accuracy"), ("generalised", "test_accuracy")):
        reached = [int(step) for step, value in zip(log.steps, log[accuracy], strict=True) if value >= 0.99]
        if reached:
            before = [int(step) for step in log.steps if step < reached[0]]
            assert (found[event], found[f"{event}_after"]) == (reached[0], before[-1] if before else -1)
        else:
            assert (found[event], found[f"{event}_after"]) == (INF, INF)
    assert math.isfinite(found["memorized"]), "the tiny run is meant to memorize"
    assert (found["cell"], found["state"], found["reason"], found["steps"]) == ("tiny", "finished", "", 60)
    assert found["best_test_accuracy"] == max(log["test_accuracy"])
    for name in ("train_loss", "test_loss", "train_accuracy", "test_accuracy"):
        assert found[name] == log[name][-1]
    assert found["phase"] == phases.liu_phase(log)
    assert new == {"cell": "other", "optimizer.betas": [0.9, 0.98], "seed": 1, "state": "new", "reason": ""}


def test_the_tables_are_read_again_by_pandas_as_they_were_written(grokked: tuple[Sweep, Path]):
    plan, folder = grokked
    rows = results.table(plan, folder)
    paths = results.write(rows, plan.axes, folder)
    assert paths == [folder / "results.csv", folder / "summary.csv"]
    for path, expected in zip(paths, (rows, results.summary(rows, plan.axes)), strict=True):
        read = pandas.read_csv(path).to_dict("records")
        names = {name for one in expected for name in one}
        for found, one in zip(read, expected, strict=True):
            assert set(found) == names
            for name, value in found.items():
                wanted = one.get(name)
                if wanted is None or wanted == "":
                    assert isinstance(value, float) and math.isnan(value), name
                elif isinstance(wanted, float):  # pandas before 3 may read the last bit otherwise.
                    assert value == pytest.approx(wanted, rel=1e-15, abs=0), name
                else:
                    assert value == (str(wanted) if isinstance(wanted, list) else wanted), name
    assert "inf" in paths[0].read_text(), "what is censored is written as infinite, not left empty"


def test_a_reason_with_commas_quotes_and_lines_is_read_again(grokked: tuple[Sweep, Path]):
    plan, folder = grokked
    reason = 'It said "no", then\nnothing; "∘".'
    sweep_folder.mark_failed(plan.cells[1], folder, reason)
    results.write(results.table(plan, folder), plan.axes, folder)
    read = pandas.read_csv(folder / "results.csv")
    assert read["state"].tolist() == ["finished", "failed"] and read["reason"].tolist()[1] == reason


def test_a_sweep_with_nothing_finished_has_tables_all_the_same(grokked: tuple[Sweep, Path]):
    plan, folder = grokked
    shutil.rmtree(folder / "tiny")
    paths = results.write(results.table(plan, folder), plan.axes, folder)
    assert pandas.read_csv(paths[0])["state"].tolist() == ["new", "new"]
    assert paths[1].exists() and results.summary(results.table(plan, folder), plan.axes) == []


def test_every_state_has_its_row(trained: tuple[Sweep, Path]):
    plan, folder = trained
    with Lock(folder / "seed=1"):
        rows = results.table(plan, folder)
    assert [(one["state"], one.get("steps")) for one in rows] == [("finished", 40), ("running", 10), ("new", None)]
    sweep_folder.mark_failed(plan.cells[1], folder, "So.")
    rows = results.table(plan, folder)
    assert [(one["state"], one["reason"]) for one in rows] == [("finished", ""), ("failed", "So."), ("new", "")]
    assert rows[1]["train_loss"] == Trajectory.open(folder / "seed=1").log["train_loss"][-1]
    (merged,) = results.summary(rows, plan.axes)
    assert merged["n"] == 1


def test_one_damaged_cell_leaves_the_rows_of_the_others(trained: tuple[Sweep, Path]):
    plan, folder = trained
    before = results.table(plan, folder)
    for path in (folder / "seed=0" / "segments").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    after = results.table(plan, folder)
    assert after[0]["state"] in ("failed", "unfinished") and "train_loss" not in after[0]
    assert after[1:] == before[1:]
    assert (
        io.StringIO(results.write(after, plan.axes, folder)[0].read_text()).readline().startswith("cell,seed,state")
    )


def test_a_cell_trained_alone_has_the_row_of_its_run(trained: tuple[Sweep, Path], tmp_path: Path):
    plan, folder = trained
    log = training.train(plan.cells[0].config, "alone", tmp_path).log
    found = results.table(plan, folder)[0]
    assert [found[name] for name in log.arrays] == [float(array[-1]) for array in log.arrays.values()]
