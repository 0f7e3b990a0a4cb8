"""The plan of a sweep: its cells, read from a TOML file, with every fault of the file in one message."""

import dataclasses
import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from grokscope.config import RunConfig, presets, toml, validation
from grokscope.errors import GrokscopeError, quoted_value, unknown_name
from grokscope.store.run_store import IS_NAME

LARGEST = 100_000
SEEDS = ("split_seed", "init_seed", "training_seed")
_KEYS = ("about", "seeds", "grid", "cells")
_DEEPEST = 8
_KINDS = {name: allowed.kind for name, allowed in validation.leaves(RunConfig())}
_LEAVES = Counter(name.rpartition(".")[2] for name in _KINDS)


@dataclass(frozen=True)
class Cell:
    """One run of a sweep."""

    name: str
    """The run's name in the sweep's folder, made of its settings."""
    settings: Mapping[str, Any]
    """What the sweep varies, by dotted name; "seed" stands for all three seeds."""
    config: RunConfig


@dataclass(frozen=True)
class Sweep:
    """Cells in the order of their file, and in a sentence what they are for."""

    cells: tuple[Cell, ...]
    about: str = ""

    @cached_property
    def axes(self) -> list[str]:
        """The dotted names of what varies, in order; "seed", if it is there, comes last."""
        names = dict.fromkeys(name for cell in self.cells for name in cell.settings if name != "seed")
        return [*names, *(["seed"] if any("seed" in cell.settings for cell in self.cells) else [])]

    def shard(self, i: int, n: int) -> "Sweep":
        """Return every n-th cell from the i-th on, i from 1: the shards of 1 … n are all cells, each once."""
        if not 1 <= i <= n:
            raise GrokscopeError(f"--shard {i}/{n}: allowed: i/n with i from 1 to n, such as 2/8.")
        return dataclasses.replace(self, cells=self.cells[i - 1 :: n])


def read_sweep(path: Path) -> Sweep:
    """Read a sweep from TOML: a run's settings, as in `presets.read`, and a table ``sweep`` of what varies.

    ``[sweep.grid]`` has a list of values for a setting, and every combination is a cell; ``[[sweep.cells]]`` lists
    settings that belong together, each combined with the grid; ``sweep.seeds`` runs each with these seeds (for
    split, initialization and training alike); ``sweep.about`` is a sentence. Raise one GrokscopeError that names
    the file and every fault in it.
    """
    values = toml.read_toml(path)
    unreadable = []
    try:
        values = toml.with_table(values, path.parent)
    except GrokscopeError as error:
        unreadable.append(str(error).rstrip("."))
        values["task"].pop("table")
    try:
        return _from_values(values, unreadable)
    except GrokscopeError as error:
        raise GrokscopeError(f"{path}: {error}") from error


def _from_values(values: Mapping[str, Any], unreadable: list[str]) -> Sweep:
    values, found = dict(values), list(unreadable)
    plan = values.pop("sweep", None)
    if not isinstance(plan, dict):
        raise GrokscopeError("There is no table [sweep], so nothing varies; it has about, seeds, grid, cells.")
    base = RunConfig()
    if "preset" in values:
        try:
            base = presets.get(values.pop("preset"))
        except GrokscopeError as error:
            found.append(str(error).rstrip("."))
    base, unknown = validation.from_plain(base, values)
    found += unknown
    found += [unknown_name("key of sweep", key, list(_KEYS)).rstrip(".") for key in plan if key not in _KEYS]
    about = plan.get("about", "")
    if not isinstance(about, str):
        found.append(f"sweep.about: {quoted_value(about)}; allowed: a sentence")
    axes, listed = _axes(plan, found), _listed(plan, found)
    found += _overruled(axes, listed)
    if not (axes or plan.get("cells")) and not found:
        found.append("sweep: nothing varies; allowed: seeds, a grid or cells")
    n_cells = math.prod([len(listed), *(len(choices) for _, choices in axes)])
    if n_cells > LARGEST:
        found += [f"sweep: {n_cells:,} cells; allowed: up to {LARGEST:,}", *base.faults()]
    cells = [_cell(base, settings) for settings in _combined(listed, axes)] if n_cells <= LARGEST else []
    found += _cell_faults(cells)
    if found:
        heading = "One fault" if len(found) == 1 else f"{len(found)} faults"
        raise GrokscopeError(f"{heading} in this sweep:\n" + "\n".join(f"  {fault}" for fault in found))
    return Sweep(tuple(cells), about)


def _axes(plan: Mapping[str, Any], found: list[str]) -> list[tuple[str, list[Any]]]:
    """Return each axis of the grid with its values, the seeds last; add to `found` what is wrong with them."""
    axes = []
    grid = plan.get("grid", {})
    if not isinstance(grid, dict):
        found.append(f"sweep.grid: {quoted_value(grid)}; allowed: a table of settings, each with a list of values")
        grid = {}
    for name, choices in _leaves(grid):
        if name not in _KINDS:
            found.append(unknown_name("setting", name, list(_KINDS)).rstrip(".") + " (in sweep.grid)")
        elif not isinstance(choices, list) or not choices:
            found.append(f"sweep.grid: {name} = {quoted_value(choices)}; allowed: a list of one value or more")
        else:
            axes.append((name, choices))
    seeds = plan.get("seeds")
    if seeds is not None:
        if isinstance(seeds, list) and seeds and all(type(seed) is int and 0 <= seed <= 2**62 for seed in seeds):
            axes.append(("seed", seeds))
        else:
            found.append(f"sweep.seeds: {quoted_value(seeds)}; allowed: a list of whole numbers from 0")
    return axes


def _listed(plan: Mapping[str, Any], found: list[str]) -> list[dict[str, Any]]:
    """Return the settings of each of ``sweep.cells``, or of one that changes nothing if there are none."""
    cells = plan.get("cells", [{}])
    if not isinstance(cells, list) or not cells or not all(isinstance(cell, dict) for cell in cells):
        found.append(f"sweep.cells: {quoted_value(cells)}; allowed: one table [[sweep.cells]] or more")
        return [{}]
    listed = [dict(_leaves(cell)) for cell in cells]
    unknown = dict.fromkeys(name for settings in listed for name in settings if name not in _KINDS)
    found += [unknown_name("setting", name, list(_KINDS)).rstrip(".") + " (in sweep.cells)" for name in unknown]
    return [{name: value for name, value in settings.items() if name in _KINDS} for settings in listed]


def _overruled(axes: list[tuple[str, list[Any]]], listed: list[dict[str, Any]]) -> list[str]:
    """Say which settings would have two values in a cell."""
    in_cells = dict.fromkeys(name for settings in listed for name in settings)
    names = [name for name, _ in axes]
    found = [f"{name} stands in sweep.grid and in sweep.cells; allowed: in one" for name in names if name in in_cells]
    if "seed" in names:
        both = [name for name in SEEDS if name in names or name in in_cells]
        found += [f"{name} stands beside sweep.seeds, which sets it; allowed: one of the two" for name in both]
    return found


def _combined(listed: list[dict[str, Any]], axes: list[tuple[str, list[Any]]]) -> Iterator[dict[str, Any]]:
    for settings in listed:
        for choices in itertools.product(*(choices for _, choices in axes)):
            yield {**settings, **dict(zip((name for name, _ in axes), choices, strict=True))}


def _cell(base: RunConfig, settings: dict[str, Any]) -> Cell:
    nested: dict[str, Any] = {}
    for name, value in settings.items():
        for full_name in SEEDS if name == "seed" else (name,):
            *tables, leaf = full_name.split(".")
            place = nested
            for table in tables:
                place = place.setdefault(table, {})
            place[leaf] = value
        # 1 and 1.0 are the same setting, and have one name.
        if type(value) is int and _KINDS.get(name) is float:
            settings = {**settings, name: float(value) if abs(value) < 2**53 else value}
    config, _ = validation.from_plain(base, nested)
    return Cell(_name(settings), settings, config)


def _name(settings: Mapping[str, Any]) -> str:
    """Return a cell's name: each setting as "name=value", or a digest where that makes no name for a run."""
    parts = []
    for name, value in settings.items():
        leaf = name.rpartition(".")[2]
        parts.append(f"{leaf if _LEAVES[leaf] < 2 else name}={_written(value)}")
    name = "+".join(parts)
    if IS_NAME.fullmatch(name):
        return name
    return f"cell-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _written(value: Any) -> str:
    if isinstance(value, list):
        return "_".join(map(_written, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else str(value)
    return value if isinstance(value, str) else quoted_value(value)


def _cell_faults(cells: list[Cell]) -> list[str]:
    """Return every fault of every cell, each once, with how many cells have it."""
    where: dict[str, list[str]] = {}
    loaded: dict[tuple[Any, int], str] = {}
    sound: dict[RunConfig, list[str]] = {}
    for cell in cells:
        faults = cell.config.faults()
        if not faults:
            sound.setdefault(cell.config, []).append(cell.name)
            # What only the task itself can refuse: an empty test set, too many outliers.
            data = (cell.config.task, cell.config.split_seed)
            if data not in loaded:
                loaded[data] = _data_fault(*data)
            faults = [loaded[data]] if loaded[data] else []
        for fault in faults:
            where.setdefault(fault, []).append(cell.name)
    twice = [name for names in sound.values() if len(names) > 1 for name in names]
    twice = twice or [name for name, count in Counter(cell.name for cell in cells).items() if count > 1]
    if twice:
        where["the same cell more than once: each must differ in its settings"] = twice
    return [
        fault if len(at) == len(cells) else f"{fault} ({len(at)} of {len(cells)} cells, such as {at[0]})"
        for fault, at in where.items()
    ]


def _data_fault(task: Any, split_seed: int) -> str:
    from grokscope import tasks  # It imports torch, which listing sweeps does not need.

    try:
        tasks.load(task, split_seed)
    except GrokscopeError as error:
        return str(error).rstrip(".")
    return ""


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict) and value and prefix.count(".") < _DEEPEST:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
