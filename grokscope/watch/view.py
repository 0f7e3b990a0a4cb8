"""The page of a watched run: the report's page, from saved measures and from cheap ones measured in memory."""

import dataclasses

import numpy as np

from grokscope import measures, report
from grokscope.errors import DamagedError
from grokscope.report import page
from grokscope.report.quantities import name_of
from grokscope.series import Series
from grokscope.thinning import spread_by_stride
from grokscope.trajectory import Trajectory
from grokscope.watch.watched_run import WatchedRun

_MEASURED = {"embedding": 48, "weight_norm": 128, "attention": 32, "example_loss": 32}
_MEASURED_OF_CIRCLES = {"fourier": 12}
"""What is measured for the page if it is not saved, and at how many checkpoints at most.

Sharpness and the progress measures are too costly to keep current. `grokscope measure` saves them for the page.
"""


class View:
    """The page of a watched run, updated by `update`.

    Args:
        run: The run.
        interval: The seconds between two requests of an open page for news.

    Raises:
        GrokscopeError: No checkpoint of the run can be read.
    """

    def __init__(self, run: WatchedRun, interval: float):
        self._run, self._interval = run, interval
        self._measured: dict[str, Series] = {}
        self.version = 0
        """How many times the page was rendered."""
        self.page = b""
        """The HTML."""
        self.update()

    def update(self) -> None:
        """Measure new checkpoints in memory and render the page, without damaged checkpoints.

        Raises:
            GrokscopeError: No checkpoint can be read.
        """
        trajectory = self._run.trajectory
        try:
            self._render(trajectory)
        except DamagedError:
            self._render(trajectory.without_damaged())

    def _render(self, trajectory: Trajectory) -> None:
        """Measure new checkpoints and render the page; raise DamagedError if a checkpoint is damaged."""
        saved = measures.kept(trajectory)
        series = report.default_series(saved, trajectory)
        n_max = _MEASURED | (_MEASURED_OF_CIRCLES if trajectory.task.circle is not None else {})
        measured = sorted(n_max.keys() - series.keys())
        for name in measured:
            self._measured[name] = series[name] = self._measure(name, trajectory, n_max[name])
        # A new series replaces a saved one that lacks the latest checkpoints.
        choices = [item for item in saved if name_of(item) not in series or item is series[item.measure]]
        choices += [series[name] for name in n_max if name in measured]
        live = page.LiveStatus(self.version + 1, self._interval, self._run.status)
        self.page = page.render_run(trajectory, series, choices, self._run.store.record, live)
        self.version += 1

    def _measure(self, name: str, trajectory: Trajectory, n_max: int) -> Series:
        """Return a measure at some checkpoints, and evaluate only those that the last update had not."""
        chosen = trajectory.select(trajectory.steps[spread_by_stride(trajectory.steps, n_max + 1)])
        previous = self._measured.get(name)
        # Another run may have taken the folder.
        is_valid = previous is not None and measures.is_valid(previous, trajectory)
        if previous is None or not is_valid or not measures.declaration_of(name).by_checkpoint:
            return _evaluate(name, chosen)
        new_steps = chosen.steps[~np.isin(chosen.steps, previous.steps)]
        parts = [previous, _evaluate(name, trajectory.select(new_steps))] if len(new_steps) else [previous]
        joined = Series.join(parts)
        order = np.argsort(joined.steps)
        rows = order[np.searchsorted(joined.steps, chosen.steps, sorter=order)]
        arrays = {key: array[rows] for key, array in joined.arrays.items()}
        return dataclasses.replace(joined, steps=chosen.steps, arrays=arrays, digest=chosen.digest)


def _evaluate(name: str, trajectory: Trajectory) -> Series:
    return measures.MeasureRequest.of(name, trajectory, {}).evaluate_undamaged()
