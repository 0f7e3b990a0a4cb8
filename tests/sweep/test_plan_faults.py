"""Sweep files with faults: every fault is in one message, with the allowed values."""

import re
from pathlib import Path

import pytest

from grokscope.errors import GrokscopeError
from grokscope.sweep.plan import Sweep, read_sweep


def read(path: Path, text: str) -> Sweep:
    path.write_text(text, encoding="utf-8")
    return read_sweep(path)


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
    ("[sweep.grid]\ntask.p = []", ["sweep.grid", "task.p", "[]", "a list of at least one value"]),
    ("[sweep.grid]\ntask.p = 5", ["sweep.grid", "task.p", "5", "a list of at least one value"]),
    ("[sweep]\ngrid = 5", ["sweep.grid: 5", "a table of settings"]),
    ("[sweep]\ncells = []", ["sweep.cells: []", "one table"]),
    ("[sweep]\ncells = [5]", ["sweep.cells: [5]", "one table"]),
    ("[sweep]\ncells = 5", ["sweep.cells: 5", "one table"]),
    *(
        (f"[sweep]\nseeds = {seeds}", ["sweep.seeds", "whole numbers from 0"])
        for seeds in ("[]", "[1.5]", "[-1]", "5")
    ),
    ("[sweep]\nseeds = [true]", ["sweep.seeds: [True]", "whole numbers from 0"]),
    (
        "[sweep]\nseeds = [4611686018427387905]",
        ["sweep.seeds: [4611686018427387905]", "whole numbers from 0"],
    ),
    ("[sweep]\nseeds = [0]\nabout = 3", ["sweep.about: 3", "a sentence"]),
    ("[sweep.grid]\noptimizer.lr = [0.1, -1]", ["optimizer.lr: -1", "1 of 2 cells", "lr=-1"]),
    ("[sweep.grid]\noptimizer.lr = [nan, inf]", ["optimizer.lr: nan", "optimizer.lr: inf"]),
    ("[sweep.grid]\noptimizer.lr = [{x = 1}]", ["optimizer.lr: {'x': 1}", "a number above 0"]),
    ("[sweep.grid]\nmodel.n_heads = [3, 4]", ["model.n_heads: 3 does not divide", "1 of 2 cells"]),
    ("[sweep.grid]\ntask.p = [5, 7, 5]", ["the same cell more than once", "(2 of 3 cells, such as p=5)"]),
    ("[sweep.grid]\noptimizer.weight_decay = [1, 1.0]", ["One fault", "the same cell more than once"]),
    ("[sweep]\nseeds = [2, 2]", ["One fault", "the same cell more than once"]),
    ("[[sweep.cells]]\ntask.p = 5\n[[sweep.cells]]\ntask.p = 5", ["One fault", "the same cell more than once"]),
    # Faults that only building the task finds.
    ("task.p = 5\n[sweep.grid]\ntask.train_fraction = [0.01, 0.5]", ["training set empty", "1 of 2", "=0.01"]),
    ("task.p = 5\n[sweep.grid]\ntask.outliers = [0, 8]", ["task.outliers: 8 of 7", "allowed: 0 to 7", "1 of 2"]),
    (f"[sweep]\nseeds = {list(range(400))}\n[sweep.grid]\nn_steps = {list(range(1, 401))}", ["160,000 cells"]),
    # A value that JSON does not have, and a number that Python refuses to print.
    ("[sweep.grid]\nn_steps = [1979-05-27T07:32:00Z]", ["n_steps", "a whole number"]),
    (f"[sweep.grid]\nn_steps = [0x{'f' * 5000}]", ["n_steps", "a whole number"]),
    (f"[sweep]\nseeds = [0x{'f' * 5000}]", ["sweep.seeds: a number of thousands", "whole numbers from 0"]),
    # The same cell twice, in other words.
    (
        "[[sweep.cells]]\ntask.p = 5\nn_steps = 9\n[[sweep.cells]]\nn_steps = 9\ntask.p = 5",
        ["One fault", "the same cell more than once"],
    ),
    ('[sweep.grid]\ntask.form = ["a ∘ b ="]\noptimizer.weight_decay = [1, 1.0]', ["more than once"]),
    # A setting with two values would give a wrong name, or lose a cell.
    ("[sweep]\nseeds = [0, 1]\n[sweep.grid]\nsplit_seed = [5, 6]", ["split_seed", "seeds"]),
    ("[sweep]\nseeds = [0, 1]\n[[sweep.cells]]\ninit_seed = 5", ["init_seed", "seeds"]),
    ("[sweep.grid]\ntask.p = [5, 7]\n[[sweep.cells]]\ntask.p = 11", ["task.p", "cells"]),
    # Invalid TOML.
    ("[sweep", ["TOML"]),
]


@pytest.mark.parametrize(("text", "parts"), WRONG, ids=range(len(WRONG)))
def test_fault_is_named_with_the_allowed_values(text: str, parts: list[str], tmp_path: Path):
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
    message = str(error.value)
    faults = ["'quik'", "'stepz'", "sweep.seeds", "sweep.about", "'what'", "'task.q'", "task.p = []"]
    faults += ["optimizer.lr: -1", "n_heads = 4", "'optimizer.momentun'", "model.d_mlp: 0"]
    assert [fault for fault in faults if fault not in message] == []
    assert message.count(str(tmp_path / "wrong.toml")) == 1


def test_unreadable_table_is_one_fault_among_others(tmp_path: Path):
    with pytest.raises(GrokscopeError, match=r"(?s)(stepz.*missing\.txt|missing\.txt.*stepz)"):
        read(
            tmp_path / "wrong.toml", 'stepz = 1\n[task]\nname = "table"\ntable = "@missing.txt"\n[sweep]\nseeds = [0]'
        )


def test_faults_of_values_and_of_the_task_are_in_one_message(tmp_path: Path):
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
def test_path_that_is_not_a_file_is_named(name: str, tmp_path: Path):
    with pytest.raises(GrokscopeError, match=f"^{re.escape(str(tmp_path / name))} cannot be read"):
        read_sweep(tmp_path / name)
