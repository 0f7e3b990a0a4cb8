"""Figures from hand-made Series: what is drawn are the numbers that were given, and nothing else is touched."""

import io
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from PIL import Image

from grokscope import figures
from grokscope.series import Series

STEPS = np.array([0, 10, 100, 1000, 4000])
N, FREQUENCIES = 11, (3, 5)


def log(gaps: list[tuple[int, int]] | None = None, steps: np.ndarray = STEPS) -> Series:
    n = len(steps)
    return Series(
        "log",
        steps,
        {
            "train_loss": np.geomspace(4, 1e-7, n),
            "test_loss": np.geomspace(4, 1e-3, n),
            "train_accuracy": np.array([0.1, 0.5, 1.0, 1.0, 1.0])[:n],
            "test_accuracy": np.array([0.1, 0.1, 0.2, 0.99, 1.0])[:n],
        },
        {"gaps": np.array(gaps or [], np.int64).reshape(-1, 2)},
    )


def norms(steps: np.ndarray = STEPS) -> Series:
    names = ["embed.W_E", "blocks.0.attn.W_Q", "blocks.0.mlp.b_in", "blocks.1.attn.W_Q", "unembed.W_U"]
    arrays = {f"weight_norm.{name}": np.linspace(1 + i, 5, len(steps)) for i, name in enumerate(names)}
    arrays |= {"weight_norm": np.linspace(9, 12, len(steps)), "distance_from_initialization": np.sqrt(steps)}
    return Series("weight_norm", steps, arrays, {"gaps": np.empty((0, 2), np.int64)})


def sharpness(lowest: float = 2.0) -> Series:
    trace = np.array([30.0, 50.0, 20.0, 5.0, lowest])
    arrays = {"sharpness": trace / 10, "hessian_trace": trace, "hessian_trace_stderr": trace / 20}
    return Series("sharpness", STEPS, {name: np.abs(a) if "err" in name else a for name, a in arrays.items()})


def wave_plane(frequency: int, radius: float) -> np.ndarray:
    angle = 2 * np.pi * frequency * np.arange(N) / N
    return radius * np.stack([np.cos(angle), np.sin(angle)], -1)


def embedding(circular: bool = True, steps: np.ndarray = STEPS, growth: float = 1.0) -> Series:
    """Return two circles that grow from step to step, the stronger of frequency 3."""
    size = growth * (1 + np.arange(len(steps)))[:, None, None]
    planes = [size * wave_plane(frequency, 1 / (1 + i)) for i, frequency in enumerate(FREQUENCIES)]
    n = len(steps)
    arrays = {
        "principal_components": np.concatenate(planes, -1),
        "explained_variance_ratio": np.tile([0.4, 0.4, 0.1, 0.1], (n, 1)),
    }
    constants = {"tokens": np.arange(N), "gaps": np.empty((0, 2), np.int64)}
    if circular:
        shares = {"circularity": 0.9, "circularity_shuffled": 0.3, "key_frequency_share": 0.8}
        shares["key_frequency_share_shuffled"] = 0.2
        arrays |= {name: np.linspace(value / 2, value, n) for name, value in shares.items()}
        arrays["component_frequency"] = np.tile([3, 3, 5, 5], (n, 1))
        arrays["frequency_planes"] = np.stack(planes, 1)
        constants |= {
            "plane_frequencies": np.array(FREQUENCIES),
            "circularity_initialization": np.array(0.25),
            "key_frequency_share_initialization": np.array(0.15),
        }
    return Series("embedding", steps, arrays, constants)


@pytest.fixture
def ax() -> Axes:
    return Figure().subplots()


def curve(ax: Axes, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of the line whose label begins so."""
    (line,) = [line for line in ax.lines if str(line.get_label()).startswith(label)]
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def points(ax: Axes) -> PathCollection:
    (found,) = [one for one in ax.collections if isinstance(one, PathCollection)]
    return found


def test_curves_are_the_numbers_that_were_given(ax):
    assert figures.plot_losses(log(), ax=ax) is ax
    for name in ("train", "test"):
        x, y = curve(ax, name)
        assert x.tolist() == STEPS.tolist() and y.tolist() == log()[f"{name}_loss"].tolist()
    assert ax.get_yscale() == "log"


def test_accuracies_are_in_percent(ax):
    figures.plot_accuracies(log(), ax=ax)
    for name in ("train", "test"):
        np.testing.assert_allclose(curve(ax, name)[1], 100 * log()[f"{name}_accuracy"])
    assert "%" in ax.get_ylabel()


def test_norms_are_the_numbers_that_were_given(ax):
    figures.plot_weight_norm(norms(), ax=ax)
    np.testing.assert_array_equal(curve(ax, "all weights")[1], norms()["weight_norm"])
    np.testing.assert_array_equal(curve(ax, "from init")[1], norms()["distance_from_initialization"])


def test_each_weight_matrix_has_a_curve_of_its_own_name_and_look(ax):
    figures.plot_parameter_norms(norms(), ax=ax)
    looks = {str(line.get_label()): (line.get_color(), line.get_linestyle()) for line in ax.lines}
    assert set(looks) == {"W_E", "W_Q, layer 0", "W_Q, layer 1", "W_U"}
    assert len(set(looks.values())) == 4
    np.testing.assert_array_equal(curve(ax, "W_Q, layer 1")[1], norms()["weight_norm.blocks.1.attn.W_Q"])


def test_circularity_and_share_stand_beside_their_controls(ax):
    figures.plot_circularity(embedding(), ax=ax)
    for name, label in (("circularity", "circularity of"), ("key_frequency_share", "share of")):
        found = [line for line in ax.lines if str(line.get_label()).startswith(label)]
        assert [np.asarray(line.get_ydata()).tolist() for line in found] == [
            embedding()[name].tolist(),
            embedding()[f"{name}_shuffled"].tolist(),
        ]
    levels = {tuple(np.atleast_1d(line.get_ydata()).astype(float)) for line in ax.lines}
    assert {(0.25, 0.25), (0.15, 0.15)} <= levels


@pytest.mark.parametrize(("lowest", "scale"), [(2.0, "log"), (-2.0, "linear")])
def test_sharpness_has_its_trace_with_two_standard_errors(ax, lowest, scale):
    """A negative eigenvalue has no logarithm: then the axis is linear and nothing is left out."""
    series = sharpness(lowest)
    figures.plot_sharpness(series, ax=ax)
    np.testing.assert_array_equal(curve(ax, "top eigenvalue")[1], series["sharpness"])
    np.testing.assert_array_equal(curve(ax, "trace")[1], series["hessian_trace"])
    (band,) = ax.collections
    corners = {(round(x, 6), round(y, 6)) for x, y in band.get_paths()[0].vertices}
    for step, trace, error in zip(STEPS, series["hessian_trace"], series["hessian_trace_stderr"], strict=True):
        assert {(step, round(trace - 2 * error, 6)), (step, round(trace + 2 * error, 6))} <= corners
    assert ax.get_yscale() == scale


PLOTS: dict[str, Callable[[Axes], Axes]] = {
    "losses": lambda ax: figures.plot_losses(log(), ax=ax),
    "accuracies": lambda ax: figures.plot_accuracies(log(), ax=ax),
    "weight norm": lambda ax: figures.plot_weight_norm(norms(), ax=ax),
    "parameter norms": lambda ax: figures.plot_parameter_norms(norms(), ax=ax),
    "circularity": lambda ax: figures.plot_circularity(embedding(), ax=ax),
    "sharpness": lambda ax: figures.plot_sharpness(sharpness(), ax=ax),
}
UNITS = {
    "losses": "nats", "accuracies": "%", "weight norm": "L2 norm", "parameter norms": "L2 norm",
    "circularity": "share", "sharpness": "Hessian of the train loss",
}  # fmt: skip


@pytest.mark.parametrize("name", PLOTS)
def test_axes_say_what_they_show_in_which_unit(ax, name):
    assert PLOTS[name](ax) is ax
    assert "step" in ax.get_xlabel() and "updates" in ax.get_xlabel()
    assert UNITS[name] in ax.get_ylabel()
    assert ax.get_xscale() == "symlog"
    assert ax.get_xlim() == (0, 4000)
    legend = ax.get_legend()
    assert legend is not None and len(legend.get_texts()) >= 2


def test_train_and_test_differ_without_colour(ax):
    figures.plot_losses(log(), ax=ax)
    assert len({line.get_linestyle() for line in ax.lines}) == 2


@pytest.mark.parametrize(
    ("gaps", "broken"),
    [
        ([], []),
        ([(11, 99)], [(10, 100)]),
        ([(0, 9)], []),
        ([(1001, 4000)], []),
        ([(11, 99), (101, 999)], [(10, 100), (100, 1000)]),
    ],
)
def test_no_line_crosses_a_gap(ax, gaps, broken):
    """Neighbours that a line joins are those between which nothing is lost; what is there is drawn all the same."""
    steps = np.array([s for s in STEPS if not any(first <= s <= last for first, last in gaps)])
    whole, kept = log(), np.isin(STEPS, steps)
    series = Series("log", steps, {k: a[kept] for k, a in whole.arrays.items()}, log(gaps).constants)
    figures.plot_losses(series, ax=ax)
    x, y = curve(ax, "train")
    joined = [(x[i], x[i + 1]) for i in range(len(x) - 1) if np.isfinite(y[i : i + 2]).all()]
    assert joined == [pair for pair in zip(steps, steps[1:], strict=False) if pair not in broken]
    assert sorted(y[np.isfinite(y)]) == sorted(series["train_loss"])


def spans(ax: Axes) -> list[tuple[float, float, bool]]:
    """Return (first, last, hatched) of what is shaded."""
    return [(p.get_x(), p.get_x() + p.get_width(), bool(p.get_hatch())) for p in ax.patches]  # pyright: ignore


def test_stages_and_gaps_are_shaded_where_they_are(ax):
    figures.plot_losses(log([(200, 900)]), ax=ax)
    figures.shade_stages(log([(200, 900)]), ax=ax)
    assert spans(ax) == [(0, 100, False), (100, 1000, False), (1000, 4000, False), (200, 900, True)]
    assert {text.get_text() for text in ax.texts} == {"before memorization", "memorized", "generalised"}
    assert ax.get_xlim() == (0, 4000)
    assert all(patch.get_zorder() < 0 for patch in ax.patches)


STACKS: dict[str, Callable[[], Figure]] = {
    "losses": lambda: figures.figure_losses(log()),
    "weight norms": lambda: figures.figure_weight_norms(log(), norms()),
    "sharpness": lambda: figures.figure_sharpness(log(), sharpness()),
    "circularity": lambda: figures.figure_circularity(log(), embedding()),
}


@pytest.mark.parametrize("name", STACKS)
def test_stacked_axes_share_steps_and_shades(name):
    stacked = STACKS[name]().axes
    assert len(stacked) >= 2
    assert all(ax.get_xlim() == (0, 4000) for ax in stacked)
    assert all(len(spans(ax)) == 3 for ax in stacked)
    assert "step" in stacked[-1].get_xlabel()
    assert [bool(ax.texts) for ax in stacked] == [True] + [False] * (len(stacked) - 1)


def test_the_axis_reaches_the_last_step_of_every_curve():
    """A run that was killed, or still trains, has rows in its log beyond its last checkpoint."""
    figure = figures.figure_weight_norms(log(), norms(STEPS[:4]))
    assert all(ax.get_xlim()[1] >= 4000 for ax in figure.axes)


def test_the_embedding_is_drawn_at_each_step_in_each_plane():
    figure = figures.figure_embedding(embedding(), [0, 100, 4000])
    axes = np.array(figure.axes).reshape(3, 3)
    assert [ax.get_title() for ax in axes[0]] == ["step 0", "step 100", "step 4,000"]
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["PC 1 and PC 2", "frequency 3", "frequency 5"]
    for column, row in enumerate((0, 2, 4)):
        expected = [embedding()["principal_components"][row][:, :2], *embedding()["frequency_planes"][row]]
        for ax, one in zip(axes[:, column], expected, strict=True):
            np.testing.assert_array_equal(points(ax).get_offsets(), one)
            assert ax.get_aspect() == 1
    for row in axes:
        assert len({ax.get_xlim() for ax in row} | {ax.get_ylim() for ax in row}) == 1
        assert all(np.abs(points(ax).get_offsets()).max() < ax.get_xlim()[1] for ax in row)


@pytest.mark.parametrize(("plane", "frequency"), [(None, 3), (0, 3), (1, 5)])
def test_colour_and_line_follow_the_circle_at_the_right_frequency(ax, plane, frequency):
    """Along the line each neighbour is the next of n points on the circle, so all its pieces are equally long."""
    if plane is None:
        figures.plot_principal_plane(embedding(), ax=ax, step=1000)
    else:
        figures.plot_frequency_plane(embedding(), ax=ax, step=1000, plane=plane)
    np.testing.assert_allclose(np.asarray(points(ax).get_array()), np.arange(N) * frequency % N / N)
    (line,) = ax.lines
    path = np.asarray(line.get_xydata())
    assert path[0].tolist() == path[-1].tolist() and len(path) == N + 1
    pieces = np.linalg.norm(np.diff(path, axis=0), axis=1)
    radius = np.linalg.norm(path[0])
    np.testing.assert_allclose(pieces, 2 * radius * math.sin(math.pi / N))


def test_the_colour_follows_the_frequency_of_the_components_that_are_drawn(ax):
    figures.plot_principal_plane(embedding(), ax=ax, step=4000, first=2)
    np.testing.assert_allclose(np.asarray(points(ax).get_array()), np.arange(N) * 5 % N / N)


def test_a_step_between_checkpoints_is_drawn_at_the_nearest_and_says_so(ax):
    figures.plot_principal_plane(embedding(), ax=ax, step=700)
    assert ax.get_title() == "step 1,000"


def test_a_task_without_a_circle_has_its_principal_plane_alone():
    figure = figures.figure_embedding(embedding(circular=False), [0, 4000])
    assert len(figure.axes) == 2
    for ax in figure.axes:
        assert not ax.lines
        assert points(ax).get_array() is None and len(np.asarray(points(ax).get_facecolor())) == 1, (
            "no order, no colours"
        )


def test_a_single_component_is_drawn_on_a_line(ax):
    """Three residues without zero are two points, and two points have one component."""
    one = np.array([[[-1.0], [1.0]], [[-2.0], [2.0]]])
    series = Series("embedding", np.array([0, 1]), {"principal_components": one}, {"tokens": np.array([1, 2])})
    figures.plot_principal_plane(series, ax=ax, step=1)
    np.testing.assert_array_equal(points(ax).get_offsets(), [[-2, 0], [2, 0]])


def test_the_animation_has_a_frame_for_each_step_and_ends_on_the_last():
    with Image.open(io.BytesIO(figures.animation(embedding(), log(), n_frames=200))) as moving:
        assert moving.format == "WEBP" and moving.is_animated and moving.n_frames == len(STEPS)  # pyright: ignore
        frames = []
        for i in range(moving.n_frames):  # pyright: ignore[reportAttributeAccessIssue]
            moving.seek(i)
            frames.append(np.asarray(moving.convert("RGB"), np.int64))
    assert all(np.abs(b - a).mean() > 0.1 for a, b in zip(frames, frames[1:], strict=False))


def test_an_animation_has_no_more_frames_than_were_asked_for():
    steps = np.arange(0, 3000, 10)
    with Image.open(io.BytesIO(figures.animation(embedding(steps=steps), None, n_frames=6))) as moving:
        assert 3 <= moving.n_frames <= 6  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("series", [embedding(circular=False), embedding(steps=STEPS[:1])], ids=["plain", "one step"])
def test_an_animation_can_be_made_of_little(series):
    with Image.open(io.BytesIO(figures.animation(series, None))) as moving:
        assert getattr(moving, "n_frames", 1) == len(series)


def test_a_collapsed_embedding_can_be_drawn():
    """The suite turns a warning, such as matplotlib's on identical limits, into an error."""
    series = embedding(growth=0.0)
    assert len(figures.figure_embedding(series, [0, 4000]).axes) == 6
    assert figures.animation(series, None)[8:12] == b"WEBP"


def test_an_embedding_without_a_key_frequency_has_its_principal_plane_alone():
    whole = embedding()
    none = {"frequency_planes": whole["frequency_planes"][:, :0]}
    constants = {**whole.constants, "plane_frequencies": np.array([], np.int64)}
    series = Series("embedding", STEPS, {**whole.arrays, **none}, constants)
    assert len(figures.figure_embedding(series, [0, 4000]).axes) == 2
    assert figures.animation(series, None)[8:12] == b"WEBP"


def accuracies(steps: list[int], train: list[float], test: list[float]) -> Series:
    arrays = {"train_accuracy": np.array(train), "test_accuracy": np.array(test)}
    return Series("log", np.array(steps), arrays, {"gaps": np.empty((0, 2), np.int64)})


@pytest.mark.parametrize(
    ("at", "train", "test", "necessary"),
    [
        ([0, 10, 100, 1000, 4000], [0, 0, 1, 1, 1], [0, 0, 0, 1, 1], [0, 100, 1000, 4000]),
        ([0, 10, 100, 1000, 4000], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0], [0, 100, 4000]),
        ([0, 10, 100, 1000, 4000], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 4000]),
        ([0, 10, 100, 1000, 4000], [0, 0, 1, 1, 1], [0, 1, 1, 1, 1], [0, 100, 4000]),
        ([0, 10, 100, 1000, 4000], [1, 1, 1, 1, 1], [0, 0, 0, 1, 1], [0, 1000, 4000]),
        ([0, 10, 100, 1000, 4000], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [0, 4000]),
        ([0], [0], [0], [0]),
        ([0], [1], [1], [0]),
    ],
)
def test_telling_steps_are_checkpoints_with_start_memorization_generalisation_and_end(at, train, test, necessary):
    steps = np.arange(0, at[-1] + 1, 50)
    found = figures.telling_steps(accuracies(at, train, test), steps)
    assert found == sorted(set(found)) and len(found) <= 6
    assert set(found) <= set(steps.tolist())
    assert set(necessary) <= set(found)


def small() -> Figure:
    figure = Figure(figsize=(3, 2))
    figures.plot_losses(log(), ax=figure.subplots())
    return figure


def test_a_figure_is_saved_as_png_and_pdf_with_the_same_bytes_each_time(tmp_path):
    first = figures.save(small(), tmp_path / "new folder" / "losses.png")
    second = figures.save(small(), tmp_path / "other" / "losses.png")
    assert first == [tmp_path / "new folder" / "losses.png", tmp_path / "new folder" / "losses.pdf"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    with Image.open(first[0]) as picture:
        assert picture.format == "PNG" and picture.size == (600, 400)
    pdf = first[1].read_bytes()
    assert pdf.startswith(b"%PDF") and b"/CreationDate" not in pdf
    assert b"/FontFile" in pdf or b"/Type3" in pdf, "the fonts are in the file"


def test_drawing_leaves_matplotlibs_settings_alone():
    def settings() -> dict[str, object]:
        # Looking the backend up by name would choose one.
        return {name: value for name, value in dict.items(matplotlib.rcParams) if name != "backend"}

    before = settings()
    for plot in PLOTS.values():
        plot(Figure().subplots())
    figures.png(figures.figure_sharpness(log(), sharpness()), dpi=40)
    figures.animation(embedding(), log(), n_frames=2)
    assert settings() == before


def test_figures_need_no_pyplot():
    """pyplot keeps figures alive and looks for a display; a subprocess shows what is really loaded."""
    code = (
        "import sys, test_figures\n"
        "test_figures.STACKS['sharpness'](); test_figures.small().savefig('/dev/null', format='png')\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    here = Path(__file__).parent
    subprocess.run([sys.executable, "-c", code], cwd=here, check=True, capture_output=True)


def test_a_figure_of_what_is_no_number_or_of_one_checkpoint_is_empty_and_no_error():
    nan = np.full(2, np.nan)
    arrays = {f"{part}_{what}": nan for part in ("train", "test") for what in ("loss", "accuracy")}
    for steps in (np.array([0, 1_000]), np.array([5])):
        log = Series(
            "log", steps, {name: one[: len(steps)] for name, one in arrays.items()}, {"gaps": np.empty((0, 2), int)}
        )
        figure = figures.figure_losses(log)
        figure.draw_without_rendering()
        assert figure.axes[0].get_xlim()[1] == max(10, steps[-1])
