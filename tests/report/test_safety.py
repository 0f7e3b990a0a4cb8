"""A page in a browser runs nothing but its own script, and stays small and fast for long runs."""

import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from support.browser import Tab
from support.pages import HOSTILE, HOSTILE_NAME, write_hostile_report
from support.shared import quick
from support.synthetic_pages import TASKS, synthetic_page


def test_hostile_texts_run_and_request_nothing(tab, reported_run, tmp_path):
    path = write_hostile_report(shutil.copytree(reported_run, tmp_path / HOSTILE_NAME))
    tab.open(path)
    tab.evaluate("void (window.alert = () => { throw new Error('alert') })")
    tab.evaluate(
        "(() => { const list = document.getElementById('measure-1-of');"
        " list.value = [...list.options].find((option) => option.value.includes('alert')).value;"
        " list.dispatchEvent(new Event('change')); })()"
    )
    assert HOSTILE in tab.evaluate("document.getElementById('measure-1-title').textContent")
    assert tab.evaluate("document.querySelectorAll('img, iframe, script:not([id])').length") == 1
    tab.assert_quiet(path)


@pytest.mark.parametrize("script", quick(["", " src='data:text/javascript,window.ran=1'"], [""]))
def test_policy_stops_markup_that_escaped_the_escaping(script, browser, reported_run, tmp_path):
    """The control: without the policy, the same markup runs and makes its request."""
    requests: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        image = f"<img src='http://127.0.0.1:{server.server_port}/' onerror='window.loaded = 1'>"
        body = "" if script else "window.ran = 1"
        page = (reported_run / "report.html").read_text(encoding="utf-8")
        path = tmp_path / "smuggled.html"
        path.write_text(page.replace("<h1>", f"<h1><script{script}>{body}</script>{image}"), encoding="utf-8")
        for bypass_csp in (False, True):
            tab = Tab(browser, bypass_csp=bypass_csp)
            tab.open(path)
            assert tab.evaluate("window.ran === 1 && window.loaded === 1") == bypass_csp
            assert tab.evaluate("window.ran === undefined && window.loaded === undefined") == (not bypass_csp)
            assert requests == (["/"] if bypass_csp else [])
            if not bypass_csp:
                assert sum("Content Security Policy" in error for error in tab.errors) >= 2
            tab.page.close()
        server.shutdown()


MILLISECONDS_PER_STEP = """(async () => {
  const slider = document.getElementById('step'), times = [], n = 60;
  for (let i = 0; i <= n; i++) {
    slider.value = Math.round(slider.max * i / n);
    const start = performance.now();
    slider.dispatchEvent(new Event('input'));
    await new Promise((done) => requestAnimationFrame(done));
    document.body.offsetHeight;
    times.push(performance.now() - start);
  }
  return times.sort((a, b) => a - b)[Math.floor(n / 2)];
})()"""


def use_page(tab: Tab, path: Path) -> dict[str, float]:
    """Open a page, use it, and return its size in MB, the seconds to load it, and the milliseconds per step."""
    started = time.monotonic()
    tab.open(path)
    seconds = time.monotonic() - started
    milliseconds = tab.evaluate(MILLISECONDS_PER_STEP)
    for axis in ("linear", "log"):
        tab.choose("axis", axis)
    tab.resize(500, 800)
    tab.wait_for_frame()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 500
    tab.assert_quiet(path)
    return {"MB": path.stat().st_size / 1e6, "s": seconds, "ms": milliseconds}


@pytest.mark.parametrize("name", quick(TASKS, ["cyclic"]))
def test_page_of_ten_checkpoints_works(name, tab, tmp_path):
    path = tmp_path / "page.html"
    path.write_bytes(synthetic_page(TASKS[name], 10))
    use_page(tab, path)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("n", [300, 3000])
def test_page_of_many_checkpoints_is_small_and_fast(name, n, tab, tmp_path, capsys):
    path = tmp_path / "page.html"
    path.write_bytes(synthetic_page(TASKS[name], n))
    costs = use_page(tab, path)
    with capsys.disabled():
        print(
            f"\n{name}, {n:,} checkpoints: {costs['MB']:.1f} MB, {costs['s']:.1f} s, {costs['ms']:.0f} ms a step",
            end="",
        )
    assert costs["MB"] < 8
    assert costs["s"] < 30 and costs["ms"] < 500, "on a busy machine; the README states the usual numbers"
