"""Experiment trackers: Weights & Biases, trackio and TensorBoard behind one small interface.

A tracker reads the run's files, in a process that does not train. So neither the network nor a fault of the tracker
can stop or alter a training. Each tracker is an extra and is imported only when it is used.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from grokscope.disk import atomic
from grokscope.disk.lock import is_locked
from grokscope.errors import GrokscopeError
from grokscope.interop import wandb
from grokscope.interop.wandb import constants, rows
from grokscope.series import Series
from grokscope.trajectory import Trajectory

DEFAULT_PROJECT = "grokscope"


@runtime_checkable
class Tracker(Protocol):
    """A run on a tracker, open for writing."""

    def log(self, step: int, row: Mapping[str, float]) -> None:
        """Add numbers at a step; steps increase."""
        ...

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Add numbers that belong to no step."""
        ...

    def finish(self) -> str:
        """Close the run, and return where it is."""
        ...


@dataclass(frozen=True)
class Target:
    """Where a run is tracked."""

    tracker: str
    """A name in `TRACKERS`."""
    project: str = DEFAULT_PROJECT
    """The project on the tracker. TensorBoard has no projects."""
    name: str | None = None
    """The run's name on the tracker; by default the name of its folder."""
    offline: bool = False
    """Whether Weights & Biases writes to RUN/wandb only. trackio and TensorBoard always write to the disk."""

    def open(self, trajectory: Trajectory) -> Tracker:
        """Start the run on the tracker.

        Raises:
            GrokscopeError: The trajectory has no folder, the tracker is unknown, its package is missing, or it fails.
        """
        if self.tracker not in TRACKERS:
            raise GrokscopeError(f"track: {self.tracker!r}; allowed: {', '.join(TRACKERS)}.")
        if trajectory.path is None:
            raise GrokscopeError("A trajectory in memory has no folder, so there is no run to track.")
        with _faults(self.tracker):
            return TRACKERS[self.tracker](trajectory, self)


def track(trajectory: Trajectory, target: Target, series: Iterable[Series] = ()) -> str:
    """Write a run's log and series of measures to a tracker, and return where they are.

    The names are `log/NAME` for the log and `MEASURE/NAME` for a series. Arrays with more axes are skipped.

    Args:
        trajectory: The trajectory of a run on disk.
        target: The tracker, project and name.
        series: Series to write with the log.

    Raises:
        GrokscopeError: The package is missing, or the tracker fails. The run is unchanged.
    """
    written = [trajectory.log, *series]
    tracker = target.open(trajectory)
    with _faults(target.tracker):
        for step, row in rows(written):
            tracker.log(step, row)
        for measured in written:
            tracker.summarize(constants(measured))
        return tracker.finish()


def follow(folder: Path, target: Target, every: float = 5.0) -> str:
    """Write a run's log to a tracker while another process trains the run, and return where it is.

    Rows appear when the training commits them, at most 30 s after their step. It ends when no process trains the run.

    Args:
        folder: The run's folder.
        target: The tracker, project and name.
        every: The seconds between two reads of the run.

    Raises:
        GrokscopeError: The package is missing, the tracker fails, or the folder is not a run.
    """
    tracker, last_step = target.open(Trajectory.open(folder)), -1
    while True:
        is_trained = is_locked(folder)  # Read first, so that no row of the last commit is missed.
        with _faults(target.tracker):
            for step, row in rows([Trajectory.open(folder).log]):
                if step > last_step:
                    tracker.log(step, row)
                    last_step = step
            if not is_trained:
                return tracker.finish()
        time.sleep(every)


@contextmanager
def _faults(tracker: str) -> Iterator[None]:
    """Turn an exception of a tracker into a GrokscopeError that names it."""
    try:
        yield
    except GrokscopeError:
        raise
    except ImportError as error:
        raise GrokscopeError(f"{tracker} is not installed: pip install 'grokscope[{tracker}]'.") from error
    except Exception as error:
        raise GrokscopeError(f"{tracker}: {type(error).__name__}: {error} The run is unchanged.") from error


class _Wandb:
    def __init__(self, trajectory: Trajectory, target: Target):
        self._run = wandb.start(trajectory, target.project, name=target.name, offline=target.offline)

    def log(self, step: int, row: Mapping[str, float]) -> None:
        self._run.log(dict(row), step=step)

    def summarize(self, values: Mapping[str, Any]) -> None:
        self._run.summary.update(dict(values))

    def finish(self) -> str:
        self._run.finish()
        return str(self._run.settings.sync_dir if self._run.offline else self._run.url)


class _Trackio:
    def __init__(self, trajectory: Trajectory, target: Target):
        assert trajectory.path is not None
        self._package, self._project = import_module("trackio"), target.project
        self._run = self._package.init(
            project=target.project, name=target.name or trajectory.path.name, config=_config(trajectory), embed=False
        )

    def log(self, step: int, row: Mapping[str, float]) -> None:
        self._package.log(dict(row), step=step)

    def summarize(self, values: Mapping[str, Any]) -> None:
        if values:
            self._package.log(dict(values))

    def finish(self) -> str:
        self._package.finish()
        return f"trackio's project {self._project!r}: trackio show --project {self._project!r}"


class _TensorBoard:
    def __init__(self, trajectory: Trajectory, target: Target):
        assert trajectory.path is not None
        self._folder = trajectory.path / "tensorboard" / (target.name or trajectory.path.name)
        atomic.make_folder(self._folder)
        self._writer = import_module("torch.utils.tensorboard").SummaryWriter(str(self._folder))
        self._writer.add_text("config", repr(_config(trajectory)))

    def log(self, step: int, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def summarize(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            self._writer.add_text(name, str(value))

    def finish(self) -> str:
        self._writer.close()
        return str(self._folder)


TRACKERS: Mapping[str, Callable[[Trajectory, Target], Tracker]] = {
    "wandb": _Wandb,
    "trackio": _Trackio,
    "tensorboard": _TensorBoard,
}
"""The tracker of each name, which is also the name of its package and of its extra."""


def _config(trajectory: Trajectory) -> dict[str, Any]:
    return {**trajectory.config.to_dict(), "digest": trajectory.digest}
