"""A sweep's folder: its record, and the states of its cells."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.shared import truncate

from grokscope import training
from grokscope.disk.lock import Lock
from grokscope.errors import GrokscopeError
from grokscope.sweep import sweep_folder
from grokscope.sweep.plan import Sweep, read_sweep

WriteSweep = Callable[..., Path]


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "sweep.json").read_bytes())


def read(path: Path, text: str) -> Sweep:
    path.write_text(text, encoding="utf-8")
    return read_sweep(path)


def rewrite(folder: Path, values: dict[str, Any], *, sealed: bool) -> None:
    """Write another record; `sealed` adds the right digest, as an attacker who knows the format would."""
    if sealed:
        values = {name: value for name, value in values.items() if name != "digest"}
        values["digest"] = sweep_folder._digest(values)
    (folder / "sweep.json").write_text(json.dumps(values))


def test_edited_record_is_refused(two_cells: Sweep, tmp_path: Path):
    sweep_folder.save(two_cells, tmp_path)
    values = record(tmp_path)
    values["cells"][0]["config"]["optimizer"]["lr"] = 0.5
    rewrite(tmp_path, values, sealed=False)
    with pytest.raises(GrokscopeError, match=r"sweep\.json is damaged or was edited"):
        sweep_folder.load(tmp_path)


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/b", "", ".hidden", "x" * 101, 5, None])
def test_cell_name_that_is_a_path_is_refused(two_cells: Sweep, tmp_path: Path, name: Any):
    sweep_folder.save(two_cells, tmp_path)
    values = record(tmp_path)
    values["cells"][0]["name"] = name
    rewrite(tmp_path, values, sealed=True)
    with pytest.raises(GrokscopeError, match="does not contain a sweep"):
        sweep_folder.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"cells": 5},
        {"cells": [5]},
        {"cells": None},
        {"format": "one"},
        {"format": None},
    ],
    ids=str,
)
def test_record_of_wrong_types_is_refused(two_cells: Sweep, tmp_path: Path, change: dict[str, Any]):
    sweep_folder.save(two_cells, tmp_path)
    rewrite(tmp_path, {**record(tmp_path), **change}, sealed=True)
    with pytest.raises(GrokscopeError, match=r"sweep\.json"):
        sweep_folder.load(tmp_path)


def test_settings_that_are_not_a_table_are_refused(two_cells: Sweep, tmp_path: Path):
    sweep_folder.save(two_cells, tmp_path)
    values = record(tmp_path)
    values["cells"][0]["settings"] = 5
    rewrite(tmp_path, values, sealed=True)
    with pytest.raises(GrokscopeError, match="does not contain a sweep"):
        sweep_folder.load(tmp_path)


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "", "null", "[]", "\x00"], ids=range(6))
def test_text_that_is_not_a_record_is_refused(two_cells: Sweep, tmp_path: Path, text: str):
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(GrokscopeError, match=r"sweep\.json"):
        sweep_folder.load(tmp_path)


def test_newer_format_is_refused(two_cells: Sweep, tmp_path: Path):
    sweep_folder.save(two_cells, tmp_path)
    rewrite(tmp_path, {**record(tmp_path), "format": 2}, sealed=True)
    with pytest.raises(GrokscopeError, match="has format 2"):
        sweep_folder.load(tmp_path)


def test_missing_axis_is_named(two_cells: Sweep, tmp_path: Path):
    sweep_folder.save(two_cells, tmp_path)
    assert sweep_folder.load(tmp_path, ["seed"]) == two_cells
    with pytest.raises(GrokscopeError, match=r"does not vary task\.p; it varies seed"):
        sweep_folder.load(tmp_path, ["seed", "task.p"])


@pytest.mark.parametrize("text", ["[" * 100_000, "5", "{}", "null", ""], ids=range(5))
def test_damaged_failure_record_is_a_failure(two_cells: Sweep, tmp_path: Path, text: str):
    sweep_folder.mark_failed(two_cells.cells[0], tmp_path, "It was so.")
    assert sweep_folder.cell_state(two_cells.cells[0], tmp_path) == sweep_folder.State("failed", 0, "It was so.")
    (tmp_path / "failures" / "seed=0.json").write_text(text)
    assert sweep_folder.cell_state(two_cells.cells[0], tmp_path).status == "failed"
    sweep_folder.forget_failure(two_cells.cells[0], tmp_path)
    assert sweep_folder.cell_state(two_cells.cells[0], tmp_path).status == "new"


def test_run_with_other_settings_is_not_a_result(two_cells: Sweep, tmp_path: Path):
    cell = two_cells.cells[0]
    training.train(dataclasses.replace(cell.config, evaluate_every=5), cell.name, tmp_path)
    state = sweep_folder.cell_state(cell, tmp_path)
    assert state.status == "failed" and "other settings" in state.reason
    with pytest.raises(GrokscopeError, match="no finished cell"):
        sweep_folder.finished_cells(two_cells, tmp_path)
    training.train(two_cells.cells[1].config, two_cells.cells[1].name, tmp_path)
    assert sweep_folder.finished_cells(two_cells, tmp_path) == [two_cells.cells[1]]


def test_saved_sweep_is_loaded_unchanged(tmp_path: Path):
    plan = read(
        tmp_path / "s.toml",
        """
        preset = "power2022"
        [sweep]
        about = "Purpose: ∘."
        seeds = [0, 1]
        [sweep.grid]
        optimizer.betas = [[0.9, 0.98], [0.5, 0.25]]
        optimizer.weight_decay = [0, 0.1]
        batch_size = ["none", 64]
        """,
    )
    sweep_folder.save(plan, tmp_path / "runs" / "mine")
    loaded = sweep_folder.load(tmp_path / "runs" / "mine")
    assert loaded == plan and len(loaded.cells) == 16
    assert loaded.axes == plan.axes == ["optimizer.betas", "optimizer.weight_decay", "batch_size", "seed"]
    assert [path.name for path in (tmp_path / "runs" / "mine").iterdir()] == ["sweep.json"]


def test_folder_that_is_not_a_sweep_is_refused(tmp_path: Path):
    with pytest.raises(GrokscopeError, match="is not a sweep"):
        sweep_folder.load(tmp_path)


def test_damaged_record_is_named(tmp_path: Path):
    plan = read(tmp_path / "s.toml", "[sweep]\nseeds = [0]")
    sweep_folder.save(plan, tmp_path)
    path = tmp_path / "sweep.json"
    values = json.loads(path.read_bytes())
    assert sweep_folder.load(tmp_path) == plan
    broken = [
        [],
        5,
        {"format": 1},
        {**values, "cells": [5]},
        {**values, "cells": [{"name": "x"}]},
        {**values, "format": "x"},
    ]
    for damaged in broken:
        path.write_text(json.dumps(damaged))
        with pytest.raises(GrokscopeError, match=r"sweep\.json is damaged"):
            sweep_folder.load(tmp_path)
    path.write_text(json.dumps(values))
    truncate(path)
    with pytest.raises(GrokscopeError, match=r"sweep\.json is damaged"):
        sweep_folder.load(tmp_path)
    path.write_text(json.dumps({**values, "format": 99}))
    with pytest.raises(GrokscopeError, match=r"sweep\.json has format 99"):
        sweep_folder.load(tmp_path)


def states(plan: Sweep, folder: Path) -> list[tuple[str, int]]:
    return [(state.status, state.step) for state in (sweep_folder.cell_state(cell, folder) for cell in plan.cells)]


def test_state_is_read_from_the_files_of_the_cell(partial_sweep: tuple[Sweep, Path]):
    plan, folder = partial_sweep
    assert states(plan, folder) == [("finished", 40), ("unfinished", 15), ("new", 0)]


def test_locked_cell_is_running_unless_finished(partial_sweep: tuple[Sweep, Path]):
    plan, folder = partial_sweep
    with Lock(folder / plan.cells[0].name), Lock(folder / plan.cells[1].name):
        assert states(plan, folder) == [("finished", 40), ("running", 15), ("new", 0)]
    assert states(plan, folder) == [("finished", 40), ("unfinished", 15), ("new", 0)]


def test_marked_cell_is_failed_until_the_mark_is_removed(partial_sweep: tuple[Sweep, Path]):
    plan, folder = partial_sweep
    for cell in plan.cells:
        sweep_folder.mark_failed(cell, folder, f"The reason ∘ of {cell.name}.")
    assert states(plan, folder) == [("finished", 40), ("failed", 15), ("failed", 0)]
    assert sweep_folder.cell_state(plan.cells[1], folder).reason == "The reason ∘ of seed=1."
    with Lock(folder / plan.cells[1].name):
        assert sweep_folder.cell_state(plan.cells[1], folder).status == "running"
    for cell in plan.cells:
        sweep_folder.forget_failure(cell, folder)
        sweep_folder.forget_failure(cell, folder)
    assert states(plan, folder) == [("finished", 40), ("unfinished", 15), ("new", 0)]


def test_damaged_cell_is_failed_with_a_reason(partial_sweep: tuple[Sweep, Path]):
    plan, folder = partial_sweep
    truncate(folder / "seed=1" / "config.json")
    state = sweep_folder.cell_state(plan.cells[1], folder)
    assert state.status == "failed" and "config.json is damaged" in state.reason
    (folder / "failures").mkdir()
    (folder / "failures" / "seed=2.json").write_text("{")
    assert sweep_folder.cell_state(plan.cells[2], folder).status == "failed"
    assert states(plan, folder)[0] == ("finished", 40)


def test_more_steps_make_finished_cells_unfinished(partial_sweep: tuple[Sweep, Path], write_sweep: WriteSweep):
    plan, folder = partial_sweep
    path = write_sweep("[sweep]\nseeds = [0, 1, 2]")
    path.write_text(path.read_text().replace("n_steps = 40", "n_steps = 60"))
    longer = read_sweep(path)
    assert [cell.name for cell in longer.cells] == [cell.name for cell in plan.cells]
    sweep_folder.save(longer, folder)
    assert states(longer, folder) == [("unfinished", 40), ("unfinished", 15), ("new", 0)]
    assert sweep_folder.load(folder) == longer


@pytest.mark.parametrize(("setting", "replacement"), [("lr = 1e-2", "lr = 2e-2"), ("n_steps = 40", "n_steps = 39")])
def test_other_settings_or_fewer_steps_are_refused(
    setting: str, replacement: str, partial_sweep: tuple[Sweep, Path], write_sweep: WriteSweep
):
    plan, folder = partial_sweep
    path = write_sweep("[sweep]\nseeds = [0, 1, 2]")
    path.write_text(path.read_text().replace(setting, replacement))
    with pytest.raises(GrokscopeError, match=r"2 cells .*other settings or more steps, such as seed=0\. Choose"):
        sweep_folder.save(read_sweep(path), folder)
    assert sweep_folder.load(folder) == plan


def test_sweep_grows_in_its_folder(partial_sweep: tuple[Sweep, Path], write_sweep: WriteSweep):
    _, folder = partial_sweep
    grown = read_sweep(write_sweep("[sweep]\nseeds = [3, 0, 1, 2]"))
    sweep_folder.save(grown, folder)
    assert states(grown, folder) == [("new", 0), ("finished", 40), ("unfinished", 15), ("new", 0)]


def test_sweep_is_not_saved_in_the_folder_of_a_run(partial_sweep: tuple[Sweep, Path], write_sweep: WriteSweep):
    plan, folder = partial_sweep
    run = folder / "seed=0"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(GrokscopeError, match="seed=0"):
        sweep_folder.save(plan, run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
