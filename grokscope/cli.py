"""The command line: train · resume · densify · measure · report · verify · log · list. The only place that prints."""

import io
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from grokscope import plugins
from grokscope.errors import GrokscopeError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from grokscope.config import RunConfig
    from grokscope.store import Store
    from grokscope.trajectory import Trajectory

_Opened = TypeVar("_Opened", "Trajectory", "Store")
_ROOT = Path("checkpoints")


def main(arguments: list[str] | None = None) -> None:
    """Run one command; a mistake ends in one message and exit status 1 or 2, a signal in 128 + its number."""
    _guarded(_dispatch, sys.argv[1:] if arguments is None else arguments)


def _dispatch(arguments: list[str]) -> None:
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help", "help"):
        print(_overview())
    elif name == "--version":
        from grokscope import __version__

        print(f"grokscope {__version__}")
    elif name in COMMANDS:
        COMMANDS[name](rest)
    else:
        raise _Usage(plugins.unknown("command", name, list(COMMANDS)))


def _guarded(command: Callable[[list[str]], None], arguments: list[str]) -> None:
    """Run a command so that nothing a user can cause ends in a traceback."""
    warnings.formatwarning = lambda message, *_, **__: f"grokscope: {message}\n"
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a sign gets a question mark in its place.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        command(arguments)
        sys.stdout.flush()
    except GrokscopeError as error:
        print(f"grokscope: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, _Usage) else 1)
    except BrokenPipeError:
        # Whoever read the output has enough, as in `grokscope log RUN | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt as interrupt:
        number = getattr(interrupt, "signal_number", 2)
        folder = getattr(interrupt, "folder", None)
        if folder is not None:
            print(f"\n{interrupt} Go on with it by:\n  grokscope resume {folder}", file=sys.stderr)
        sys.exit(128 + number)


def analysis(main: "Callable[[Path], Figure]", name: str) -> None:
    """Run one of the scripts in analyses/ on the RUN of the command line; save its figure in RUN/figures."""

    def run(arguments: list[str]) -> None:
        @dataclass(frozen=True)
        class Analysis(_OfRun):
            """Answer one question about a run and save the figure in RUN/figures."""

        asked = _parse(Analysis, name, arguments)

        from grokscope import figures

        for path in figures.save(main(asked.folder), asked.folder / "figures" / f"{name}.png"):
            print(f"saved {path}")

    _guarded(run, sys.argv[1:])


class _Usage(GrokscopeError):
    """The command line itself cannot be understood."""


def _overview() -> str:
    lines = [f"  {name:<9}{(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: grokscope COMMAND …",
            "",
            "Train small transformers to grokking, keep dense checkpoints, and watch the circuit form.",
            "",
            *lines,
            "",
            "`grokscope COMMAND --help` tells more. A RUN is a folder, or its name under --root (checkpoints).",
        ]
    )


def _parse(command: Any, name: str, arguments: list[str], **keywords: Any) -> Any:
    return tyro.cli(
        command,
        prog=f"grokscope {name}",
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff,),
        **keywords,
    )


def train(arguments: list[str]) -> None:
    """Train a preset or a CONFIG.toml, keeping dense checkpoints; any field of the config is a flag."""
    from grokscope import fields, presets
    from grokscope.config import RunConfig

    @dataclass(frozen=True)
    class Train:
        """Train PRESET or CONFIG.toml into a new run, keeping checkpoints. Any field of the config is a flag."""

        source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PRESET|CONFIG.toml")]
        """A name that `grokscope list presets` prints, or a TOML file."""
        config: Annotated[RunConfig, tyro.conf.arg(name="")]
        run: str | None = None
        """The run's name; by default the preset's or the file's, then NAME-2, …"""
        root: Path = _ROOT
        """The folder that holds the runs."""

    # tyro spells it None; TOML, the documentation and people write none.
    optional = {
        f"--{name}".replace("_", "-")
        for name, allowed in fields.leaves(RunConfig())
        if allowed.test is not None and allowed.test(None)
    }
    spelled = [
        "None" if value == "none" and flag.replace("_", "-") in optional else value
        for flag, value in zip(["", *arguments], arguments, strict=False)
    ]
    spelled = [
        value.removesuffix("none") + "None"
        if value.replace("_", "-") in {f"{flag}=none" for flag in optional}
        else value
        for value in spelled
    ]

    def parse(source: str | None) -> Train:
        if source is None:
            base = RunConfig()
        else:
            base = presets.read(Path(source)) if source.endswith(".toml") else presets.get(source)
        return _parse(Train, "train", spelled, default=Train(source or tyro.MISSING, base))

    # What the flags change is known only with the source, which may stand after them.
    first = arguments[0] if arguments and not arguments[0].startswith("-") else None
    asked = parse(first)
    if asked.source != first:
        asked = parse(asked.source)
    config = presets.with_table(asked.config, Path()).validate()

    from grokscope import training
    from grokscope.progress import Progress

    name = asked.run or training.free_name(training.checked_name(Path(asked.source).stem), asked.root)
    print(_announcement(config, asked.root / name), flush=True)
    with Progress(config.n_steps) as progress:
        trajectory = training.train(config, name, asked.root, observer=progress)
    _conclude(trajectory)


def resume(arguments: list[str]) -> None:
    """Go on with a run from its last commit, exact to the bit."""

    @dataclass(frozen=True)
    class Resume(_OfRun):
        """Go on with a run from its last commit, exact to the bit. A finished run is left as it is."""

        n_steps: int | None = None
        """A new, larger number of steps."""
        allow_drift: bool = False
        """Go on although the environment differs in what decides bits; this is recorded in the run."""

    asked = _parse(Resume, "resume", arguments)

    from grokscope import store, training
    from grokscope.progress import Progress

    before = _warned(store.Store(asked.folder))
    n_steps = asked.n_steps or before.record.config.n_steps
    if before.record.config.n_steps == n_steps == before.last_step:
        print(f"{asked.folder} is finished: {before.last_step:,} steps. --n-steps N makes it longer.")
        return
    print(f"Going on with {asked.folder} from step {before.last_step:,} of {n_steps:,}.", flush=True)
    with Progress(n_steps, before.last_step) as progress:
        trajectory = training.resume(asked.folder, asked.n_steps, asked.allow_drift, observer=progress)
    _conclude(trajectory)


def densify(arguments: list[str]) -> None:
    """Train a window of a run once more and add the checkpoints in it that it lacks."""

    @dataclass(frozen=True)
    class Densify(_OfRun):
        """Train steps START … STOP once more and add the checkpoints START, START + EVERY, … that the run lacks."""

        start: int
        """The first step wanted."""
        stop: int
        """The last step wanted."""
        every: int = 1
        """The number of steps from one wanted checkpoint to the next."""

    asked = _parse(Densify, "densify", arguments)

    from grokscope import store, training
    from grokscope.progress import Progress

    before = len(store.Store(asked.folder).steps)
    with Progress(asked.stop) as progress:
        trajectory = training.densify(asked.folder, asked.start, asked.stop, asked.every, observer=progress)
    print(f"{asked.folder}: {len(trajectory) - before:,} checkpoints added, {len(trajectory):,} in all.")


def measure(arguments: list[str]) -> None:
    """Measure a run at its checkpoints and save the results in RUN/measures."""

    @dataclass(frozen=True)
    class Measure(_OfRun):
        """Measure a run and save the results in RUN/measures. What was measured before is not measured again."""

        names: tyro.conf.Positional[tuple[str, ...]] = ()
        """Names that `grokscope list measures` prints; by default all."""
        thin: int | None = None
        """Measure at this many checkpoints, spread evenly; by default at all, costly measures at 24."""

    asked = _parse(Measure, "measure", arguments)

    from grokscope import measures
    from grokscope.trajectory import Trajectory

    for name in asked.names:
        plugins.load("measures", name)
    trajectory = _warned(Trajectory.open(asked.folder))
    for name in asked.names or measures.names():
        print(f"{name:<16}", end="", flush=True)
        started = time.monotonic()
        series = measures.saved(name, trajectory, asked.thin)
        took = time.monotonic() - started
        print(f"{len(series):>6,} of {len(trajectory):,} checkpoints {took:6.1f} s", flush=True)
    print(f"Saved in {measures.folder(asked.folder)}.")


def report(arguments: list[str]) -> None:
    """Write a run's figures and its report, one self-contained HTML page."""

    @dataclass(frozen=True)
    class Report(_OfRun):
        """Write a run's figures and its report, one HTML page; what is not measured yet is measured first."""

        open: bool = False
        """Open the page in the browser."""

    asked = _parse(Report, "report", arguments)

    from grokscope import report as reports
    from grokscope.trajectory import Trajectory

    path = reports.write(_warned(Trajectory.open(asked.folder)))
    print(f"figures  {path.parent / 'figures'}\nreport   {path}")
    if asked.open:
        import webbrowser

        # Without a screen Python may start a text browser, which would wait for keys.
        if sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
            webbrowser.open(path.resolve().as_uri())


def verify(arguments: list[str]) -> None:
    """Read everything that a run has saved and name whatever is damaged or lost."""

    @dataclass(frozen=True)
    class Verify(_OfRun):
        """Read everything that a run has saved and name whatever is damaged or lost; exit status 1 if anything is."""

    asked = _parse(Verify, "verify", arguments)

    from grokscope.store import Store

    run = Store(asked.folder)
    found = list(run.damage())
    for sentence in found:
        print(sentence)
    if found:
        raise GrokscopeError(
            f"{asked.folder}: {len(found)} faults. Everything else is readable; remove a damaged segment and "
            f"`grokscope densify` gives back the checkpoints that were in it."
        )
    print(f"{asked.folder}: {len(run.steps):,} checkpoints in {len(run.segments):,} segments, all intact.")


def log(arguments: list[str]) -> None:
    """Print a run's log as JSON lines: losses and accuracies at every evaluated step."""

    @dataclass(frozen=True)
    class Log(_OfRun):
        """Print a run's log as JSON lines. The row of step t belongs to the parameters after t updates."""

    asked = _parse(Log, "log", arguments)

    from grokscope.store import LOG_COLUMNS, Store

    run = Store(asked.folder)
    rows = run.log().tolist()
    _warned(run)
    for row in rows:
        print(json.dumps({**dict(zip(LOG_COLUMNS, row, strict=True)), "step": int(row[0])}))


def list_(arguments: list[str]) -> None:
    """List the tasks, optimizers, measures, presets or runs there are."""

    @dataclass(frozen=True)
    class List:
        """List the tasks, optimizers, measures, presets or runs there are."""

        what: tyro.conf.Positional[str]
        """One of: tasks, optimizers, measures, presets, runs."""
        root: Path = _ROOT
        """The folder that holds the runs."""

    asked = _parse(List, "list", arguments)
    kinds = [*plugins.BUILT_IN, "presets", "runs"]
    if asked.what in plugins.BUILT_IN:
        lines = plugins.names(asked.what)
    elif asked.what == "presets":
        from grokscope import presets

        width = max(map(len, presets.names())) + 2
        lines = [f"{name:<{width}}{_in_a_line(presets.get(name))}" for name in presets.names()]
    elif asked.what == "runs":
        from grokscope import store

        found = sorted(path.parent for path in asked.root.glob("[!.]*/config.json"))
        lines = [_run_in_a_line(store, folder) for folder in found] or [f"There is no run in {asked.root}."]
    else:
        raise _Usage(plugins.unknown("list", asked.what, kinds))
    print("\n".join(lines))


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": train,
    "resume": resume,
    "densify": densify,
    "measure": measure,
    "report": report,
    "verify": verify,
    "log": log,
    "list": list_,
}


@dataclass(frozen=True, kw_only=True)
class _OfRun:
    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The run's folder, or its name under --root."""
    root: Path = _ROOT
    """The folder that holds the runs."""

    @property
    def folder(self) -> Path:
        """The run's folder: what is a path is taken as it is, a bare name lies under the root."""
        path = Path(self.run)
        return path if len(path.parts) != 1 or path.is_absolute() or path.is_dir() else self.root / path


def _in_a_line(config: "RunConfig") -> str:
    model, optimizer = config.model, config.optimizer
    return (
        f"{_task_in_words(config)}, {config.task.train_fraction:.0%} trained on, {model.n_layers} layer"
        f"{'s' if model.n_layers > 1 else ''}, {optimizer.name} lr {optimizer.lr:g} weight decay "
        f"{optimizer.weight_decay:g}, {config.n_steps:,} steps"
    )


def _task_in_words(config: "RunConfig") -> str:
    """Return the task's name with what it is on; as short as can be said without building it."""
    place = plugins.BUILT_IN["tasks"].get(config.task.name, "")
    on = {"modular": f" mod {config.task.p}", "groups": f" in {config.task.group}"}
    return config.task.name + on.get(place.rpartition(":")[0].rpartition(".")[2], "")


def _run_in_a_line(store: Any, folder: Path) -> str:
    try:
        run = store.Store(folder)
        done = f"{run.last_step:,} of {run.record.config.n_steps:,} steps, {len(run.steps):,} checkpoints"
        return f"{folder.name:<16}{_task_in_words(run.record.config)}, {done}"
    except GrokscopeError as error:
        return f"{folder.name:<16}{error}"


def _announcement(config: "RunConfig", folder: Path) -> str:
    from grokscope import schedule
    from grokscope.optimize import Setup
    from grokscope.recorder import disk_use

    setup = Setup(config)
    n_parameters = sum(math.prod(shape) for shape in setup.model.shapes.values())
    fixed = schedule.parse(config.checkpoints).fixed_steps(config.n_steps)
    adaptive = f" and up to {config.max_checkpoints - len(fixed):,} adaptive ones"
    n_bytes = disk_use(setup)
    return "\n".join(
        [
            f"{folder}: {setup.task.formula}, {len(setup.split.train):,} of {len(setup.task.inputs):,} equations "
            f"trained on, {n_parameters:,} parameters",
            f"{len(fixed):,} fixed checkpoints{adaptive if schedule.parse(config.checkpoints).adaptive else ''} in "
            f"{config.n_steps:,} steps: about {n_bytes / 1e6:,.0f} MB on disk",
        ]
    )


def _warned(opened: _Opened) -> _Opened:
    """Return a trajectory or a store, having said on standard error what in it is damaged."""
    for sentence in opened.damaged:
        print(f"grokscope: {sentence}", file=sys.stderr)
    return opened


def _conclude(trajectory: "Trajectory") -> None:
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
