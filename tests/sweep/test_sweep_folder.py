"""What a sweep does not believe: its record edited by hand, names that are paths, the folder it is started in.

And what it does not call a failure: a cell that somebody else trains, and a disk that has no room at this moment.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from grokscope import training
from grokscope.config import RunConfig
from grokscope.disk.lock import Lock
from grokscope.errors import GrokscopeError
from grokscope.sweep import sweep_folder, workers
from grokscope.sweep.plan import Cell, Sweep


@pytest.fixture
def plan(tiny_config: RunConfig) -> Sweep:
    cells = [
        Cell(f"seed={seed}", {"seed": seed}, dataclasses.replace(tiny_config, init_seed=seed, n_steps=20))
        for seed in (0, 1)
    ]
    return Sweep(tuple(cells), "Two cells.")


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "sweep.json").read_bytes())


def rewrite(folder: Path, values: dict[str, Any], *, sealed: bool) -> None:
    """Write another record; `sealed` with the digest that belongs to it, as somebody would who knows the format."""
    if sealed:
        values = {name: value for name, value in values.items() if name != "digest"}
        values["digest"] = sweep_folder._digest(values)
    (folder / "sweep.json").write_text(json.dumps(values))


def test_a_record_is_read_back(plan: Sweep, tmp_path: Path):
    sweep_folder.save(plan, tmp_path)
    assert sweep_folder.load(tmp_path) == plan


def test_a_record_that_was_edited_is_refused(plan: Sweep, tmp_path: Path):
    sweep_folder.save(plan, tmp_path)
    values = record(tmp_path)
    values["cells"][0]["config"]["optimizer"]["lr"] = 0.5
    rewrite(tmp_path, values, sealed=False)
    with pytest.raises(GrokscopeError, match=r"sweep\.json is damaged or was edited"):
        sweep_folder.load(tmp_path)


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/b", "", ".hidden", "x" * 101, 5, None])
def test_a_cell_s_name_is_no_path(plan: Sweep, tmp_path: Path, name: Any):
    sweep_folder.save(plan, tmp_path)
    values = record(tmp_path)
    values["cells"][0]["name"] = name
    rewrite(tmp_path, values, sealed=True)
    with pytest.raises(GrokscopeError, match="no record of a sweep"):
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
def test_a_record_of_other_types_is_refused(plan: Sweep, tmp_path: Path, change: dict[str, Any]):
    sweep_folder.save(plan, tmp_path)
    rewrite(tmp_path, {**record(tmp_path), **change}, sealed=True)
    with pytest.raises(GrokscopeError, match=r"sweep\.json"):
        sweep_folder.load(tmp_path)


def test_settings_that_are_no_table_are_refused(plan: Sweep, tmp_path: Path):
    sweep_folder.save(plan, tmp_path)
    values = record(tmp_path)
    values["cells"][0]["settings"] = 5
    rewrite(tmp_path, values, sealed=True)
    with pytest.raises(GrokscopeError, match="no record of a sweep"):
        sweep_folder.load(tmp_path)


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "", "null", "[]", "\x00"])
def test_a_record_that_is_no_record_is_one_error(plan: Sweep, tmp_path: Path, text: str):
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(GrokscopeError, match=r"sweep\.json"):
        sweep_folder.load(tmp_path)


def test_a_newer_record_is_refused_by_its_format(plan: Sweep, tmp_path: Path):
    sweep_folder.save(plan, tmp_path)
    rewrite(tmp_path, {**record(tmp_path), "format": 2}, sealed=True)
    with pytest.raises(GrokscopeError, match="has format 2"):
        sweep_folder.load(tmp_path)


def test_an_axis_that_an_analysis_needs_is_named_when_it_is_missing(plan: Sweep, tmp_path: Path):
    sweep_folder.save(plan, tmp_path)
    assert sweep_folder.load(tmp_path, ["seed"]) == plan
    with pytest.raises(GrokscopeError, match=r"does not vary task\.p; it varies seed"):
        sweep_folder.load(tmp_path, ["seed", "task.p"])


@pytest.mark.parametrize("text", ["[" * 100_000, "5", "{}", "null", ""])
def test_a_damaged_mark_of_a_failure_is_a_failure(plan: Sweep, tmp_path: Path, text: str):
    sweep_folder.mark_failed(plan.cells[0], tmp_path, "It was so.")
    assert sweep_folder.state(plan.cells[0], tmp_path) == sweep_folder.State("failed", 0, "It was so.")
    (tmp_path / "failures" / "seed=0.json").write_text(text)
    assert sweep_folder.state(plan.cells[0], tmp_path).status == "failed"
    sweep_folder.forget_failure(plan.cells[0], tmp_path)
    assert sweep_folder.state(plan.cells[0], tmp_path).status == "new"


def test_another_run_in_a_cell_s_place_is_no_result(plan: Sweep, tmp_path: Path):
    cell = plan.cells[0]
    training.train(dataclasses.replace(cell.config, evaluate_every=5), cell.name, tmp_path)
    state = sweep_folder.state(cell, tmp_path)
    assert state.status == "failed" and "other settings" in state.reason
    with pytest.raises(GrokscopeError, match="no finished cell"):
        sweep_folder.finished(plan, tmp_path)
    training.train(plan.cells[1].config, plan.cells[1].name, tmp_path)
    assert sweep_folder.finished(plan, tmp_path) == [plan.cells[1]]


def test_a_cell_that_somebody_else_writes_is_left_alone_and_not_marked(plan: Sweep, tmp_path: Path):
    cell = plan.cells[0]
    training.train(dataclasses.replace(cell.config, n_steps=10), cell.name, tmp_path)
    with Lock(tmp_path / cell.name):
        assert sweep_folder.state(cell, tmp_path).status == "running"
        assert workers.run_cells([cell], tmp_path) == {}
    assert sweep_folder.state(cell, tmp_path) == sweep_folder.State("unfinished", 10)


def test_an_i_o_error_is_said_and_not_marked_since_the_next_command_may_have_room(plan: Sweep, tmp_path: Path):
    (tmp_path / "sweep").write_text("a file where the sweep's folder should be")
    said = workers.run_cells(list(plan.cells[:1]), tmp_path / "sweep")[plan.cells[0].name]
    assert "Could not" in said and str(tmp_path / "sweep") in said
    assert not (tmp_path / "sweep" / "failures").exists()


def test_a_mark_that_cannot_be_written_keeps_the_reason(plan: Sweep, tmp_path: Path):
    (tmp_path / "failures").write_text("a file where the folder of the marks should be")
    reason = workers._marked(plan.cells[0], tmp_path, "The loss\x1b[31m is not finite.")
    assert reason.startswith("The loss?[31m is not finite. (Could not")


def test_a_module_in_the_current_folder_is_not_run(plan: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trap = tmp_path / "here"
    trap.mkdir()
    for name in ("random", "einops", "grokscope"):
        (trap / f"{name}.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w').close()\n")
    monkeypatch.chdir(trap)
    assert workers.run_cells(list(plan.cells[:1]), tmp_path / "sweep") == {}
    assert sweep_folder.state(plan.cells[0], tmp_path / "sweep").status == "finished"
    assert not (tmp_path / "sprung").exists()


def test_an_unknown_backend_is_refused_before_anything_is_done():
    with pytest.raises(GrokscopeError, match=r"backend: 'slurm'; allowed: 'local' or 'ray'\."):
        workers.require("slurm")
