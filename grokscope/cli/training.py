"""The commands that train: `train`, `resume` and `densify`."""

import math
import shlex
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from grokscope.cli.arguments import (
    ROOT,
    RunOptions,
    UsageError,
    announce,
    counted,
    parse,
    print_damage,
    require_run,
    usage_errors,
)
from grokscope.cli.tracking import TrackOptions
from grokscope.errors import GrokscopeError

if TYPE_CHECKING:
    from grokscope.config import RunConfig
    from grokscope.trajectory import Trajectory


def train(arguments: list[str]) -> None:
    """Train a preset or a CONFIG.toml and keep dense checkpoints; every field of the config is a flag."""
    from grokscope.config import RunConfig, presets, toml

    @dataclass(frozen=True)
    class Train(TrackOptions):
        """Train PRESET or CONFIG.toml into a new run with dense checkpoints. Every field of the config is a flag."""

        source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PRESET|CONFIG.toml")]
        """A name that `grokscope list presets` prints, or a TOML file."""
        config: Annotated[RunConfig, tyro.conf.arg(name="")]
        init_from: Annotated[str | None, tyro.conf.arg(metavar="FILE|RUN@STEP")] = None
        """The initial parameters: a file with one state dict, or a checkpoint of a run."""
        split_from: Path | None = None
        """A file with the indices of the training equations, instead of a drawn training set."""
        run: str | None = None
        """The run's name; by default the name of the preset or file, then NAME-2, …"""
        root: Path = ROOT
        """The folder that contains the runs."""
        live: bool = False
        """Show the run in a browser while it trains, like `grokscope watch`, from another process."""
        stay: bool = False
        """With --live: keep showing the run after training, until Ctrl-C."""

    flags = to_tyro_spelling(arguments)

    def parsed(source: str | None) -> Train:
        if source is None:
            base = RunConfig()
        else:
            base = _from_file(Path(source), flags)[0] if source.endswith(".toml") else presets.get(source)
        return parse(Train, "train", flags, pairs=True, default=Train(source or tyro.MISSING, base))

    # The source gives the defaults of the flags and may follow them, so arguments are parsed twice.
    first = arguments[0] if arguments and not arguments[0].startswith("-") else None
    with usage_errors():
        options = parsed(first)
        if options.source != first:
            options = parsed(options.source)
        if options.stay and not options.live:
            raise UsageError("--stay needs --live.")
        in_file = _from_file(Path(options.source), flags)[1] if options.source.endswith(".toml") else set()
        config = toml.load_table_file(options.config, Path())
        parameters = None
        if options.split_from or options.init_from:
            # Reading the files imports torch, and errors about settings come first.
            from grokscope.interop import initial_values

            config.validate()
            if options.split_from:
                config = initial_values.with_train_set(config, options.split_from)
            if options.init_from:
                config, parameters = initial_values.with_initialization(config, options.init_from, options.root)
        config = config.validate(in_file | settings_given(flags))

    from grokscope.config.unused import UnusedSettingWarning
    from grokscope.store.run_names import new_run_folder
    from grokscope.training import run
    from grokscope.training.run_progress import Observer, Progress

    # The given settings were checked above; those of a preset may have no effect.
    warnings.simplefilter("ignore", UnusedSettingWarning)
    with usage_errors():
        folder = new_run_folder(options.root, options.run, Path(options.source).stem)

    @contextmanager
    def display(n_steps: int, start: int) -> Iterator[Observer]:
        with Progress(n_steps, start, config.loss) as progress:
            observer = options.tracked(folder, progress, progress.say, watchers)
            if not options.live:
                yield observer
                return
            from grokscope.watch import BackgroundWatcher

            watcher = watchers.enter_context(BackgroundWatcher(folder, progress.say, options.stay))
            yield watcher.wrap(observer)

    announce(training_summary(config, folder))
    with ExitStack() as watchers:
        print_outcome(run.train(config, folder.name, options.root, progress=display, initialization=parameters))


def _from_file(path: Path, flags: list[str]) -> "tuple[RunConfig, set[str]]":
    """Return the config of a TOML file, and the settings that the file changes without effect.

    A fault in a setting that a flag replaces is ignored. A flag may also give effect to a setting of the file.
    """
    from grokscope.config import toml, unused

    try:
        config, changed = toml.read_settings(path)
    except GrokscopeError:
        replaced = settings_given(flags)
        if not replaced:
            raise
        config, changed = toml.read_settings(path, replaced)
    return config, set(unused.unused_settings(config, changed))


def settings_given(flags: list[str]) -> set[str]:
    """Return the dotted names of the settings that flags set."""
    from grokscope.config import RunConfig, validation

    names = {flag[2:].partition("=")[0].replace("-", "_") for flag in flags if flag.startswith("--")}
    names |= {name.replace(".no_", ".") for name in names}
    return names & {name for name, _ in validation.leaves(RunConfig())}


def to_tyro_spelling(arguments: list[str]) -> list[str]:
    """Return arguments with tyro's spelling None of an optional setting's value, which users spell none."""
    from grokscope.config import RunConfig, validation

    optional = {
        f"--{name}".replace("_", "-")
        for name, allowed in validation.leaves(RunConfig())
        if allowed.test is not None and allowed.test(None)
    }
    spelled = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        flag, equals, value = argument.rpartition("=")
        if value == "none" and (flag if equals else before).replace("_", "-") in optional:
            value = "None"
        spelled.append(flag + equals + value)
    return spelled


def resume(arguments: list[str]) -> None:
    """Continue a run from its last commit, exact to the bit."""

    @dataclass(frozen=True)
    class Resume(TrackOptions, RunOptions):
        """Continue a run from its last commit, exact to the bit. A finished run is unchanged.

        With --n-steps, a run that its rule `stop` has ended continues too, and the rule no longer applies.
        """

        n_steps: int | None = None
        """A new, larger number of steps; for a run that has stopped, any number from its present one."""
        allow_drift: bool = False
        """Continue although the environment has changed, so that the bits may differ; the run records this."""

    options = parse(Resume, "resume", arguments)
    require_run(options.folder)

    from grokscope.store.run_store import RunStore
    from grokscope.training import run
    from grokscope.training.run import require_trained
    from grokscope.training.run_progress import Observer, Progress

    before = print_damage(RunStore(options.folder))
    require_trained(before)
    n_steps = options.n_steps or before.record.config.n_steps
    if before.last_step == before.end_step and options.n_steps in (None, before.last_step):
        end = before.stopped if before.end_step < n_steps else f"{before.last_step:,} steps"
        print(f"{options.folder} is finished: {end}. To train further, add --n-steps N.")
        return

    @contextmanager
    def display(n_steps: int, start: int) -> Iterator[Observer]:
        announce(f"Resuming {options.folder} at step {start:,} of {n_steps:,}.")
        with Progress(n_steps, start, before.record.config.loss) as progress:
            yield options.tracked(options.folder, progress, progress.say, trackers)

    with ExitStack() as trackers:
        print_outcome(run.resume(options.folder, options.n_steps, options.allow_drift, progress=display))


def densify(arguments: list[str]) -> None:
    """Retrain a window of a run and add its missing checkpoints."""

    @dataclass(frozen=True)
    class Densify(RunOptions):
        """Retrain steps START … STOP and add the missing checkpoints among START, START + EVERY, …"""

        start: int
        """The first step of the window."""
        stop: int
        """The last step of the window."""
        every: int = 1
        """The number of steps between checkpoints."""

    options = parse(Densify, "densify", arguments)
    require_run(options.folder)

    from grokscope.store.run_store import RunStore
    from grokscope.training import densification
    from grokscope.training.run_progress import Progress

    before = RunStore(options.folder)
    paths_before = {segment.path for segment in before.segments}
    display = partial(Progress, loss=before.record.config.loss)
    trajectory = densification.densify(options.folder, options.start, options.stop, options.every, progress=display)
    segments = RunStore(options.folder).segments
    n_added = sum(len(segment.steps) for segment in segments if segment.path not in paths_before)
    print(f"{options.folder}: {counted(n_added, 'checkpoint')} added, {len(trajectory):,} in all.")


def training_summary(config: "RunConfig", folder: Path) -> str:
    """Return two lines on a training that is about to start: its task and model, and the disk and memory it takes.

    Raises:
        GrokscopeError: The training does not fit in memory.
    """
    from grokscope.config import checkpoint_schedule, stop_rule
    from grokscope.training.checkpointer import estimate_disk_use
    from grokscope.training.loop import Setup
    from grokscope.training.memory import estimate_memory, require_memory

    setup = Setup(config)
    require_memory(setup)
    data = setup.dataset
    n_parameters = sum(math.prod(shape) for shape in setup.model.shapes.values())
    schedule = checkpoint_schedule.parse(config.checkpoints)
    n_fixed = len(schedule.fixed_steps(config.n_steps))
    adaptive = f" and up to {config.max_checkpoints - n_fixed:,} adaptive ones" if schedule.adaptive else ""
    n_bytes = estimate_disk_use(setup)
    rule = ", or fewer if " + " or ".join(map(str, stop_rule.parse(config.stop))) if config.stop else ""
    n_train, n_examples = len(data.split.train), len(data.inputs)
    trained = f"{n_train:,} of {n_examples:,} equations trained on"
    if config.task.fresh:
        trained = f"fresh batches trained on, {n_examples:,} equations evaluated"
    return "\n".join(
        [
            f"{folder}: {data.task.formula}, {trained}, {n_parameters:,} parameters, "
            f"{counted(setup.threads.n, 'thread')}",
            f"{counted(n_fixed, 'fixed checkpoint')}{adaptive} in {counted(config.n_steps, 'step')}{rule}: "
            f"about {n_bytes / 1e6:,.0f} MB on disk and {estimate_memory(setup) / 1e6:,.0f} MB of memory",
        ]
    )


def print_outcome(trajectory: "Trajectory") -> None:
    """Print what ended a run early, when it memorized and generalised, its last losses, and the next command."""
    from grokscope import phases

    if trajectory.stopped:
        print(trajectory.stopped.sentence(int(trajectory.log.steps[-1])))

    last = {name: array[-1] for name, array in trajectory.log.arrays.items()}
    loss = trajectory.config.loss
    if trajectory.has_split:
        memorized = phases.memorization_step(trajectory.log)
        generalised = phases.generalisation_step(trajectory.log)
        print(f"memorized at step {memorized or '—'}, generalised at step {generalised or '—'}")
        numbers = (
            f"{loss} train loss {last['train_loss']:.2e}, {loss} test loss {last['test_loss']:.2e}, "
            f"test accuracy {last['test_accuracy']:.2%}"
        )
    else:
        numbers = f"{loss} loss {last['loss']:.2e} and accuracy {last['accuracy']:.2%} over all equations"
    print(
        f"at the end: {numbers}; {counted(len(trajectory), 'checkpoint')} in {trajectory.path}\n"
        f"next: grokscope report {shlex.quote(str(trajectory.path))}"
    )
