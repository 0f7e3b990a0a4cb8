"""Sweep files, the cells they mean, their names, every fault, shards, and the record and the states on disk."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.shared import truncate

from grokscope.config import RunConfig, presets, validation
from grokscope.disk.lock import Lock
from grokscope.errors import GrokscopeError
from grokscope.store.run_store import checked_name
from grokscope.sweep import sweep_folder
from grokscope.sweep.plan import Sweep, read_sweep

Written = Callable[..., Path]

RUN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]{0,99}")


def read(path: Path, text: str) -> Sweep:
    path.write_text(text, encoding="utf-8")
    return read_sweep(path)


def with_changes(config: RunConfig, **changes: Any) -> RunConfig:
    """`dataclasses.replace` that reaches into the tables: optimizer__lr is optimizer.lr."""
    for name, value in changes.items():
        table, _, leaf = name.rpartition("__")
        if table:
            value = dataclasses.replace(getattr(config, table), **{leaf: value})
        config = dataclasses.replace(config, **{table or leaf: value})
    return config


def seeded(config: RunConfig, seed: int, **changes: Any) -> RunConfig:
    return with_changes(config, split_seed=seed, init_seed=seed, training_seed=seed, **changes)


def test_a_grid_with_seeds_is_every_combination_in_the_order_of_the_file(tmp_path: Path):
    plan = read(
        tmp_path / "small.toml",
        """
        preset = "quick"
        n_steps = 50
        [sweep]
        about = "What it is for."
        seeds = [0, 7]
        [sweep.grid]
        optimizer.weight_decay = [0, 0.5, 3]
        batch_size = ["none", 16]
        """,
    )
    base = dataclasses.replace(presets.get("quick"), n_steps=50)
    expected = [
        seeded(base, seed, optimizer__weight_decay=decay, batch_size=size)
        for decay in (0, 0.5, 3)
        for size in (None, 16)
        for seed in (0, 7)
    ]
    assert [cell.config for cell in plan.cells] == expected
    assert len(expected) == 3 * 2 * 2
    assert plan.about == "What it is for."
    assert plan.axes == ["optimizer.weight_decay", "batch_size", "seed"]
    assert plan.cells[0].settings == {"optimizer.weight_decay": 0, "batch_size": "none", "seed": 0}
    assert plan.cells[0].name == "weight_decay=0+batch_size=none+seed=0"
    assert plan.cells[-1].name == "weight_decay=3+batch_size=16+seed=7"


def test_listed_cells_belong_together_and_each_meets_the_grid_and_the_seeds(tmp_path: Path):
    plan = read(
        tmp_path / "small.toml",
        """
        task.p = 7
        [sweep]
        seeds = [1]
        [sweep.grid]
        task.train_fraction = [0.5, 0.75]
        [[sweep.cells]]
        optimizer.name = "adam"
        optimizer.weight_decay = 0.0
        [[sweep.cells]]
        optimizer.betas = [0.5, 0.75]
        """,
    )
    base = with_changes(RunConfig(), task__p=7)
    expected = []
    for fraction in (0.5, 0.75):
        expected.append(seeded(base, 1, task__train_fraction=fraction, **{"optimizer__name": "adam"}))
        expected[-1] = with_changes(expected[-1], optimizer__weight_decay=0.0)
    for fraction in (0.5, 0.75):
        expected.append(seeded(base, 1, task__train_fraction=fraction, optimizer__betas=(0.5, 0.75)))
    assert [cell.config for cell in plan.cells] == expected
    assert plan.axes == ["optimizer.name", "optimizer.weight_decay", "task.train_fraction", "optimizer.betas", "seed"]
    assert [cell.name for cell in plan.cells] == [
        "optimizer.name=adam+weight_decay=0+train_fraction=0.5+seed=1",
        "optimizer.name=adam+weight_decay=0+train_fraction=0.75+seed=1",
        "betas=0.5_0.75+train_fraction=0.5+seed=1",
        "betas=0.5_0.75+train_fraction=0.75+seed=1",
    ]


def test_seeds_alone_are_a_sweep_and_set_all_three(tmp_path: Path):
    plan = read(tmp_path / "small.toml", "training_seed = 9\n[sweep]\nseeds = [3, 4]")
    assert [cell.config for cell in plan.cells] == [seeded(RunConfig(), 3), seeded(RunConfig(), 4)]
    assert [cell.name for cell in plan.cells] == ["seed=3", "seed=4"]
    assert plan.axes == ["seed"]


def test_one_seed_of_three_can_vary_by_itself(tmp_path: Path):
    plan = read(tmp_path / "small.toml", "split_seed = 5\n[sweep.grid]\ninit_seed = [1, 2]")
    base = dataclasses.replace(RunConfig(), split_seed=5)
    assert [cell.config for cell in plan.cells] == [dataclasses.replace(base, init_seed=seed) for seed in (1, 2)]


def test_a_table_s_file_is_read_once_for_all_cells(tmp_path: Path):
    (tmp_path / "answers.txt").write_text("0 1 2\n1 2 0\n2 0 1\n")
    plan = read(
        tmp_path / "s.toml",
        'task.name = "table"\ntask.table = "@answers.txt"\ntask.train_fraction = 0.5\n[sweep]\nseeds = [0, 1]',
    )
    assert {cell.config.task.table for cell in plan.cells} == {"0 1 2\n1 2 0\n2 0 1"}


GROWING = """
[sweep]
seeds = {seeds}
[sweep.grid]
optimizer.weight_decay = {decays}
task.form = {forms}
"""


def test_a_sweep_that_grows_leaves_every_name_as_it_was(tmp_path: Path):
    def names(**lists: list[Any]) -> dict[str, Any]:
        text = GROWING.format(**{name: json.dumps(values, ensure_ascii=False) for name, values in lists.items()})
        return {cell.name: cell.config for cell in read(tmp_path / "s.toml", text).cells}

    before = names(seeds=[0, 1], decays=[0, 1], forms=["a ∘ b ="])
    after = names(seeds=[2, 0, 1], decays=[0.25, 0, 1], forms=["a b =", "a ∘ b ="])
    assert (len(before), len(after)) == (4, 18)
    assert before.items() <= after.items()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("[1, 3]", "[1.0, 3.0]"),
        ("[0]", "[0.0]"),
        ("[0.001]", "[1e-3]"),
        ("[300]", "[3e2]"),
        ("[1e-7]", "[0.0000001]"),
    ],
)
@pytest.mark.parametrize("beside", ["n_steps = [5]", 'task.form = ["a ∘ b ="]'], ids=["plain", "digest"])
def test_the_same_settings_have_the_same_names_however_the_numbers_are_written(
    one: str, other: str, beside: str, tmp_path: Path
):
    first, second = (
        read(tmp_path / "s.toml", f"[sweep.grid]\noptimizer.filter_lambda = {values}\n{beside}")
        for values in (one, other)
    )
    assert [cell.config for cell in first.cells] == [cell.config for cell in second.cells]
    assert [cell.name for cell in first.cells] == [cell.name for cell in second.cells]


def test_numbers_that_differ_have_names_that_differ(tmp_path: Path):
    values = [0.1, 0.1 + 2**-50, 0.30000000000000004, 0.3, 123.4567, 123.457, 1e-12, 1.0000001e-12]
    plan = read(tmp_path / "s.toml", f"[sweep.grid]\noptimizer.weight_decay = {values}")
    assert len({cell.name for cell in plan.cells}) == len(values)


@pytest.mark.parametrize(
    "grid",
    [
        'task.form = ["a ∘ b =", "a b ="]',
        'checkpoints = ["every 5", "every 5 + log 7"]',
        "optimizer.betas = [[0.12345678901, 0.23456789012], [0.5, 0.5]]\n"
        "optimizer.weight_decay = [0.12345678901234]\nmodel.init_scale = [0.98765432109876]\n"
        "optimizer.lr = [0.0123456789012345]\ntask.train_fraction = [0.51234567890123]",
    ],
    ids=["signs", "spaces", "long"],
)
def test_what_makes_no_name_for_a_run_becomes_a_digest(grid: str, tmp_path: Path):
    plan = read(tmp_path / "s.toml", f"[sweep]\nseeds = [0, 1]\n[sweep.grid]\n{grid}")
    names = [cell.name for cell in plan.cells]
    assert len(set(names)) == 4
    assert sum(re.fullmatch(r"cell-[0-9a-f]{16}", name) is not None for name in names) >= 2
    assert all(checked_name(name) == name for name in names)
    assert [cell.name for cell in read_sweep(tmp_path / "s.toml").cells] == names


def test_every_setting_can_vary_and_gives_names_that_a_run_may_have(tmp_path: Path):
    config = presets.get("power2022")
    for name, _ in validation.leaves(config):
        value = config.to_dict()
        for part in name.split("."):
            value = value[part]
        text = json.dumps(["none" if value is None else value], ensure_ascii=False)
        plan = read(tmp_path / "s.toml", f'preset = "power2022"\n[sweep.grid]\n{name} = {text}')
        assert [cell.config for cell in plan.cells] == [config], name
        assert RUN_NAME.fullmatch(plan.cells[0].name), name


def test_settings_that_share_their_last_word_are_told_apart(tmp_path: Path):
    text = '[sweep.grid]\ntask.name = ["addition", "subtraction"]\noptimizer.name = ["adamw", "sgd"]'
    names = [cell.name for cell in read(tmp_path / "s.toml", text).cells]
    assert names[1:3] == ["task.name=addition+optimizer.name=sgd", "task.name=subtraction+optimizer.name=adamw"]


# Faults.


WRONG = [
    ("task.p = 5", ["no table [sweep]"]),
    ("sweep = 5", ["no table [sweep]"]),
    ("[sweep]", ["nothing varies"]),
    ("[sweep.grid]", ["nothing varies"]),
    ('preset = "quik"\n[sweep]\nseeds = [0]', ["preset 'quik'", "Did you mean 'quick'?"]),
    ("stepz = 1\n[sweep]\nseeds = [0]", ["Unknown setting 'stepz'"]),
    (
        "[optimizer]\nlrr = 1\n[sweep]\nseeds = [0]",
        ["Unknown setting 'optimizer.lrr'", "Did you mean 'optimizer.lr'"],
    ),
    ("[sweep.grid]\noptimizer.lrr = [1]", ["Unknown setting 'optimizer.lrr'", "'optimizer.lr'?", "sweep.grid"]),
    ("[sweep.grid]\nseed = [1]", ["Unknown setting 'seed'", "sweep.grid"]),
    ("[sweep.grid]\noptimizer = [1]", ["Unknown setting 'optimizer'", "sweep.grid"]),
    ("[[sweep.cells]]\ntask.q = 3", ["Unknown setting 'task.q'", "sweep.cells"]),
    ("[sweep]\nseed = [0]", ["key of sweep 'seed'", "about, seeds, grid, cells", "Did you mean 'seeds'?"]),
    ("[sweep.grid]\ntask.p = []", ["sweep.grid", "task.p", "[]", "a list of one value or more"]),
    ("[sweep.grid]\ntask.p = 5", ["sweep.grid", "task.p", "5", "a list of one value or more"]),
    ("[sweep]\ngrid = 5", ["sweep.grid: 5", "a table of settings"]),
    ("[sweep]\ncells = []", ["sweep.cells: []", "one table"]),
    ("[sweep]\ncells = [5]", ["sweep.cells: [5]", "one table"]),
    ("[sweep]\ncells = 5", ["sweep.cells: 5", "one table"]),
    *(
        (f"[sweep]\nseeds = {seeds}", ["sweep.seeds", "whole numbers from 0"])
        for seeds in ("[]", "[1.5]", "[-1]", "5")
    ),
    ("[sweep]\nseeds = [true]", ["sweep.seeds: [True]", "whole numbers from 0"]),
    ("[sweep]\nseeds = [4611686018427387905]", ["sweep.seeds: [4611686018427387905]", "whole numbers from 0"]),
    ("[sweep]\nseeds = [0]\nabout = 3", ["sweep.about: 3", "a sentence"]),
    ("[sweep.grid]\noptimizer.lr = [0.1, -1]", ["optimizer.lr: -1", "1 of 2 cells", "lr=-1"]),
    ("[sweep.grid]\noptimizer.lr = [nan, inf]", ["optimizer.lr: nan", "optimizer.lr: inf"]),
    ("[sweep.grid]\noptimizer.lr = [{x = 1}]", ["optimizer.lr: {'x': 1}", "a number above 0"]),
    ("[sweep.grid]\nmodel.n_heads = [3, 4]", ["model.n_heads: 3 does not divide", "1 of 2 cells"]),
    ("[sweep.grid]\ntask.p = [5, 7, 5]", ["the same cell more than once", "(2 of 3 cells, such as p=5)"]),
    ("[sweep.grid]\noptimizer.weight_decay = [1, 1.0]", ["One fault", "the same cell more than once"]),
    ("[sweep]\nseeds = [2, 2]", ["One fault", "the same cell more than once"]),
    ("[[sweep.cells]]\ntask.p = 5\n[[sweep.cells]]\ntask.p = 5", ["One fault", "the same cell more than once"]),
    # What only the task itself can say.
    ("task.p = 5\n[sweep.grid]\ntask.train_fraction = [0.01, 0.5]", ["training set empty", "1 of 2", "=0.01"]),
    ("task.p = 5\n[sweep.grid]\ntask.outliers = [0, 8]", ["task.outliers: 8 of 7", "allowed: 0 to 7", "1 of 2"]),
    (f"[sweep]\nseeds = {list(range(400))}\n[sweep.grid]\nn_steps = {list(range(1, 401))}", ["160,000 cells"]),
    # A value that TOML has and JSON has not, and one that Python does not write out.
    ("[sweep.grid]\nn_steps = [1979-05-27T07:32:00Z]", ["n_steps", "a whole number"]),
    (f"[sweep.grid]\nn_steps = [0x{'f' * 5000}]", ["n_steps", "a whole number"]),
    (f"[sweep]\nseeds = [0x{'f' * 5000}]", ["sweep.seeds: a number of thousands", "whole numbers from 0"]),
    # The same cell twice, though not word for word.
    (
        "[[sweep.cells]]\ntask.p = 5\nn_steps = 9\n[[sweep.cells]]\nn_steps = 9\ntask.p = 5",
        ["One fault", "the same cell more than once"],
    ),
    ('[sweep.grid]\ntask.form = ["a ∘ b ="]\noptimizer.weight_decay = [1, 1.0]', ["more than once"]),
    # Settings that say one thing and are overruled by another would be names that lie, or cells that are lost.
    ("[sweep]\nseeds = [0, 1]\n[sweep.grid]\nsplit_seed = [5, 6]", ["split_seed", "seeds"]),
    ("[sweep]\nseeds = [0, 1]\n[[sweep.cells]]\ninit_seed = 5", ["init_seed", "seeds"]),
    ("[sweep.grid]\ntask.p = [5, 7]\n[[sweep.cells]]\ntask.p = 11", ["task.p", "cells"]),
    # No TOML at all.
    ("[sweep", ["no TOML file"]),
]


@pytest.mark.parametrize(("text", "parts"), WRONG, ids=lambda one: one[:60] if isinstance(one, str) else "")
def test_what_is_wrong_in_a_sweep_is_said_with_what_is_allowed(text: str, parts: list[str], tmp_path: Path):
    with pytest.raises(GrokscopeError) as error:
        read(tmp_path / "wrong.toml", text)
    assert str(tmp_path / "wrong.toml") in str(error.value)
    for part in parts:
        assert part in str(error.value), part
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.toml"]


def test_every_fault_of_the_file_is_in_one_message(tmp_path: Path):
    with pytest.raises(GrokscopeError) as error:
        read(
            tmp_path / "wrong.toml",
            """
            preset = "quik"
            stepz = 1
            [sweep]
            seeds = [1.5]
            about = 3
            what = 1
            [sweep.grid]
            task.q = [1]
            task.p = []
            optimizer.lr = [-1, 0.1]
            model.n_heads = 4
            [[sweep.cells]]
            optimizer.momentun = 0.5
            model.d_mlp = 0
            """,
        )
    said = str(error.value)
    faults = ["'quik'", "'stepz'", "sweep.seeds", "sweep.about", "'what'", "'task.q'", "task.p = []"]
    faults += ["optimizer.lr: -1", "n_heads = 4", "'optimizer.momentun'", "model.d_mlp: 0"]
    assert [fault for fault in faults if fault not in said] == []
    assert said.count(str(tmp_path / "wrong.toml")) == 1


def test_a_table_that_cannot_be_read_is_one_fault_among_the_others(tmp_path: Path):
    with pytest.raises(GrokscopeError, match=r"(?s)(stepz.*missing\.txt|missing\.txt.*stepz)"):
        read(
            tmp_path / "wrong.toml", 'stepz = 1\n[task]\nname = "table"\ntable = "@missing.txt"\n[sweep]\nseeds = [0]'
        )


def test_faults_of_values_are_in_one_message_with_what_only_the_task_can_refuse(tmp_path: Path):
    with pytest.raises(GrokscopeError) as error:
        read(
            tmp_path / "wrong.toml",
            """
            task.p = 5
            [sweep.grid]
            optimizer.lr = [0.1, -1, 1000]
            task.train_fraction = [0.5, 0.001]
            task.outliers = [0, 20]
            """,
        )
    lines = str(error.value).splitlines()
    assert "4 faults" in lines[0]
    assert "(4 of 12 cells, such as lr=-1+train_fraction=0.5+outliers=0)" in str(error.value)
    for part in ("optimizer.lr: -1", "optimizer.lr: 1000", "training set empty", "task.outliers: 20 of 12"):
        assert sum(part in line for line in lines[1:]) == 1, part


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_what_is_no_file_is_refused_by_name(name: str, tmp_path: Path):
    with pytest.raises(GrokscopeError, match=f"^{re.escape(str(tmp_path / name))} cannot be read"):
        read_sweep(tmp_path / name)


# Shards.


@pytest.mark.parametrize("n_cells", [1, 7, 12])
@pytest.mark.parametrize("n", [1, 2, 5, 12, 20])
def test_the_shards_are_all_cells_each_once(n_cells: int, n: int, tmp_path: Path):
    plan = read(tmp_path / "s.toml", f'[sweep]\nseeds = {list(range(n_cells))}\nabout = "So."')
    shards = [plan.shard(i, n) for i in range(1, n + 1)]
    dealt = [cell.name for shard in shards for cell in shard.cells]
    assert sorted(dealt) == sorted(cell.name for cell in plan.cells)
    sizes = [len(shard.cells) for shard in shards]
    assert max(sizes) - min(sizes) <= 1 and {shard.about for shard in shards} == {"So."}


@pytest.mark.parametrize(("i", "n"), [(0, 3), (4, 3), (-1, 3), (1, 0), (1, -2)])
def test_a_shard_that_is_none_is_refused(i: int, n: int, tmp_path: Path):
    plan = read(tmp_path / "s.toml", "[sweep]\nseeds = [0, 1, 2, 3]")
    with pytest.raises(GrokscopeError, match=f"--shard {i}/{n}: allowed"):
        plan.shard(i, n)


# The record.


def test_a_saved_sweep_is_loaded_as_it_was(tmp_path: Path):
    plan = read(
        tmp_path / "s.toml",
        """
        preset = "power2022"
        [sweep]
        about = "Why: ∘."
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


def test_what_is_no_sweep_is_refused(tmp_path: Path):
    with pytest.raises(GrokscopeError, match="is no sweep"):
        sweep_folder.load(tmp_path)


def test_a_damaged_record_of_a_sweep_is_refused_by_name(tmp_path: Path):
    plan = read(tmp_path / "s.toml", "[sweep]\nseeds = [0]")
    sweep_folder.save(plan, tmp_path)
    path = tmp_path / "sweep.json"
    whole = json.loads(path.read_bytes())
    assert sweep_folder.load(tmp_path) == plan
    broken = [
        [],
        5,
        {"format": 1},
        {**whole, "cells": [5]},
        {**whole, "cells": [{"name": "x"}]},
        {**whole, "format": "x"},
    ]
    for values in broken:
        path.write_text(json.dumps(values))
        with pytest.raises(GrokscopeError, match=r"sweep\.json is damaged"):
            sweep_folder.load(tmp_path)
    path.write_text(json.dumps(whole))
    truncate(path)
    with pytest.raises(GrokscopeError, match=r"sweep\.json is damaged"):
        sweep_folder.load(tmp_path)
    path.write_text(json.dumps({**whole, "format": 99}))
    with pytest.raises(GrokscopeError, match=r"sweep\.json has format 99"):
        sweep_folder.load(tmp_path)


# States, of runs that are trained here.


def states(plan: Sweep, folder: Path) -> list[tuple[str, int]]:
    return [(state.status, state.step) for state in (sweep_folder.state(cell, folder) for cell in plan.cells)]


def test_a_cell_s_state_stands_in_its_own_files(trained: tuple[Sweep, Path]):
    plan, folder = trained
    assert states(plan, folder) == [("finished", 40), ("unfinished", 15), ("new", 0)]


def test_a_cell_that_some_process_writes_is_running_a_finished_one_is_finished(trained: tuple[Sweep, Path]):
    plan, folder = trained
    with Lock(folder / plan.cells[0].name), Lock(folder / plan.cells[1].name):
        assert states(plan, folder) == [("finished", 40), ("running", 15), ("new", 0)]
    assert states(plan, folder) == [("finished", 40), ("unfinished", 15), ("new", 0)]


def test_a_mark_makes_a_cell_failed_with_its_reason_until_it_is_taken_back(trained: tuple[Sweep, Path]):
    plan, folder = trained
    for cell in plan.cells:
        sweep_folder.mark_failed(cell, folder, f"The reason ∘ of {cell.name}.")
    assert states(plan, folder) == [("finished", 40), ("failed", 15), ("failed", 0)]
    assert sweep_folder.state(plan.cells[1], folder).reason == "The reason ∘ of seed=1."
    with Lock(folder / plan.cells[1].name):
        assert sweep_folder.state(plan.cells[1], folder).status == "running"
    for cell in plan.cells:
        sweep_folder.forget_failure(cell, folder)
        sweep_folder.forget_failure(cell, folder)
    assert states(plan, folder) == [("finished", 40), ("unfinished", 15), ("new", 0)]


def test_a_damaged_cell_has_failed_and_says_why_and_the_others_are_as_they_were(trained: tuple[Sweep, Path]):
    plan, folder = trained
    truncate(folder / "seed=1" / "config.json")
    state = sweep_folder.state(plan.cells[1], folder)
    assert state.status == "failed" and "config.json is damaged" in state.reason
    (folder / "failures").mkdir()
    (folder / "failures" / "seed=2.json").write_text("{")
    assert sweep_folder.state(plan.cells[2], folder).status == "failed"
    assert states(plan, folder)[0] == ("finished", 40)


def test_a_longer_file_makes_finished_cells_unfinished_and_keeps_their_names(
    trained: tuple[Sweep, Path], written: Written
):
    plan, folder = trained
    path = written("[sweep]\nseeds = [0, 1, 2]")
    path.write_text(path.read_text().replace("n_steps = 40", "n_steps = 60"))
    longer = read_sweep(path)
    assert [cell.name for cell in longer.cells] == [cell.name for cell in plan.cells]
    sweep_folder.save(longer, folder)
    assert states(longer, folder) == [("unfinished", 40), ("unfinished", 15), ("new", 0)]
    assert sweep_folder.load(folder) == longer


@pytest.mark.parametrize(("setting", "other"), [("lr = 1e-2", "lr = 2e-2"), ("n_steps = 40", "n_steps = 39")])
def test_another_base_setting_or_fewer_steps_are_refused_by_name_and_leave_the_record(
    setting: str, other: str, trained: tuple[Sweep, Path], written: Written
):
    plan, folder = trained
    path = written("[sweep]\nseeds = [0, 1, 2]")
    path.write_text(path.read_text().replace(setting, other))
    with pytest.raises(GrokscopeError, match=r"2 cells .*other settings or more steps, such as seed=0; choose"):
        sweep_folder.save(read_sweep(path), folder)
    assert sweep_folder.load(folder) == plan


def test_a_sweep_grows_in_its_folder(trained: tuple[Sweep, Path], written: Written):
    _, folder = trained
    grown = read_sweep(written("[sweep]\nseeds = [3, 0, 1, 2]"))
    sweep_folder.save(grown, folder)
    assert states(grown, folder) == [("new", 0), ("finished", 40), ("unfinished", 15), ("new", 0)]


def test_a_run_s_folder_is_no_place_for_a_sweep(trained: tuple[Sweep, Path], written: Written):
    plan, folder = trained
    run = folder / "seed=0"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(GrokscopeError, match="seed=0"):
        sweep_folder.save(plan, run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
