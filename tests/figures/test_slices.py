"""Figures of slices and interpolations draw the numbers of hand-made arrays."""

import io

import numpy as np
import pytest
from PIL import Image
from support.planted_series import different_losses, log

from grokscope import figures
from grokscope.series import LabelledArrays

STEPS = np.array([0, 100, 200, 5_000])


@pytest.fixture
def slices() -> LabelledArrays:
    return different_losses(
        {"step": STEPS, "direction": np.array(["random 0", "random 1"]), "alpha": np.linspace(-1, 1, 5)}
    )


def test_interpolation_draws_train_and_test_loss():
    line = different_losses({"t": np.linspace(0, 1, 5)})
    (ax,) = figures.figure_interpolation(line).axes
    drawn = [np.asarray(curve.get_ydata()).tolist() for curve in ax.lines]
    assert drawn == [line["train_loss"].tolist(), line["test_loss"].tolist()]


def test_slice_has_a_line_per_direction_and_the_median(slices: LabelledArrays):
    ax = figures.plot_slice(slices, ax=figures.new_figure(3, 2).subplots(), step=150)
    assert ax.get_title() in ("step 100", "step 200")
    drawn = [np.asarray(line.get_ydata()) for line in ax.lines]
    values = slices["train_loss"][1]
    np.testing.assert_array_equal(drawn[0], values[0])
    np.testing.assert_array_equal(drawn[2], np.median(values, 0))
    assert ax.get_legend_handles_labels()[1] == ["train", "test"]


def test_slices_have_a_panel_per_step_on_one_scale(slices: LabelledArrays):
    figure = figures.figure_slices(slices)
    assert [ax.get_title() for ax in figure.axes] == ["step 0", "step 100", "step 200", "step 5,000"]
    assert len({ax.get_ylim() for ax in figure.axes}) == 1
    figures.png(figure, dpi=40)


def test_slice_animation_has_a_frame_per_step(slices: LabelledArrays):
    with Image.open(io.BytesIO(figures.slice_animation(slices, log(), width=2))) as image:
        assert image.format == "WEBP" and getattr(image, "n_frames", 1) == 4
    assert figures.slice_animation(slices, None, width=2) != figures.slice_animation(slices, log(), width=2)
