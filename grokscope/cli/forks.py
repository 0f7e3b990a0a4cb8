"""The command `fork`."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from grokscope.cli.arguments import ROOT, RunOptions, announce, parse, print_damage, usage_errors
from grokscope.cli.tracking import TrackOptions
from grokscope.cli.training import print_outcome, settings_given, to_tyro_spelling, training_summary


def fork(arguments: list[str]) -> None:
    """Continue a run from a step under changed settings, as a new run; every field of the config is a flag."""
    from grokscope.config import RunConfig
    from grokscope.store.run_names import new_run_folder
    from grokscope.store.run_store import RunStore

    @dataclass(frozen=True)
    class Fork(TrackOptions):
        """Continue RUN from STEP as a new run. Every field of the config is a flag; its default is the value in RUN.

        Settings of the initialization, the parameters' shapes and the tokens cannot change. Steps are counted from
        STEP.
        """

        origin: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
        """The run's folder, or its name under --root."""
        config: Annotated[RunConfig, tyro.conf.arg(name="")]
        step: int
        """The step to continue from; any step that RUN has trained."""
        fresh_optimizer: bool = False
        """Start from the checkpoint at STEP with an empty optimizer; the only way to train an imported run."""
        run: str | None = None
        """The new run's name; by default RUN-fork, then RUN-fork-2, …"""
        root: Path = ROOT
        """The folder that contains the runs."""

    flags = to_tyro_spelling(arguments)

    def parsed(origin: str | None, base: RunConfig) -> Fork:
        default = Fork(origin or tyro.MISSING, base, step=tyro.MISSING)
        return parse(Fork, "fork", flags, pairs=True, default=default)

    def opened(options: Fork) -> RunStore:
        return RunStore(RunOptions(run=options.origin, root=options.root).folder)

    # RUN gives the defaults of the flags and may follow them, so arguments are parsed twice.
    options = parsed(None, RunConfig())
    origin = print_damage(opened(options))
    options = parsed(options.origin, origin.record.training_config)
    with usage_errors():
        config = options.config.validate(settings_given(flags))

    from grokscope.training.fork import prepare_fork
    from grokscope.training.run import require_trained
    from grokscope.training.run_progress import Observer, Progress

    if not options.fresh_optimizer:
        require_trained(origin)
    with usage_errors():
        folder = new_run_folder(options.root, options.run, f"{origin.folder.name}-fork")

    def retraining(n_steps: int, start: int) -> Progress:
        announce(f"Step {options.step:,} has no resume state; retraining from step {start:,}, the commit before it.")
        return Progress(n_steps, start, config.loss)

    prepared = prepare_fork(origin.folder, options.step, config, retraining, options.fresh_optimizer)

    @contextmanager
    def training(n_steps: int, start: int) -> Iterator[Observer]:
        announce("\n".join([training_summary(config, folder), *prepared.describe()]))
        with Progress(n_steps, start, config.loss) as progress:
            yield options.tracked(folder, progress, progress.say, trackers)

    with ExitStack() as trackers:
        print_outcome(prepared.train(folder, progress=training))
