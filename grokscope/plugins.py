"""The registry of tasks, models, optimizers, measures and figures: built-ins and entry points of other packages.

A built-in is stored as "module:name", so listing the names imports no module. Another package adds an object with an
entry point in the group ``grokscope.tasks``, ``grokscope.models``, ``grokscope.optimizers``, ``grokscope.measures``
or ``grokscope.figures``.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from grokscope.errors import GrokscopeError, unknown_name


@dataclass(frozen=True)
class TaskFamily:
    """Built-in tasks of one module that share their settings."""

    module: str
    """The module that defines the tasks."""
    settings: tuple[str, ...]
    """The settings of TaskConfig that determine the equations; the first identifies the family's elements."""
    names: tuple[str, ...]
    """The names of the tasks."""
    has_sequences: bool = False
    """Whether examples have answers at several positions."""


_MODULAR = "grokscope.tasks.modular"
TASK_FAMILIES = (
    TaskFamily(_MODULAR, ("p", "form", "n_operands"), ("addition",)),
    TaskFamily(_MODULAR, ("p", "form", "n_operands", "zero_divisors"), ("multiplication",)),
    TaskFamily(_MODULAR, ("p", "form", "zero_divisors"), ("division",)),
    TaskFamily(
        _MODULAR,
        ("p", "form"),
        (
            *("subtraction", "division_or_subtraction"),
            *("a2_b2", "a2_ab_b2", "a2_ab_b2_a", "a3_ab", "a3_ab2_b"),
        ),
    ),
    TaskFamily("grokscope.tasks.expression", ("expression", "form", "p", "sizes"), ("expression",)),
    TaskFamily("grokscope.tasks.group_operations", ("group", "form"), ("composition", "conjugation", "aba")),
    TaskFamily("grokscope.tasks.table", ("table", "form"), ("table",)),
    TaskFamily("grokscope.tasks.digits", ("n_digits", "base", "n_examples", "data_seed"), ("digit_addition",), True),
    TaskFamily("grokscope.tasks.parity", ("n_bits", "n_parity_bits", "n_examples", "data_seed"), ("parity",)),
    TaskFamily(
        "grokscope.tasks.induction",
        ("n_tokens", "length", "n_repeated", "n_examples", "data_seed"),
        ("induction",),
        True,
    ),
    TaskFamily("grokscope.tasks.mixture", ("mixture", "form"), ("mixture",)),
    TaskFamily("grokscope.tasks.own_examples", ("data",), ("data",)),
)

BUILT_IN = {
    "tasks": {name: f"{family.module}:{name}" for family in TASK_FAMILIES for name in family.names},
    "optimizers": {
        "adamw": "grokscope.training.optimizers:adamw",
        "adam": "grokscope.training.optimizers:adam",
        "sgd": "grokscope.training.optimizers:sgd",
        "muon": "grokscope.training.optimizers:muon",
    },
    "models": {
        "transformer": "grokscope.model.transformer:transformer",
        "mlp": "grokscope.model.mlp:mlp",
        "module": "grokscope.model.own:own",
    },
    "measures": {
        "algorithm": "grokscope.measures.algorithm:algorithm",
        "loss": "grokscope.measures.loss:loss",
        "weight_norm": "grokscope.measures.weight_norm:weight_norm",
        "weight_average": "grokscope.measures.weight_average:weight_average",
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
        "example_loss": "grokscope.measures.loss:example_loss",
    },
    "figures": {
        "losses": "grokscope.gallery.builtin:losses",
        "accuracies": "grokscope.gallery.builtin:accuracies",
        "embedding": "grokscope.gallery.builtin:embedding",
        "circle": "grokscope.gallery.builtin:circle",
        "circularity": "grokscope.gallery.builtin:circularity",
        "weight_norms": "grokscope.gallery.builtin:weight_norms",
        "sharpness": "grokscope.gallery.builtin:sharpness",
        "keskar_sharpness": "grokscope.gallery.builtin:keskar_sharpness",
        "flatness": "grokscope.gallery.builtin:flatness",
        "hessian": "grokscope.gallery.builtin:hessian",
        "hessian_spectrum": "grokscope.gallery.builtin:hessian_spectrum",
        "edge_of_stability": "grokscope.gallery.builtin:edge_of_stability",
        "path": "grokscope.gallery.builtin:path",
        "matrix_norms": "grokscope.gallery.builtin:matrix_norms",
        "numerics": "grokscope.gallery.builtin:numerics",
        "progress": "grokscope.gallery.builtin:progress",
        "gini": "grokscope.gallery.builtin:gini",
        "spectra": "grokscope.gallery.builtin:spectra",
        "spectrum": "grokscope.gallery.builtin:spectrum",
        "neurons": "grokscope.gallery.builtin:neurons",
        "ablations": "grokscope.gallery.builtin:ablations",
        "algorithm": "grokscope.gallery.builtin:algorithm",
        "parallelograms": "grokscope.gallery.builtin:parallelograms",
        "representations": "grokscope.gallery.builtin:representations",
        "cosets": "grokscope.gallery.builtin:cosets",
        "unembedding": "grokscope.gallery.builtin:unembedding",
        "departures": "grokscope.gallery.builtin:departures",
        "interpolation": "grokscope.gallery.builtin:interpolation",
        "transplants": "grokscope.gallery.builtin:transplants",
        "slices": "grokscope.gallery.builtin:slices",
        "path_plane": "grokscope.gallery.builtin:path_plane",
        "shells": "grokscope.gallery.builtin:shells",
    },
}


def task_family(task: str) -> TaskFamily | None:
    """Return the family of a built-in task; None for a task of another package."""
    return next((family for family in TASK_FAMILIES if task in family.names), None)


def task_settings(task: str) -> tuple[str, ...]:
    """Return the settings that determine the equations of a built-in task, such as ("p", "form").

    The result is empty for a task of another package, because only its own module knows its elements.
    """
    family = task_family(task)
    return family.settings if family else ()


def all_task_settings() -> list[str]:
    """Return every setting that determines the equations of a built-in task, in the order of TASK_FAMILIES."""
    return list(dict.fromkeys(name for family in TASK_FAMILIES for name in family.settings))


@cache
def _registered(kind: str) -> dict[str, EntryPoint]:
    """Return the built-ins and the entry points of one kind, by name."""
    group = f"grokscope.{kind}"
    built_in = {name: EntryPoint(name, location, group) for name, location in BUILT_IN[kind].items()}
    # A built-in wins over an entry point, so the meaning of a name does not depend on the installed packages.
    return {point.name: point for point in entry_points(group=group)} | built_in


def names(kind: str) -> list[str]:
    """Return the sorted names of one kind, entry points included.

    Args:
        kind: "tasks", "models", "optimizers", "measures" or "figures".
    """
    return sorted(_registered(kind))


def load(kind: str, name: str) -> Any:
    """Import and return the object with this name.

    Args:
        kind: "tasks", "models", "optimizers", "measures" or "figures".
        name: One of `names(kind)`.

    Raises:
        GrokscopeError: The name is not registered, and the error lists the names; or another package's module cannot
            be imported.
    """
    if name not in _registered(kind):
        raise GrokscopeError(unknown_name(kind.removesuffix("s"), name, names(kind)))
    if name in BUILT_IN[kind]:
        return _registered(kind)[name].load()
    with _errors_named(kind, name, "cannot be loaded"):
        return _registered(kind)[name].load()


def call(kind: str, name: str, /, *arguments: Any, **options: Any) -> Any:
    """Load an object, call it, and return the result.

    Raises:
        GrokscopeError: As `load`; or code of another package failed, and the error names the package and the line.
    """
    function = load(kind, name)
    if name in BUILT_IN[kind]:
        return function(*arguments, **options)
    with _errors_named(kind, name, "failed"):
        return function(*arguments, **options)


def described(kind: str, name: str) -> str:
    """Return an object's kind and name for messages, such as "the measure 'twist' of the package 'knots'"."""
    distribution = getattr(_registered(kind).get(name), "dist", None)
    package = f" of the package {distribution.name!r}" if distribution else ""
    return f"the {kind.removesuffix('s')} {name!r}{package}"


@contextmanager
def _errors_named(kind: str, name: str, failure: str) -> Iterator[None]:
    """Turn an exception of another package's code into a GrokscopeError that names the object and the line."""
    try:
        yield
    except GrokscopeError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        subject = described(kind, name)
        raise GrokscopeError(
            f"{subject[0].upper()}{subject[1:]} {failure}: {type(error).__name__}: {error} "
            f"({Path(last.filename).name}, line {last.lineno})."
        ) from error
