"""Several runs on one page: what tells them apart, what is said of them, and what the page does in a browser."""

import dataclasses
import json
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.browser import Browser, chromium, saved
from support.pages import HOSTILE, numbers, read, unpacked
from support.shared import make_tiny_config

from grokscope import cli, measures, report, training
from grokscope.config import ModelConfig, RunConfig, TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.report import comparison
from grokscope.sweep import sweep_folder
from grokscope.sweep.plan import read_sweep
from grokscope.trajectory import Trajectory

SWEEP = """
n_steps = 20
checkpoints = "every 10"
evaluate_every = 10
[task]
p = 7
train_fraction = 0.6
[model]
d_model = 16
n_heads = 2
d_mlp = 24
[sweep]
about = "Tiny runs."
seeds = [0, 1]
[sweep.grid]
optimizer.weight_decay = [0.0, 1.0]
optimizer.lr = [0.01]
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of four cells, one of them not begun, one damaged beyond reading, and its page."""
    folder = tmp_path_factory.mktemp("swept") / "small"
    (folder.parent / "sweep.toml").write_text(SWEEP)
    plan = read_sweep(folder.parent / "sweep.toml")
    sweep_folder.save(plan, folder)
    for cell in plan.cells[:3]:
        training.train(cell.config, cell.name, folder)
    (folder / plan.cells[2].name / "config.json").write_text("damaged")
    report.write(Trajectory.open(folder / plan.cells[0].name))
    assert report.write_comparison([folder]) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def seeds(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that differ in a seed alone, one with another learning rate, and the page of them."""
    root = tmp_path_factory.mktemp("seeds")
    shutil.copytree(tiny_run, root / "tiny")
    config = make_tiny_config()
    training.train(dataclasses.replace(config, init_seed=1), "other", root)
    slow = dataclasses.replace(config.optimizer, lr=1e-4)
    training.train(dataclasses.replace(config, optimizer=slow), "slow", root)
    for name in ("tiny", "other"):
        measures.saved("weight_norm", Trajectory.open(root / name))
    return report.write_comparison([root / name for name in ("tiny", "other", "slow")])


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of different kinds of task, and the page of them."""
    root = tmp_path_factory.mktemp("mixed")
    tasks = {
        "a_sum": (TaskConfig("addition", p=11, train_fraction=0.6), 24),
        "a_quotient": (TaskConfig("division", p=7, train_fraction=0.6), 24),
        "a_product_in_some_group": (TaskConfig("composition", group="D4", train_fraction=0.6), 32),
    }
    for name, (task, d_mlp) in tasks.items():
        model = ModelConfig(d_model=16, n_heads=2, d_mlp=d_mlp)
        config = RunConfig(task=task, model=model, n_steps=20, checkpoints="every 10", evaluate_every=10)
        training.train(config, name, root)
        measures.saved("weight_norm", Trajectory.open(root / name))
    return report.write_comparison([root / name for name in tasks])


def test_runs_are_told_apart_by_what_they_differ_in(seeds):
    found = numbers(seeds)
    assert seeds.name == "comparison.html" and found["axes"] == ["optimizer.lr", "seed"]
    assert [run["settings"]["seed"] for run in found["runs"]] == [0, 1, 0]
    assert [run["settings"]["optimizer.lr"] for run in found["runs"]] == [0.01, 0.01, 0.0001]


def test_what_a_task_does_not_use_tells_no_run_from_another(mixed):
    found = numbers(mixed)
    by_name = {run["name"]: run["settings"] for run in found["runs"]}
    assert by_name["a_sum"] == {"task.name": "addition", "task.p": 11, "model.d_mlp": 24}
    assert by_name["a_product_in_some_group"] == {
        "task.name": "composition",
        "task.group": "D4",
        "model.d_mlp": 32,
    }
    assert "—" in read(mixed).text["td"]


def test_curves_are_the_logs_and_what_was_saved(seeds):
    for run in numbers(seeds)["runs"]:
        trajectory = Trajectory.open(seeds.parent / run["name"])
        curve = run["curves"]["log.test_loss"]
        assert unpacked(curve["steps"]).tolist() == trajectory.log.steps.tolist()
        np.testing.assert_allclose(unpacked(curve["values"]), trajectory.log["test_loss"], rtol=1e-6)
        assert ("weight_norm.weight_norm" in run["curves"]) == (run["name"] != "slow")


def test_a_sweep_says_of_each_cell_what_became_of_it_and_links_to_its_page(swept):
    page = read(swept / "report.html")
    assert "Tiny runs." in page.text["p"] and page.text["h1"] == "small"
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a" and "class" not in attributes]
    assert links == ["weight_decay%3D0%2Blr%3D0.01%2Bseed%3D0/report.html"]
    assert "grokscope report small --cells" in page.text["code"]
    assert "not begun" in page.text["td"] and "config.json is damaged" in page.text["td"]
    assert sum(tag == "tr" and "data-name" in attributes for tag, attributes in page.elements) == 4
    assert len(numbers(swept / "report.html")["runs"]) == 2


def test_what_is_said_of_runs_is_counted():
    rows = [
        {"phase": "grokking", "memorized": 10, "generalised": 100},
        {"phase": "grokking", "memorized": 10, "generalised": 300},
        {"phase": "memorization", "memorized": 10, "generalised": None},
        {"phase": "", "memorized": None, "generalised": None},
    ]
    said = comparison.summary(rows)
    assert said.startswith("4 runs: 2 in grokking, 1 in memorization.") and "at 20 times" in said
    assert "from 10 to 30." in said
    assert comparison.summary(rows[2:]) == "2 runs: 1 in memorization."


def test_what_cannot_be_compared_is_refused(tmp_path, tiny_run):
    with pytest.raises(GrokscopeError, match="no folder"):
        report.write_comparison([tiny_run, tmp_path / "none"])
    plan_folder = tmp_path / "empty"
    (tmp_path / "sweep.toml").write_text(SWEEP)
    sweep_folder.save(read_sweep(tmp_path / "sweep.toml"), plan_folder)
    with pytest.raises(GrokscopeError, match="no run with a readable log"):
        report.write_comparison([plan_folder])


def test_the_command_compares_several_and_needs_one(tiny_run, tmp_path, capsys):
    for name in ("one", "two"):
        shutil.copytree(tiny_run, tmp_path / name)
    names = ["one", "two", "--root", str(tmp_path)]
    cli.main(["report", *names])
    assert f"report   {tmp_path / 'comparison.html'}" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        cli.main(["report"])
    assert ended.value.code == 2


def test_cells_get_pages_of_their_own_and_one_that_has_none_stops_no_other(swept, tmp_path, capsys):
    folder = shutil.copytree(swept, tmp_path / "again")
    names = sorted(one.name for one in folder.iterdir() if one.is_dir())
    damaged = next(name for name in names if (folder / name / "config.json").read_text() == "damaged")
    (folder / names[0] / "report.html").unlink()
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", str(folder), "--cells"])
    output, errors = capsys.readouterr()
    assert ended.value.code == 1
    assert "1 cell could not be reported:" in errors and f"  {damaged}: " in errors and "Traceback" not in errors
    assert output.splitlines()[-1] == f"report   {folder / 'report.html'}"
    whole = [name for name in names if name != damaged]
    assert [name for name in names if (folder / name / "report.html").is_file()] == whole
    assert {run["name"] for run in numbers(folder / "report.html")["runs"] if run["link"]} == set(whole)
    assert len(whole) == 2


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as one:
        yield one


def choose(browser: Browser, select: str, value: str) -> None:
    browser.run(
        f"(() => {{ const one = document.getElementById('{select}'); one.value = {json.dumps(value)};"
        " one.dispatchEvent(new Event('change')); })()"
    )


NAMES = "[...document.querySelectorAll('#runs tbody tr')].map((row) => row.dataset.name)"
LINES = (
    "[...document.querySelectorAll('#compare-1 .chip')].map((one) => one.firstChild.nextSibling.textContent.trim())"
)


def test_seeds_are_a_band_or_lines_of_their_own(browser, seeds):
    browser.open(seeds)
    assert browser.run(LINES) == ["lr 0.01 (2 seeds)", "lr 0.0001"]
    assert browser.run("document.querySelectorAll('#compare-1 path.band').length") == 1
    choose(browser, "seeds", "each")
    assert browser.run(LINES) == ["lr 0.01, seed 0", "lr 0.01, seed 1", "lr 0.0001"]
    browser.run("document.querySelector('#runs tbody input').click()")
    assert browser.run(LINES) == ["lr 0.01, seed 1", "lr 0.0001"]
    assert browser.complaints == [] and browser.requests == [seeds.resolve().as_uri()]


def test_curves_bear_the_names_of_runs_where_their_settings_are_many_or_no_two_share_them(browser, mixed, seeds):
    browser.open(mixed)
    assert browser.run(LINES) == ["a_sum", "a_quotient", "a_product_in_some_group"]
    browser.open(report.write_comparison([seeds.parent / "tiny", seeds.parent / "slow"], seeds.parent / "d.html"))
    assert browser.run(LINES) == ["tiny", "slow"]
    browser.open(report.write_comparison([seeds.parent / "tiny", seeds.parent / "other"], seeds.parent / "e.html"))
    assert browser.run(LINES) == ["2 seeds"]
    choose(browser, "seeds", "each")
    assert browser.run(LINES) == ["seed 0", "seed 1"]
    assert browser.complaints == []


def test_what_a_run_does_not_have_has_a_place_in_the_phase_diagram(browser, mixed):
    browser.open(mixed)
    choose(browser, "diagram-y", "task.name")
    choose(browser, "diagram-x", "task.p")
    cells = "[...document.querySelectorAll('.diagram tr:last-child th')].map((one) => one.textContent)"
    assert browser.run(cells) == ["task.name ↑  task.p →", "7", "11", "—"]
    assert browser.run("document.querySelectorAll('.diagram .phase').length") == 3


def test_a_panel_of_several_is_saved_with_what_it_shows_and_whose_curves(browser, seeds):
    browser.open(seeds)
    choose(browser, "align", "memorized")
    found = saved(browser)
    assert list(found) == [f"tiny_other_slow-compare-{i}-step-0.svg" for i in (1, 2, 3)]
    loss = list(ElementTree.fromstring(found["tiny_other_slow-compare-2-step-0.svg"]).itertext())
    assert {"test loss", "nats", *browser.run(LINES)} <= set(loss)
    assert any(one.startswith("tiny · other · slow · step 0 · step 0 is each run’s memoriz") for one in loss)


STICKS_OUT = """[...document.querySelectorAll('.chip, .chip b, #runs td, #runs table, .diagram')].filter((one) =>
  one.getBoundingClientRect().right > one.closest('.panel').getBoundingClientRect().right
  && !(one.closest('.scroll') && getComputedStyle(one.closest('.scroll')).overflowX === 'auto')
).map((one) => one.textContent.trim())"""


@pytest.fixture(scope="module")
def long_names(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("long")
    names = [f"weight_decay={i}+batch_size=none+" + "and_more_that_varies_" * 3 + str(i) for i in range(4)]
    for name in names:
        shutil.copytree(tiny_run, root / name)
    return report.write_comparison([root / name for name in names])


@pytest.mark.parametrize("width", [380, 800, 1400, 1900])
def test_nothing_of_several_is_wider_than_the_window_and_all_is_within_reach(width, browser, long_names):
    browser.open(long_names, width=width)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run(STICKS_OUT) == []
    for name in ("align", "axis", "seeds", "theme"):
        box = browser.box(f"#{name}")
        assert box["width"] > 20 and box["x"] >= 0 and box["x"] + box["width"] <= width


def test_nothing_of_several_is_cut_off_on_paper(browser, long_names):
    browser.open(long_names, width=703)
    browser.run("window.dispatchEvent(new Event('beforeprint'))")
    browser.frame()
    assert browser.run(STICKS_OUT) == []
    scrolled = (
        "[...document.querySelectorAll('.scroll')].filter((one) => one.scrollWidth > one.clientWidth + 1).length"
    )
    assert browser.run(scrolled) == 0
    assert browser.run("document.querySelector('.controls').getBoundingClientRect().height") < 5
    browser.run("window.dispatchEvent(new Event('afterprint'))")


CUT_OFF = """[...document.querySelectorAll('svg.chart text')].filter((one) => {
  const box = one.getBBox();
  return box.x < -1 || box.x + box.width > one.ownerSVGElement.width.baseVal.value + 1;
}).map((one) => one.textContent)"""


def test_no_name_is_cut_off_however_long(browser, seeds):
    config = make_tiny_config()
    other = dataclasses.replace(config.optimizer, lr=1e-4, weight_decay=0.25)
    training.train(dataclasses.replace(config, optimizer=other), "other_decay", seeds.parent)
    names = ("tiny", "other", "other_decay")
    browser.open(report.write_comparison([seeds.parent / name for name in names], seeds.parent / "c.html"))
    assert max(map(len, browser.run(LINES))) > 25 and browser.run(CUT_OFF) == []
    browser.open(seeds)
    assert browser.run(CUT_OFF) == []
    assert browser.run("document.querySelectorAll('#compare-1 svg.chart text.name').length") == 2


def test_runs_are_aligned_by_an_event_and_those_without_it_left_out(browser, seeds):
    browser.open(seeds)
    choose(browser, "seeds", "each")
    choose(browser, "align", "memorized")
    with_event = [run for run in numbers(seeds)["runs"] if run["memorized"] is not None]
    assert 0 < len(with_event) < 3
    assert len(browser.run(LINES)) == len(with_event)
    assert "never had it" in browser.run("document.getElementById('aligned').textContent")
    assert browser.complaints == []


def test_a_heading_sorts_the_table_both_ways(browser, swept):
    browser.open(swept / "report.html")
    order = browser.run(NAMES)
    for arrow in ("ascending", "descending"):
        browser.run("[...document.querySelectorAll('.sort')].find((one) => one.textContent === 'run').click()")
        assert browser.run(NAMES) == sorted(order, reverse=arrow == "descending")
        assert browser.run(f"document.querySelectorAll('#runs [aria-sort={arrow}]').length") == 1
    for width in (380, 1900):
        browser.resize(width, 900)
        browser.frame()
        assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("document.querySelectorAll('.diagram .phase').length") == 2
    assert browser.run("document.querySelector('.diagram a.phase').getAttribute('href')").endswith(
        "seed%3D0/report.html"
    )
    assert browser.complaints == []


def test_hostile_names_run_nothing_on_a_page_of_several(browser, tiny_run, tmp_path):
    names = [HOSTILE.replace("/", "∕"), "javascript:alert(1)"]
    for name in names:
        shutil.copytree(tiny_run, tmp_path / name)
        (tmp_path / name / "report.html").write_text("a page")
    path = report.write_comparison([tmp_path / name for name in names])
    browser.open(path)
    assert browser.run(NAMES) == names
    links = browser.run("[...document.querySelectorAll('#runs a')].map((one) => one.href)")
    assert len(links) == 2 and all(link.startswith("file:") for link in links), links
    assert browser.run("document.querySelectorAll('img, iframe').length") == 0
    assert browser.complaints == [] and browser.requests == [path.resolve().as_uri()]
