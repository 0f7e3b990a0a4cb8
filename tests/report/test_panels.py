"""The panels of a run's page in a browser: what they draw, tell, note, tabulate and save."""

import dataclasses
import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest
from support.browser import Tab, save_panels, saved_size
from support.synthetic_pages import TASKS, synthetic_page

import grokscope
from grokscope import Trajectory, measures, report
from grokscope.config import TaskConfig

STEP = "document.getElementById('step-value').textContent"
TIPS = """(selector, dx, dy) => { const tips = new Set();
  for (const canvas of document.querySelectorAll(selector)) {
    const box = canvas.getBoundingClientRect();
    for (let x = 2; x < box.width; x += dx) for (let y = 2; y < box.height; y += dy) {
      canvas.dispatchEvent(new PointerEvent('pointermove', {clientX: box.x + x, clientY: box.y + y, bubbles: true}));
      const tip = document.getElementById('tip');
      if (!tip.hidden) tips.add([...tip.children].map((row) => row.textContent).join('\\n'));
    } } return [...tips]; }"""


def tooltips(tab: Tab, selector: str, dx: int = 6, dy: int = 40) -> list[str]:
    """Return the texts of the tooltips on a grid of points over some canvases."""
    return tab.evaluate(f"({TIPS})({json.dumps(selector)}, {dx}, {dy})")


@pytest.fixture
def open_synthetic(tab: Tab, tmp_path: Path) -> Callable[..., Tab]:
    """The function that opens the page of a synthetic run of 120 checkpoints.

    Its sharpness is measured at every fifth checkpoint, and its pictures are drawn at every second.
    """

    def open_page(name: str, address: str = "", width: int = 1400, height: int = 5000) -> Tab:
        (tmp_path / "page.html").write_bytes(synthetic_page(TASKS[name], 120))
        tab.open(tmp_path / "page.html", address, width, height)
        return tab

    return open_page


# -- Charts.


def test_click_on_a_curve_goes_to_its_step(run_tab, reported_run):
    log = Trajectory.open(reported_run).log
    box = run_tab.scroll_to("#losses svg.chart")
    run_tab.choose("axis", "linear")
    box = run_tab.scroll_to("#losses svg.chart")
    left, right = run_tab.evaluate(
        "(() => { const axis = document.querySelector('#losses .axis');"
        " return [axis.x1.baseVal.value, axis.x2.baseVal.value]; })()"
    )
    x = box["x"] + left + (right - left) * 0.51
    run_tab.click(x, box["y"] + 100)
    assert run_tab.evaluate(STEP) == "30"
    run_tab.page.mouse.move(x + 1, box["y"] + 100)
    tip = run_tab.evaluate("document.getElementById('tip').textContent")
    row = log.steps.tolist().index(30)
    assert "step 30" in tip and f"{log['train_loss'][row]:.4g}" in tip and f"{log['test_loss'][row]:.4g}" in tip


def test_table_contains_the_numbers_of_the_log(run_tab, reported_run):
    run_tab.evaluate("document.querySelector('#losses details').open = true")
    run_tab.wait_for_frame()
    rows = run_tab.evaluate(
        "[...document.querySelectorAll('#losses tbody tr')]"
        ".map((row) => [...row.children].map((cell) => cell.textContent))"
    )
    log = Trajectory.open(reported_run).log
    assert [int(row[0]) for row in rows] == log.steps.tolist()
    assert [float(row[1]) for row in rows] == pytest.approx(log["train_loss"], rel=1e-5)


PHASES = [
    ["memorization", 0, 300],
    ["circuit formation", 300, 700],
    ["cleanup", 700, 1000],
    ["after cleanup", 1000, 1190],
]


@pytest.mark.slow
def test_legend_has_the_colours_of_the_phases(tab, tmp_path):
    path = tmp_path / "page.html"
    phases = json.dumps([dict(zip(("name", "first", "last"), phase, strict=True)) for phase in PHASES])
    path.write_bytes(synthetic_page(TASKS["cyclic"], 120).replace(b'"phases":[]', f'"phases":{phases}'.encode()))
    tab.open(path)
    legend = (
        "[...document.querySelectorAll('#losses .stages .chip')].map((chip) => [chip.textContent,"
        " getComputedStyle(chip.querySelector('rect')).fill])"
    )
    background = (
        "[...document.querySelector('#losses svg.chart').querySelectorAll('.stage')]"
        ".map((stage) => getComputedStyle(stage).fill)"
    )
    for value, names in (
        ("accuracy", ["before memorization", "memorized"]),
        ("nanda", [name for name, *_ in PHASES]),
    ):
        tab.choose("shaded", value)
        chips = tab.evaluate(legend)
        assert [name for name, _ in chips] == names
        assert [colour for _, colour in chips] == tab.evaluate(background)
        assert tab.visible_text("#status .stage-chip") == names[-1]


# -- Notes on the step that is shown.


@pytest.mark.slow
def test_number_of_another_step_names_its_step(open_synthetic):
    tab = open_synthetic("cyclic", "#step=120")
    assert tab.evaluate(STEP) == "120"
    assert tab.visible_text("#measure-2 .readout .step-note") == "measured at step 100"
    assert tab.evaluate("document.querySelector('#measure-1 .step-note')") is None, "norms are of every checkpoint"
    for step, shown_step in (("1180", "1,180"), ("130", "120")):
        tab.evaluate(f"location.hash = '#step={step}'")
        tab.wait_for_frame()
        for panel, words in (
            ("pairs", "drawn at 60 of 120 checkpoints"),
            ("heads", "means over 9 equations, at 60 checkpoints"),
        ):
            assert tab.visible_text(f"#{panel} > .key") == f"{words}; showing step {shown_step}"
        assert tab.evaluate("document.querySelector('#pairs > .key .differs') !== null") == (step == "130")


@pytest.mark.slow
def test_step_notes_do_not_move_the_layout(open_synthetic):
    tab = open_synthetic("cyclic", "#step=120")
    positions = (
        "[...document.querySelectorAll('.controls, svg.chart, canvas')].map((e) => e.getBoundingClientRect().y)"
    )
    before = tab.evaluate(positions)
    for step in (100, 0, 1190):
        tab.evaluate(f"location.hash = '#step={step}'")
        tab.wait_for_frame()
        assert tab.evaluate(positions) == before
        note = "document.querySelector('#measure-2 .step-note').checkVisibility({visibilityProperty: true})"
        assert tab.evaluate(note) == (step == 1190)


@pytest.mark.slow
def test_log_coarser_than_checkpoints_names_its_step(tab, tiny_config, tmp_path):
    config = dataclasses.replace(tiny_config, evaluate_every=30)
    tab.open(report.write(grokscope.train(config, "coarse", tmp_path)), "#step=10")
    assert tab.evaluate(STEP) == "10"
    assert tab.visible_text("#status .step-note") == "at step 0"
    assert tab.visible_text("#losses .readout .step-note") == "measured at step 0"


@pytest.mark.slow
def test_thinned_spectrum_names_its_step_and_has_a_table(tab, tiny_run, tmp_path):
    copy = shutil.copytree(tiny_run, tmp_path / "tiny")
    measures.saved("fourier", Trajectory.open(copy), 3)
    tab.open(report.write(Trajectory.open(copy)), "#step=50&spectrum-of=1")
    assert tab.visible_text("#spectrum .step-note") == "bars measured at step 60"
    tab.evaluate("document.querySelector('#spectrum details').open = true")
    tab.wait_for_frame()
    cells = "[...document.querySelectorAll('#spectrum tbody tr')].map((row) => row.children.length)"
    assert tab.evaluate(cells) == [4, 4, 4], "a row for each step, of 3 frequencies"


# -- The embedding, every equation, attention.


@pytest.mark.slow
def test_planes_follow_the_step_when_only_they_are_visible(open_synthetic):
    tab = open_synthetic("cyclic", width=380, height=300)
    tab.scroll_to("#planes figure:last-child")
    tab.wait_for_frame()
    picture = "document.querySelector('#planes figure:last-child canvas').toDataURL()"
    before = tab.evaluate(picture)
    tab.evaluate("location.hash = '#step=0'")
    tab.wait_for_frame()
    assert tab.evaluate(picture) != before


@pytest.mark.slow
def test_tooltip_names_every_token_of_the_embedding(run_tab):
    assert run_tab.scroll_to("#embedding canvas")["width"] > 100
    names = {tip.partition("\n")[0] for tip in tooltips(run_tab, "#embedding canvas", 6, 6)}
    assert sorted(names) == [f"token {i}" for i in range(7)]


SPLIT_COLOURS = """(() => { const canvas = document.querySelector('#pairs canvas'),
    colours = {'train pair': [], 'test pair': []};
  const box = canvas.getBoundingClientRect(), width = canvas.width;
  const { data } = canvas.getContext('2d').getImageData(0, 0, width, canvas.height);
  const at = (x, y) => [...data.slice(4 * (y * width + x), 4 * (y * width + x) + 3)];
  for (let x = 30; x < width - 4; x += 11) for (let y = 8; y < canvas.height - 4; y += 11) {
    canvas.dispatchEvent(new PointerEvent('pointermove', {clientX: box.x + x, clientY: box.y + y, bubbles: true}));
    const tip = document.getElementById('tip');
    if (tip.hidden || String(at(x - 4, y - 4)) !== String(at(x + 4, y + 4))) continue;
    const [red, , blue] = at(x, y);
    colours[tip.textContent.includes('train pair') ? 'train pair' : 'test pair'].push(red - blue);
  } return [Math.max(...colours['train pair']), Math.min(...colours['test pair'])]; })()"""


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_train_and_test_pairs_differ_before_any_is_known(theme, run_tab):
    run_tab.press("Home")
    run_tab.choose("theme", theme)
    run_tab.choose("pairs-show", "right")
    run_tab.scroll_to("#pairs canvas")
    run_tab.wait_for_frame()
    train, test = run_tab.evaluate(SPLIT_COLOURS)
    assert test - train > 80, "the difference between red and blue, of 255"


@pytest.mark.slow
def test_group_elements_have_their_names(open_synthetic):
    tab = open_synthetic("S5")
    element = r"\([\d )(]*\)"
    for panel, pattern in (
        ("pairs", f"a = {element}; b = {element}; answer {element}; (train|test) pair"),
        ("heads", f"a = {element}: "),
        ("embedding", f"element {element}\nconjugacy class of {element}, \\d+ elements?"),
    ):
        tips = tooltips(tab, f"#{panel} canvas")
        assert len(tips) > 5 and all(re.match(pattern, tip) for tip in tips)


def test_residues_have_their_numbers(run_tab):
    tips = tooltips(run_tab, "#pairs canvas")
    assert tips and all(re.match(r"a = \d; b = \d; answer \d; ", tip) for tip in tips)


@pytest.mark.slow
def test_each_conjugacy_class_has_a_shape_and_a_colour(open_synthetic):
    tab = open_synthetic("S5")
    chips = tab.evaluate("[...document.querySelectorAll('.classes .chip')].map((chip) => chip.textContent)")
    assert chips == [
        "(): 1",
        "(3 4): 10",
        "(2 3 4): 20",
        "(1 2)(3 4): 15",
        "(1 2 3 4): 30",
        "(0 1)(2 3 4): 20",
        "(0 1 2 3 4): 24",
    ]
    for look in ("polygon.getAttribute('points')", "getComputedStyle(polygon).fill"):
        looks = tab.evaluate(f"[...document.querySelectorAll('.classes polygon')].map((polygon) => {look})")
        assert len(set(looks)) == 7


@pytest.mark.slow
def test_many_conjugacy_classes_have_no_legend(tab, tmp_path):
    (tmp_path / "page.html").write_bytes(synthetic_page(TaskConfig("composition", group="D31"), 5))
    tab.open(tmp_path / "page.html")
    assert tab.visible_text("#embedding .body .key").startswith("17 conjugacy classes: point at an element")
    assert tab.errors == []


@pytest.mark.slow
def test_attention_fills_the_space_next_to_the_grid(open_synthetic):
    blank = open_synthetic("S5").evaluate(
        "(() => { const panel = document.getElementById('heads'), box = panel.getBoundingClientRect();"
        " return (box.bottom - panel.lastChild.getBoundingClientRect().bottom) / box.height; })()"
    )
    assert blank < 0.15


# -- Saved pictures.


def test_every_panel_is_saved_with_its_texts(run_tab):
    before = run_tab.evaluate("document.querySelector('main').innerText")
    drawings = save_panels(run_tab)
    assert run_tab.evaluate("document.querySelector('main').innerText") == before
    assert len(drawings) == run_tab.evaluate("document.querySelectorAll('button.save').length")
    panels = run_tab.evaluate("[...document.querySelectorAll('main .panel')].map((e) => [e.id, e.innerText])")
    for panel, text in panels:
        kind = "svg" if panel.startswith(("losses", "measure")) else "png"
        drawn = "".join(ElementTree.fromstring(drawings[f"tiny-{panel}-step-60.{kind}"]).itertext())
        assert text.splitlines()[0] in drawn and "tiny · step 60" in drawn
    texts = {name: list(ElementTree.fromstring(drawing).itertext()) for name, drawing in drawings.items()}
    losses, heads = texts["tiny-losses-step-60.svg"], texts["tiny-heads-step-60.png"]
    assert losses.count("train") >= 3 and "nats" in losses and "step" in losses
    assert {"head 0", "head 1", "to operand a", "to operand b"} <= set(heads)
    planes = texts["tiny-planes-step-60.png"]
    assert any(text.startswith("frequency ") for text in planes)
    assert any(text.endswith("% of variance at the end") for text in planes)
    assert drawings["tiny-heads-step-60.png"].count("<line") == 3
    assert any(text.startswith("embedding") for text in texts["tiny-spectrum-step-60.png"])


@pytest.mark.slow
def test_saved_picture_looks_like_its_panel(run_tab):
    """Its canvases have their positions, and styles of the page, such as dotted lines, are in the file."""
    run_tab.choose("theme", "dark")
    run_tab.choose("measure-1-of", "embedding.circle")
    drawings = save_panels(run_tab)
    drawing = ElementTree.fromstring(drawings["tiny-planes-step-60.png"])
    namespace = "{http://www.w3.org/2000/svg}"
    n_canvases = run_tab.evaluate("document.querySelectorAll('#planes canvas').length")
    assert len(list(drawing.iter(f"{namespace}image"))) == n_canvases
    width, height = saved_size(run_tab, "tiny-planes-step-60.png")
    assert width >= 3 * float(drawing.attrib["width"]) and height >= 3 * float(drawing.attrib["height"])
    assert drawing[0].attrib["fill"] == "#16191e"
    dashes = {
        path.attrib["stroke-dasharray"]
        for path in ElementTree.fromstring(drawings["tiny-measure-1-step-60.svg"]).iter(f"{namespace}path")
        if "stroke-dasharray" in path.attrib
    }
    assert "1.5px, 2.5px" in dashes
