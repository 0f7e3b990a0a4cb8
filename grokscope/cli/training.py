"""Commands that train: train, resume, densify."""

import math
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from grokscope.cli.arguments import ROOT, OfRun, UsageError, announce, parse, warned
from grokscope.errors import GrokscopeError

if TYPE_CHECKING:
    from grokscope.config import RunConfig
    from grokscope.trajectory import Trajectory


def train(arguments: list[str]) -> None:
    """Train a preset or a CONFIG.toml, keeping dense checkpoints; any field of the config is a flag."""
    from grokscope.config import RunConfig, presets, toml

    @dataclass(frozen=True)
    class Train:
        """Train PRESET or CONFIG.toml into a new run, keeping checkpoints. Any field of the config is a flag."""

        source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PRESET|CONFIG.toml")]
        """A name that `grokscope list presets` prints, or a TOML file."""
        config: Annotated[RunConfig, tyro.conf.arg(name="")]
        run: str | None = None
        """The run's name; by default the preset's or the file's, then NAME-2, …"""
        root: Path = ROOT
        """The folder that holds the runs."""
        live: bool = False
        """Show the run while it trains, as `grokscope watch` does, from a process of its own."""
        stay: bool = False
        """Go on showing it when it has trained, until Ctrl-C; with --live."""

    flags = spelled(arguments)

    def parsed(source: str | None) -> Train:
        if source is None:
            base = RunConfig()
        else:
            base = _from_file(Path(source), flags) if source.endswith(".toml") else presets.get(source)
        return parse(Train, "train", flags, pairs=True, default=Train(source or tyro.MISSING, base))

    # What the flags change is known only with the source, which may stand after them.
    first = arguments[0] if arguments and not arguments[0].startswith("-") else None
    asked = parsed(first)
    if asked.source != first:
        asked = parsed(asked.source)
    if asked.stay and not asked.live:
        raise UsageError("--stay goes with --live.")
    config = toml.with_table(asked.config, Path()).validate()

    from grokscope.cli.progress_bar import Progress
    from grokscope.store.run_store import checked_name, free_name
    from grokscope.training import run

    name = checked_name(Path(asked.source).stem if asked.run is None else asked.run)
    name = free_name(name, asked.root) if asked.run is None else name
    announce(announcement(config, asked.root / name))
    with ExitStack() as shown:
        with Progress(config.n_steps) as progress:
            observer = progress
            if asked.live:
                from grokscope.watch import Beside

                beside = shown.enter_context(Beside(asked.root / name, progress.say, asked.stay))
                observer = beside.before(progress)
            trajectory = run.train(config, name, asked.root, observer=observer)
        conclude(trajectory)


def _from_file(path: Path, flags: list[str]) -> "RunConfig":
    """Return the config that a TOML file holds; what in it cannot be used is no fault if a flag replaces it."""
    from grokscope.config import RunConfig, toml, validation

    try:
        return toml.read(path)
    except GrokscopeError:
        given = {flag[2:].partition("=")[0].replace("-", "_") for flag in flags if flag.startswith("--")}
        given |= {name.replace(".no_", ".") for name in given}
        replaced = given & {name for name, _ in validation.leaves(RunConfig())}
        if not replaced:
            raise
        return toml.read(path, replaced)


def spelled(arguments: list[str]) -> list[str]:
    """Return arguments in tyro's spelling, which is None; TOML, the documentation and people write none."""
    from grokscope.config import RunConfig, validation

    optional = {
        f"--{name}".replace("_", "-")
        for name, allowed in validation.leaves(RunConfig())
        if allowed.test is not None and allowed.test(None)
    }
    found = [
        "None" if value == "none" and flag.replace("_", "-") in optional else value
        for flag, value in zip(["", *arguments], arguments, strict=False)
    ]
    return [
        value.removesuffix("none") + "None"
        if value.replace("_", "-") in {f"{flag}=none" for flag in optional}
        else value
        for value in found
    ]


def resume(arguments: list[str]) -> None:
    """Go on with a run from its last commit, exact to the bit."""

    @dataclass(frozen=True)
    class Resume(OfRun):
        """Go on with a run from its last commit, exact to the bit. A finished run is left as it is."""

        n_steps: int | None = None
        """A new, larger number of steps."""
        allow_drift: bool = False
        """Go on although the environment differs in what decides bits; this is recorded in the run."""

    asked = parse(Resume, "resume", arguments)

    from grokscope.cli.progress_bar import Progress
    from grokscope.store.run_store import RunStore
    from grokscope.training import run
    from grokscope.training.run import require_trained

    before = warned(RunStore(asked.folder))
    require_trained(before)
    n_steps = asked.n_steps or before.record.config.n_steps
    if before.record.config.n_steps == n_steps == before.last_step:
        print(f"{asked.folder} is finished: {before.last_step:,} steps. --n-steps N makes it longer.")
        return
    announce(f"Going on with {asked.folder} from step {before.last_step:,} of {n_steps:,}.")
    with Progress(n_steps, before.last_step) as progress:
        trajectory = run.resume(asked.folder, asked.n_steps, asked.allow_drift, observer=progress)
    conclude(trajectory)


def densify(arguments: list[str]) -> None:
    """Train a window of a run once more and add the checkpoints in it that it lacks."""

    @dataclass(frozen=True)
    class Densify(OfRun):
        """Train steps START … STOP once more and add the checkpoints START, START + EVERY, … that the run lacks."""

        start: int
        """The first step wanted."""
        stop: int
        """The last step wanted."""
        every: int = 1
        """The number of steps from one wanted checkpoint to the next."""

    asked = parse(Densify, "densify", arguments)

    from grokscope.cli.progress_bar import Progress
    from grokscope.store.run_store import RunStore
    from grokscope.training import densification

    before = {one.path for one in RunStore(asked.folder).segments}
    with Progress(asked.stop) as progress:
        trajectory = densification.densify(asked.folder, asked.start, asked.stop, asked.every, observer=progress)
    added = sum(len(one.steps) for one in RunStore(asked.folder).segments if one.path not in before)
    print(f"{asked.folder}: {added:,} checkpoints added, {len(trajectory):,} in all.")


def announcement(config: "RunConfig", folder: Path) -> str:
    """Return what a training is about to do and to save."""
    from grokscope.config import checkpoint_schedule
    from grokscope.training.checkpointer import disk_use
    from grokscope.training.loop import Setup

    setup = Setup(config)
    n_parameters = sum(math.prod(shape) for shape in setup.model.shapes.values())
    fixed = checkpoint_schedule.parse(config.checkpoints).fixed_steps(config.n_steps)
    adaptive = f" and up to {config.max_checkpoints - len(fixed):,} adaptive ones"
    n_bytes = disk_use(setup)
    return "\n".join(
        [
            f"{folder}: {setup.task.formula}, {len(setup.split.train):,} of {len(setup.task.inputs):,} equations "
            f"trained on, {n_parameters:,} parameters",
            f"{len(fixed):,} fixed checkpoints{adaptive if checkpoint_schedule.parse(config.checkpoints).adaptive else ''} in "
            f"{config.n_steps:,} steps: about {n_bytes / 1e6:,.0f} MB on disk",
        ]
    )


def conclude(trajectory: "Trajectory") -> None:
    """Print what a training has come to."""
    from grokscope import phases

    memorized = phases.memorization_step(trajectory.log)
    generalised = phases.generalisation_step(trajectory.log)
    last = {name: array[-1] for name, array in trajectory.log.arrays.items()}
    print(
        f"memorized at step {memorized or '—'}, generalised at step {generalised or '—'}\n"
        f"at the end: train loss {last['train_loss']:.2e}, test loss {last['test_loss']:.2e}, "
        f"test accuracy {last['test_accuracy']:.2%}; {len(trajectory):,} checkpoints in {trajectory.path}\n"
        f"next: grokscope report {trajectory.path}"
    )
