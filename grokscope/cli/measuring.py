"""The commands that measure: `measure` and `report`."""

import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from grokscope.cli.arguments import (
    ROOT,
    RunOptions,
    UsageError,
    counted,
    measured_line,
    open_page,
    parse,
    print_damage,
    printable,
    require_names,
    require_run,
    usage_errors,
)
from grokscope.errors import GrokscopeError

if TYPE_CHECKING:
    from grokscope.series import Series
    from grokscope.trajectory import Trajectory


def measure(arguments: list[str]) -> None:
    """Measure a run at its checkpoints and save the results in RUN/measures."""

    @dataclass(frozen=True)
    class Measure(RunOptions):
        """Compute measures of RUN and save them in RUN/measures. Saved results are not computed again.

        Without NAMES, measures that do not apply to the task are skipped and listed.
        """

        names: tyro.conf.Positional[tuple[str, ...]] = ()
        """Names that `grokscope list measures` prints; by default all but local_learning_coefficient."""
        thin: int | None = None
        """The number of evenly spread checkpoints to measure; by default all, and 24, 12 or 6 for slow measures."""
        set: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="OPTION=VALUE")] = ()
        """An option of every named measure, such as seed=1; may be repeated. Without names, of those that have it."""
        jobs: int | None = None
        """Measure in this many processes of one thread each; by default in this process."""

    options = parse(Measure, "measure", arguments)
    require_names("measures", options.names)
    require_run(options.folder)

    if options.thin is not None and options.thin < 1:
        raise UsageError(f"--thin {options.thin}: allowed: a whole number from 1.")
    if options.jobs is not None and options.jobs < 1:
        raise UsageError(f"--jobs {options.jobs}: allowed: a whole number from 1.")

    from grokscope import measures
    from grokscope.measures._options import from_text
    from grokscope.trajectory import Trajectory

    with usage_errors():
        measure_options = dict(from_text(text) for text in options.set)
    names = options.names or measures.usual()
    refusals = _option_refusals(names, measure_options)
    if refusals and (options.names or len(refusals) == len(names)):
        # Of the measures that were not named, most lack an option, and some may be broken. Those that have the option
        # state what is allowed.
        reason = min(refusals.values(), key=lambda text: (" cannot be loaded: " in text, text.startswith("Unknown")))
        has_shared_options = measure_options and len(options.names) > 1
        hint = f" --set applies to every named measure: {', '.join(names)}." if has_shared_options else ""
        raise UsageError(f"{reason}{hint}")
    names = [name for name in names if name not in refusals]
    trajectory = print_damage(Trajectory.open(options.folder))
    if options.jobs is None:
        results = _saved_in_turn(names, trajectory, options.thin, measure_options)
    else:
        from grokscope.measures import _parallel

        results = _parallel.results(names, trajectory, options.jobs, options.thin, **measure_options)
    width = max(map(len, names))
    for name in names:
        print(f"{name:<{width}}", end="", flush=True)
        started = time.monotonic()
        result = next(results)
        if isinstance(result, GrokscopeError):
            print("     not measured", flush=True)
            if len(options.names) == 1:
                raise result
            refusals[name] = str(result)
        else:
            print(measured_line(result, trajectory, time.monotonic() - started), flush=True)
    names_by_reason = defaultdict(list)
    for name, reason in refusals.items():
        names_by_reason[reason].append(name)
    summary = f"{counted(len(refusals), 'measure')} skipped:\n" + "\n".join(
        f"  {', '.join(skipped)}: {reason}" for reason, skipped in names_by_reason.items()
    )
    if refusals and (options.names or not set(names) - set(refusals)):
        raise GrokscopeError(summary)
    if refusals:
        print(printable(summary))
    print(f"Saved in {measures.folder(options.folder)}.")


def _option_refusals(names: Sequence[str], options: Mapping[str, Any]) -> dict[str, str]:
    """Return the reason of each measure that cannot be loaded or does not take the options, by name."""
    from grokscope import measures

    refusals = {}
    for name in names:
        try:
            measures.check(name, **options)
        except GrokscopeError as error:
            refusals[name] = str(error)
    return refusals


def _saved_in_turn(
    names: Sequence[str], trajectory: "Trajectory", thin: int | None, options: Mapping[str, Any]
) -> Iterator["Series | GrokscopeError"]:
    """Yield each measure's series or refusal; after one measure finds a damaged checkpoint, the next ones skip it."""
    from grokscope import measures

    for name in names:
        try:
            series = measures.saved(name, trajectory, thin, **options)
        except GrokscopeError as error:
            if not measures.is_refusal(error):
                raise
            yield error
        else:
            trajectory = measures.sound_trajectory(series, trajectory) or trajectory
            yield series


def report(arguments: list[str]) -> None:
    """Write a run's report: its log and measures on one interactive HTML page."""

    @dataclass(frozen=True)
    class Report:
        """Write a run's report, one HTML page. Measures that it needs and that are missing are computed first.

        Several runs, or the cells of a sweep, are compared on one page, with the measures that are saved.
        """

        runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN …")]
        """The folders of runs or of one sweep, or their names under --root."""
        cells: bool = False
        """Also write and link a page for each cell of a sweep. Missing measures take about 20 s per cell."""
        root: Path = ROOT
        """The folder that contains the runs."""
        output: Annotated[Path | None, tyro.conf.arg(aliases=("-o",), metavar="FILE")] = None
        """The page to write; by default RUN/report.html, SWEEP/report.html, or comparison-RUN-RUN….html."""
        open: bool = False
        """Open the page in the browser."""

    options = parse(Report, "report", arguments)
    folders = [RunOptions(run=name, root=options.root).folder for name in options.runs]
    if not folders:
        raise UsageError("report needs at least one RUN. `grokscope list runs` lists them.")
    is_sweep = len(folders) == 1 and (folders[0] / "sweep.json").is_file()
    if options.cells and not is_sweep:
        raise UsageError("--cells needs exactly one sweep.")
    if not is_sweep:
        for folder in folders:
            require_run(folder)

    from grokscope import report as reports
    from grokscope.trajectory import Trajectory

    failed = _report_cells(folders[0]) if options.cells else {}
    if len(folders) > 1 or is_sweep:
        path = reports.write_comparison(folders, options.output)
        print(f"report   {path}")
    else:
        path = reports.write(print_damage(Trajectory.open(folders[0])), options.output, _print_measuring)
        print(f"report   {path}")
    if options.open:
        open_page(path.resolve().as_uri())
    if failed:
        raise GrokscopeError(
            f"{counted(len(failed), 'cell')} could not be reported:\n"
            + "\n".join(f"  {name}: {reason}" for name, reason in failed.items())
        )


def _print_measuring(name: str) -> None:
    """Print on a terminal which measure is computed now."""
    if sys.stderr.isatty():
        print(f"measuring {name} …", file=sys.stderr, flush=True)


def _report_cells(folder: Path) -> dict[str, GrokscopeError]:
    """Write the page of each cell that has started; return the errors of the others, by name."""
    from grokscope import report as reports
    from grokscope.sweep import sweep_folder
    from grokscope.trajectory import Trajectory

    failed: dict[str, GrokscopeError] = {}
    for cell in sweep_folder.load(folder).cells:
        if not (folder / cell.name).is_dir():
            continue
        try:
            path = reports.write(print_damage(Trajectory.open(folder / cell.name)), observer=_print_measuring)
        except GrokscopeError as error:
            failed[cell.name] = error
        else:
            print(f"report   {path}", flush=True)
    return failed
