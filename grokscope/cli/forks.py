"""The command that forks a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from grokscope.cli.arguments import ROOT, OfRun, announce, parse, warned
from grokscope.cli.training import announcement, conclude, spelled
from grokscope.disk import atomic
from grokscope.errors import GrokscopeError


def fork(arguments: list[str]) -> None:
    """Go on from a step of a run under changed settings, as a new run; any field of the config is a flag."""
    from grokscope.config import RunConfig
    from grokscope.store.run_store import RunStore, checked_name, free_name

    @dataclass(frozen=True)
    class Fork:
        """Go on from a step of RUN as a new run. Any field of the config is a flag, by default as it is in RUN.

        Not those that decide how weights begin, the parameters' shapes or the tokens. Steps count on from STEP.
        """

        origin: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
        """The run's folder, or its name under --root."""
        config: Annotated[RunConfig, tyro.conf.arg(name="")]
        step: int
        """The step to go on from, any that RUN has trained."""
        run: str | None = None
        """The new run's name; by default the origin's with -fork, then -fork-2, …"""
        root: Path = ROOT
        """The folder that holds the runs, and the new one."""

    flags = spelled(arguments)

    def parsed(origin: str | None, base: RunConfig) -> Fork:
        default = Fork(origin or tyro.MISSING, base, step=tyro.MISSING)
        return parse(Fork, "fork", flags, pairs=True, default=default)

    def opened(asked: Fork) -> RunStore:
        return RunStore(OfRun(run=asked.origin, root=asked.root).folder)

    # What the flags change is known only with the origin, which may stand after them, as its root may.
    asked = parsed(None, RunConfig())
    origin = warned(opened(asked))
    asked = parsed(asked.origin, origin.record.config)
    config = asked.config.validate()

    from grokscope.cli.progress_bar import Progress
    from grokscope.training.fork import prepare
    from grokscope.training.run import require_trained

    require_trained(origin)

    name = free_name(f"{origin.folder.name}-fork", asked.root) if asked.run is None else asked.run
    name = checked_name(name)
    if atomic.is_there(asked.root / name):
        raise GrokscopeError(f"{asked.root / name} exists already; choose another --run name.")
    if asked.step not in (one.resume_step for one in origin.resume_points()):
        announce(f"No commit at step {asked.step:,}: training there once more from the one before.")
    prepared = prepare(origin.folder, asked.step, config)
    announce("\n".join([announcement(config, asked.root / name), *prepared.sentences()]))
    with Progress(config.n_steps, asked.step) as progress:
        trajectory = prepared.train(name, asked.root, observer=progress)
    conclude(trajectory)
