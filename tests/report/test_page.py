"""The report's page in a real browser: what one does with it, what it asks for, and how long it takes."""

import dataclasses
import json
import re
import shutil
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from support.browser import Browser, chromium, saved, saved_size
from support.pages import HOSTILE, write_hostile

import grokscope
from grokscope import Trajectory, measures, report
from grokscope.config import RunConfig, TaskConfig
from grokscope.report import page
from grokscope.series import Series
from grokscope.store.record import Record
from grokscope.store.source import Memory


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture(scope="module")
def run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = shutil.copytree(tiny_run, tmp_path_factory.mktemp("shown") / "tiny")
    report.write(Trajectory.open(copy))
    return copy


@pytest.fixture
def opened(browser: Browser, run: Path) -> Iterator[Browser]:
    """The tiny run's page; whatever a test does with it, it complains of nothing and asks for nothing."""
    browser.open(run / "report.html")
    yield browser
    assert_quiet(browser, run / "report.html")


def assert_quiet(browser: Browser, path: Path) -> None:
    """Assert that a page complained of nothing and asked for nothing but itself and what it made."""
    browser.frame()
    assert browser.complaints == []
    assert [one for one in browser.requests if not one.startswith("blob:")] == [path.resolve().as_uri()]


CHOOSE = """(id, value) => { const one = document.getElementById(id);
  one.value = value; one.dispatchEvent(new Event('change')); }"""


def choose(browser: Browser, select: str, value: str) -> None:
    """Choose from a list."""
    browser.run(f"({CHOOSE})({json.dumps(select)}, {json.dumps(value)})")


STEP = "document.getElementById('step-said').textContent"


def test_every_panel_is_drawn(opened):
    assert opened.run("document.documentElement.className") == "ready"
    assert opened.run(STEP) == "60"
    assert opened.run("document.querySelectorAll('svg.chart').length") == 6
    assert opened.run(
        "[...document.querySelectorAll('svg.chart path.line')].every((one) => one.getAttribute('d').length > 20)"
    )
    blank = (
        "[...document.querySelectorAll('canvas')].filter((one) => { const c = one.getContext('2d');"
        " return !c.getImageData(0, 0, one.width, one.height).data.some((v) => v > 0); }).length"
    )
    assert opened.run("document.querySelectorAll('canvas').length") >= 7 and opened.run(blank) == 0


def test_the_slider_moves_everything(opened):
    """By dragging it from one end to the other."""
    before = opened.run("[...document.querySelectorAll('canvas')].map((one) => one.toDataURL())")
    box = opened.box("#step")
    y = box["y"] + box["height"] / 2
    opened.mouse("mousePressed", box["x"] + box["width"] - 8, y)
    for share in (0.7, 0.4, 0.1, 0):
        opened.mouse("mouseMoved", box["x"] + share * box["width"], y)
    opened.mouse("mouseReleased", box["x"], y)
    opened.frame()
    assert opened.run(STEP) == "0"
    opened.resize(1400, 4500)
    opened.frame()
    after = opened.run("[...document.querySelectorAll('canvas')].map((one) => one.toDataURL())")
    n_moved = sum(one != other for one, other in zip(before, after, strict=True))
    assert n_moved >= len(before) - 1
    assert opened.run("document.querySelector('svg.chart .cursor').getAttribute('x1')") == "50"


def test_keys_move_and_play(opened):
    for key, step in (("Home", "0"), ("ArrowRight", "10"), ("ArrowRight", "20"), ("ArrowLeft", "10"), ("End", "60")):
        opened.key(key)
        assert opened.run(STEP) == step
    opened.key(" ")
    assert opened.run("document.getElementById('play').getAttribute('aria-label')") == "Pause"
    opened.key(" ")
    assert opened.run("document.getElementById('play').getAttribute('aria-label')") == "Play"


def test_keys_in_a_list_choose_from_it_and_do_not_move_the_step(opened):
    opened.run("document.getElementById('axis').focus()")
    opened.key("ArrowLeft")
    assert opened.run(STEP) == "60"


def test_playing_goes_to_the_end_and_stops(opened):
    # Time runs fast.
    opened.run(
        "window.requestAnimationFrame = ((ask) => { let now = 0;"
        " return (act) => ask(() => act(now += 1000)); })(requestAnimationFrame.bind(window))"
    )
    box = opened.box("#play")
    opened.click(box["x"] + 5, box["y"] + 5)
    label = "document.getElementById('play').getAttribute('aria-label')"
    deadline = time.monotonic() + 60
    while opened.run(label) == "Pause" and time.monotonic() < deadline:
        opened.frame()
    assert opened.run(STEP) == "60" and opened.run(label) == "Play"


def test_a_click_on_a_curve_goes_to_its_step_and_the_pointer_tells_values(opened, run):
    log = Trajectory.open(run).log
    box = opened.box("#losses svg.chart")
    choose(opened, "axis", "linear")
    plot = opened.run(
        "(() => { const a = document.querySelector('#losses .axis');"
        " return [a.x1.baseVal.value, a.x2.baseVal.value]; })()"
    )
    x = box["x"] + plot[0] + (plot[1] - plot[0]) * 0.51
    opened.click(x, box["y"] + 100)
    assert opened.run(STEP) == "30"
    opened.mouse("mouseMoved", x + 1, box["y"] + 100)
    told = opened.run("document.getElementById('tip').textContent")
    row = log.steps.tolist().index(30)
    assert "step 30" in told and f"{log['train_loss'][row]:.4g}" in told and f"{log['test_loss'][row]:.4g}" in told


def test_a_points_token_is_told(opened):
    box = opened.box("#embedding canvas")
    script = """(() => { const found = new Set(); const c = document.querySelector('#embedding canvas');
      const b = c.getBoundingClientRect();
      for (let x = 2; x < b.width; x += 6) for (let y = 2; y < b.height; y += 6) {
        c.dispatchEvent(new PointerEvent('pointermove', {clientX: b.x + x, clientY: b.y + y, bubbles: true}));
        if (!document.getElementById('tip').hidden) found.add(document.getElementById('tip').firstChild.textContent);
      } return [...found].sort(); })()"""
    assert box["width"] > 100
    assert opened.run(script) == [f"token {i}" for i in range(7)]


def test_choices_are_in_the_address_and_come_back_from_it(opened, run):
    chosen = {
        "axis": "linear",
        "labels": "none",
        "measure-1-of": "embedding.effective_dimension",
        "measure-1-scale": "log",
        "theme": "dark",
        "pairs-show": "loss",
    }
    for name, value in chosen.items():
        choose(opened, name, value)
    opened.key("Home")
    opened.key("ArrowRight")
    deadline = time.monotonic() + 10
    while "step=10" not in opened.run("location.hash") and time.monotonic() < deadline:
        opened.frame()
    address = opened.run("location.hash")
    opened.open(run / "report.html", address)
    assert opened.run(STEP) == "10"
    for name in chosen:
        assert opened.run(f"document.getElementById('{name}').value") == chosen[name]
    assert "effective dimension" in opened.run("document.getElementById('measure-1-title').textContent")
    opened.requests[:] = opened.requests[:1]
    opened.requests[0] = (run / "report.html").resolve().as_uri()


@pytest.mark.parametrize(
    "address", ["#step=nonsense&axis=sideways&measure-1-of=none", "#%", "#step=-1e999", "#step=1e9"]
)
def test_an_address_that_makes_no_sense_does_no_harm(address, browser, run):
    browser.open(run / "report.html", address)
    assert browser.run(STEP) in ("0", "60") and browser.complaints == []


def test_the_table_holds_the_numbers_of_the_log(opened, run):
    opened.run("document.querySelector('#losses details').open = true")
    opened.frame()
    rows = opened.run(
        "[...document.querySelectorAll('#losses tbody tr')]"
        ".map((row) => [...row.children].map((one) => one.textContent))"
    )
    log = Trajectory.open(run).log
    assert [int(row[0]) for row in rows] == log.steps.tolist()
    assert [float(row[1]) for row in rows] == pytest.approx(log["train_loss"], rel=1e-5)


def test_every_panel_is_saved_as_a_picture_that_needs_no_page(opened):
    before = opened.run("document.querySelector('main').innerText")
    found = saved(opened)
    assert opened.run("document.querySelector('main').innerText") == before
    assert len(found) == opened.run("document.querySelectorAll('button.save').length")
    titles = opened.run("[...document.querySelectorAll('main .panel')].map((one) => [one.id, one.innerText])")
    for panel, text in titles:
        kind = "svg" if panel.startswith(("losses", "measure")) else "png"
        drawing = found[f"tiny-{panel}-step-60.{kind}"]
        said = "".join(ElementTree.fromstring(drawing).itertext())
        assert text.splitlines()[0] in said and "tiny · step 60" in said
    texts = {name: list(ElementTree.fromstring(one).itertext()) for name, one in found.items()}
    losses, heads = texts["tiny-losses-step-60.svg"], texts["tiny-heads-step-60.png"]
    assert losses.count("train") >= 3 and "nats" in losses and "step" in losses
    assert {"head 0", "head 1", "to first operand a", "to second operand b"} <= set(heads)
    planes = texts["tiny-planes-step-60.png"]
    assert any(one.startswith("frequency ") for one in planes)
    assert any(one.endswith("% of variance at the end") for one in planes)
    assert found["tiny-heads-step-60.png"].count("<line") == 3
    assert any(one.startswith("embedding") for one in texts["tiny-spectrum-step-60.png"])


def test_a_picture_is_as_the_panel_is_seen(opened):
    """The canvases at their places, and dotted what is dotted by the page's style alone."""
    choose(opened, "theme", "dark")
    choose(opened, "measure-1-of", "embedding.circle")
    found = saved(opened)
    drawing = ElementTree.fromstring(found["tiny-planes-step-60.png"])
    namespace = "{http://www.w3.org/2000/svg}"
    assert len(list(drawing.iter(f"{namespace}image"))) == opened.run(
        "document.querySelectorAll('#planes canvas').length"
    )
    width, height = saved_size(opened, "tiny-planes-step-60.png")
    assert width >= 3 * float(drawing.attrib["width"]) and height >= 3 * float(drawing.attrib["height"])
    assert drawing[0].attrib["fill"] == "#16191e"
    dashes = {
        one.attrib["stroke-dasharray"]
        for one in ElementTree.fromstring(found["tiny-measure-1-step-60.svg"]).iter(f"{namespace}path")
        if "stroke-dasharray" in one.attrib
    }
    assert "1.5px, 2.5px" in dashes


@pytest.mark.parametrize("width", [320, 380, 800, 1900])
def test_nothing_is_wider_than_the_window(width, browser, run):
    browser.open(run / "report.html", width=width)
    browser.resize(width, 900)
    browser.frame()
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.complaints == []


def test_it_prints_without_its_controls_and_in_light_colours(opened):
    choose(opened, "theme", "dark")
    surface = "getComputedStyle(document.documentElement).getPropertyValue('--surface')"
    opened.run("window.dispatchEvent(new Event('beforeprint'))")
    assert opened.run(surface) == "#ffffff"
    # What does not fit would be cut off: 186 mm are 703 pixels.
    assert (
        600
        < opened.run("Math.max(...[...document.querySelectorAll('svg.chart')].map((one) => one.clientWidth))")
        < 703
    )
    cut = (
        "[...document.querySelectorAll('svg.chart')].filter((one) => one.clientWidth > one.parentElement.clientWidth)"
    )
    assert opened.run(f"{cut}.length") == 0
    opened.run("window.dispatchEvent(new Event('afterprint'))")
    assert opened.run(surface) != "#ffffff"
    pdf = opened.printed()
    assert pdf.startswith(b"%PDF") and len(pdf) > 50_000
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 7
    assert opened.run("document.documentElement.classList.contains('printing')") is False


def test_everything_has_a_name_for_who_does_not_see_it(opened):
    unnamed = """[...document.querySelectorAll('canvas, svg.chart, button, select, input, section')]
      .filter((one) => !(one.getAttribute('aria-label') || one.getAttribute('aria-labelledby')
        || one.closest('label') || one.textContent.trim())).length"""
    assert opened.run(unnamed) == 0
    assert opened.run("document.querySelectorAll('h1').length") == 1
    tree = opened.send("Accessibility.getFullAXTree")["nodes"]
    slider = next(one for one in tree if one.get("role", {}).get("value") == "slider")
    assert slider["name"]["value"] == "Checkpoint"
    assert (
        opened.run("document.getElementById('step').getAttribute('aria-valuetext')") == "step 60, checkpoint 7 of 7"
    )


def test_hostile_texts_run_nothing_and_ask_for_nothing(browser, run, tmp_path):
    folder = shutil.copytree(run, tmp_path / HOSTILE.replace("/", "∕"))
    path = write_hostile(folder)
    browser.open(path)
    browser.run("window.alert = () => { throw new Error('alert') }")
    browser.run(
        "(() => { const one = document.getElementById('measure-1-of');"
        " one.value = [...one.options].find((option) => option.value.includes('alert')).value;"
        " one.dispatchEvent(new Event('change')); })()"
    )
    assert HOSTILE in browser.run("document.getElementById('measure-1-title').textContent")
    assert browser.run("document.querySelectorAll('img, iframe, script:not([id])').length") == 1
    assert_quiet(browser, path)


def test_what_gets_into_the_page_all_the_same_is_stopped_by_its_policy(browser, run, tmp_path):
    """The control: a page into which markup was smuggled past all escaping."""
    smuggled = tmp_path / "smuggled.html"
    asked: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        _smuggle(browser, run, smuggled, f"<img src='{address}' onerror='window.ran = 1'>")
        assert browser.run("window.ran === undefined") and asked == []
        assert sum("Content Security Policy" in one for one in browser.complaints) >= 2
        browser.send("Page.setBypassCSP", enabled=True)
        _smuggle(browser, run, smuggled, f"<img src='{address}' onerror='window.ran = 1'>")
        assert browser.run("window.ran === 1") and asked == ["/"], "without the policy it would have run"
        browser.send("Page.setBypassCSP", enabled=False)
        server.shutdown()


def _smuggle(browser: Browser, run: Path, path: Path, markup: str) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    path.write_text(text.replace("<h1>", f"<h1><script>window.ran = 1</script>{markup}"), encoding="utf-8")
    browser.open(path)


class MadeUp(Trajectory):
    """A trajectory of as many checkpoints as one likes, that has nothing but what a page asks of it."""

    @property
    def path(self) -> Path:
        return Path("made_up")

    @property
    def digest(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return "made up"

    @property
    def log(self) -> Series:  # pyright: ignore[reportIncompatibleVariableOverride]
        share = self.steps / self.steps[-1]
        arrays = {
            "train_loss": np.exp(-12 * share),
            "test_loss": 5 * np.exp(-12 * share**4),
            "train_accuracy": np.minimum(1, 5 * share),
            "test_accuracy": share**4,
        }
        return Series("log", self.steps, arrays, {"gaps": np.empty((0, 2), np.int64)})


def made_up(task: TaskConfig, n: int) -> bytes:
    """Return the page of a made-up trajectory with every picture."""
    config = RunConfig(task=task, n_steps=10 * n, checkpoints="every 10")
    steps = np.arange(n) * 10
    trajectory = MadeUp(config, Memory({}), steps)
    built, random = trajectory.task, np.random.default_rng(0)
    tokens = np.arange(built.n_elements) if built.circle is None else built.circle.numpy()
    m = len(tokens)
    embedding = {
        "principal_components": random.normal(size=(n, m, 4)),
        "explained_variance_ratio": random.uniform(size=(n, 4)),
    }
    series = {}
    constants = {"tokens": tokens}
    if built.circle is not None:
        key = np.array([3, 7, 11, 19, 23, 31])
        shares = {"frequency_shares": random.uniform(size=(n, m // 2))}
        embedding |= shares | {
            "frequency_planes": random.normal(size=(n, len(key), m, 2)),
            "component_frequency": np.full((n, 4), 3),
        }
        constants |= {"key_frequencies": key, "plane_frequencies": key, "frequencies": np.arange(1, m // 2 + 1)}
        controls = {"circularity", "key_frequency_share"}
        embedding |= {f"{name}{end}": random.uniform(size=n) for name in controls for end in ("", "_shuffled")}
        constants |= {f"{name}_initialization": np.array(0.1) for name in controls}
    series["embedding"] = Series("embedding", steps, embedding, constants)
    names = [f"weight_norm.blocks.0.attn.W_{name}" for name in "QKVO"]
    norms = {name: random.uniform(size=n) for name in ("weight_norm", "distance_from_initialization", *names)}
    series["weight_norm"] = Series("weight_norm", steps, norms)
    few = steps[:: max(1, n // 24)]
    hessian = {"sharpness": random.uniform(size=len(few)), "sharpness_residual": random.uniform(size=len(few)) / 99}
    series["sharpness"] = Series("sharpness", few, hessian)
    some = steps[:: max(1, n // 60)]
    losses = {"example_loss": random.exponential(size=(len(some), len(built.inputs)))}
    is_right = losses["example_loss"] < 1
    series["example_loss"] = Series("example_loss", some, {**losses, "is_right": is_right})
    looks = {
        "attention": random.uniform(size=(len(some), 1, 4, 3)),
        "attention_stderr": random.uniform(size=(len(some), 1, 4, 3)),
        "attention_by_first": random.uniform(size=(len(some), 1, 4, built.n_elements, 3)),
    }
    constants = {"first_operands": np.arange(built.n_elements), "n_equations": np.array(9)}
    series["attention"] = Series("attention", some, looks, constants)
    return page.of_run(trajectory, series, list(series.values()), Record(config, {}, ""))


TASKS = {
    "cyclic": TaskConfig("addition", p=113),
    "division": TaskConfig("division", p=97),
    "S5": TaskConfig("composition", group="S5"),
}
WHOLE_RUN = """(async () => {
  const slider = document.getElementById('step'), times = [], n = 60;
  for (let i = 0; i <= n; i++) {
    slider.value = Math.round(slider.max * i / n);
    const start = performance.now();
    slider.dispatchEvent(new Event('input'));
    await new Promise((done) => requestAnimationFrame(done));
    const drawn = performance.now();
    document.body.offsetHeight;
    times.push(performance.now() - start);
  }
  return times.sort((a, b) => a - b)[Math.floor(n / 2)];
})()"""


def looked_at(browser: Browser, path: Path, width: int = 1400, height: int = 900) -> dict[str, float]:
    """Open a page, use it, and return its size in MB, seconds to the first picture, and milliseconds a step."""
    started = time.monotonic()
    browser.open(path, width=width, height=height)
    seconds = time.monotonic() - started
    milliseconds = browser.run(WHOLE_RUN)
    for name in ("linear", "log"):
        choose(browser, "axis", name)
    browser.resize(500, 800)
    browser.frame()
    assert browser.run("document.documentElement.scrollWidth") <= 500
    assert_quiet(browser, path)
    return {"MB": path.stat().st_size / 1e6, "s": seconds, "ms": milliseconds}


@pytest.mark.parametrize("name", TASKS)
def test_a_page_of_a_few_checkpoints_works_for_every_kind_of_task(name, browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_bytes(made_up(TASKS[name], 10))
    looked_at(browser, path)


@pytest.fixture
def shown(browser: Browser, tmp_path: Path) -> Callable[..., Browser]:
    """Shows a made-up run of 120 checkpoints: the sharpness is measured at every fifth, pictures at every second."""

    def show(name: str, address: str = "", width: int = 1400, height: int = 5000) -> Browser:
        (tmp_path / "page.html").write_bytes(made_up(TASKS[name], 120))
        browser.open(tmp_path / "page.html", address, width, height)
        return browser

    return show


def text(browser: Browser, selector: str) -> str:
    """Return what stands in an element, and that it is seen."""
    assert browser.run(
        f"document.querySelector({json.dumps(selector)}).checkVisibility({{visibilityProperty: true}})"
    )
    return browser.run(f"document.querySelector({json.dumps(selector)}).textContent")


def test_what_was_measured_at_another_step_says_at_which(shown):
    page = shown("cyclic", "#step=120")
    assert page.run(STEP) == "120"
    assert text(page, "#measure-2 .readout .at") == "measured at step 100"
    assert page.run("document.querySelector('#measure-1 .at')") is None, "the norms are of every checkpoint"
    for step, shown_step in (("1180", "1,180"), ("130", "120")):
        page.run(f"location.hash = '#step={step}'")
        page.frame()
        for panel, said in (
            ("pairs", "drawn at 60 of 120 checkpoints"),
            ("heads", "means over 9 equations, at 60 checkpoints"),
        ):
            assert text(page, f"#{panel} > .key") == f"{said}; the nearest is shown: step {shown_step}"
        assert page.run("document.querySelector('#pairs > .key .another') !== null") == (step == "130")


def test_nothing_moves_where_a_step_is_said_or_not(shown):
    page = shown("cyclic", "#step=120")
    places = (
        "[...document.querySelectorAll('.controls, svg.chart, canvas')].map((one) => one.getBoundingClientRect().y)"
    )
    before = page.run(places)
    for step in (100, 0, 1190):
        page.run(f"location.hash = '#step={step}'")
        page.frame()
        assert page.run(places) == before
        seen = "document.querySelector('#measure-2 .at').checkVisibility({visibilityProperty: true})"
        assert page.run(seen) == (step == 1190)


def test_a_log_that_is_coarser_than_the_checkpoints_says_its_step(browser, tiny_config, tmp_path):
    config = dataclasses.replace(tiny_config, evaluate_every=30)
    browser.open(report.write(grokscope.train(config, "coarse", tmp_path)), "#step=10")
    assert browser.run(STEP) == "10"
    assert text(browser, "#status .at") == "at step 0"
    assert text(browser, "#losses .readout .at") == "measured at step 0"


def test_a_spectrum_of_few_checkpoints_says_which_is_shown_and_has_a_table(browser, tiny_run, tmp_path):
    copy = shutil.copytree(tiny_run, tmp_path / "tiny")
    measures.saved("fourier", Trajectory.open(copy), 3)
    browser.open(report.write(Trajectory.open(copy)), "#step=50&spectrum-of=1")
    assert text(browser, "#spectrum .at") == "the bars were measured at step 60"
    browser.run("document.querySelector('#spectrum details').open = true")
    browser.frame()
    cells = "[...document.querySelectorAll('#spectrum tbody tr')].map((row) => row.children.length)"
    assert browser.run(cells) == [4, 4, 4], "a row for each step, of 3 frequencies"


def test_the_planes_follow_the_step_where_they_alone_are_in_sight(shown):
    page = shown("cyclic", width=380, height=300)
    page.box("#planes figure:last-child")
    page.frame()
    picture = "document.querySelector('#planes figure:last-child canvas').toDataURL()"
    before = page.run(picture)
    page.run("location.hash = '#step=0'")
    page.frame()
    assert page.run(picture) != before


SPOTS = """(() => { const canvas = document.querySelector('#pairs canvas'), 
    found = {'trained on': [], 'held out': []};
  const box = canvas.getBoundingClientRect(), width = canvas.width;
  const { data } = canvas.getContext('2d').getImageData(0, 0, width, canvas.height);
  const at = (x, y) => [...data.slice(4 * (y * width + x), 4 * (y * width + x) + 3)];
  for (let x = 30; x < width - 4; x += 11) for (let y = 8; y < canvas.height - 4; y += 11) {
    canvas.dispatchEvent(new PointerEvent('pointermove', {clientX: box.x + x, clientY: box.y + y, bubbles: true}));
    const told = document.getElementById('tip');
    if (told.hidden || String(at(x - 4, y - 4)) !== String(at(x + 4, y + 4))) continue;
    const [red, , blue] = at(x, y);
    found[told.textContent.includes('trained on') ? 'trained on' : 'held out'].push(red - blue);
  } return [Math.max(...found['trained on']), Math.min(...found['held out'])]; })()"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_equations_trained_on_are_told_from_those_held_out_before_any_is_known(theme, opened):
    opened.key("Home")
    choose(opened, "theme", theme)
    choose(opened, "pairs-show", "right")
    opened.box("#pairs canvas")
    opened.frame()
    trained, held_out = opened.run(SPOTS)
    assert held_out - trained > 80, "at least so much redder than blue, of 255"


def chosen(browser: Browser) -> dict[str, str]:
    """Return what is chosen in every list of the control bar and of the panels."""
    return browser.run(
        "Object.fromEntries([...document.querySelectorAll('select')].map((one) => [one.id, one.value]))"
    )


def test_the_skip_link_moves_the_focus_and_leaves_every_choice(opened):
    for name, value in {"axis": "linear", "theme": "dark", "labels": "none"}.items():
        choose(opened, name, value)
    opened.key("Home")
    before = chosen(opened)
    opened.run("document.querySelector('.skip').focus()")
    opened.run("document.querySelector('.skip').click()")
    assert opened.run("document.activeElement.id") == "main" and opened.run("location.hash") != "#main"
    for address in ("#main", "#", "#nothing=known"):
        opened.run(f"location.hash = '{address}'")
        opened.frame()
        assert chosen(opened) == before and opened.run(STEP) == "0"
    opened.key("ArrowRight")
    deadline = time.monotonic() + 10
    while "step=10" not in opened.run("location.hash") and time.monotonic() < deadline:
        opened.frame()
    assert opened.run("location.hash") == "#axis=linear&theme=dark&labels=none&step=10"


def test_what_an_address_resets_is_no_longer_remembered(opened):
    choose(opened, "theme", "dark")
    opened.run("location.hash = '#axis=linear'")
    opened.frame()
    assert opened.run("document.getElementById('theme').value") == "auto"
    choose(opened, "labels", "none")
    deadline = time.monotonic() + 10
    while "labels" not in opened.run("location.hash") and time.monotonic() < deadline:
        opened.frame()
    assert opened.run("location.hash") == "#axis=linear&labels=none"


TOLD = """(selector) => { const found = new Set();
  for (const canvas of document.querySelectorAll(selector)) {
    const box = canvas.getBoundingClientRect();
    for (let x = 2; x < box.width; x += 6) for (let y = 2; y < box.height; y += 40) {
      canvas.dispatchEvent(new PointerEvent('pointermove', {clientX: box.x + x, clientY: box.y + y, bubbles: true}));
      if (!document.getElementById('tip').hidden) found.add(document.getElementById('tip').textContent);
    } } return [...found]; }"""


def test_elements_of_a_group_go_by_their_names(shown):
    page = shown("S5")
    element = r"\([\d )(]*\)"
    for panel, pattern in (
        ("pairs", f"a = {element}; b = {element}; answer {element}; (trained on|held out)"),
        ("heads", f"a = {element}: "),
        ("embedding", f"element {element}conjugacy class of {element}, \\d+ elements?"),
    ):
        told = page.run(f"({TOLD})('#{panel} canvas')")
        assert len(told) > 5 and all(re.match(pattern, one) for one in told)


def test_residues_go_by_their_numbers(opened):
    told = opened.run(f"({TOLD})('#pairs canvas')")
    assert told and all(re.match(r"a = \d; b = \d; answer \d; ", one) for one in told)


def test_conjugacy_classes_have_a_legend_and_a_shape_each(shown):
    page = shown("S5")
    chips = page.run("[...document.querySelectorAll('.classes .chip')].map((one) => one.textContent)")
    sizes = [
        "(): 1",
        "(3 4): 10",
        "(2 3 4): 20",
        "(1 2)(3 4): 15",
        "(1 2 3 4): 30",
        "(0 1)(2 3 4): 20",
        "(0 1 2 3 4): 24",
    ]
    assert chips == sizes
    for look in ("one.getAttribute('points')", "getComputedStyle(one).fill"):
        looks = page.run(f"[...document.querySelectorAll('.classes polygon')].map((one) => {look})")
        assert len(set(looks)) == 7


def test_a_group_of_many_classes_is_told_by_the_pointer(browser, tmp_path):
    (tmp_path / "page.html").write_bytes(made_up(TaskConfig("composition", group="D31"), 5))
    browser.open(tmp_path / "page.html")
    assert text(browser, "#embedding .body .key") == "17 conjugacy classes: the pointer tells which"
    assert browser.complaints == []


def test_attention_fills_its_place_beside_the_grid_of_a_group(shown):
    blank = shown("S5").run(
        "(() => { const panel = document.getElementById('heads'), box = panel.getBoundingClientRect();"
        " return (box.bottom - panel.lastChild.getBoundingClientRect().bottom) / box.height; })()"
    )
    assert blank < 0.15


PHASES = [
    ["memorization", 0, 300],
    ["circuit formation", 300, 700],
    ["cleanup", 700, 1000],
    ["after cleanup", 1000, 1190],
]


def test_the_colours_of_the_phases_have_a_legend(browser, tmp_path):
    path = tmp_path / "page.html"
    phases = json.dumps([dict(zip(("name", "first", "last"), one, strict=True)) for one in PHASES])
    path.write_bytes(made_up(TASKS["cyclic"], 120).replace(b'"phases":[]', f'"phases":{phases}'.encode()))
    browser.open(path)
    legend = (
        "[...document.querySelectorAll('#losses .stages .chip')].map((one) => [one.textContent,"
        " getComputedStyle(one.querySelector('rect')).fill])"
    )
    behind = (
        "[...document.querySelector('#losses svg.chart').querySelectorAll('.stage')]"
        ".map((one) => getComputedStyle(one).fill)"
    )
    for value, names in (
        ("accuracy", ["before memorization", "memorized"]),
        ("nanda", [name for name, *_ in PHASES]),
    ):
        choose(browser, "shaded", value)
        found = browser.run(legend)
        assert [name for name, _ in found] == names
        assert [colour for _, colour in found] == browser.run(behind)
        assert text(browser, "#status .stage-chip") == names[-1]


CONTRAST = """(one, other) => { const light = (colour) => {
    const [r, g, b] = (colour.startsWith('#') ? [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16))
      : colour.match(/[0-9.]+/g).map(Number)).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05; };
  return Math.max(light(one) / light(other), light(other) / light(one)); }"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_in_the_colours_of_curves_can_be_read(theme, opened):
    """By WCAG's contrast of 4.5 to the panel."""
    choose(opened, "theme", theme)
    colours = opened.run(
        "(() => { const chart = document.querySelector('svg.chart'); return [0, 1, 2, 3, 4, 5, 6, 7].map((i) => {"
        " const name = document.createElementNS('http://www.w3.org/2000/svg', 'text');"
        " name.setAttribute('class', `name c${i}`); chart.append(name); return getComputedStyle(name).fill; })"
        ".concat([...document.querySelectorAll('#status .chip')].map((one) => getComputedStyle(one).color)); })()"
    )
    surface = opened.run("getComputedStyle(document.querySelector('.panel')).backgroundColor")
    assert len(colours) == 11
    for colour in colours:
        assert opened.run(f"({CONTRAST})({json.dumps(colour)}, {json.dumps(surface)})") >= 4.5, colour


def test_memorized_and_generalised_differ_in_the_dark_by_more_than_their_hue(opened):
    choose(opened, "theme", "dark")
    style = "getComputedStyle(document.documentElement).getPropertyValue('--stage-{}').trim()"
    assert opened.run(f"({CONTRAST})({style.format(1)}, {style.format(2)})") > 1.15


def test_what_saves_a_panel_is_named_after_it(opened):
    choose(opened, "measure-1-of", "embedding.effective_dimension")
    tree = opened.send("Accessibility.getFullAXTree")["nodes"]
    names = [one["name"]["value"] for one in tree if one.get("role", {}).get("value") == "button"]
    titles = opened.run("[...document.querySelectorAll('.panel h2')].map((one) => one.textContent)")
    assert "embedding: effective dimension" in titles
    assert [one for one in names if one.startswith("Save")] == [f"Save as a picture: {one}" for one in titles]


def test_on_a_phone_every_control_is_there(browser, run):
    browser.open(run / "report.html", width=380, height=800)
    for name in ("axis", "theme"):
        assert browser.run(f"document.getElementById('{name}').checkVisibility()")
    assert browser.run("document.querySelector('#status .stage-chip').checkVisibility()")
    browser.run("document.getElementById('pairs').scrollIntoView()")
    browser.frame()
    above = "document.querySelector('{}').getBoundingClientRect().bottom < 0"
    assert browser.run(above.format(".options")) and not browser.run(above.format(".controls"))
    browser.resize(1400, 900)
    browser.frame()
    assert browser.run("document.querySelector('.controls .options') !== null")


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("n", [300, 3000])
def test_a_page_of_many_checkpoints_is_small_and_quick(name, n, browser, tmp_path, capsys):
    path = tmp_path / "page.html"
    path.write_bytes(made_up(TASKS[name], n))
    found = looked_at(browser, path)
    with capsys.disabled():
        print(
            f"\n{name}, {n:,} checkpoints: {found['MB']:.1f} MB, {found['s']:.1f} s, {found['ms']:.0f} ms a step",
            end="",
        )
    assert found["MB"] < 8
    assert found["s"] < 30 and found["ms"] < 500, "on a busy machine; the figures are in the README"
