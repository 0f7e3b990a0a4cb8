"""Built-ins and entry points: the same few lines for tasks, optimizers, measures and figures.

A built-in is named by the place where it lives, so that listing names imports nothing. A third party adds
one by an entry point in the group ``grokscope.tasks``, ``grokscope.optimizers``, ``grokscope.measures`` or
``grokscope.figures``.
"""

import difflib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from grokscope.errors import GrokscopeError

BUILT_IN = {
    "tasks": {
        "addition": "grokscope.tasks.modular:addition",
        "subtraction": "grokscope.tasks.modular:subtraction",
        "multiplication": "grokscope.tasks.modular:multiplication",
        "division": "grokscope.tasks.modular:division",
        "division_or_subtraction": "grokscope.tasks.modular:division_or_subtraction",
        "a2_b2": "grokscope.tasks.modular:a2_b2",
        "a2_ab_b2": "grokscope.tasks.modular:a2_ab_b2",
        "a2_ab_b2_a": "grokscope.tasks.modular:a2_ab_b2_a",
        "a3_ab": "grokscope.tasks.modular:a3_ab",
        "a3_ab2_b": "grokscope.tasks.modular:a3_ab2_b",
        "composition": "grokscope.tasks.groups:composition",
        "conjugation": "grokscope.tasks.groups:conjugation",
        "aba": "grokscope.tasks.groups:aba",
        "table": "grokscope.tasks.table:table",
    },
    "optimizers": {
        "adamw": "grokscope.optimizers:adamw",
        "adam": "grokscope.optimizers:adam",
        "sgd": "grokscope.optimizers:sgd",
    },
    "measures": {
        "algorithm": "grokscope.measures.algorithm:algorithm",
        "loss": "grokscope.measures.loss:loss",
        "weight_norm": "grokscope.measures.weight_norm:weight_norm",
        "path": "grokscope.measures.path:path",
        "matrix_norms": "grokscope.measures.matrix_norms:matrix_norms",
        "numerics": "grokscope.measures.numerics:numerics",
        "embedding": "grokscope.measures.embedding:embedding",
        "sharpness": "grokscope.measures.sharpness:sharpness",
        "hessian": "grokscope.measures.hessian:hessian",
        "hessian_spectrum": "grokscope.measures.hessian_spectrum:hessian_spectrum",
        "keskar_sharpness": "grokscope.measures.keskar_sharpness:keskar_sharpness",
        "sam_sharpness": "grokscope.measures.sam_sharpness:sam_sharpness",
        "average_sharpness": "grokscope.measures.average_sharpness:average_sharpness",
        "fisher_rao_norm": "grokscope.measures.fisher_rao_norm:fisher_rao_norm",
        "relative_flatness": "grokscope.measures.relative_flatness:relative_flatness",
        "unembedding": "grokscope.measures.unembedding:unembedding",
        "representations": "grokscope.measures.representations:representations",
        "fourier": "grokscope.measures.fourier:fourier",
        "progress": "grokscope.measures.progress:progress",
        "neurons": "grokscope.measures.neurons:neurons",
        "ablations": "grokscope.measures.ablations:ablations",
        "parallelograms": "grokscope.measures.parallelograms:parallelograms",
        "local_learning_coefficient": "grokscope.measures.local_learning_coefficient:local_learning_coefficient",
        "attention": "grokscope.measures.attention:attention",
        "example_loss": "grokscope.measures.example_loss:example_loss",
    },
    "figures": {
        "losses": "grokscope.pictures:losses",
        "accuracies": "grokscope.pictures:accuracies",
        "embedding": "grokscope.pictures:embedding",
        "circle": "grokscope.pictures:circle",
        "circularity": "grokscope.pictures:circularity",
        "weight_norms": "grokscope.pictures:weight_norms",
        "sharpness": "grokscope.pictures:sharpness",
        "keskar_sharpness": "grokscope.pictures:keskar_sharpness",
        "flatness": "grokscope.pictures:flatness",
        "hessian": "grokscope.pictures:hessian",
        "hessian_spectrum": "grokscope.pictures:hessian_spectrum",
        "edge_of_stability": "grokscope.pictures:edge_of_stability",
        "path": "grokscope.pictures:path",
        "matrix_norms": "grokscope.pictures:matrix_norms",
        "numerics": "grokscope.pictures:numerics",
        "progress": "grokscope.pictures:progress",
        "gini": "grokscope.pictures:gini",
        "spectra": "grokscope.pictures:spectra",
        "spectrum": "grokscope.pictures:spectrum",
        "neurons": "grokscope.pictures:neurons",
        "ablations": "grokscope.pictures:ablations",
        "algorithm": "grokscope.pictures:algorithm",
        "parallelograms": "grokscope.pictures:parallelograms",
        "representations": "grokscope.pictures:representations",
        "cosets": "grokscope.pictures:cosets",
        "unembedding": "grokscope.pictures:unembedding",
        "departures": "grokscope.pictures:departures",
        "interpolation": "grokscope.pictures:interpolation",
        "transplants": "grokscope.pictures:transplants",
        "slices": "grokscope.pictures:slices",
        "path_plane": "grokscope.pictures:path_plane",
        "shells": "grokscope.pictures:shells",
    },
}


@cache
def _table(kind: str) -> dict[str, EntryPoint]:
    group = f"grokscope.{kind}"
    built_in = {name: EntryPoint(name, place, group) for name, place in BUILT_IN[kind].items()}
    # A built-in keeps its name: what `embedding` means must not depend on what else is installed.
    return {point.name: point for point in entry_points(group=group)} | built_in


def names(kind: str) -> list[str]:
    """Return the names of one kind, "tasks", "optimizers", "measures" or "figures", entry points included, sorted."""
    return sorted(_table(kind))


def load(kind: str, name: str) -> Any:
    """Import and return what `name` stands for; raise GrokscopeError for a name that nobody has registered."""
    if name not in _table(kind):
        raise GrokscopeError(unknown(f"{kind.rstrip('s')}", name, names(kind)))
    return _table(kind)[name].load()


def unknown(what: str, name: object, allowed: list[str]) -> str:
    """Say that `name` is no such thing, which names are allowed, and which was probably meant."""
    close = difflib.get_close_matches(str(name), allowed, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"Unknown {what} {str(name)!r}; allowed: {', '.join(allowed) or 'none'}.{hint}"
