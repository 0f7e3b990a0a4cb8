"""Sweep files: the cells that they describe, the names of the cells, and shards."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from grokscope.config import RunConfig, presets, validation
from grokscope.errors import GrokscopeError
from grokscope.store.run_names import checked_name
from grokscope.sweep.plan import Sweep, read_sweep

RUN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]{0,99}")


def read(path: Path, text: str) -> Sweep:
    path.write_text(text, encoding="utf-8")
    return read_sweep(path)


def with_changes(config: RunConfig, **changes: Any) -> RunConfig:
    """Return a config with changed fields; optimizer__lr is the field lr of the table optimizer."""
    for name, value in changes.items():
        table, _, leaf = name.rpartition("__")
        if table:
            value = dataclasses.replace(getattr(config, table), **{leaf: value})
        config = dataclasses.replace(config, **{table or leaf: value})
    return config


def seeded(config: RunConfig, seed: int, **changes: Any) -> RunConfig:
    return with_changes(config, split_seed=seed, init_seed=seed, training_seed=seed, **changes)


def test_grid_with_seeds_gives_every_combination_in_order(tmp_path: Path):
    plan = read(
        tmp_path / "small.toml",
        """
        preset = "quick"
        n_steps = 50
        [sweep]
        about = "Its purpose."
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
    assert plan.about == "Its purpose."
    assert plan.axes == ["optimizer.weight_decay", "batch_size", "seed"]
    assert plan.cells[0].settings == {"optimizer.weight_decay": 0, "batch_size": "none", "seed": 0}
    assert plan.cells[0].name == "weight_decay=0+batch_size=none+seed=0"
    assert plan.cells[-1].name == "weight_decay=3+batch_size=16+seed=7"


def test_listed_settings_combine_with_grid_and_seeds(tmp_path: Path):
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


def test_seeds_alone_set_all_three_seeds(tmp_path: Path):
    plan = read(tmp_path / "small.toml", "training_seed = 9\n[sweep]\nseeds = [3, 4]")
    assert [cell.config for cell in plan.cells] == [seeded(RunConfig(), 3), seeded(RunConfig(), 4)]
    assert [cell.name for cell in plan.cells] == ["seed=3", "seed=4"]
    assert plan.axes == ["seed"]


def test_one_of_the_three_seeds_can_vary(tmp_path: Path):
    plan = read(tmp_path / "small.toml", "split_seed = 5\n[sweep.grid]\ninit_seed = [1, 2]")
    base = dataclasses.replace(RunConfig(), split_seed=5)
    assert [cell.config for cell in plan.cells] == [dataclasses.replace(base, init_seed=seed) for seed in (1, 2)]


def test_table_file_is_read_for_all_cells(tmp_path: Path):
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


def test_growing_sweep_keeps_every_name(tmp_path: Path):
    def names(**lists: list[Any]) -> dict[str, Any]:
        text = GROWING.format(**{name: json.dumps(values, ensure_ascii=False) for name, values in lists.items()})
        return {cell.name: cell.config for cell in read(tmp_path / "s.toml", text).cells}

    before = names(seeds=[0, 1], decays=[0, 1], forms=["a ∘ b ="])
    after = names(seeds=[2, 0, 1], decays=[0.25, 0, 1], forms=["a b =", "a ∘ b ="])
    assert (len(before), len(after)) == (4, 18)
    assert before.items() <= after.items()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("[1, 3]", "[1.0, 3.0]"),
        ("[0]", "[0.0]"),
        ("[0.001]", "[1e-3]"),
        ("[300]", "[3e2]"),
        ("[1e-7]", "[0.0000001]"),
    ],
)
@pytest.mark.parametrize("line", ["n_steps = [5]", 'task.form = ["a ∘ b ="]'], ids=["plain", "digest"])
def test_equal_numbers_in_other_notation_have_equal_names(first: str, second: str, line: str, tmp_path: Path):
    plans = [
        read(tmp_path / "s.toml", f"[sweep.grid]\noptimizer.weight_decay = {values}\n{line}")
        for values in (first, second)
    ]
    assert [cell.config for cell in plans[0].cells] == [cell.config for cell in plans[1].cells]
    assert [cell.name for cell in plans[0].cells] == [cell.name for cell in plans[1].cells]


def test_different_numbers_have_different_names(tmp_path: Path):
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
def test_invalid_name_becomes_a_digest(grid: str, tmp_path: Path):
    plan = read(tmp_path / "s.toml", f"[sweep]\nseeds = [0, 1]\n[sweep.grid]\n{grid}")
    names = [cell.name for cell in plan.cells]
    assert len(set(names)) == 4
    assert sum(re.fullmatch(r"cell-[0-9a-f]{16}", name) is not None for name in names) >= 2
    assert all(checked_name(name) == name for name in names)
    assert [cell.name for cell in read_sweep(tmp_path / "s.toml").cells] == names


def test_every_setting_can_vary_and_gives_a_valid_name(tmp_path: Path):
    config = presets.get("power2022")
    for name, _ in validation.leaves(config):
        value = config.to_dict()
        for part in name.split("."):
            value = value[part]
        text = json.dumps(["none" if value is None else value], ensure_ascii=False)
        plan = read(tmp_path / "s.toml", f'preset = "power2022"\n[sweep.grid]\n{name} = {text}')
        assert [cell.config for cell in plan.cells] == [config], name
        assert RUN_NAME.fullmatch(plan.cells[0].name), name


def test_settings_with_the_same_leaf_have_full_names(tmp_path: Path):
    text = '[sweep.grid]\ntask.name = ["addition", "subtraction"]\noptimizer.name = ["adamw", "sgd"]'
    names = [cell.name for cell in read(tmp_path / "s.toml", text).cells]
    assert names[1:3] == ["task.name=addition+optimizer.name=sgd", "task.name=subtraction+optimizer.name=adamw"]


@pytest.mark.parametrize("n_cells", [1, 7, 12])
@pytest.mark.parametrize("n", [1, 2, 5, 12, 20])
def test_shards_contain_every_cell_once(n_cells: int, n: int, tmp_path: Path):
    plan = read(tmp_path / "s.toml", f'[sweep]\nseeds = {list(range(n_cells))}\nabout = "So."')
    shards = [plan.shard(i, n) for i in range(1, n + 1)]
    names = [cell.name for shard in shards for cell in shard.cells]
    assert sorted(names) == sorted(cell.name for cell in plan.cells)
    sizes = [len(shard.cells) for shard in shards]
    assert max(sizes) - min(sizes) <= 1 and {shard.about for shard in shards} == {"So."}


@pytest.mark.parametrize(("i", "n"), [(0, 3), (4, 3), (-1, 3), (1, 0), (1, -2)])
def test_shard_outside_the_range_is_refused(i: int, n: int, tmp_path: Path):
    plan = read(tmp_path / "s.toml", "[sweep]\nseeds = [0, 1, 2, 3]")
    with pytest.raises(GrokscopeError, match=f"--shard {i}/{n}: allowed"):
        plan.shard(i, n)
