"""The built-in figures of a run: they fit both widths, and their data are the numbers of the run."""

import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from grokscope import figures, measures, plugins
from grokscope.gallery import registry
from grokscope.trajectory import Trajectory

QUICK = ["circularity", "embedding"]
# The tiny run's task has no cosets.
SLOW = sorted({*plugins.BUILT_IN["figures"]} - {*QUICK, "cosets"})


@pytest.fixture(scope="module")
def measured(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny run, shared so that each test evaluates only the measures that are still missing."""
    return shutil.copytree(tiny_run, tmp_path_factory.mktemp("gallery") / "tiny")


def draw(name: str, run: Path, width: float) -> Figure:
    return registry.figure(name, registry.FigureRequest(Trajectory.open(run), width=width))


def rows(figure: Figure) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(figures.data(figure))))


def assert_fits(name: str, run: Path) -> None:
    """Draw a figure at both widths. Matplotlib warns, which is an error here, if panels have no room left."""
    for width in (figures.COLUMN_WIDTH, figures.PAGE_WIDTH):
        figure = draw(name, run, width)
        assert figure.get_figwidth() == width
        figure.draw_without_rendering()
        inside = figure.bbox.padded(1)
        for ax in figure.axes:
            for text in (ax.xaxis.label, ax.yaxis.label, ax.title):
                box = text.get_window_extent()
                assert not text.get_text() or (box.x0 >= inside.x0 and box.x1 <= inside.x1), text
            ticks = [label.get_window_extent() for label in ax.get_xticklabels() if label.get_text()]
            overlaps = [left.x1 >= right.x0 for left, right in zip(ticks, ticks[1:], strict=False)]
            assert not any(overlaps), ax.get_xticklabels()
        # The tiny run leaves no control, so this figure draws its landmarks only.
        assert len(figures.data(figure).splitlines()) > (0 if name == "departures" else 3)


@pytest.mark.parametrize("name", QUICK)
def test_figure_fits_a_column_and_a_page(name, measured):
    assert_fits(name, measured)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_costly_figure_fits_a_column_and_a_page(name, measured):
    assert_fits(name, measured)


def test_every_picture_needs_existing_measures_and_options():
    for name in plugins.names("figures"):
        picture = registry.get(name)
        for need in picture.measured() + picture.measured(is_moving=True):
            measures.check(need.name, **need.options)


def test_data_of_losses_equals_the_log_exactly(measured):
    log = Trajectory.open(measured).log
    points = [row for row in rows(draw("losses", measured, 7.0)) if row["panel"] == "1" and row["name"] == "test"]
    assert [float(row["x"]) for row in points] == log.steps.tolist()
    assert [float(row["y"]) for row in points] == log["test_loss"].tolist()
    assert {row["y_label"] for row in points} == {"softmax loss (nats)"}
    assert {row["x_label"] for row in points} == {"optimizer step"}, "the label of the last panel applies to all"


def test_data_of_a_circle_is_a_point_per_token(measured):
    figure = draw("circle", measured, 7.0)
    embedding = measures.saved("embedding", Trajectory.open(measured))
    points = [row for row in rows(figure) if row["panel"] == "1" and row["name"] == "tokens"]
    coordinates = np.array([[float(row["x"]), float(row["y"])] for row in points])
    np.testing.assert_array_equal(coordinates, embedding["principal_components"][-1][:, :2])
    assert [int(row["index"]) for row in points] == list(range(len(coordinates)))


def test_data_of_small_multiples_has_step_plane_and_curve(measured):
    run = Trajectory.open(measured)
    embedding = measures.saved("embedding", run)
    table = rows(registry.figure("embedding", registry.FigureRequest(run, steps=(0, 60))))
    planes = ["PCs 1 and 2", *(f"frequency {frequency}" for frequency in embedding["plane_frequencies"][:2])]
    n = len(embedding["tokens"])
    for row, plane in enumerate(planes):
        for column, step in enumerate((0, 60)):
            points = [point for point in table if (point["title"], point["y_label"]) == (f"step {step}", plane)]
            assert {point["panel"] for point in points} == {str(1 + 2 * row + column)}
            assert [point["name"] for point in points] == ["joining line"] * (n + 1) + ["tokens"] * n
    titles = {point["title"].partition(" · ")[0] for point in rows(draw("circle", measured, 7.0))}
    assert titles == {"step 60"}


@pytest.mark.parametrize(("kind", "format"), [("gif", "GIF"), ("webp", "WEBP")])
@pytest.mark.parametrize("name", ["circle", pytest.param("slices", marks=pytest.mark.slow), "spectrum"])
def test_animation_has_a_frame_per_checkpoint(name, kind, format, measured):
    trajectory = Trajectory.open(measured)
    animation = registry.moving(name, registry.FigureRequest(trajectory, width=2.0), kind)
    with Image.open(io.BytesIO(animation)) as moving:
        assert moving.format == format and moving.is_animated and moving.n_frames == len(trajectory)  # pyright: ignore
        frames = []
        for i in range(moving.n_frames):  # pyright: ignore[reportAttributeAccessIssue]
            moving.seek(i)
            frames.append(np.asarray(moving.convert("RGB"), np.int64))
    assert all(np.abs(b - a).mean() > 0.05 for a, b in zip(frames, frames[1:], strict=False))
