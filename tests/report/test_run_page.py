"""The page of one run in a browser: its step, its controls, its address, its themes and its layout."""

import json
import re

import pytest
from support.browser import Tab
from support.shared import quick

STEP = "document.getElementById('step-value').textContent"
PLAY_LABEL = "document.getElementById('play').getAttribute('aria-label')"
CANVASES = "[...document.querySelectorAll('canvas')].map((canvas) => canvas.toDataURL())"


def selections(tab: Tab) -> dict[str, str]:
    """Return the value of every list by its id."""
    return tab.evaluate(
        "Object.fromEntries([...document.querySelectorAll('select')].map((list) => [list.id, list.value]))"
    )


def test_every_panel_is_drawn(run_tab):
    assert run_tab.evaluate("document.documentElement.className") == "ready"
    assert run_tab.evaluate(STEP) == "60"
    assert run_tab.evaluate("document.querySelectorAll('svg.chart').length") == 6
    paths = "[...document.querySelectorAll('svg.chart path.line')]"
    assert run_tab.evaluate(f"{paths}.every((path) => path.getAttribute('d').length > 20)")
    blank = (
        "[...document.querySelectorAll('canvas')].filter((canvas) => { const c = canvas.getContext('2d');"
        " return !c.getImageData(0, 0, canvas.width, canvas.height).data.some((v) => v > 0); }).length"
    )
    assert run_tab.evaluate("document.querySelectorAll('canvas').length") >= 7 and run_tab.evaluate(blank) == 0


# -- The step.


def test_dragging_the_slider_moves_every_picture(run_tab):
    before = run_tab.evaluate(CANVASES)
    box = run_tab.scroll_to("#step")
    mouse, y = run_tab.page.mouse, box["y"] + box["height"] / 2
    mouse.move(box["x"] + box["width"] - 8, y)
    mouse.down()
    for share in (0.7, 0.4, 0.1, 0):
        mouse.move(box["x"] + share * box["width"], y)
    mouse.up()
    run_tab.wait_for_frame()
    assert run_tab.evaluate(STEP) == "0"
    run_tab.resize(1400, 4500)
    run_tab.wait_for_frame()
    after = run_tab.evaluate(CANVASES)
    n_moved = sum(old != new for old, new in zip(before, after, strict=True))
    assert n_moved >= len(before) - 1
    assert run_tab.evaluate("document.querySelector('svg.chart .cursor').getAttribute('x1')") == "50"


def test_keys_move_the_step_and_play(run_tab):
    for key, step in (("Home", "0"), ("ArrowRight", "10"), ("ArrowRight", "20"), ("ArrowLeft", "10"), ("End", "60")):
        run_tab.press(key)
        assert run_tab.evaluate(STEP) == step
    run_tab.press("Space")
    assert run_tab.evaluate(PLAY_LABEL) == "Pause"
    run_tab.press("Space")
    assert run_tab.evaluate(PLAY_LABEL) == "Play"


@pytest.mark.slow
def test_keys_in_a_list_do_not_move_the_step(run_tab):
    run_tab.evaluate("document.getElementById('axis').focus()")
    run_tab.press("ArrowLeft")
    assert run_tab.evaluate(STEP) == "60"


@pytest.mark.slow
def test_playing_ends_at_the_last_step(run_tab):
    # Each frame counts as a second, so that the test need not wait.
    run_tab.evaluate(
        "void (window.requestAnimationFrame = ((request) => { let now = 0;"
        " return (act) => request(() => act(now += 1000)); })(requestAnimationFrame.bind(window)))"
    )
    box = run_tab.scroll_to("#play")
    run_tab.click(box["x"] + 5, box["y"] + 5)
    run_tab.wait_until(f"{PLAY_LABEL} === 'Play'")
    assert run_tab.evaluate(STEP) == "60"


# -- The address.


def test_address_stores_and_restores_every_choice(run_tab, reported_run):
    choices = {
        "axis": "linear",
        "labels": "none",
        "measure-1-of": "embedding.effective_dimension",
        "measure-1-scale": "log",
        "theme": "dark",
        "pairs-show": "loss",
    }
    for name, value in choices.items():
        run_tab.choose(name, value)
    run_tab.evaluate("document.activeElement.blur()")
    run_tab.press("Home")
    run_tab.press("ArrowRight")
    run_tab.wait_until("location.hash.includes('step=10')")
    address = run_tab.evaluate("location.hash")
    run_tab.open(reported_run / "report.html", address)
    assert run_tab.evaluate(STEP) == "10"
    assert {name: selections(run_tab)[name] for name in choices} == choices
    assert "effective dimension" in run_tab.evaluate("document.getElementById('measure-1-title').textContent")


@pytest.mark.parametrize(
    "address",
    ["#step=nonsense&axis=sideways&measure-1-of=none", "#%", "#step=-1e999", "#step=1e9"],
    ids=["unknown values", "invalid escape", "infinite step", "large step"],
)
def test_invalid_address_is_ignored(address, tab, reported_run):
    tab.open(reported_run / "report.html", address)
    assert tab.evaluate(STEP) in ("0", "60") and tab.errors == []


@pytest.mark.slow
def test_skip_link_moves_the_focus_and_keeps_choices(run_tab):
    for name, value in {"axis": "linear", "theme": "dark", "labels": "none"}.items():
        run_tab.choose(name, value)
    run_tab.evaluate("document.activeElement.blur()")
    run_tab.press("Home")
    before = selections(run_tab)
    run_tab.evaluate("document.querySelector('.skip').focus()")
    run_tab.evaluate("document.querySelector('.skip').click()")
    assert run_tab.evaluate("document.activeElement.id") == "main"
    assert run_tab.evaluate("location.hash") != "#main"
    for address in ("#main", "#", "#nothing=known"):
        run_tab.evaluate(f"location.hash = '{address}'")
        run_tab.wait_for_frame()
        assert selections(run_tab) == before and run_tab.evaluate(STEP) == "0"
    run_tab.press("ArrowRight")
    run_tab.wait_until("location.hash.includes('step=10')")
    assert run_tab.evaluate("location.hash") == "#axis=linear&theme=dark&labels=none&step=10"


@pytest.mark.slow
def test_choice_reset_by_the_address_is_forgotten(run_tab):
    run_tab.choose("theme", "dark")
    run_tab.evaluate("location.hash = '#axis=linear'")
    run_tab.wait_for_frame()
    assert selections(run_tab)["theme"] == "auto"
    run_tab.choose("labels", "none")
    run_tab.wait_until("location.hash.includes('labels')")
    assert run_tab.evaluate("location.hash") == "#axis=linear&labels=none"


# -- The layout, on screens, on paper and for screen readers.


@pytest.mark.parametrize("width", quick([320, 380, 800, 1900], [380]))
def test_page_is_never_wider_than_the_window(width, tab, reported_run):
    tab.open(reported_run / "report.html", width=width)
    tab.wait_for_frame()
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.errors == []


@pytest.mark.slow
def test_every_control_is_available_on_a_phone(tab, reported_run):
    tab.open(reported_run / "report.html", width=380, height=800)
    for name in ("axis", "theme"):
        assert tab.evaluate(f"document.getElementById('{name}').checkVisibility()")
    assert tab.evaluate("document.querySelector('#status .stage-chip').checkVisibility()")
    tab.evaluate("document.getElementById('pairs').scrollIntoView()")
    tab.wait_for_frame()
    is_above = "document.querySelector('{}').getBoundingClientRect().bottom < 0"
    assert tab.evaluate(is_above.format(".options")) and not tab.evaluate(is_above.format(".controls"))
    tab.resize(1400, 900)
    tab.wait_for_frame()
    assert tab.evaluate("document.querySelector('.controls .options') !== null")


@pytest.mark.slow
def test_print_is_light_and_fits_the_paper(run_tab):
    run_tab.choose("theme", "dark")
    surface = "getComputedStyle(document.documentElement).getPropertyValue('--surface')"
    run_tab.evaluate("void window.dispatchEvent(new Event('beforeprint'))")
    assert run_tab.evaluate(surface) == "#ffffff"
    charts = "[...document.querySelectorAll('svg.chart')]"
    # The paper is 186 mm wide, which are 703 pixels; wider charts would be cut off.
    assert 600 < run_tab.evaluate(f"Math.max(...{charts}.map((chart) => chart.clientWidth))") < 703
    cut_off = f"{charts}.filter((chart) => chart.clientWidth > chart.parentElement.clientWidth).length"
    assert run_tab.evaluate(cut_off) == 0
    run_tab.evaluate("void window.dispatchEvent(new Event('afterprint'))")
    assert run_tab.evaluate(surface) != "#ffffff"
    pdf = run_tab.page.pdf(print_background=True)
    assert pdf.startswith(b"%PDF") and len(pdf) > 50_000
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 7
    assert run_tab.evaluate("document.documentElement.classList.contains('printing')") is False


@pytest.mark.slow
def test_every_control_and_picture_has_a_name(run_tab):
    unnamed = """[...document.querySelectorAll('canvas, svg.chart, button, select, input, section')]
      .filter((element) => !(element.getAttribute('aria-label') || element.getAttribute('aria-labelledby')
        || element.closest('label') || element.textContent.trim())).length"""
    assert run_tab.evaluate(unnamed) == 0
    assert run_tab.evaluate("document.querySelectorAll('h1').length") == 1
    slider = run_tab.page.get_by_role("slider", name="Checkpoint", exact=True)
    assert slider.get_attribute("aria-valuetext") == "step 60, checkpoint 7 of 7"


@pytest.mark.slow
def test_save_buttons_are_named_after_their_panels(run_tab):
    run_tab.choose("measure-1-of", "embedding.effective_dimension")
    titles = run_tab.evaluate("[...document.querySelectorAll('.panel h2')].map((title) => title.textContent)")
    assert "embedding: effective dimension" in titles
    buttons = run_tab.page.get_by_role("button", name=re.compile("^Save"))
    assert buttons.count() == len(titles)
    for i, title in enumerate(titles):
        button = run_tab.page.get_by_role("button", name=f"Save as a picture: {title}", exact=True)
        assert button.get_attribute("id") == buttons.nth(i).get_attribute("id")


# -- Colours.

CONTRAST = """(first, second) => { const light = (colour) => {
    const [r, g, b] = (colour.startsWith('#') ? [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16))
      : colour.match(/[0-9.]+/g).map(Number)).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05; };
  return Math.max(light(first) / light(second), light(second) / light(first)); }"""


def contrast(tab: Tab, first: str, second: str) -> float:
    return tab.evaluate(f"({CONTRAST})({json.dumps(first)}, {json.dumps(second)})")


@pytest.mark.parametrize("theme", quick(["light", "dark"], ["dark"]))
def test_coloured_text_has_enough_contrast(theme, run_tab):
    """WCAG asks for a contrast of 4.5 between text and background."""
    run_tab.choose("theme", theme)
    colours = run_tab.evaluate(
        "(() => { const chart = document.querySelector('svg.chart'); return [0, 1, 2, 3, 4, 5, 6, 7].map((i) => {"
        " const name = document.createElementNS('http://www.w3.org/2000/svg', 'text');"
        " name.setAttribute('class', `name c${i}`); chart.append(name); return getComputedStyle(name).fill; })"
        ".concat([...document.querySelectorAll('#status .chip')].map((chip) => getComputedStyle(chip).color)); })()"
    )
    surface = run_tab.evaluate("getComputedStyle(document.querySelector('.panel')).backgroundColor")
    assert len(colours) == 11
    for colour in colours:
        assert contrast(run_tab, colour, surface) >= 4.5, colour


@pytest.mark.slow
def test_stages_differ_in_the_dark_by_more_than_hue(run_tab):
    run_tab.choose("theme", "dark")
    style = "getComputedStyle(document.documentElement).getPropertyValue('--stage-{}').trim()"
    memorized, generalised = (run_tab.evaluate(style.format(i)) for i in (1, 2))
    assert contrast(run_tab, memorized, generalised) > 1.15
