"""The quantities that a reader can choose to plot: each with a plain title, its error band and its controls.

Titles, units, axes, errors and controls are those that the arrays of a series describe themselves by.
"""

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from grokscope import measures
from grokscope.errors import GrokscopeError
from grokscope.measures import Panel
from grokscope.report.encoding import pack
from grokscope.series import Series

_MAX_LINES = 12
_COMPANION_KEYS = {"stderr": "error", "residual": "residual", "shuffled": "shuffled"}
"""The name on the page of each companion that is drawn with a curve."""


@dataclass(frozen=True)
class Quantity:
    """One choice in the list of quantities: a few lines with a common axis."""

    key: str
    """Its name in the page's address: measure and array, such as "sharpness.sharpness"."""
    group: str
    """Its measure, the heading in the list."""
    title: str
    unit: str = ""
    logarithmic: bool = False
    """Whether its axis is logarithmic by default."""
    lines: list[dict[str, Any]] = field(default_factory=list)

    def to_plain(self) -> dict[str, Any]:
        """Return the quantity as JSON values."""
        return vars(self)


def quantities(all_series: Iterable[Series]) -> list[Quantity]:
    """Return every array of some series that is a curve over the steps, or at most twelve curves.

    The panels of a measure, which combine several arrays, precede its single arrays.
    """
    listed: list[Quantity] = []
    for series in all_series:
        group, panels = name_of(series), _panels(series)
        listed += [quantity for panel in panels if (quantity := _joint(series, group, panel))]
        patterns = [name for panel in panels for name in panel.arrays if "*" in name]
        for name, array in series.arrays.items():
            variable = series.variable(name)
            only_in_panels = any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
            if only_in_panels or variable.role not in ("value", "interval"):
                continue
            if array.ndim == 1:
                lines = [_line(series, name, variable.label)]
            elif array.ndim == 2 and 1 <= array.shape[1] <= _MAX_LINES:
                labels = _column_labels(series, name)
                lines = [_line(series, name, label, i) for i, label in enumerate(labels)]
            else:
                continue
            title = f"{variable.label}, interval" if variable.role == "interval" else variable.label
            listed.append(Quantity(f"{group}.{name}", group, title, variable.unit, variable.is_logarithmic, lines))
    return listed


def name_of(series: Series) -> str:
    """Return the name of a series' measure, followed by the options that are not at their defaults."""
    try:
        defaults = measures.completed_options(series.measure, {})
    except GrokscopeError:
        defaults = dict(series.options)  # The measure's package is not installed.
    changed = [f"{name}={value}" for name, value in series.options.items() if defaults.get(name) != value]
    return f"{series.measure} ({', '.join(changed)})" if changed else series.measure


def _panels(series: Series) -> tuple[Panel, ...]:
    try:
        return measures.declaration_of(series.measure).panels
    except GrokscopeError:
        return ()  # The measure's package is not installed.


def _joint(series: Series, group: str, panel: Panel) -> Quantity | None:
    """Return the quantity of a panel; None if the series has none of its arrays."""
    names = [
        name
        for pattern in panel.arrays
        for name in series.arrays
        if name == pattern or ("*" in pattern and fnmatch.fnmatchcase(name, pattern))
    ]
    if not names:
        return None
    first = series.variable(names[0])
    lines = [_line(series, name, series.variable(name).label) for name in names]
    # Without a known training set, a series lacks its train and test losses.
    is_whole = all("*" in pattern or pattern in series for pattern in panel.arrays)
    title = panel.title.replace("{loss}", series.loss) if is_whole else ", ".join(line["label"] for line in lines)
    return Quantity(f"{group}.{panel.key}", group, title, first.unit, first.is_logarithmic, lines)


def _line(series: Series, name: str, label: str, column: int | None = None) -> dict[str, Any]:
    """Return one curve with its error band and its controls."""

    def values(array: str) -> np.ndarray:
        return series[array] if column is None else series[array][..., column]

    line: dict[str, Any] = {
        "label": label,
        "steps": pack(series.steps),
        "values": pack(values(name)),
        "gaps": series["gaps"].tolist() if "gaps" in series else [],
    }
    for role, key in _COMPANION_KEYS.items():
        companion = series.companion(name, role)
        if companion is not None:
            line[key] = pack(values(companion))
    untrained = series.companion(name, "initialization")
    if untrained is not None and values(untrained).ndim == 0:
        line["untrained"] = float(values(untrained))
    return line


def _column_labels(series: Series, name: str) -> list[str]:
    """Return the labels of an array's columns: the coordinate of its dimension, or else their numbers."""
    variable, n = series.variable(name), series.arrays[name].shape[1]
    if n == 1:
        return [variable.label]
    if variable.role == "interval":
        return ["from", "to"]
    coordinate = series.coordinate(variable.dims[0])
    if coordinate is None or len(series[coordinate]) != n:
        return [str(i + 1) for i in range(n)]
    described, values = series.variable(coordinate), series[coordinate]
    if described.of:
        names = series.words(described.of)
        return [names[int(i)] for i in values]
    if values.dtype.kind == "U":
        return series.words(coordinate)
    if described.unit == "share":
        return [f"{value:.0%}" for value in values]
    return [f"{described.label} {value}" for value in values]
