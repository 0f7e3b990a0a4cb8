"""Commands that read: measure, report, verify, log, list."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from grokscope import files, plugins, splits
from grokscope.cli.base import ROOT, OfRun, Usage, open_page, parse, shown, states, warned
from grokscope.errors import GrokscopeError
from grokscope.fields import plainly

if TYPE_CHECKING:
    from grokscope.config import RunConfig


def measure(arguments: list[str]) -> None:
    """Measure a run at its checkpoints and save the results in RUN/measures."""

    @dataclass(frozen=True)
    class Measure(OfRun):
        """Measure a run and save the results in RUN/measures. What was measured before is not measured again."""

        names: tyro.conf.Positional[tuple[str, ...]] = ()
        """Names that `grokscope list measures` prints; by default all but local_learning_coefficient."""
        thin: int | None = None
        """Measure at this many checkpoints, spread evenly; by default at all, costly measures at 24, 12 or 6."""
        set: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="OPTION=VALUE")] = ()
        """An option of the measures that are named, such as seed=1; may be given several times."""
        jobs: int | None = None
        """Measure in this many processes of one thread each; by default in this one."""

    asked = parse(Measure, "measure", arguments)

    from grokscope import measures
    from grokscope.options import from_text
    from grokscope.trajectory import Trajectory

    options = dict(from_text(text) for text in asked.set)
    names = asked.names or measures.usual()
    for name in names:
        try:
            measures.check(name, **options)
        except GrokscopeError as error:
            hint = f" --set is for all measures named: {', '.join(names)}." if options and len(names) > 1 else ""
            raise GrokscopeError(f"{error}{hint}") from error
    trajectory = warned(Trajectory.open(asked.folder))
    if asked.jobs is None:
        measured = (measures.saved(name, trajectory, asked.thin, **options) for name in names)
    else:
        from grokscope import jobs

        measured = jobs.measure(names, trajectory, asked.jobs, asked.thin, **options)
    for name in names:
        print(f"{name:<16}", end="", flush=True)
        started = time.monotonic()
        series = next(measured)
        took = time.monotonic() - started
        print(f"{len(series):>6,} of {len(trajectory):,} checkpoints {took:6.1f} s", flush=True)
    print(f"Saved in {measures.folder(asked.folder)}.")


def report(arguments: list[str]) -> None:
    """Write a run's report: everything that was measured of it on one interactive HTML page."""

    @dataclass(frozen=True)
    class Report:
        """Write a run's report, one HTML page; what it needs and is not measured yet is measured first.

        Several runs, or a sweep, come on one page beside each other, as they are measured.
        """

        runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN …")]
        """The folders of runs, or one of a sweep, or their names under --root."""
        cells: bool = False
        """Of a sweep, write each cell's own page first, to which its square then leads. That measures each cell that
        was not measured yet, some 20 s each."""
        root: Path = ROOT
        """The folder that holds the runs."""
        open: bool = False
        """Open the page in the browser."""

    asked = parse(Report, "report", arguments)

    from grokscope import report as reports
    from grokscope.trajectory import Trajectory

    folders = [OfRun(run=name, root=asked.root).folder for name in asked.runs]
    if not folders:
        raise Usage("report needs a RUN, or several; `grokscope list runs` shows those there are.")
    is_sweep = len(folders) == 1 and (folders[0] / "sweep.json").is_file()
    if asked.cells and not is_sweep:
        raise Usage("--cells goes with one sweep.")
    failed = _report_cells(folders[0]) if asked.cells else {}
    if len(folders) > 1 or is_sweep:
        path = reports.write_comparison(folders)
        print(f"report   {path}")
    else:
        path = reports.write(warned(Trajectory.open(folders[0])))
        print(f"report   {path}")
    if asked.open:
        open_page(path.resolve().as_uri())
    if failed:
        raise GrokscopeError(
            f"{len(failed)} cell{'s' * (len(failed) > 1)} could not be reported:\n"
            + "\n".join(f"  {name}: {reason}" for name, reason in failed.items())
        )


def _report_cells(folder: Path) -> dict[str, GrokscopeError]:
    """Write the page of each cell of a sweep that was begun; return what was wrong with those that have none."""
    from grokscope import report as reports
    from grokscope import sweep as sweeps
    from grokscope.trajectory import Trajectory

    failed: dict[str, GrokscopeError] = {}
    for cell in sweeps.load(folder).cells:
        if not (folder / cell.name).is_dir():
            continue
        try:
            path = reports.write(warned(Trajectory.open(folder / cell.name)))
        except GrokscopeError as error:
            failed[cell.name] = error
        else:
            print(f"report   {path}", flush=True)
    return failed


def verify(arguments: list[str]) -> None:
    """Read everything that a run has saved and name whatever is damaged or lost."""

    @dataclass(frozen=True)
    class Verify(OfRun):
        """Read everything that a run has saved and name whatever is damaged or lost; exit status 1 if anything is."""

    asked = parse(Verify, "verify", arguments)

    from grokscope import damage
    from grokscope.store import Store

    run = Store(asked.folder)
    found = list(damage.faults(run))
    for fault in found:
        print(shown(fault.sentence))
    open_faults = [fault for fault in found if not fault.is_mended]
    if open_faults:
        remedies = dict.fromkeys(fault.remedy for fault in open_faults if fault.remedy)
        rest = "Everything else is readable." if run.segments else "Nothing is readable."
        said = f"{asked.folder}: {len(open_faults)} fault{'s' * (len(open_faults) > 1)}. {rest}"
        raise GrokscopeError("\n".join([said, *(f"  {remedy}" for remedy in remedies)]))
    there = f"{asked.folder}: {len(run.steps):,} checkpoints in {len(run.segments):,} segments"
    print(f"{there}; all that can be had again is there." if found else f"{there}, all intact.")


def log(arguments: list[str]) -> None:
    """Print a run's log as JSON lines: losses and accuracies at every evaluated step."""

    @dataclass(frozen=True)
    class Log(OfRun):
        """Print a run's log as JSON lines. The row of step t belongs to the parameters after t updates."""

    asked = parse(Log, "log", arguments)

    from grokscope.store import LOG_COLUMNS, Store

    run = Store(asked.folder)
    rows = run.log().tolist()
    warned(run)
    for row in rows:
        print(json.dumps({**dict(zip(LOG_COLUMNS, row, strict=True)), "step": int(row[0])}))


def list_(arguments: list[str]) -> None:
    """List the tasks, optimizers, measures, figures, presets or runs there are."""

    @dataclass(frozen=True)
    class List:
        """List the tasks, optimizers, measures, figures, presets or runs there are."""

        what: tyro.conf.Positional[str]
        """One of: tasks, optimizers, measures, figures, presets, runs."""
        root: Path = ROOT
        """The folder that holds the runs."""

    asked = parse(List, "list", arguments)
    kinds = [*plugins.BUILT_IN, "presets", "runs"]
    if asked.what in plugins.BUILT_IN:
        lines = plugins.names(asked.what)
    elif asked.what == "presets":
        from grokscope import presets

        width = max(map(len, presets.names())) + 2
        lines = [f"{name:<{width}}{_in_a_line(presets.get(name))}" for name in presets.names()]
    elif asked.what == "runs":
        from grokscope import store

        folders = _folders(asked.root)
        runs = [folder for folder in folders if _is_run(folder)]
        lines = [_run_in_a_line(store, folder) for folder in runs]
        lines += [_sweep_in_a_line(one) for one in folders if one not in runs and files.is_there(one / "sweep.json")]
        lines = lines or [f"There is no run in {asked.root}."]
    else:
        raise Usage(plugins.unknown("list", asked.what, kinds))
    print("\n".join(shown(line) for line in lines))


def _folders(root: Path) -> list[Path]:
    """Return what is in the root and not hidden; nothing if there is no root. Raise OSError if it cannot be read."""
    try:
        return sorted(root / name for name in os.listdir(root) if not name.startswith("."))
    except FileNotFoundError:
        return []


def _is_run(folder: Path) -> bool:
    """Whether a folder is a run, or may be one and cannot be looked into, which its line then says."""
    try:
        return files.is_there(folder / "config.json")
    except GrokscopeError:
        return True


def _in_a_line(config: "RunConfig") -> str:
    model, optimizer = config.model, config.optimizer
    parts = [
        f"{_task_in_words(config)}",
        f"{config.task.train_fraction:.0%} trained on",
        f"{model.n_layers} layer{'s' if model.n_layers > 1 else ''}",
        f"{optimizer.name} lr {optimizer.lr:g}" + f" decay {optimizer.weight_decay:g}" * bool(optimizer.weight_decay),
        "to initialization" * (optimizer.decay_centre != "zero"),
        f"update noise {optimizer.update_noise:g}" * bool(optimizer.update_noise),
        f"weight noise {optimizer.weight_noise:g}" * bool(optimizer.weight_noise),
        f"dropout {config.residual_dropout:g}" * bool(config.residual_dropout),
        f"batch {config.batch_size}" if config.batch_size else "full batch",
        f"{config.n_steps:,} steps",
    ]
    return ", ".join(part for part in parts if part)


def _task_in_words(config: "RunConfig") -> str:
    """Return the task's name with what it is on; as short as can be said without building it."""
    on = {"modular": f" mod {config.task.p}", "groups": f" in {config.task.group}"}
    return config.task.name + on.get(splits.family(config.task.name), "")


def _run_in_a_line(store: Any, folder: Path) -> str:
    try:
        run = store.Store(folder)
        if not run.segments:
            raise GrokscopeError(" ".join(run.damaged))
        done = f"{run.last_step:,} of {run.record.config.n_steps:,} steps, {len(run.steps):,} checkpoints"
        if run.record.imported:
            done = f"imported, {len(run.steps):,} checkpoints to step {run.record.config.n_steps:,}"
        origin = run.record.origin
        done += f", forked from {origin['run']} at {origin['step']:,}" if origin else ""
        done += "; something is lost, see `grokscope verify`" if run.damaged or run.gaps else ""
        return f"{plainly(folder.name):<24} {_task_in_words(run.record.config)}, {done}"
    except GrokscopeError as error:
        return f"{plainly(folder.name):<24} {error}"


def _sweep_in_a_line(folder: Path) -> str:
    from grokscope import sweep

    try:
        plan = sweep.load(folder)
        return f"{plainly(folder.name):<24} sweep, {states(plan, folder)}"
    except GrokscopeError as error:
        return f"{plainly(folder.name):<24} {error}"
