"""The report: one interactive HTML file that shows everything measured of a run, or compares several runs."""

import hashlib
import html
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from grokscope import measures
from grokscope.disk import atomic
from grokscope.errors import GrokscopeError
from grokscope.report import comparison, page
from grokscope.report.commands import Recipe, retraining_recipe
from grokscope.report.quantities import name_of
from grokscope.report.sentences import Headline, details, headlines, summary
from grokscope.series import Series
from grokscope.store.run_store import Record
from grokscope.tasks.pair_table import has_pair_table
from grokscope.trajectory import Trajectory

__all__ = [
    "Headline",
    "Recipe",
    "default_series",
    "details",
    "headlines",
    "measure_cheap",
    "retraining_recipe",
    "show",
    "summary",
    "write",
    "write_comparison",
]

_ALWAYS_MEASURED = ("weight_norm", "sharpness", "attention", "example_loss")
"""What a report measures of every task, apart from the embedding."""
_MEASURED_OF_CIRCLES = {"fourier": 60, "progress": 30}
"""What a report measures of a task with a circle, and at how many checkpoints."""
_MEASURED_OF_GROUPS, _LARGEST_GROUP = {"representations": 12}, 120
"""What a report measures of other groups up to this size, and at how many checkpoints."""
_LONGEST_NAME = 80
"""How many characters of the runs' names the name of a comparison's page contains."""


def write(trajectory: Trajectory, path: Path | None = None, observer: Callable[[str], None] | None = None) -> Path:
    """Measure what is cheap and missing, write the page, and return its path.

    The page also shows every other valid series in RUN/measures. New series are saved there. If the run's folder
    cannot be written, they are only on the page.

    Args:
        trajectory: The run, opened from its folder.
        path: Where to write the page; by default RUN/report.html.
        observer: A function that is called with the name of each missing measure before it is computed.

    Raises:
        GrokscopeError: The trajectory is in memory, the embedding cannot be measured, a saved measure makes no sense,
            or the file cannot be written.
    """
    folder = trajectory.path
    if folder is None:
        raise GrokscopeError(
            "A trajectory in memory has no folder for a report. Allowed: a run opened with Trajectory.open."
        )
    trajectory, unsaved, refusals = measure_cheap(trajectory, observer)
    all_series, record = [*measures.kept(trajectory), *unsaved], Record.read(folder)
    path = path or folder / "report.html"
    try:
        content = page.render_run(
            trajectory, default_series(all_series, trajectory), all_series, record, warnings=refusals
        )
    except (ValueError, TypeError, LookupError) as error:
        # A valid checksum proves that the file is intact, not that grokscope wrote it.
        raise GrokscopeError(
            f"{measures.folder(folder)} contains a series that does not match its measure ({error}). "
            "Move the folder away; the next report measures the run again."
        ) from error
    atomic.make_folder(path.parent)
    atomic.write_atomic(path, content)
    return path


class Shown:
    """A page that a notebook displays in a frame of its own: Jupyter, Colab, marimo and VS Code."""

    def __init__(self, page: str, height: int):
        self._page, self._height = page, height

    def _repr_html_(self) -> str:
        # The page is an attribute, so it needs no server. The sandbox keeps its scripts out of the notebook.
        return (
            f'<iframe srcdoc="{html.escape(self._page)}" sandbox="allow-scripts allow-downloads" '
            f'style="width: 100%; height: {self._height}px; border: 0"></iframe>'
        )


def show(run: Trajectory | Path | str, height: int = 800) -> Shown:
    """Write the report of a run, and return it for display as the last value of a notebook's cell.

    Args:
        run: The run, or its folder.
        height: The height of the frame in pixels.

    Raises:
        GrokscopeError: As for `write`.
    """
    trajectory = run if isinstance(run, Trajectory) else Trajectory.open(run)
    return Shown(write(trajectory).read_text("utf-8"), height)


def write_comparison(folders: Sequence[Path], path: Path | None = None) -> Path:
    """Write a page that compares several runs, or the cells of one sweep, and return its path.

    Nothing is measured: the page compares the logs and the saved norms, sharpness, embeddings and progress measures.
    It links to the runs' own pages where they exist.

    Args:
        folders: The folders of the runs, or the folder of one sweep.
        path: Where to write the page; by default SWEEP/report.html, or next to the first run
            comparison-RUN-RUN….html with the names of the runs, so that another comparison has another page.

    Raises:
        GrokscopeError: A folder is neither a run nor a sweep, none of the runs has a readable log, or the file cannot
            be written.
    """
    if len(folders) == 1 and (folders[0] / "sweep.json").is_file():
        sweep = folders[0]
        path = path or sweep / "report.html"
        content = comparison.render(*comparison.open_sweep(sweep), path, sweep)
    else:
        path = path or folders[0].parent / f"comparison-{_joined_names(folders)}.html"
        content = comparison.render(comparison.open_runs(folders), "", path)
    atomic.make_folder(path.parent)
    atomic.write_atomic(path, content)
    return path


def _joined_names(folders: Sequence[Path]) -> str:
    """Return the names of runs as a part of a file's name; a long list is cut, and gets a hash of all names."""
    names = "-".join(folder.resolve().name for folder in folders)
    if len(names) <= _LONGEST_NAME:
        return names
    return f"{names[:_LONGEST_NAME]}-{hashlib.sha256(names.encode()).hexdigest()[:8]}"


def measure_cheap(
    trajectory: Trajectory, observer: Callable[[str], None] | None = None
) -> tuple[Trajectory, list[Series], list[str]]:
    """Measure what a report needs and the run lacks, and save it in RUN/measures.

    - every task: the embedding, norms, sharpness at a few checkpoints, attention, the loss of each equation;
    - a task of pairs with a circle: the Fourier spectra and the progress measures at a few checkpoints;
    - a composition in another group of at most 120 elements: its representations.

    Args:
        trajectory: The run, opened from its folder.
        observer: A function that is called with the name of each missing measure before it is computed.

    Returns:
        The trajectory without the checkpoints that turned out to be damaged, the series that could not be saved
        because the folder cannot be written, and one sentence for each measure that refused.

    Raises:
        GrokscopeError: The embedding cannot be measured.
    """
    task = trajectory.task
    unsaved: list[Series] = []

    def measured(name: str, thin: int | None = None) -> Trajectory:
        request = measures.MeasureRequest.thinned(name, trajectory, {}, thin)
        series = measures.find(request)
        if series is None:
            if observer:
                observer(name)
            series = request.evaluate()
            try:
                measures.keep(series, request.trajectory)
            except GrokscopeError as error:
                if not isinstance(error.__cause__, OSError):
                    raise
                unsaved.append(series)
        return measures.sound_trajectory(series, trajectory) or trajectory

    trajectory = measured("embedding")
    thinned = _MEASURED_OF_CIRCLES
    if not has_pair_table(task):
        thinned = {}
    elif task.circle is None:
        n_elements = task.n_elements if task.torus is None else task.torus.numel()
        is_small = (task.is_composition or task.torus is not None) and n_elements <= _LARGEST_GROUP
        thinned = _MEASURED_OF_GROUPS if is_small else {}
    present = default_series(measures.kept(trajectory), trajectory) if thinned else {}
    refusals = []
    for name in (*_ALWAYS_MEASURED, *sorted(thinned.keys() - present.keys())):
        try:
            trajectory = measured(name, thinned.get(name))
        except GrokscopeError as error:
            refusals.append(f"The measure {name} is not on this page: {error}")
    return trajectory, unsaved, refusals


def default_series(all_series: Iterable[Series], trajectory: Trajectory) -> dict[str, Series]:
    """Return by name the longest series of each measure with default options that includes the last checkpoint."""
    longest: dict[str, Series] = {}
    for series in all_series:
        is_current = name_of(series) == series.measure and series.steps[-1] == trajectory.steps[-1]
        if is_current and len(series) > len(longest.get(series.measure, ())):
            longest[series.measure] = series
    return longest
