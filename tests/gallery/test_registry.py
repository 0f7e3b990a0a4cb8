"""The gallery: each figure by name, at both widths, from what is not measured yet, and its data as it is drawn."""

import csv
import dataclasses
import io
import re
import sys
import warnings
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.figure import Figure
from PIL import Image
from support.shared import command_line, make_tiny_config

from grokscope import figures, measures, plugins
from grokscope.errors import GrokscopeError
from grokscope.gallery import registry
from grokscope.series import Series
from grokscope.trajectory import Trajectory

QUICK = ["circularity", "embedding"]
SLOW = sorted({*plugins.BUILT_IN["figures"]} - {*QUICK, "cosets"})


@pytest.fixture(scope="module")
def measured(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny run that the tests here share, so that each measures what the others have not."""
    import shutil

    return shutil.copytree(tiny_run, tmp_path_factory.mktemp("gallery") / "tiny")


def drawn(name: str, run: Path, width: float) -> Figure:
    return registry.figure(name, registry.Asked(Trajectory.open(run), width=width))


def check(name: str, run: Path) -> None:
    for width in (figures.COLUMN_WIDTH, figures.PAGE_WIDTH):
        figure = drawn(name, run, width)
        assert figure.get_figwidth() == width
        # Matplotlib warns, which is an error here, where panels have no room left.
        figure.draw_without_rendering()
        inside = figure.bbox.padded(1)
        for ax in figure.axes:
            for text in (ax.xaxis.label, ax.yaxis.label, ax.title):
                box = text.get_window_extent()
                assert not text.get_text() or (box.x0 >= inside.x0 and box.x1 <= inside.x1), text
            ticks = [label.get_window_extent() for label in ax.get_xticklabels() if label.get_text()]
            assert all(one.x1 < other.x0 for one, other in zip(ticks, ticks[1:], strict=False)), ax.get_xticklabels()
        # The tiny run departs from no control, and so has no mark but its landmarks.
        assert len(figures.data(figure).splitlines()) > (0 if name == "departures" else 3)


@pytest.mark.parametrize("name", QUICK)
def test_a_figure_fits_a_column_and_a_page(name, measured):
    check(name, measured)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_a_costly_figure_fits_a_column_and_a_page(name, measured):
    check(name, measured)


def test_all_figures_are_pictures_of_measures_that_there_are():
    for name in plugins.names("figures"):
        picture = registry.get(name)
        for one in picture.measured() + picture.measured(is_moving=True):
            measures.check(one.name, **one.options)


def test_what_is_not_measured_is_measured_once_and_saved(run_copy):
    asked = registry.Asked(Trajectory.open(run_copy))
    (need,) = registry.get("weight_norms").measured()
    assert not need.is_there(asked)
    registry.figure("weight_norms", asked)
    assert need.is_there(asked) and (run_copy / "measures" / "weight_norm.safetensors").exists()


def test_a_trajectory_in_memory_has_figures_too(tiny_run):
    run = Trajectory.open(tiny_run)
    memory = Trajectory.from_state_dicts(run.config, {one.step: one.parameters for one in run})
    for name in ("losses", "weight_norms"):
        assert registry.figure(name, registry.Asked(memory)).axes


def rows(figure: Figure) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(figures.data(figure))))


def test_the_data_are_the_numbers_that_are_drawn_to_the_bit(measured):
    log = Trajectory.open(measured).log
    found = [row for row in rows(drawn("losses", measured, 7.0)) if row["panel"] == "1" and row["name"] == "test"]
    assert [float(row["x"]) for row in found] == log.steps.tolist()
    assert [float(row["y"]) for row in found] == log["test_loss"].tolist()
    assert {row["y_label"] for row in found} == {"cross-entropy (nats)"}
    assert {row["x_label"] for row in found} == {"step (optimizer updates)"}, (
        "the label below the last panel is all's"
    )


def test_the_data_of_a_circle_are_its_points_by_token(measured):
    figure = drawn("circle", measured, 7.0)
    embedding = measures.saved("embedding", Trajectory.open(measured))
    points = [row for row in rows(figure) if row["panel"] == "1" and row["name"] == "tokens"]
    there = np.array([[float(row["x"]), float(row["y"])] for row in points])
    np.testing.assert_array_equal(there, embedding["principal_components"][-1][:, :2])
    assert [int(row["index"]) for row in points] == list(range(len(there)))


def test_the_data_of_small_multiples_say_of_each_row_its_step_its_plane_and_what_it_is(measured):
    run = Trajectory.open(measured)
    embedding = measures.saved("embedding", run)
    found = rows(registry.figure("embedding", registry.Asked(run, steps=(0, 60))))
    planes = ["PC 1 and PC 2", *(f"frequency {one}" for one in embedding["plane_frequencies"][:2])]
    n = len(embedding["tokens"])
    for row, plane in enumerate(planes):
        for column, step in enumerate((0, 60)):
            there = [one for one in found if (one["title"], one["y_label"]) == (f"step {step}", plane)]
            assert {one["panel"] for one in there} == {str(1 + 2 * row + column)}
            assert [one["name"] for one in there] == ["joining line"] * (n + 1) + ["tokens"] * n
    assert {one["title"].partition(" · ")[0] for one in rows(drawn("circle", measured, 7.0))} == {"step 60"}


def test_the_data_take_a_label_from_the_same_grid_alone():
    figure = Figure()
    figure.subplots(2, 1)[0].set_title("over the column")
    figure.subplots(2, 1)[0].set_ylabel("of one panel")
    for ax in figure.axes:
        ax.plot([0], [0.0])
    named = [(row["title"], row["y_label"]) for row in rows(figure)]
    assert named == [("over the column", "")] * 2 + [("", "of one panel"), ("", "")]


def test_data_of_bars_bands_levels_maps_and_gaps():
    ax = (figure := Figure()).subplots()
    ax.bar([1, 2], [3.0, 4.0], label="bars")
    ax.fill_between([0, 1], [1, 1], [2, 2], label="_band")
    ax.axhline(0.25, label="level")
    ax.axvline(0.75, label="landmark")
    ax.axvspan(0, 1)
    ax.plot([0, 1, 2], [1.0, np.nan, 3.0], label="broken")
    ax.imshow(np.array([[5.0, 6.0]]))
    found = {(row["name"], row["x"], row["y"], row["value"]) for row in rows(figure)}
    assert {("bars", "1.0", "3.0", ""), ("bars", "2.0", "4.0", ""), ("level", "", "0.25", "")} <= found
    assert {("broken", "0.0", "1.0", ""), ("broken", "2.0", "3.0", "")} <= found
    assert {("", "0", "0", "5.0"), ("", "1", "0", "6.0"), ("band", "1.0", "2.0", "")} <= found
    assert ("landmark", "0.75", "", "") in found
    assert not any(name == "broken" and x == "1.0" for name, x, _, _ in found)


def settings() -> dict[str, object]:
    # Looking the backend up by name would choose one.
    return {name: value for name, value in dict.items(rcParams) if name != "backend"}


def test_fonts_are_in_the_files_and_the_settings_stay(measured):
    figure, before = drawn("losses", measured, 3.35), settings()
    svg, pdf = figures.encoded(figure, "svg").decode(), figures.encoded(figure, "pdf")
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf
    assert "<text" not in svg and "font-family" not in svg, "an SVG with text needs fonts that may not be there"
    assert figures.encoded(drawn("losses", measured, 3.35), "svg").decode() == svg
    assert settings() == before
    with Image.open(io.BytesIO(figures.encoded(figure, "png"))) as picture:
        assert picture.width == round(3.35 * 300)


@pytest.mark.parametrize(("width", "last"), [(figures.COLUMN_WIDTH, 400), (figures.PAGE_WIDTH, 30_000)])
def test_names_of_stages_and_legends_lie_clear_of_each_other_and_of_the_curves(width, last):
    steps = np.unique(np.geomspace(1, last, 60).astype(int))
    steps = np.insert(steps, 0, 0)
    arrays = {f"{part}_loss": np.geomspace(4, 1e-7, len(steps)) for part in ("train", "test")}
    arrays |= {"train_accuracy": (steps >= last // 20) * 1.0, "test_accuracy": (steps >= last * 0.7) * 1.0}
    figure = figures.figure_losses(Series("log", steps, arrays, {"gaps": np.empty((0, 2), int)}), width=width)
    figure.draw_without_rendering()
    names = sorted((text.get_window_extent() for text in figure.axes[0].texts), key=lambda box: box.x0)
    assert len(names) >= 2
    assert all(a.x1 < b.x0 for a, b in zip(names, names[1:], strict=False))
    for ax in figure.axes:
        legend = ax.get_legend()
        assert legend is not None
        box = legend.get_window_extent()
        paths = [line.get_transform().transform_path(line.get_path()) for line in ax.lines]
        assert not any(path.intersects_bbox(box, filled=False) for path in paths)


@pytest.mark.parametrize("last", [60, 2_100, 16_000, 26_300, 200_001, 9_999_999])
@pytest.mark.parametrize("width", [figures.COLUMN_WIDTH, figures.PAGE_WIDTH])
def test_the_numbers_of_the_steps_stand_apart_and_the_last_is_there_where_there_is_room(width: float, last: int):
    series = Series("log", np.array([0, last]), {"train_accuracy": np.zeros(2), "test_accuracy": np.zeros(2)})
    figure = figures.figure_accuracies(
        dataclasses.replace(series, constants={"gaps": np.empty((0, 2), int)}), width=width
    )
    figure.draw_without_rendering()
    labels = figure.axes[0].get_xticklabels()
    boxes = [label.get_window_extent() for label in labels]
    assert all(one.x1 < other.x0 for one, other in zip(boxes, boxes[1:], strict=False))
    if last == 60 or (width > 4 and last in (2_100, 26_300, 9_999_999)):
        assert labels[-1].get_text() == f"{last:,}"
    assert labels[0].get_text() == "0" and len(labels) >= 3


@pytest.mark.parametrize(("kind", "format"), [("gif", "GIF"), ("webp", "WEBP")])
@pytest.mark.parametrize("name", ["circle", pytest.param("slices", marks=pytest.mark.slow), "spectrum"])
def test_a_figure_that_moves_has_a_frame_a_checkpoint(name, kind, format, measured):
    trajectory = Trajectory.open(measured)
    with Image.open(io.BytesIO(registry.moving(name, registry.Asked(trajectory, width=2.0), kind))) as moving:
        assert moving.format == format and moving.is_animated and moving.n_frames == len(trajectory)  # pyright: ignore
        frames = []
        for i in range(moving.n_frames):  # pyright: ignore[reportAttributeAccessIssue]
            moving.seek(i)
            frames.append(np.asarray(moving.convert("RGB"), np.int64))
    assert all(np.abs(b - a).mean() > 0.05 for a, b in zip(frames, frames[1:], strict=False))


def draw(log: Series, norms: Series, *, width: float) -> Figure:
    figure = figures.new_figure(width, 2)
    figure.subplots().plot(norms.steps, norms["weight_norm"], label=str(len(log)))
    return figure


PICTURE = registry.Picture(draw, (registry.log, "weight_norm"))


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch):
    """Another package with a figure of its own."""

    monkeypatch.setitem(sys.modules, "strangers_package", SimpleNamespace(picture=PICTURE))
    monkeypatch.setattr(
        plugins,
        "entry_points",
        lambda group: [EntryPoint("mine", "strangers_package:picture", group)] * group.endswith("figures"),
    )
    plugins._table.cache_clear()
    yield
    plugins._table.cache_clear()


@pytest.mark.usefixtures("stranger")
def test_a_strangers_figure_is_drawn_by_name(tiny_run):
    run = Trajectory.open(tiny_run)
    memory = Trajectory.from_state_dicts(run.config, {one.step: one.parameters for one in run})
    (line,) = registry.figure("mine", registry.Asked(memory, width=3)).axes[0].lines
    assert line.get_label() == str(len(run)) and "mine" in registry.names()


def test_the_command_draws_and_writes_data_and_says_what_it_measures(run_copy, capsys, monkeypatch, tmp_path):
    run = command_line(capsys, monkeypatch, tmp_path / "here")
    status, output, errors = run("figure", "weight_norms", run_copy, "-o", "new/n.svg", "--data", "n.csv")
    assert (status, output.split()) == (0, ["figure", "new/n.svg", "data", "n.csv"])
    assert re.fullmatch(r"weight_norm +7 of 7 checkpoints +\d+\.\d s\n", errors)
    assert Path("new/n.svg").read_text().lstrip().startswith("<?xml") and "‖w‖" in Path("n.csv").read_text()
    assert run("figure", "weight_norms", run_copy, "--width", "column")[2] == "", "it is measured once"
    assert (run_copy / "figures" / "weight_norms-column.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["losse"], "Did you mean 'losses'"),
        (["losses", "-o", "x.jpg"], "allowed endings are .pdf, .svg, .png; not .jpg"),
        (["losses", "-o", "x"], "not none"),
        (["losses", "-o", "x.gif"], "does not move"),
        (["losses", "--data", "x.txt"], "ends in .csv"),
        (["circle", "-o", "x.gif", "--data", "x.csv"], "stands still"),
        (["circle", "-o", "x.gif", "--step", "10"], "shows all steps"),
        (["losses", "--step", "10"], "a step is for: circle, embedding"),
        (["embedding", "--step", "0", "--step", "99"], "step: 99; the run has checkpoints from 0 to 60"),
        (["circle", "--step", "0", "--step", "10"], "this figure is of one"),
        (["cosets"], "no cosets"),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, list) else "",
)
def test_what_cannot_be_drawn_is_refused_in_a_sentence(arguments, said, measured, capsys, monkeypatch, tmp_path):
    if arguments == ["cosets"]:
        monkeypatch.setattr(
            registry.Measured, "__call__", lambda self, asked: Series(self.name, asked.trajectory.steps, {})
        )
        monkeypatch.setattr(registry.Measured, "is_there", lambda self, asked: True)
    run = command_line(capsys, monkeypatch, tmp_path / "here")
    name, *rest = arguments
    status, _, errors = run("figure", name, measured, *rest)
    assert status == 1 and said in errors and len(errors.splitlines()) == 1
    assert not list(Path().iterdir()), "nothing was written"


def test_a_task_without_a_circle_has_no_circularity(tmp_path):
    import dataclasses

    from grokscope import tasks
    from grokscope.config import TaskConfig
    from grokscope.model import transformer

    config = dataclasses.replace(
        make_tiny_config(), task=TaskConfig(name="composition", group="S3", train_fraction=0.6)
    )
    task = tasks.build(config.task)
    start = transformer.build(config.model, task).initialize(0)
    trajectory = Trajectory.from_state_dicts(config, {0: start, 5: start})
    with warnings.catch_warnings(), pytest.raises(GrokscopeError, match="turns no circle"):
        registry.figure("circularity", registry.Asked(trajectory))
