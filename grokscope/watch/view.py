"""The page of a run that is watched: the report's, from what is saved and what is cheap, measured in memory."""

import dataclasses

import numpy as np

from grokscope import measures, report
from grokscope.errors import DamagedError
from grokscope.report import page
from grokscope.series import Series
from grokscope.thinning import spread_by_stride
from grokscope.trajectory import Trajectory
from grokscope.watch.watched_run import Watched

_USUAL = {"embedding": 48, "weight_norm": 128, "attention": 32, "example_loss": 32}
_OF_CIRCLES = {"fourier": 12}
"""What is measured for the page unless it is saved, and at how many checkpoints at most. Sharpness and the progress
measures, costly and soon out of date, are on it once `grokscope measure` has saved them."""


class View:
    """The page of a run, made anew by `renew`; raise GrokscopeError as `report.write` does."""

    def __init__(self, run: Watched, every: float):
        self._run, self._every = run, every
        self._measured: dict[str, Series] = {}
        self.version = 0
        """How often the page was made."""
        self.page = b""
        self.renew()

    def renew(self) -> None:
        """Measure what is new, in memory, and render the page; damaged checkpoints are left out.

        Raise GrokscopeError if no checkpoint can be read.
        """
        trajectory = self._run.trajectory
        try:
            self._render(trajectory)
        except DamagedError:
            self._render(trajectory.without_damaged())

    def _render(self, trajectory: Trajectory) -> None:
        """Measure what is new and render the page; raise DamagedError if a checkpoint is damaged."""
        found = measures.kept(trajectory)
        series = report.usual(found, trajectory)
        wanted = _USUAL | (_OF_CIRCLES if trajectory.task.circle is not None else {})
        for name in wanted.keys() - series.keys():
            self._measured[name] = series[name] = self._renewed(name, trajectory, wanted[name])
        # What was saved of earlier checkpoints alone gives way to what is measured of all.
        kept = [one for one in found if report.name_of(one) not in series or one is series[one.measure]]
        kept += [series[name] for name in wanted if not any(one is series[name] for one in kept)]
        live = page.Live(self.version + 1, self._every, self._run.sentence)
        self.page = page.of_run(trajectory, series, kept, self._run.store.record, live)
        self.version += 1

    def _renewed(self, name: str, trajectory: Trajectory, most: int) -> Series:
        chosen = trajectory.select(trajectory.steps[spread_by_stride(trajectory.steps, most + 1)])
        old = self._measured.get(name)
        if old is not None and not measures.is_valid(old, trajectory):
            old = None  # The run is another than it was.
        if old is None or not measures.declaration_of(name).by_checkpoint:
            return _evaluated(name, chosen)
        new = chosen.steps[~np.isin(chosen.steps, old.steps)]
        parts = [old, *([_evaluated(name, trajectory.select(new))] if len(new) else [])]
        joined = Series.join(parts)
        order = np.searchsorted(joined.steps, chosen.steps, sorter=np.argsort(joined.steps))
        rows = np.argsort(joined.steps)[order]
        arrays = {key: array[rows] for key, array in joined.arrays.items()}
        return dataclasses.replace(joined, steps=chosen.steps, arrays=arrays, digest=chosen.digest)


def _evaluated(name: str, trajectory: Trajectory) -> Series:
    return measures.MeasureRequest.of(name, trajectory, {}).evaluate_undamaged()
