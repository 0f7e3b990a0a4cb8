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

from grokscope.config import RunConfig, presets, toml, unused, validation
from grokscope.errors import GrokscopeError, quoted_value, unknown_name
from grokscope.store.run_names import IS_NAME

MOST_CELLS = 100_000
SEEDS = ("split_seed", "init_seed", "training_seed")
_KEYS = ("about", "seeds", "grid", "cells")
_DEEPEST = 8
_KINDS = {name: allowed.kind for name, allowed in validation.leaves(RunConfig())}
# A setting of a nested table has its full name in a cell's name, so that the other names stay as they are.
_LEAF_COUNTS = Counter(name.rpartition(".")[2] for name in _KINDS if name.count(".") < 2)

Axis = tuple[str, list[Any]]
"""The dotted name of a setting (or "seed") and its values."""


@dataclass(frozen=True)
class Cell:
    """One run of a sweep."""

    name: str
    """The run's name in the sweep's folder, made from its settings."""
    settings: Mapping[str, Any]
    """The values of the settings that the sweep varies, by dotted name; "seed" stands for all three seeds."""
    config: RunConfig


@dataclass(frozen=True)
class Sweep:
    """The cells of a sweep in the order of their file, and a sentence on their purpose."""

    cells: tuple[Cell, ...]
    about: str = ""

    @cached_property
    def axes(self) -> list[str]:
        """The dotted names of the settings that vary, in order; "seed" comes last."""
        names = dict.fromkeys(name for cell in self.cells for name in cell.settings if name != "seed")
        has_seeds = any("seed" in cell.settings for cell in self.cells)
        return [*names, "seed"] if has_seeds else list(names)

    def shard(self, i: int, n: int) -> "Sweep":
        """Return every n-th cell from the i-th on, counting from 1; the shards 1 … n contain each cell once.

        Raises:
            GrokscopeError: i is not between 1 and n.
        """
        if not 1 <= i <= n:
            raise GrokscopeError(f"--shard {i}/{n}: allowed: i/n with i from 1 to n, such as 2/8.")
        return dataclasses.replace(self, cells=self.cells[i - 1 :: n])


def read_sweep(path: Path) -> Sweep:
    """Read a sweep from a TOML file: the settings of a run, and a table ``[sweep]`` of what varies.

    - ``[sweep.grid]`` has a list of values for each of some settings; every combination is a cell.
    - ``[[sweep.cells]]`` lists settings that belong together; each entry is combined with the whole grid.
    - ``sweep.seeds`` runs every cell with each of these seeds, for split, initialization and training alike.
    - ``sweep.about`` is a sentence on the purpose of the sweep.

    Args:
        path: The file; its other keys are those of a config file.

    Returns:
        The sweep; its cells are in the order of the file, and seeds vary fastest.

    Raises:
        GrokscopeError: One error that names the file and every fault in it.
    """
    values = toml.read_toml(path)
    table_faults = []
    try:
        values = toml.load_table_file(values, path.parent)
    except GrokscopeError as error:
        table_faults.append(str(error).rstrip("."))
        unread = [name for name in ("table", "data") if str(values["task"].get(name, "")).startswith("@")]
        for name in unread:
            values["task"].pop(name)
    try:
        return _from_values(values, table_faults)
    except GrokscopeError as error:
        raise GrokscopeError(f"{path}: {error}") from error


def _from_values(values: Mapping[str, Any], table_faults: list[str]) -> Sweep:
    """Return the sweep that a file's values describe; raise one GrokscopeError with `table_faults` and all others."""
    values, faults = dict(values), list(table_faults)
    plan = values.pop("sweep", None)
    if not isinstance(plan, dict):
        raise GrokscopeError(
            "There is no table [sweep], so nothing varies. Its keys are about, seeds, grid and cells."
        )
    base = RunConfig()
    if "preset" in values:
        try:
            base = presets.get(values.pop("preset"))
        except GrokscopeError as error:
            faults.append(str(error).rstrip("."))
    base, unknown = validation.from_plain(base, values)
    faults += unknown
    faults += [unknown_name("key of sweep", key, list(_KEYS)).rstrip(".") for key in plan if key not in _KEYS]
    about = plan.get("about", "")
    if not isinstance(about, str):
        faults.append(f"sweep.about: {quoted_value(about)}; allowed: a sentence")
    axes, listed = _axes(plan, faults), _listed_settings(plan, faults)
    faults += _repeated_settings(axes, listed)
    if not (axes or plan.get("cells")) and not faults:
        faults.append("sweep: nothing varies; allowed: seeds, a grid or cells")
    n_cells = math.prod([len(listed), *(len(choices) for _, choices in axes)])
    if n_cells > MOST_CELLS:
        faults += [f"sweep: {n_cells:,} cells; allowed: up to {MOST_CELLS:,}", *base.faults()]
    cells = [_cell(base, settings) for settings in _combinations(listed, axes)] if n_cells <= MOST_CELLS else []
    faults += _cell_faults(cells)
    # Only valid settings have effects to compare.
    faults = faults or _unused_settings(cells, {name for name, _ in _leaves(values)})
    if faults:
        heading = "One fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise GrokscopeError(f"{heading} in this sweep:\n" + "\n".join(f"  {fault}" for fault in faults))
    return Sweep(tuple(cells), about)


def _axes(plan: Mapping[str, Any], faults: list[str]) -> list[Axis]:
    """Return the axes of the grid, the seeds last; append their faults to `faults`."""
    axes = []
    grid = plan.get("grid", {})
    if not isinstance(grid, dict):
        faults.append(f"sweep.grid: {quoted_value(grid)}; allowed: a table of settings, each with a list of values")
        grid = {}
    for name, choices in _leaves(grid):
        if name not in _KINDS:
            faults.append(unknown_name("setting", name, list(_KINDS)).rstrip(".") + " (in sweep.grid)")
        elif not isinstance(choices, list) or not choices:
            faults.append(f"sweep.grid: {name} = {quoted_value(choices)}; allowed: a list of at least one value")
        else:
            axes.append((name, choices))
    seeds = plan.get("seeds")
    if seeds is not None:
        if isinstance(seeds, list) and seeds and all(type(seed) is int and 0 <= seed <= 2**62 for seed in seeds):
            axes.append(("seed", seeds))
        else:
            faults.append(f"sweep.seeds: {quoted_value(seeds)}; allowed: a list of whole numbers from 0")
    return axes


def _listed_settings(plan: Mapping[str, Any], faults: list[str]) -> list[dict[str, Any]]:
    """Return the settings of each entry of ``sweep.cells``, without it one entry that changes nothing."""
    entries = plan.get("cells", [{}])
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        faults.append(f"sweep.cells: {quoted_value(entries)}; allowed: at least one table [[sweep.cells]]")
        return [{}]
    listed = [dict(_leaves(entry)) for entry in entries]
    unknown = dict.fromkeys(name for settings in listed for name in settings if name not in _KINDS)
    faults += [unknown_name("setting", name, list(_KINDS)).rstrip(".") + " (in sweep.cells)" for name in unknown]
    return [{name: value for name, value in settings.items() if name in _KINDS} for settings in listed]


def _repeated_settings(axes: list[Axis], listed: list[dict[str, Any]]) -> list[str]:
    """Return a fault for each setting that would have two values in a cell."""
    in_cells = dict.fromkeys(name for settings in listed for name in settings)
    names = [name for name, _ in axes]
    faults = [
        f"{name} is in sweep.grid and in sweep.cells; allowed: in one of them" for name in names if name in in_cells
    ]
    if "seed" in names:
        repeated = [name for name in SEEDS if name in names or name in in_cells]
        faults += [f"{name} is given, and sweep.seeds sets it too; allowed: one of the two" for name in repeated]
    return faults


def _combinations(listed: list[dict[str, Any]], axes: list[Axis]) -> Iterator[dict[str, Any]]:
    names = [name for name, _ in axes]
    for settings in listed:
        for choices in itertools.product(*(choices for _, choices in axes)):
            yield {**settings, **dict(zip(names, choices, strict=True))}


def _cell(base: RunConfig, settings: dict[str, Any]) -> Cell:
    """Return the cell that changes these settings of the base config."""
    nested: dict[str, Any] = {}
    for name, value in settings.items():
        for full_name in SEEDS if name == "seed" else (name,):
            *tables, leaf = full_name.split(".")
            table = nested
            for key in tables:
                table = table.setdefault(key, {})
            table[leaf] = value
        # 1 and 1.0 are the same value of a real setting, and must give the same name.
        if type(value) is int and _KINDS.get(name) is float:
            settings = {**settings, name: float(value) if abs(value) < 2**53 else value}
    config, _ = validation.from_plain(base, nested)
    return Cell(_cell_name(settings), settings, config)


def _cell_name(settings: Mapping[str, Any]) -> str:
    """Return "name=value" for each setting, joined by "+"; a digest where that is not a name for a run."""
    parts = []
    for name, value in settings.items():
        leaf = name.rpartition(".")[2]
        parts.append(f"{leaf if name.count('.') < 2 and _LEAF_COUNTS[leaf] < 2 else name}={_value_text(value)}")
    name = "+".join(parts)
    if IS_NAME.fullmatch(name):
        return name
    return f"cell-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _value_text(value: Any) -> str:
    if isinstance(value, list):
        return "_".join(map(_value_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else str(value)
    return value if isinstance(value, str) else quoted_value(value)


def _cell_faults(cells: list[Cell]) -> list[str]:
    """Return every fault of every cell, each once, with the number of cells that have it."""
    names_by_fault: dict[str, list[str]] = {}
    data_faults: dict[tuple[Any, int], str] = {}
    names_by_config: dict[RunConfig, list[str]] = {}
    for cell in cells:
        faults = cell.config.faults()
        if not faults:
            names_by_config.setdefault(cell.config, []).append(cell.name)
            # Only building the task finds some faults, such as an empty test set or too many outliers.
            data = (cell.config.task, cell.config.split_seed)
            if data not in data_faults:
                data_faults[data] = _data_fault(*data)
            faults = [data_faults[data]] if data_faults[data] else []
        for fault in faults:
            names_by_fault.setdefault(fault, []).append(cell.name)
    repeated = [name for names in names_by_config.values() if len(names) > 1 for name in names]
    repeated = repeated or [name for name, count in Counter(cell.name for cell in cells).items() if count > 1]
    if repeated:
        names_by_fault["the same cell more than once: each must differ in its settings"] = repeated
    return [
        fault if len(names) == len(cells) else f"{fault} ({len(names)} of {len(cells)} cells, such as {names[0]})"
        for fault, names in names_by_fault.items()
    ]


def _unused_settings(cells: list[Cell], in_file: set[str]) -> list[str]:
    """Return a fault for each setting that the file changes and that has no effect in any cell."""
    faults: dict[str, str] = {}
    used: set[str] = set()
    for cell in cells:
        given = (in_file | set(cell.settings)) - used
        cell_faults = unused.unused_settings(cell.config, given)
        used |= given - set(cell_faults)
        faults |= cell_faults
    faults = {name: fault for name, fault in faults.items() if name not in used}
    changed = set[str]().union(*(unused.changed_settings(cell.config) for cell in cells)) if faults else set()
    return [fault for name, fault in faults.items() if name in changed]


def _data_fault(task: Any, split_seed: int) -> str:
    from grokscope import tasks  # Imports torch, which listing sweeps does not need.

    try:
        tasks.load(task, split_seed)
    except GrokscopeError as error:
        return str(error).rstrip(".")
    return ""


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and value of each setting in nested tables."""
    for key, value in table.items():
        if isinstance(value, dict) and value and prefix.count(".") < _DEEPEST:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
