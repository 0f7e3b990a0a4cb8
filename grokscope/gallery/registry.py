"""The figures of a run by name: what each needs, what draws it, and how it is drawn from a run.

A figure of your own is a `Picture` and an entry point in the group ``grokscope.figures``; `grokscope figure NAME RUN`
then draws it in every format and width, with its data as CSV.
"""

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from grokscope import figures, measures, plugins
from grokscope.errors import UNKNOWN_TRAIN_SET, GrokscopeError, MissingArrayError
from grokscope.measures import MeasureRequest
from grokscope.series import Series
from grokscope.thinning import nearest_row
from grokscope.trajectory import Trajectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_Need = TypeVar("_Need", bound=Callable[..., Any])


@dataclass(frozen=True)
class FigureRequest:
    """What a figure shows: a run, some of its steps, and the width."""

    trajectory: Trajectory
    """The run."""
    steps: tuple[int, ...] = ()
    """The steps to show, for a figure of single steps; empty for the default choice."""
    width: float = 7.0
    """The width of the figure in inches."""
    series: dict[str, Series] = field(default_factory=dict, compare=False, repr=False)
    """The series that were loaded or evaluated so far, so that none is read from disk twice."""


@dataclass(frozen=True)
class Measured:
    """The need of a measure, as `measures.saved` returns it; a costly one is measured at the requested steps.

    A trajectory in memory is measured for each request.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, request: FigureRequest) -> Series:
        """Return the series, and save it with the run if it was not saved."""
        series = self.find(request)
        if series is None:
            measure_request = self._measure_request(request)
            series = measure_request.evaluate()
            if request.trajectory.path is not None:
                measures.keep(series, measure_request.trajectory)
            request.series[self._key] = series
        return series

    def find(self, request: FigureRequest) -> Series | None:
        """Return the series if it is loaded or saved with the run, else None."""
        if self._key not in request.series and request.trajectory.path is not None:
            series = measures.find(self._measure_request(request))
            if series is not None:
                request.series[self._key] = series
        return request.series.get(self._key)

    @property
    def _key(self) -> str:
        return f"{self.name} {json.dumps(dict(self.options), sort_keys=True)}"

    def _measure_request(self, request: FigureRequest) -> MeasureRequest:
        trajectory = request.trajectory
        if not request.steps or measures.declaration_of(self.name).n_checkpoints is None:
            return MeasureRequest.thinned(self.name, trajectory, self.options)
        nearest = [int(trajectory.steps[nearest_row(trajectory.steps, step)]) for step in request.steps]
        return MeasureRequest.of(self.name, trajectory.select([*nearest, trajectory.steps[-1]]), self.options)


_NEED_A_SPLIT = ("train_loss", "test_loss", "train_accuracy", "test_accuracy", "excluded_loss")
"""The arrays that a series lacks if the training set is unknown."""
Need = str | Callable[[FigureRequest], Any]
"""A measure's name, or a function of the request."""


@dataclass(frozen=True)
class Picture:
    """A figure of a run."""

    draw: str | Callable[..., "Figure"]
    """The function that draws it, or its place "package.module:function"; it takes the values of `needs` in this
    order, and `width` in inches."""
    needs: tuple[Need, ...]
    """What it is drawn from."""
    move: str | Callable[..., bytes] = ""
    """The function, or its place, that returns it as an animation from the values of `moves`, `width` and `kind`; ""
    for a figure that does not move."""
    moves: tuple[Need, ...] = ()
    """What the animation is drawn from."""
    of_a_circle: bool = False
    """Whether it shows only what a task with a circle has; a measure refuses other tasks by itself."""

    @property
    def is_of_steps(self) -> bool:
        """Whether it shows the run at single steps, which can be chosen."""
        return any(getattr(need, "is_of_steps", False) for need in self.needs)

    @property
    def is_of_one_step(self) -> bool:
        """Whether it shows the run at a single step."""
        return step in self.needs

    def measured(self, is_moving: bool = False) -> list[Measured]:
        """Return the measures that it needs."""
        needs = [_callable_need(need) for need in (self.moves if is_moving else self.needs)]
        return [part for need in needs for part in getattr(need, "parts", (need,)) if isinstance(part, Measured)]


def names() -> list[str]:
    """Return the names of all figures, sorted."""
    return plugins.names("figures")


def get(name: str) -> Picture:
    """Return the picture of that name; raise GrokscopeError for an unknown name."""
    return plugins.load("figures", name)


def formats(name: str) -> tuple[str, ...]:
    """Return the formats that a figure can be written in; animated ones only for a figure that moves."""
    return figures.STILL + (figures.MOVING if get(name).move else ())


def figure(name: str, request: FigureRequest) -> "Figure":
    """Draw a figure, and measure what is not saved.

    Args:
        name: The figure's name, one of `names()`.
        request: The run, the steps and the width.

    Raises:
        GrokscopeError: The figure is unknown, or the run has nothing that it could show.
    """
    check(name, request)
    picture = get(name)
    return _drawn(name, picture.draw, picture.needs, request, width=request.width)


def moving(name: str, request: FigureRequest, kind: str) -> bytes:
    """Return an animated figure as the bytes of a "webp" or "gif".

    Args:
        name: The figure's name.
        request: The run and the width; an animation shows all steps, so `steps` is empty.
        kind: "webp" or "gif".

    Raises:
        GrokscopeError: The figure does not move, or steps were chosen.
    """
    check_moving(name, request)
    picture = get(name)
    return _drawn(name, picture.move, picture.moves, request, width=request.width, kind=kind)


def _drawn(
    name: str, draw: str | Callable[..., Any], needs: tuple[Need, ...], request: FigureRequest, **keywords: Any
) -> Any:
    values = [_callable_need(need)(request) for need in needs]
    try:
        return _function(draw)(*values, **keywords)
    # A Series without what the figure shows raises: no circle, no subgroups.
    except (GrokscopeError, ValueError) as error:
        if isinstance(error, MissingArrayError) and error.array in _NEED_A_SPLIT and not request.trajectory.has_split:
            raise GrokscopeError(
                f"The figure {name!r} tells train from test equations. {UNKNOWN_TRAIN_SET}"
            ) from error
        raise GrokscopeError(f"This run has nothing that the figure {name!r} could show: {error}") from error


def _function(place: str | Callable[..., Any]) -> Callable[..., Any]:
    """Return the function at "package.module:function"."""
    if not isinstance(place, str):
        return place
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _callable_need(need: Need) -> Callable[[FigureRequest], Any]:
    return Measured(need) if isinstance(need, str) else need


def check(name: str, request: FigureRequest) -> None:
    """Raise GrokscopeError for an unknown figure, for steps that it does not use or that the run lacks."""
    picture = get(name)
    task = request.trajectory.task
    if picture.of_a_circle and task.circle is None:
        raise GrokscopeError(f"{task.formula} has no circle, so the figure {name!r} has nothing to show.")
    first, last = (int(request.trajectory.steps[i]) for i in (0, -1))
    if request.steps and not picture.is_of_steps:
        others = [other for other in names() if get(other).is_of_steps]
        raise GrokscopeError(f"The figure {name!r} shows the whole run. Figures with a step: {', '.join(others)}.")
    if len(request.steps) > 1 and picture.is_of_one_step:
        raise GrokscopeError(f"{len(request.steps)} steps are requested; the figure {name!r} shows one.")
    beyond = [step for step in request.steps if not first <= step <= last]
    if beyond:
        raise GrokscopeError(f"step: {', '.join(map(str, beyond))}; the run has checkpoints from {first} to {last}.")


def check_moving(name: str, request: FigureRequest) -> None:
    """Raise GrokscopeError for a figure that does not move, and for steps, because an animation shows all of them."""
    if not get(name).move:
        allowed = [other for other in names() if get(other).move]
        raise GrokscopeError(f"The figure {name!r} does not move. Figures that do: {', '.join(allowed)}.")
    if request.steps:
        raise GrokscopeError(f"The animation of {name!r} shows all steps; remove the step.")


def log(request: FigureRequest) -> Series:
    """Return the run's log; for a trajectory in memory, which has none, the measure `loss`."""
    return request.trajectory.log if request.trajectory.path else measures.evaluate("loss", request.trajectory)


def of_steps(need: _Need) -> _Need:
    """Declare that a need depends on the requested steps."""
    need.is_of_steps = True  # pyright: ignore[reportFunctionMemberAccess]
    return need


@of_steps
def steps(request: FigureRequest) -> list[int]:
    """Return the requested steps, or a default choice that shows the transition, fewer for a narrow figure."""
    if request.steps:
        return sorted(request.steps)
    n = figures.n_panels_per_row(request.width)
    return figures.representative_steps(log(request), request.trajectory.steps, n)


@of_steps
def step(request: FigureRequest) -> int:
    """Return the requested step, or the last one; `check` refuses several."""
    return int(request.steps[0] if request.steps else request.trajectory.steps[-1])
