"""The report: everything that was measured of a run on one page that moves through its steps, in one file."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from grokscope import measures
from grokscope.disk import atomic
from grokscope.errors import GrokscopeError
from grokscope.report import comparison, page
from grokscope.report.commands import Again, again
from grokscope.report.quantities import name_of
from grokscope.report.sentences import Finding, details, findings, summary
from grokscope.series import Series
from grokscope.store.run_store import Record
from grokscope.trajectory import Trajectory

__all__ = [
    "Again",
    "Finding",
    "again",
    "details",
    "findings",
    "measure_cheap",
    "summary",
    "usual",
    "write",
]

_BESIDE = ("weight_norm", "sharpness", "attention", "example_loss")
"""What a report measures beside the embedding."""
_OF_CIRCLES = {"fourier": 60, "progress": 30}
_OF_GROUPS, _LARGEST_GROUP = {"representations": 12}, 120
"""What a report measures of a task with a circle, or in a group of that size at most that turns none, unless it was
measured before, and at how many checkpoints."""


def write(trajectory: Trajectory) -> Path:
    """Measure what is cheap and not measured yet, write RUN/report.html, and return its path.

    Whatever else lies in RUN/measures is on the page too. Raise GrokscopeError for a trajectory in memory, and for an
    I/O error.
    """
    folder = trajectory.path
    if folder is None:
        raise GrokscopeError("A trajectory in memory has no folder for a report.")
    refused = measure_cheap(trajectory)
    found, record = measures.kept(trajectory), Record.read(folder)
    path = folder / "report.html"
    try:
        written = page.of_run(trajectory, usual(found, trajectory), found, record, refused=refused)
    except (ValueError, TypeError, LookupError) as error:
        # Checksums say that a file is whole, not that a measure of ours wrote it.
        raise GrokscopeError(
            f"{measures.folder(folder)} holds what no measure gives ({error}); move it away, and it is measured anew."
        ) from error
    atomic.write_atomic(path, written)
    return path


def write_comparison(folders: Sequence[Path], path: Path | None = None) -> Path:
    """Write a page on which several runs, or the cells of one sweep, stand beside each other, and return its path.

    By default it is SWEEP/report.html, or comparison.html in the folder that holds the first run. Nothing is measured
    for it; what all of them have saved of norms, sharpness and the embedding can be compared. It links to those of
    the runs' own pages that there are. Raise GrokscopeError for a folder that is neither run nor sweep, if nothing in
    them can be read, and for an I/O error.
    """
    is_sweep = len(folders) == 1 and (folders[0] / "sweep.json").is_file()
    entries, about = comparison.of_sweep(folders[0]) if is_sweep else comparison.of_folders(folders)
    usual_path = folders[0] / "report.html" if is_sweep else folders[0].parent / "comparison.html"
    cells_of = folders[0] if is_sweep else None
    atomic.write_atomic(path or usual_path, comparison.write(entries, about, path or usual_path, cells_of))
    return path or usual_path


def measure_cheap(trajectory: Trajectory) -> list[str]:
    """Measure what a report needs and was not measured yet, and save it; return why some could not be measured.

    That is the embedding, norms, sharpness at a few checkpoints, attention, the loss of each equation; where the task
    has a circle the Fourier spectra and the progress measures at a few checkpoints, and where it is a composition in
    another group of at most 120 elements its representations. Raise GrokscopeError where the embedding cannot be.
    """
    task = trajectory.task
    measures.saved("embedding", trajectory)
    more = _OF_CIRCLES
    if task.circle is None:
        more = _OF_GROUPS if task.is_composition and task.n_elements <= _LARGEST_GROUP else {}
    there = usual(measures.kept(trajectory), trajectory) if more else {}
    refused = []
    for name in (*_BESIDE, *sorted(more.keys() - there.keys())):
        try:
            measures.saved(name, trajectory, more.get(name))
        except GrokscopeError as error:
            refused.append(f"The measure {name} is not on this page: {error}")
    return refused


def usual(found: Iterable[Series], trajectory: Trajectory) -> dict[str, Series]:
    """Return by name the series with the usual options that reach the last checkpoint, of several the longest."""
    chosen: dict[str, Series] = {}
    for series in found:
        is_current = name_of(series) == series.measure and series.steps[-1] == trajectory.steps[-1]
        if is_current and len(series) > len(chosen.get(series.measure, ())):
            chosen[series.measure] = series
    return chosen
