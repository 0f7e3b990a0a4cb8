"""The commands that measure: `measure` and `report`."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from grokscope.cli.arguments import ROOT, OfRun, UsageError, open_page, parse, warned
from grokscope.errors import GrokscopeError

if TYPE_CHECKING:
    from grokscope.series import Series
    from grokscope.trajectory import Trajectory


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
    from grokscope.measures._options import from_text
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
        measured = _saved_in_turn(names, trajectory, asked.thin, options)
    else:
        from grokscope.measures import _parallel

        measured = _parallel.measure(names, trajectory, asked.jobs, asked.thin, **options)
    for name in names:
        print(f"{name:<16}", end="", flush=True)
        started = time.monotonic()
        series = next(measured)
        took = time.monotonic() - started
        print(f"{len(series):>6,} of {len(trajectory):,} checkpoints {took:6.1f} s", flush=True)
    print(f"Saved in {measures.folder(asked.folder)}.")


def _saved_in_turn(
    names: Sequence[str], trajectory: "Trajectory", thin: int | None, options: Mapping[str, Any]
) -> Iterator["Series"]:
    """Yield each measure; a checkpoint that one measure finds damaged is left out by the next ones."""
    from grokscope import measures

    for name in names:
        series = measures.saved(name, trajectory, thin, **options)
        trajectory = measures.sound_trajectory(series, trajectory) or trajectory
        yield series


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
        raise UsageError("report needs a RUN, or several; `grokscope list runs` shows those there are.")
    is_sweep = len(folders) == 1 and (folders[0] / "sweep.json").is_file()
    if asked.cells and not is_sweep:
        raise UsageError("--cells goes with one sweep.")
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
    from grokscope.sweep import sweep_folder
    from grokscope.trajectory import Trajectory

    failed: dict[str, GrokscopeError] = {}
    for cell in sweep_folder.load(folder).cells:
        if not (folder / cell.name).is_dir():
            continue
        try:
            path = reports.write(warned(Trajectory.open(folder / cell.name)))
        except GrokscopeError as error:
            failed[cell.name] = error
        else:
            print(f"report   {path}", flush=True)
    return failed
