"""What can be drawn over the steps: every measured quantity with its error band and controls, under plain names."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from grokscope import plugins
from grokscope.errors import GrokscopeError
from grokscope.measures._options import complete
from grokscope.report.encoding import packed
from grokscope.series import Series

_MOST_LINES = 12
_BESIDE = ("_stderr", "_residual", "_shuffled", "_initialization")

TITLES = {
    "train_loss": "train loss",
    "test_loss": "test loss",
    "loss": "loss over all equations",
    "restricted_loss": "restricted loss",
    "excluded_loss": "excluded loss",
    "sharpness": "sharpness λ₁",
    "hessian_trace": "Hessian trace",
    "weight_norm": "‖w‖",
    "distance_from_initialization": "‖w − w₀‖",
    "circularity": "circularity of PCs 1–4",
    "key_frequency_share": "key frequencies' share of W_E",
    "rqi": "representation quality index",
    "restricted_to_test_ratio": "restricted over test loss",
    "embedding_shares": "W_E's variance by representation",
    "unembedding_shares": "W_U's variance by representation",
    "logit_similarity": "logits beside each representation's characters",
    "n_neurons_of_representation": "neurons of each representation",
}
"""What a quantity is called on the page, where its own name with blanks would not do."""
_NATS = {"train_loss", "test_loss", "loss", "restricted_loss", "excluded_loss", "excluded_loss_by_frequency"}
_NATS |= {"excluded_loss_by_representation"}
_TOGETHER = {
    "weight_norm": [
        ("norms", "total norm and distance", ["weight_norm", "distance_from_initialization"], "L2 norm", False)
    ],
    "progress": [
        (
            "losses",
            "restricted, excluded, train and test loss",
            ["train_loss", "test_loss", "restricted_loss", "excluded_loss"],
            "nats",
            True,
        )
    ],
    "representations": [
        (
            "losses",
            "restricted, excluded and train loss",
            ["train_loss", "restricted_loss", "excluded_loss"],
            "nats",
            True,
        )
    ],
    "fourier": [("gini", "Gini of W_E, W_U and W_L", ["W_E_gini", "W_U_gini", "W_L_gini"], "", False)],
    "algorithm": [
        ("signs", "the two signs of clock and pizza", ["gradient_symmetricity", "distance_irrelevance"], "", False)
    ],
    "sharpness": [("both", "top eigenvalue and trace of the Hessian", ["sharpness", "hessian_trace"], "", True)],
    "embedding": [("circle", "how much of a circle", ["circularity", "key_frequency_share"], "share", False)],
}
"""By measure what is seen together: key, title, arrays, unit, whether on a logarithmic axis."""
_SPELLED = ("representations", "subgroups", "dtypes", "components", "blocks")
"""The constants that may name the columns of arrays."""
_LOG = {"sharpness", "hessian_trace", "keskar_sharpness", "circle_logit_variance"} | _NATS


@dataclass(frozen=True)
class Quantity:
    """One choice in the list of quantities: a few lines that share an axis."""

    key: str
    """What an address names it by: measure and array, such as "sharpness.sharpness"."""
    group: str
    """The measure that it comes from, as the list groups it."""
    title: str
    unit: str = ""
    logarithmic: bool = False
    """Whether it is drawn on a logarithmic axis unless one chooses otherwise."""
    lines: list[dict[str, Any]] = field(default_factory=list)

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return vars(self)


def quantities(found: Iterable[Series]) -> list[Quantity]:
    """Return everything in some series that is a curve over the steps, or at most twelve of them side by side.

    What belongs together comes first in its group.
    """
    listed: list[Quantity] = []
    for series in found:
        group = name_of(series)
        listed += _joint(series, group)
        for name, array in series.arrays.items():
            if name.endswith(_BESIDE) or name.startswith("weight_norm."):
                continue
            key = f"{group}.{name}"
            if array.ndim == 1:
                lines = [_line(series, name)]
            elif array.ndim == 2 and 1 <= array.shape[1] <= _MOST_LINES:
                lines = [_line(series, name, i, label) for i, label in enumerate(_labels(series, name))]
            else:
                continue
            unit = "nats" if name in _NATS else ""
            listed.append(Quantity(key, group, title(name), unit, name in _LOG or _spans_decades(array), lines))
    return listed


def _spans_decades(array: np.ndarray) -> bool:
    """Whether numbers are all above zero and as far apart as no linear axis shows."""
    finite = array[np.isfinite(array)]
    return bool(len(finite)) and bool(finite.min() > 0) and bool(finite.max() >= 1_000 * finite.min())


def title(name: str) -> str:
    """Return what a quantity is called in words."""
    # Matrices keep the underscore of their names.
    return TITLES.get(name, re.sub(r"(?<!\bW)_", " ", name))


def name_of(series: Series) -> str:
    """Return the measure's name, with those of its options that are not the usual ones."""
    try:
        usual = complete(plugins.load("measures", series.measure), series.measure, {})
    except GrokscopeError:
        usual = dict(series.options)  # Of a measure that is not installed here.
    other = [f"{name}={value}" for name, value in series.options.items() if usual.get(name) != value]
    return f"{series.measure} ({', '.join(other)})" if other else series.measure


def _joint(series: Series, group: str) -> list[Quantity]:
    """Return the quantities that are best seen together."""
    norms = [name for name in series.arrays if name.startswith("weight_norm.")]
    chosen = [
        (*one[:2], [name for name in one[2] if name in series.arrays], *one[3:])
        for one in _TOGETHER.get(series.measure, [])
    ]
    if norms:
        matrices = [name for name in norms if ".W_" in name]
        rest = [name for name in norms if name not in matrices]
        chosen += [("matrices", "norm of each matrix", matrices, "L2 norm", False)]
        chosen += [("vectors", "norm of each bias and LayerNorm vector", rest, "L2 norm", False)]
    return [
        Quantity(f"{group}.{key}", group, name, unit, logarithmic, [_line(series, one) for one in arrays])
        for key, name, arrays, unit, logarithmic in chosen
        if arrays
    ]


def _line(series: Series, name: str, column: int | None = None, label: str | None = None) -> dict[str, Any]:
    """Return one curve, with its error, its control with the tokens shuffled, and that of the untrained model."""

    def one(key: str) -> np.ndarray | None:
        if key not in series:
            return None
        array = series[key]
        return array if column is None else array[..., column]

    values = one(name)
    assert values is not None
    line: dict[str, Any] = {
        "label": _short(name) if label is None else label,
        "steps": packed(series.steps),
        "values": packed(values),
        "gaps": series["gaps"].tolist() if "gaps" in series else [],
    }
    for ending, what in (("_stderr", "error"), ("_residual", "residual"), ("_shuffled", "shuffled")):
        beside = one(name + ending)
        if beside is not None:
            line[what] = packed(beside)
    untrained = one(f"{name}_initialization")
    if untrained is not None and untrained.ndim == 0:
        line["untrained"] = float(untrained)
    return line


def _short(name: str) -> str:
    """Return a curve's name as it stands beside the curve."""
    if name.startswith("weight_norm."):
        place, _, leaf = name.removeprefix("weight_norm.").rpartition(".")
        parts = place.split(".")
        sublayer = {"ln1": "ln1.", "ln2": "ln2.", "ln_final": "ln_final."}.get(parts[-1], "")
        return f"{sublayer}{leaf}" + (f" {parts[1]}" if parts[0] == "blocks" and parts[1] != "0" else "")
    return title(name)


def _labels(series: Series, name: str) -> list[str]:
    """Return what the columns of an array are, where a constant of the series says so, else their numbers."""
    n = series.arrays[name].shape[1]
    if n == 1:
        return [_short(name)]
    if name.endswith("_interval"):
        return ["from", "to"]
    for words in _words(series, name):
        if len(words) == n:
            return words
    return [str(i + 1) for i in range(n)]


def _words(series: Series, name: str) -> Iterator[list[str]]:
    """Yield what may name the columns of an array, the likeliest first."""
    if name.endswith(("_by_frequency", "_explained_variance", "circle_logit_variance")):
        constant = "key_frequencies" if name.endswith("_by_frequency") else "circle_frequencies"
        if constant in series:
            yield [f"frequency {one}" for one in series[constant]]
    if name == "excluded_loss_by_representation":
        every = series.words("representations")
        yield [every[int(i)] for i in series["key_representations"]]
    if name.endswith("_silhouette"):
        yield series.words("subgroups")
    if name.endswith("_margins"):
        yield [f"{share:.0%}" for share in series["quantiles"]]
    for constant in (name.partition("_")[0] + "s", *_SPELLED):
        if constant in _SPELLED and constant in series:
            yield series.words(constant)
