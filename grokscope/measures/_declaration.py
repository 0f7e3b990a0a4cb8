"""What a measure declares about itself beside its formula: cost, version and the meaning of its arrays."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from grokscope import plugins
from grokscope.series import Series
from grokscope.variable import Variable

_Measure = TypeVar("_Measure", bound=Callable[..., Series])


@dataclass(frozen=True)
class Panel:
    """Arrays of a measure that are best seen together, on one axis."""

    key: str
    """The name of the panel in the address of a page."""
    title: str
    """What they show together; "{loss}" stands for the run's loss function."""
    arrays: tuple[str, ...]
    """The names of the arrays; a name may contain * for arrays that are shown in panels only."""


@dataclass(frozen=True)
class Declaration:
    """The properties of a measure that its callers need."""

    version: int = 1
    """The version of the formula. Raise it when the formula gives other numbers, or more of them, than before: series
    saved by another version are measured again."""
    n_checkpoints: int | None = None
    """The number of checkpoints that `grokscope measure` evaluates by default, for a measure that is costly at each
    checkpoint; None stands for all."""
    by_checkpoint: bool = False
    """Whether the value at a checkpoint needs that checkpoint alone, or step 0 in addition. Such a measure may be
    evaluated in pieces of the trajectory, side by side."""
    only_when_named: bool = False
    """Whether `grokscope measure RUN` without names leaves the measure out: it needs an extra, and much time."""
    variables: Mapping[str, Variable] = field(default_factory=dict)
    """The description of each array by its name."""
    panels: tuple[Panel, ...] = ()
    """The arrays that are best seen together."""


def measure(
    *,
    version: int = 1,
    n_checkpoints: int | None = None,
    by_checkpoint: bool = False,
    only_when_named: bool = False,
    variables: Mapping[str, Variable] | None = None,
    panels: tuple[Panel, ...] = (),
) -> Callable[[_Measure], _Measure]:
    """Return the decorator that attaches a Declaration to a measure.

    Args:
        version: The version of the formula, from 1.
        n_checkpoints: The default number of checkpoints of a costly measure; None for all.
        by_checkpoint: Whether the value at a checkpoint needs that checkpoint alone, or step 0 in addition.
        only_when_named: Whether the measure is evaluated only when it is named.
        variables: The description of each array; `grokscope.series.with_companions` adds errors and controls.
        panels: The arrays that are best seen together.

    Returns:
        A decorator that returns the measure itself.
    """
    declaration = Declaration(version, n_checkpoints, by_checkpoint, only_when_named, variables or {}, panels)

    def declare(function: _Measure) -> _Measure:
        function.declaration = declaration  # pyright: ignore[reportFunctionMemberAccess]
        return function

    return declare


def declaration_of(name: str) -> Declaration:
    """Return the declaration of the measure `name`; raise GrokscopeError for an unknown name."""
    return getattr(plugins.load("measures", name), "declaration", Declaration())
