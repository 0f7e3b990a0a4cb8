"""The command `track`, and the options of the commands that train for it."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from grokscope.cli.arguments import RunOptions, UsageError, parse, print_damage, require_names, require_run

TrackerName = Literal["wandb", "trackio", "tensorboard"]
Observer = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class TrackOptions:
    """The options that track a training while it runs."""

    track: TrackerName | None = None
    """Write the log to a tracker while training, like `grokscope track`, from another process."""
    track_project: str = "grokscope"
    """With --track: the project on the tracker."""

    def tracked(self, folder: Path, observer: Observer, say: Callable[[str], None], stack: ExitStack) -> Observer:
        """Return an observer of the training that also starts the tracker, if one is asked for."""
        if self.track is None:
            return observer
        from grokscope.watch import BackgroundTracker

        tracker = stack.enter_context(BackgroundTracker(folder, say, self.track, self.track_project))
        return tracker.wrap(observer)


def track(arguments: list[str]) -> None:
    """Write a run's log and chosen measures to wandb, trackio or TensorBoard, afterwards or while it trains."""

    @dataclass(frozen=True)
    class Track(RunOptions):
        """Write the log of RUN and chosen measures to a tracker, as a new run of a project.

        wandb uploads to the server that you are logged in to. trackio writes to its folder on this machine, and
        TensorBoard to RUN/tensorboard.
        """

        to: TrackerName
        """The tracker; its package is an extra, such as pip install 'grokscope[trackio]'."""
        project: str = "grokscope"
        """The project on the tracker."""
        name: str | None = None
        """The run's name on the tracker; by default the name of its folder."""
        measure: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="MEASURE")] = ()
        """A measure to write with the log, computed first if it is missing; may be repeated."""
        offline: bool = False
        """With wandb: write to RUN/wandb instead, for a later `wandb sync`. WANDB_MODE=offline does the same."""
        follow: bool = False
        """Write new rows while another process trains RUN, until it ends."""

    options = parse(Track, "track", arguments)
    require_names("measures", options.measure)
    require_run(options.folder)
    if options.follow and options.measure:
        raise UsageError("--measure and --follow: a measure needs the finished run. Use --measure without --follow.")

    from grokscope import measures
    from grokscope.gallery import registry
    from grokscope.interop import trackers
    from grokscope.trajectory import Trajectory

    target = trackers.Target(options.to, options.project, options.name, options.offline)
    if options.follow:
        print(f"tracked in {trackers.follow(options.folder, target)}")
        return
    for name in options.measure:
        measures.check(name)
    request = registry.FigureRequest(print_damage(Trajectory.open(options.folder)))
    series = [registry.Measured(name)(request) for name in options.measure]
    print(f"tracked in {trackers.track(request.trajectory, target, series)}")
