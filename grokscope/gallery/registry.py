"""The figures of a run by name: what each needs, what draws it, and how it is drawn from a run.

A figure of your own is a `Picture` and an entry point in the group ``grokscope.figures``; from then on
`grokscope figure NAME RUN` draws it in every format and width, with its data as CSV.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from grokscope import measures, plugins
from grokscope.errors import GrokscopeError
from grokscope.series import Series
from grokscope.trajectory import Trajectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_Asking = TypeVar("_Asking", bound=Callable[..., Any])
_N_STEPS, _N_NARROW = 6, 3
"""How many steps beside each other are legible on a page and in a column."""


@dataclass(frozen=True)
class Asked:
    """What a figure is asked to show: a run, the steps of it where the figure is of steps, and a width in inches."""

    trajectory: Trajectory
    steps: tuple[int, ...] = ()
    width: float = 7.0


@dataclass(frozen=True)
class Measured:
    """The need of a measure with these options, as `measures.saved` gives it, at the steps asked for if it is costly.

    A trajectory in memory is measured each time.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, asked: Asked) -> Series:
        """Return the series; what is measured is saved with the run."""
        trajectory, thin = self._wanted(asked)
        if trajectory.path is None:
            return measures.evaluate(self.name, measures.wanted(self.name, trajectory, thin), **self.options)
        return measures.saved(self.name, trajectory, thin, **self.options)

    def is_there(self, asked: Asked) -> bool:
        """Whether the measure lies saved with the run."""
        trajectory, thin = self._wanted(asked)
        return trajectory.path is not None and measures.found(self.name, trajectory, thin, **self.options) is not None

    def _wanted(self, asked: Asked) -> tuple[Trajectory, int | None]:
        trajectory = asked.trajectory
        if not asked.steps or self.name not in measures.COSTLY:
            return trajectory, None
        nearest = [int(trajectory.steps[np.abs(trajectory.steps - step).argmin()]) for step in asked.steps]
        chosen = trajectory.select([*nearest, trajectory.steps[-1]])
        return chosen, len(chosen)


Need = str | Callable[[Asked], Any]
"""A measure's name, or a function of what is asked."""


@dataclass(frozen=True)
class Picture:
    """A figure of a run."""

    draw: str | Callable[..., "Figure"]
    """The function that draws it, or its place "package.module:function"; it takes what `needs` gives, in this order,
    and `width` in inches."""
    needs: tuple[Need, ...]
    """What it is drawn from."""
    move: str | Callable[..., bytes] = ""
    """The function, or its place, that returns it moving, from what `moves` gives, `width` and `kind`; none if ""."""
    moves: tuple[Need, ...] = ()
    """What the moving picture is drawn from."""
    of_a_circle: bool = False
    """Whether it shows only what a task with a circle has; measures that refuse other tasks need no telling."""

    @property
    def is_of_steps(self) -> bool:
        """Whether it shows the run at some steps, which can be chosen."""
        return any(getattr(one, "is_of_steps", False) for one in self.needs)

    def measured(self, is_moving: bool = False) -> list[Measured]:
        """Return the measures that it needs."""
        found = [_need(one) for one in (self.moves if is_moving else self.needs)]
        return [part for one in found for part in getattr(one, "parts", (one,)) if isinstance(part, Measured)]


def names() -> list[str]:
    """Return the names of all figures, sorted."""
    return plugins.names("figures")


def get(name: str) -> Picture:
    """Return the picture of that name; raise GrokscopeError for a name that nobody has registered."""
    return plugins.load("figures", name)


def formats(name: str) -> tuple[str, ...]:
    """Return the formats that a figure can be had in: those that move only where it does."""
    from grokscope import figures

    return figures.STILL + (figures.MOVING if get(name).move else ())


def figure(name: str, asked: Asked) -> "Figure":
    """Draw a figure, measuring what is not measured yet; raise GrokscopeError where the run has nothing to show."""
    check(name, asked)
    picture = get(name)
    return _drawn(name, picture.draw, picture.needs, asked, width=asked.width)


def moving(name: str, asked: Asked, kind: str) -> bytes:
    """Return a figure that moves, as the bytes of a "webp" or "gif"; raise GrokscopeError if it does not."""
    picture = get(name)
    if not picture.move:
        allowed = [one for one in names() if get(one).move]
        raise GrokscopeError(f"The figure {name!r} does not move; those that do: {', '.join(allowed)}.")
    if asked.steps:
        raise GrokscopeError(f"The moving figure {name!r} shows all steps: leave the step out.")
    return _drawn(name, picture.move, picture.moves, asked, width=asked.width, kind=kind)


def _drawn(name: str, draw: str | Callable[..., Any], needs: tuple[Need, ...], asked: Asked, **keywords: Any) -> Any:
    found = [_need(one)(asked) for one in needs]
    try:
        return _function(draw)(*found, **keywords)
    # A Series that lacks what the figure shows says so: no circle, no subgroups.
    except (GrokscopeError, ValueError) as error:
        raise GrokscopeError(f"This run has nothing for the figure {name!r} to show: {error}") from error


def _function(place: str | Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that lies at "package.module:function"."""
    if not isinstance(place, str):
        return place
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _need(need: Need) -> Callable[[Asked], Any]:
    return Measured(need) if isinstance(need, str) else need


def check(name: str, asked: Asked) -> None:
    """Raise GrokscopeError for an unknown figure, and for steps that it has no use for or that the run lacks."""
    picture = get(name)
    if picture.of_a_circle and asked.trajectory.task.circle is None:
        raise GrokscopeError(
            f"{asked.trajectory.task.formula} turns no circle, so the figure {name!r} has nothing to show."
        )
    first, last = (int(asked.trajectory.steps[i]) for i in (0, -1))
    if asked.steps and not picture.is_of_steps:
        others = [one for one in names() if get(one).is_of_steps]
        raise GrokscopeError(f"The figure {name!r} shows the whole run; a step is for: {', '.join(others)}.")
    beyond = [step for step in asked.steps if not first <= step <= last]
    if beyond:
        raise GrokscopeError(f"step: {', '.join(map(str, beyond))}; the run has checkpoints from {first} to {last}.")


def log(asked: Asked) -> Series:
    """Return the run's log; of a trajectory in memory, which has none, the measure `loss`."""
    return asked.trajectory.log if asked.trajectory.path else measures.evaluate("loss", asked.trajectory)


def of_steps(need: _Asking) -> _Asking:
    """Declare that a need looks at the steps that were asked for."""
    need.is_of_steps = True  # pyright: ignore[reportFunctionMemberAccess]
    return need


@of_steps
def steps(asked: Asked) -> list[int]:
    """Return the steps asked for, or those at which the run is worth a look, fewer where the figure is narrow."""
    from grokscope import figures

    if asked.steps:
        return sorted(asked.steps)
    n = _N_STEPS if asked.width > figures.COLUMN_WIDTH else _N_NARROW
    return figures.telling_steps(log(asked), asked.trajectory.steps, n)


@of_steps
def step(asked: Asked) -> int:
    """Return the one step asked for, or the last."""
    if len(asked.steps) > 1:
        raise GrokscopeError(f"{len(asked.steps)} steps are asked for; this figure is of one.")
    return int(asked.steps[0] if asked.steps else asked.trajectory.steps[-1])
