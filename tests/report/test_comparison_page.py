"""The page of several runs in a browser: seeds, alignment, the phase diagram, the table and the layout."""

import dataclasses
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from support.browser import save_panels
from support.pages import HOSTILE_NAME, read_payload
from support.shared import make_tiny_config, quick

from grokscope import report, training

NAMES = "[...document.querySelectorAll('#runs tbody tr')].map((row) => row.dataset.name)"
LABELS = (
    "[...document.querySelectorAll('#compare-1 .chip')].map((chip) => chip.firstChild.nextSibling.textContent.trim())"
)
STICKING_OUT = """[...document.querySelectorAll('.chip, .chip b, #runs td, #runs table, .diagram')].filter((e) =>
  e.getBoundingClientRect().right > e.closest('.panel').getBoundingClientRect().right
  && !(e.closest('.scroll') && getComputedStyle(e.closest('.scroll')).overflowX === 'auto')
).map((e) => e.textContent.trim())"""
CUT_OFF = """[...document.querySelectorAll('svg.chart text')].filter((text) => {
  const box = text.getBBox();
  return box.x < -1 || box.x + box.width > text.ownerSVGElement.width.baseVal.value + 1;
}).map((text) => text.textContent)"""


@pytest.fixture(scope="module")
def long_names_page(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("long")
    names = [f"weight_decay={i}+batch_size=none+" + "and_more_that_varies_" * 3 + str(i) for i in range(4)]
    for name in names:
        shutil.copytree(tiny_run, root / name)
    return report.write_comparison([root / name for name in names])


# -- Curves.


def test_seeds_form_a_band_or_separate_lines(tab, seeds_page):
    tab.open(seeds_page)
    assert tab.evaluate(LABELS) == ["lr 0.01 (2 seeds)", "lr 0.0001"]
    assert tab.evaluate("document.querySelectorAll('#compare-1 path.band').length") == 1
    tab.choose("seeds", "each")
    assert tab.evaluate(LABELS) == ["lr 0.01, seed 0", "lr 0.01, seed 1", "lr 0.0001"]
    tab.evaluate("document.querySelector('#runs tbody input').click()")
    assert tab.evaluate(LABELS) == ["lr 0.01, seed 1", "lr 0.0001"]
    tab.assert_quiet(seeds_page)


@pytest.mark.slow
def test_chart_without_any_run_is_empty(tab, seeds_page):
    tab.open(seeds_page)
    tab.evaluate("document.querySelectorAll('#runs tbody input').forEach((box) => box.click())")
    assert tab.evaluate(LABELS) == []
    box = tab.scroll_to("#compare-1 svg.chart")
    tab.page.mouse.move(box["x"] + 200, box["y"] + 100)
    tab.evaluate("document.querySelector('#compare-1 details').open = true")
    tab.assert_quiet(seeds_page)


@pytest.mark.slow
def test_curves_are_named_after_runs_or_their_settings(tab, tasks_page, seeds_page):
    tab.open(tasks_page)
    assert tab.evaluate(LABELS) == ["a_sum", "a_quotient", "a_product_in_some_group"]
    root = seeds_page.parent
    tab.open(report.write_comparison([root / "tiny", root / "slow"], root / "d.html"))
    assert tab.evaluate(LABELS) == ["tiny", "slow"]
    tab.open(report.write_comparison([root / "tiny", root / "other"], root / "e.html"))
    assert tab.evaluate(LABELS) == ["2 seeds"]
    tab.choose("seeds", "each")
    assert tab.evaluate(LABELS) == ["seed 0", "seed 1"]
    assert tab.errors == []


@pytest.mark.slow
def test_alignment_leaves_out_runs_without_the_event(tab, seeds_page):
    tab.open(seeds_page)
    tab.choose("seeds", "each")
    tab.choose("align", "memorized")
    memorized = [run for run in read_payload(seeds_page)["runs"] if run["memorized"] is not None]
    assert 0 < len(memorized) < 3
    assert len(tab.evaluate(LABELS)) == len(memorized)
    assert "never reached it" in tab.evaluate("document.getElementById('alignment').textContent")
    assert tab.errors == []


@pytest.mark.slow
def test_saved_panel_names_its_runs_and_alignment(tab, seeds_page):
    tab.open(seeds_page)
    tab.choose("align", "memorized")
    drawings = save_panels(tab)
    assert list(drawings) == [f"tiny_other_slow-compare-{i}-step-0.svg" for i in (1, 2, 3)]
    texts = list(ElementTree.fromstring(drawings["tiny_other_slow-compare-2-step-0.svg"]).itertext())
    assert {"softmax test loss", "nats", *tab.evaluate(LABELS)} <= set(texts)
    caption = "tiny · other · slow · step 0 · step 0 is each run’s memoriz"
    assert any(text.startswith(caption) for text in texts)


# -- The phase diagram and the table.


@pytest.mark.slow
def test_phase_diagram_has_a_column_for_a_missing_setting(tab, tasks_page):
    tab.open(tasks_page)
    tab.choose("diagram-y", "task.name")
    tab.choose("diagram-x", "task.p")
    cells = "[...document.querySelectorAll('.diagram tr:last-child th')].map((cell) => cell.textContent)"
    assert tab.evaluate(cells) == ["task.name ↑  task.p →", "7", "11", "—"]
    assert tab.evaluate("document.querySelectorAll('.diagram .phase').length") == 3


def test_heading_sorts_the_table_both_ways(tab, sweep):
    tab.open(sweep / "report.html")
    names = tab.evaluate(NAMES)
    for order in ("ascending", "descending"):
        tab.evaluate("[...document.querySelectorAll('.sort')].find((head) => head.textContent === 'run').click()")
        assert tab.evaluate(NAMES) == sorted(names, reverse=order == "descending")
        assert tab.evaluate(f"document.querySelectorAll('#runs [aria-sort={order}]').length") == 1
    assert tab.errors == []


def test_sweep_page_links_squares_and_fits_the_window(tab, sweep):
    tab.open(sweep / "report.html")
    for width in (380, 1900):
        tab.resize(width, 900)
        tab.wait_for_frame()
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("document.querySelectorAll('.diagram .phase').length") == 2
    link = tab.evaluate("document.querySelector('.diagram a.phase').getAttribute('href')")
    assert link.endswith("seed%3D0/report.html")
    assert tab.errors == []


# -- The layout and hostile names.


@pytest.mark.parametrize("width", quick([380, 800, 1400, 1900], [380, 1400]))
def test_long_names_fit_every_window(width, tab, long_names_page):
    tab.open(long_names_page, width=width)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate(STICKING_OUT) == []
    for name in ("align", "axis", "seeds", "theme"):
        box = tab.scroll_to(f"#{name}")
        assert box["width"] > 20 and box["x"] >= 0 and box["x"] + box["width"] <= width


@pytest.mark.slow
def test_long_names_fit_the_paper(tab, long_names_page):
    tab.open(long_names_page, width=703)
    tab.evaluate("void window.dispatchEvent(new Event('beforeprint'))")
    tab.wait_for_frame()
    assert tab.evaluate(STICKING_OUT) == []
    scrolling = "[...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth + 1).length"
    assert tab.evaluate(scrolling) == 0
    assert tab.evaluate("document.querySelector('.controls').getBoundingClientRect().height") < 5
    tab.evaluate("void window.dispatchEvent(new Event('afterprint'))")


@pytest.mark.slow
def test_no_curve_name_is_cut_off(tab, seeds_page):
    config, root = make_tiny_config(), seeds_page.parent
    optimizer = dataclasses.replace(config.optimizer, lr=1e-4, weight_decay=0.25)
    training.train(dataclasses.replace(config, optimizer=optimizer), "other_decay", root)
    names = ("tiny", "other", "other_decay")
    tab.open(report.write_comparison([root / name for name in names], root / "c.html"))
    assert max(map(len, tab.evaluate(LABELS))) > 25 and tab.evaluate(CUT_OFF) == []
    tab.open(seeds_page)
    assert tab.evaluate(CUT_OFF) == []
    assert tab.evaluate("document.querySelectorAll('#compare-1 svg.chart text.name').length") == 2


def test_hostile_names_are_shown_as_text(tab, tiny_run, tmp_path):
    names = [HOSTILE_NAME, "javascript:alert(1)"]
    for name in names:
        shutil.copytree(tiny_run, tmp_path / name)
        (tmp_path / name / "report.html").write_text("a page")
    path = report.write_comparison([tmp_path / name for name in names])
    tab.open(path)
    assert tab.evaluate(NAMES) == names
    links = tab.evaluate("[...document.querySelectorAll('#runs a')].map((link) => link.href)")
    assert len(links) == 2 and all(link.startswith("file:") for link in links), links
    assert tab.evaluate("document.querySelectorAll('img, iframe').length") == 0
    tab.assert_quiet(path)
