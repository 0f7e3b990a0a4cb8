"""The page of a watched run: it measures only what is new, and equals a page rendered from scratch."""

import dataclasses
import shutil
import time
from typing import Any

import pytest
from support.browser import Tab, chromium
from support.pages import read_payload
from support.shared import flip, place, truncate

from grokscope import Trajectory, measures, report, training
from grokscope.report import page
from grokscope.watch import Server, View, WatchedRun


def test_update_measures_only_new_checkpoints(young_run, monkeypatch):
    evaluations: list[tuple[str, list[int]]] = []
    evaluate = measures.MeasureRequest.evaluate_undamaged

    def record(request: measures.MeasureRequest) -> Any:
        evaluations.append((request.name, request.checkpoints.steps.tolist()))
        return evaluate(request)

    monkeypatch.setattr(measures.MeasureRequest, "evaluate_undamaged", record)
    run = WatchedRun(young_run)
    view = View(run, 5.0)
    assert view.version == 1
    training.resume(young_run)
    assert run.refresh()
    evaluations.clear()
    view.update()
    assert dict(evaluations) == {
        **{name: [40, 50, 60] for name in ("weight_norm", "attention", "example_loss")},
        **{name: [0, 10, 20, 30, 40, 50, 60] for name in ("embedding", "fourier")},
    }
    assert run.status in view.page.decode() and view.version == 2
    assert read_payload(view.page) == read_payload(View(WatchedRun(young_run), 5.0).page)
    assert 'data-version="2" data-interval="5.0"' in view.page.decode()


@pytest.mark.slow
def test_saved_measures_are_not_measured_again(run_copy, monkeypatch):
    saved_page = report.write(Trajectory.open(run_copy)).read_bytes()
    for method in ("evaluate", "evaluate_undamaged"):
        monkeypatch.setattr(measures.MeasureRequest, method, lambda *_: pytest.fail("the measure is saved"))
    payload = read_payload(View(WatchedRun(run_copy), 5.0).page)
    keys = [quantity["key"] for quantity in payload["quantities"]]
    assert {"sharpness.sharpness", "progress.restricted_loss", "weight_norm.norms"} <= set(keys)
    assert len(keys) == len(set(keys)) and payload == read_payload(saved_page)


def test_only_a_watched_page_makes_requests(tiny_run):
    run = WatchedRun(tiny_run)
    view = View(run, 5.0)
    live = view.page.decode()
    saved = page.render_run(run.trajectory, view._measured, [], run.store.record).decode()
    assert "connect-src 'self';" in live and "fetch(" in live
    assert "connect-src" not in saved and "fetch(" not in saved and 'id="live"' not in saved
    for text in (live, saved):
        assert "default-src 'none'; script-src 'sha256-" in text and "unsafe" not in text


def test_run_at_step_0_has_a_page(tiny_config, train_dying_run, tmp_path):
    run = WatchedRun(train_dying_run(1, tiny_config, tmp_path / "newborn"))
    assert b"stopped at step 0 of 60" in View(run, 5.0).page


def test_damage_during_watching_is_shown(run_copy):
    run = WatchedRun(run_copy)
    view = View(run, 5.0)
    segments = sorted((run_copy / "segments").iterdir())
    truncate(segments[1])
    assert run.refresh()
    view.update()
    assert segments[1].name in view.page.decode() and view.version == 2
    flip(segments[0], 8 * place(segments[0], "checkpoints/embed.W_E")[0])
    assert run.refresh()
    view.update()
    assert "checkpoints/embed.W_E (step 0) does not match its checksum" in view.page.decode() and view.version == 3


@pytest.mark.slow
def test_another_run_in_the_folder_is_measured_again(young_run, tiny_config):
    run = WatchedRun(young_run)
    view = View(run, 5.0)
    shutil.rmtree(young_run)
    training.train(dataclasses.replace(tiny_config, init_seed=5), young_run.name, young_run.parent)
    assert run.refresh()
    view.update()
    assert read_payload(view.page) == read_payload(View(WatchedRun(young_run), 5.0).page)


STEP = "document.getElementById('step-value').textContent"


@pytest.mark.slow
def test_open_page_reloads_and_keeps_the_choices(young_run):
    run = WatchedRun(young_run)
    view = View(run, 0.1)
    with chromium() as browser, Server() as server:
        tab = Tab(browser)

        def publish() -> None:
            view.update()
            server.publish(view.page, view.version, run.status)

        server.publish(view.page, view.version, run.status)
        tab.open(server.address, "#axis=linear&step=30")
        assert tab.evaluate(STEP) == "30"
        training.resume(young_run)
        assert run.refresh()
        publish()
        # A reader at the last step moves to the new last step.
        tab.wait_until(f"document.getElementById('live')?.dataset.version === '2' && {STEP} === '60'")
        assert tab.evaluate("document.getElementById('axis').value") == "linear"
        tab.evaluate("document.documentElement.className === 'ready' && (location.hash = '#axis=linear&step=20')")
        tab.wait_until(f"{STEP} === '20'")
        publish()
        tab.wait_until(f"document.getElementById('live')?.dataset.version === '3' && {STEP} === '20'")
        assert tab.evaluate("location.hash") == "#axis=linear&step=20"
        assert tab.evaluate("document.getElementById('live').textContent").startswith("Training has finished")
        assert tab.errors == []
        assert set(tab.requests) == {server.address, f"{server.address}state"}
        # A reload would close a table that is being read.
        tab.evaluate("document.querySelector('details').open = true")
        publish()
        tab.wait_until("document.getElementById('live').textContent.includes('Newer checkpoints appear once')")
        tab.evaluate("document.querySelector('details').open = false")
        tab.wait_until("document.getElementById('live')?.dataset.version === '4'")
        server._server.server_close()
        server._server.shutdown()
        # Without answers, the page keeps the last status and stops asking.
        tab.wait_until("document.getElementById('live').textContent.includes('no longer updated')")
        assert tab.evaluate("document.getElementById('live').textContent").startswith("Training has finished")
        time.sleep(2)
        tab.wait_for_frame()
        n_requests = len(tab.requests)
        time.sleep(0.5)
        tab.wait_for_frame()
        assert len(tab.requests) == n_requests
