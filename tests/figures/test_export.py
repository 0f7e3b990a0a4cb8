"""Figures as files and as CSV: fonts, equal bytes, untouched settings, and the numbers that are drawn."""

import csv
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.figure import Figure
from PIL import Image
from support.planted_series import embedding, log, norms, sharpness

from grokscope import figures


def small_figure() -> Figure:
    figure = Figure(figsize=(3, 2))
    figures.plot_losses(log(), ax=figure.subplots())
    return figure


def settings() -> dict[str, object]:
    # A look-up of the backend by name would choose one.
    return {name: value for name, value in dict.items(rcParams) if name != "backend"}


def rows(figure: Figure) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(figures.data(figure))))


def test_save_writes_png_and_pdf_with_equal_bytes_each_time(tmp_path):
    first = figures.save(small_figure(), tmp_path / "new folder" / "losses.png")
    second = figures.save(small_figure(), tmp_path / "other" / "losses.png")
    assert first == [tmp_path / "new folder" / "losses.png", tmp_path / "new folder" / "losses.pdf"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    with Image.open(first[0]) as picture:
        assert picture.format == "PNG" and picture.size == (600, 400)
    pdf = first[1].read_bytes()
    assert pdf.startswith(b"%PDF") and b"/CreationDate" not in pdf
    assert b"/FontFile" in pdf or b"/Type3" in pdf, "the fonts are in the file"


@pytest.mark.slow
def test_encoded_files_contain_fonts_or_outlines():
    figure, before = figures.figure_losses(log(), width=3.35), settings()
    svg, pdf = figures.encoded(figure, "svg").decode(), figures.encoded(figure, "pdf")
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf
    assert "<text" not in svg and "font-family" not in svg, "text in an SVG needs fonts that may be missing"
    assert figures.encoded(figures.figure_losses(log(), width=3.35), "svg").decode() == svg
    assert settings() == before
    with Image.open(io.BytesIO(figures.encoded(figure, "png"))) as picture:
        assert picture.width == round(3.35 * 300)


@pytest.mark.slow
def test_drawing_leaves_rcparams_unchanged():
    before = settings()
    figures.png(small_figure(), dpi=40)
    figures.png(figures.figure_sharpness(log(), sharpness()), dpi=40)
    figures.png(figures.figure_circularity(log(), embedding()), dpi=40)
    figures.png(figures.figure_weight_norms(log(), norms()), dpi=40)
    figures.animation(embedding(), log(), n_frames=2)
    assert settings() == before


def test_figures_do_not_import_pyplot():
    """Pyplot keeps figures alive and looks for a display. A subprocess shows which modules are loaded."""
    code = (
        "import sys\n"
        "from grokscope import figures\n"
        "from support.planted_series import log, sharpness\n"
        "figures.png(figures.figure_sharpness(log(), sharpness()))\n"
        "figures.figure_losses(log()).savefig('/dev/null', format='png')\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    tests = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", code], cwd=tests, check=True, capture_output=True)


def test_data_takes_shared_labels_from_the_same_grid_only():
    figure = Figure()
    figure.subplots(2, 1)[0].set_title("over the column")
    figure.subplots(2, 1)[0].set_ylabel("of one panel")
    for ax in figure.axes:
        ax.plot([0], [0.0])
    labels = [(row["title"], row["y_label"]) for row in rows(figure)]
    assert labels == [("over the column", "")] * 2 + [("", "of one panel"), ("", "")]


def test_data_contains_bars_bands_levels_maps_and_gaps():
    ax = (figure := Figure()).subplots()
    ax.bar([1, 2], [3.0, 4.0], label="bars")
    ax.fill_between([0, 1], [1, 1], [2, 2], label="_band")
    ax.axhline(0.25, label="level")
    ax.axvline(0.75, label="landmark")
    ax.axvspan(0, 1)
    ax.plot([0, 1, 2], [1.0, np.nan, 3.0], label="broken")
    ax.imshow(np.array([[5.0, 6.0]]))
    points = {(row["name"], row["x"], row["y"], row["value"]) for row in rows(figure)}
    assert {("bars", "1.0", "3.0", ""), ("bars", "2.0", "4.0", ""), ("level", "", "0.25", "")} <= points
    assert {("broken", "0.0", "1.0", ""), ("broken", "2.0", "3.0", "")} <= points
    assert {("", "0", "0", "5.0"), ("", "1", "0", "6.0"), ("band", "1.0", "2.0", "")} <= points
    assert ("landmark", "0.75", "", "") in points
    assert not any(name == "broken" and x == "1.0" for name, x, _, _ in points)


@pytest.mark.parametrize(("kind", "format"), [("gif", "GIF"), ("webp", "WEBP")])
def test_animation_keeps_the_last_frame_for_two_seconds(kind, format):
    with Image.open(io.BytesIO(figures.animation(embedding(), None, kind=kind))) as moving:
        assert moving.format == format
        durations = []
        for i in range(moving.n_frames):  # pyright: ignore[reportAttributeAccessIssue]
            moving.seek(i)
            moving.load()
            durations.append(moving.info["duration"])
    assert durations == [80] * (len(durations) - 1) + [2000]
