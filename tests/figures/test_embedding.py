"""Figures of the embedding: tokens in planes, their colours and order, and the animation."""

import io
import math

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from PIL import Image
from support.planted_series import N_TOKENS, STEPS, embedding, log

from grokscope import figures
from grokscope.series import Series


@pytest.fixture
def ax() -> Axes:
    return Figure().subplots()


def points(ax: Axes) -> PathCollection:
    (collection,) = [artist for artist in ax.collections if isinstance(artist, PathCollection)]
    return collection


def test_embedding_has_a_column_per_step_and_a_row_per_plane():
    figure = figures.figure_embedding(embedding(), [0, 100, 4000])
    axes = np.array(figure.axes).reshape(3, 3)
    assert [ax.get_title() for ax in axes[0]] == ["step 0", "step 100", "step 4,000"]
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["PCs 1 and 2", "frequency 3", "frequency 5"]
    for column, row in enumerate((0, 2, 4)):
        planes = [embedding()["principal_components"][row][:, :2], *embedding()["frequency_planes"][row]]
        for ax, plane in zip(axes[:, column], planes, strict=True):
            np.testing.assert_array_equal(points(ax).get_offsets(), plane)
            assert ax.get_aspect() == 1
    for row in axes:
        assert len({ax.get_xlim() for ax in row} | {ax.get_ylim() for ax in row}) == 1
        assert all(np.abs(points(ax).get_offsets()).max() < ax.get_xlim()[1] for ax in row)


@pytest.mark.parametrize(("plane", "frequency"), [(None, 3), (0, 3), (1, 5)])
def test_colour_and_line_follow_the_frequency(ax, plane, frequency):
    """The line joins neighbours on the circle, so all its pieces have the same length."""
    if plane is None:
        figures.plot_principal_plane(embedding(), ax=ax, step=1000)
    else:
        figures.plot_frequency_plane(embedding(), ax=ax, step=1000, plane=plane)
    np.testing.assert_allclose(
        np.asarray(points(ax).get_array()), np.arange(N_TOKENS) * frequency % N_TOKENS / N_TOKENS
    )
    (line,) = ax.lines
    path = np.asarray(line.get_xydata())
    assert path[0].tolist() == path[-1].tolist() and len(path) == N_TOKENS + 1
    pieces = np.linalg.norm(np.diff(path, axis=0), axis=1)
    radius = np.linalg.norm(path[0])
    np.testing.assert_allclose(pieces, 2 * radius * math.sin(math.pi / N_TOKENS))


def test_colour_follows_the_frequency_of_drawn_components(ax):
    figures.plot_principal_plane(embedding(), ax=ax, step=4000, first=2)
    np.testing.assert_allclose(np.asarray(points(ax).get_array()), np.arange(N_TOKENS) * 5 % N_TOKENS / N_TOKENS)


def test_step_between_checkpoints_shows_the_nearest(ax):
    figures.plot_principal_plane(embedding(), ax=ax, step=700)
    assert ax.get_title() == "step 1,000"


def test_task_without_circle_has_uncoloured_principal_planes():
    figure = figures.figure_embedding(embedding(circular=False), [0, 4000])
    assert len(figure.axes) == 2
    for ax in figure.axes:
        assert not ax.lines
        assert points(ax).get_array() is None and len(np.asarray(points(ax).get_facecolor())) == 1


def test_single_component_is_drawn_on_a_line(ax):
    """Three residues without zero are two points, and two points have one component."""
    components = np.array([[[-1.0], [1.0]], [[-2.0], [2.0]]])
    constants = {"tokens": np.array([1, 2])}
    series = Series("embedding", np.array([0, 1]), {"principal_components": components}, constants)
    figures.plot_principal_plane(series, ax=ax, step=1)
    np.testing.assert_array_equal(points(ax).get_offsets(), [[-2, 0], [2, 0]])


def test_animation_has_a_frame_per_step_and_ends_on_the_last():
    with Image.open(io.BytesIO(figures.animation(embedding(), log(), n_frames=200))) as moving:
        assert moving.format == "WEBP" and moving.is_animated and moving.n_frames == len(STEPS)  # pyright: ignore
        frames = []
        for i in range(moving.n_frames):  # pyright: ignore[reportAttributeAccessIssue]
            moving.seek(i)
            frames.append(np.asarray(moving.convert("RGB"), np.int64))
    assert all(np.abs(b - a).mean() > 0.1 for a, b in zip(frames, frames[1:], strict=False))


def test_animation_has_at_most_n_frames():
    steps = np.arange(0, 3000, 10)
    with Image.open(io.BytesIO(figures.animation(embedding(steps=steps), None, n_frames=6))) as moving:
        assert 3 <= moving.n_frames <= 6  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("series", [embedding(circular=False), embedding(steps=STEPS[:1])], ids=["plain", "one step"])
def test_animation_works_without_circle_and_for_one_step(series):
    with Image.open(io.BytesIO(figures.animation(series, None))) as moving:
        assert getattr(moving, "n_frames", 1) == len(series)


def test_collapsed_embedding_is_drawn_without_a_warning():
    """Matplotlib warns of identical limits, and the test suite makes warnings errors."""
    series = embedding(growth=0.0)
    assert len(figures.figure_embedding(series, [0, 4000]).axes) == 6
    assert figures.animation(series, None)[8:12] == b"WEBP"


def test_embedding_without_key_frequency_has_principal_planes():
    whole = embedding()
    empty = {"frequency_planes": whole["frequency_planes"][:, :0]}
    constants = {**whole.constants, "plane_frequencies": np.array([], np.int64)}
    series = Series("embedding", STEPS, {**whole.arrays, **empty}, constants)
    assert len(figures.figure_embedding(series, [0, 4000]).axes) == 2
    assert figures.animation(series, None)[8:12] == b"WEBP"
