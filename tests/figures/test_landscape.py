"""Figures of the landscape show the numbers that were given."""

import io

import numpy as np
import pytest
from PIL import Image

from grokscope import figures
from grokscope.series import LabelledArrays, Series

STEPS = np.array([0, 100, 200, 5_000])
LOG = Series(
    "log",
    STEPS,
    {"train_accuracy": np.array([0.1, 1, 1, 1]), "test_accuracy": np.array([0, 0.1, 0.5, 1.0])},
)


def scan(axes: dict[str, np.ndarray]) -> LabelledArrays:
    """Return a scan whose losses are all different."""
    shape = tuple(len(one) for one in axes.values())
    values = np.arange(1.0, 1 + np.prod(shape)).reshape(shape)
    return LabelledArrays(axes, {"train_loss": values / 1e3, "test_loss": values})


@pytest.fixture
def slices() -> LabelledArrays:
    return scan({"step": STEPS, "direction": np.array(["random 0", "random 1"]), "alpha": np.linspace(-1, 1, 5)})


def test_a_line_between_two_has_train_and_test():
    line = scan({"t": np.linspace(0, 1, 5)})
    (ax,) = figures.figure_interpolation(line).axes
    shown = [np.asarray(one.get_ydata()).tolist() for one in ax.lines]
    assert shown == [line["train_loss"].tolist(), line["test_loss"].tolist()]


def test_a_slice_has_a_line_a_direction_and_their_median(slices: LabelledArrays):
    ax = figures.plot_slice(slices, ax=figures.new_figure(3, 2).subplots(), step=150)
    assert ax.get_title() in ("step 100", "step 200")
    drawn = [np.asarray(one.get_ydata()) for one in ax.lines]
    values = slices["train_loss"][1]
    np.testing.assert_array_equal(drawn[0], values[0])
    np.testing.assert_array_equal(drawn[2], np.median(values, 0))
    assert ax.get_legend_handles_labels()[1] == ["train", "test"]


def test_slices_have_a_panel_a_step_on_one_scale(slices: LabelledArrays):
    figure = figures.figure_slices(slices)
    assert [ax.get_title() for ax in figure.axes] == ["step 0", "step 100", "step 200", "step 5,000"]
    assert len({ax.get_ylim() for ax in figure.axes}) == 1
    figures.png(figure, dpi=40)


def test_the_animation_has_a_frame_a_step(slices: LabelledArrays):
    with Image.open(io.BytesIO(figures.slice_animation(slices, LOG, width=2))) as image:
        assert image.format == "WEBP" and getattr(image, "n_frames", 1) == 4
    assert figures.slice_animation(slices, None, width=2) != figures.slice_animation(slices, LOG, width=2)


def test_a_path_and_its_telling_points_lie_on_its_plane():
    grid = scan({"first": np.linspace(-1, 9, 4), "second": np.linspace(-2, 2, 3)})
    places = {"first": np.array([8.0, 6, 3, 0]), "second": np.array([0.0, 1, 1, 0])}
    path = LabelledArrays({"step": STEPS}, {**places, "train_loss": np.ones(4), "test_loss": np.ones(4)})
    shares = {
        "explained_variance_ratio": np.array([0.8, 0.15]),
        "explained_variance_ratio_random_walk": np.array([0.61, 0.152]),
    }
    components = LabelledArrays({"component": np.array([1, 2])}, shares)
    figure = figures.figure_path_plane((grid, path, components), LOG)
    train = figure.axes[0]
    assert train.get_xlabel() == "component 1: 80% (random walk 61%)"
    assert train.get_title() == "train loss (nats)" and figure.axes[1].get_title() == "test loss (nats)"
    np.testing.assert_array_equal(train.lines[0].get_xdata(), places["first"])
    marked = {one.get_label(): float(np.asarray(one.get_xdata())[0]) for one in train.lines[1:]}
    assert marked == {"start": 8, "memorization": 6, "generalisation": 0, "end": 0}
    figures.png(figure, dpi=40)


def test_shells_show_rays_spheres_and_the_run_and_a_loss_of_zero():
    norms = np.array([10.0, 20.0, 40.0])
    rays, shells = scan({"step": STEPS[:2], "weight_norm": norms}), scan({"start": STEPS[1:2], "weight_norm": norms})
    shells.arrays["train_loss"][0, 0] = 0
    run = (
        Series("weight_norm", STEPS, {"weight_norm": np.array([30.0, 40, 35, 20])}),
        Series("loss", STEPS, {"train_loss": np.array([4, 1e-2, 1e-3, 1e-5]), "test_loss": np.ones(4)}),
    )
    figure = figures.figure_shells(rays, shells, *run)
    lines = {str(one.get_label()): one for one in figure.axes[0].lines}
    assert list(lines) == ["ray of step 0", "ray of step 100", "lowest from step 100", "the run", "its end"]
    assert np.asarray(lines["lowest from step 100"].get_ydata())[0] > 0
    assert lines["ray of step 100"].get_color() == pytest.approx(lines["lowest from step 100"].get_color())
    np.testing.assert_array_equal(lines["the run"].get_xdata(), [30, 40, 35, 20])
    figures.png(figure, dpi=40)
    assert len(figures.figure_shells(rays).axes[1].lines) == 2
