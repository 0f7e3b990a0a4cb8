"""Watching a run: who is answered and who is not, what is renewed, and that the run never notices."""

import dataclasses
import hashlib
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from support.browser import chromium
from support.shared import Command, command_line, flip, place, truncate

from grokscope import GrokscopeError, Trajectory, measures, report, training
from grokscope.cli import watching
from grokscope.config import RunConfig
from grokscope.report import page
from grokscope.training.checkpointer import Recorder
from grokscope.watch import Beside, Screen, Server, View, Watched, background
from grokscope.watch.terminal import sparkline

STATE = {"version": 3, "sentence": "It stands well."}


class Enough(Exception):
    """Ends a training from its observer."""


def train_to(step: int, config: RunConfig, folder: Path) -> Path:
    """Train a run that dies at a step, with what was committed until then."""

    def stop(at: int, row: dict[str, float]) -> None:
        if at == step:
            # Whoever dies commits nothing more.
            patch.setattr(Recorder, "commit", lambda *_: None)
            raise Enough

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Enough):
        training.train(config, folder.name, folder.parent, observer=stop)
    return folder


@pytest.fixture
def young(tiny_config: RunConfig, short_segments: None, tmp_path: Path) -> Path:
    """A run of 60 steps that died after its commit at step 30."""
    return train_to(31, tiny_config, tmp_path / "young")


@pytest.fixture
def grokscope(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    return command_line(capsys, monkeypatch, tmp_path / "here")


def everything(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Return all that tells whether anybody wrote: every path with its bytes, size, time of writing and number."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        about = path.stat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path)] = (content, about.st_size, about.st_mtime_ns, about.st_ino)
    return found


def numbers(page: bytes) -> dict[str, Any]:
    """Return what a page draws."""
    found = re.search(r'<script type="application/json" id="numbers">(.*?)</script>', page.decode(), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


# -- The server.


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as one:
        one.show(b"<p>the page</p>", **STATE)
        yield one


def ask(server: Server, method: str, path: str, hosts: list[str] | None = None) -> tuple[int, dict[str, str], bytes]:
    """Send one request with these Host headers, by default the right one; return status, headers and content."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for host in [f"127.0.0.1:{server.port}"] if hosts is None else hosts:
            connection.putheader("Host", host)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def path_of(server: Server) -> str:
    return "/" + server.address.split("/", 3)[3]


def test_the_page_is_served_to_this_machine_alone_and_to_nobody_who_frames_or_keeps_it(server):
    assert server._server.socket.getsockname() == ("127.0.0.1", server.port)
    assert re.fullmatch(rf"http://127\.0\.0\.1:{server.port}/[A-Za-z0-9_-]{{43}}/", server.address)
    status, headers, content = ask(server, "GET", path_of(server))
    assert (status, content) == (200, b"<p>the page</p>")
    assert headers["content-type"] == "text/html; charset=utf-8" and headers["content-length"] == "15"
    assert headers["cache-control"] == "no-store" and headers["referrer-policy"] == "no-referrer"
    assert headers["content-security-policy"] == "frame-ancestors 'none'" and headers["server"] == "grokscope"
    assert not any(key.startswith("access-control") for key in headers)
    status, headers, content = ask(server, "GET", path_of(server) + "state")
    assert (status, json.loads(content), headers["content-type"]) == (200, STATE, "application/json")


def test_head_says_what_get_would_without_it(server):
    for path in (path_of(server), path_of(server) + "state"):
        (status, headers, content), got = ask(server, "HEAD", path), ask(server, "GET", path)
        assert (status, content) == (200, b"") and headers["content-length"] == str(len(got[2]))


def test_every_server_has_a_token_of_its_own(server):
    with Server() as other:
        assert path_of(other) != path_of(server)
        assert ask(other, "GET", path_of(server))[0] == 404


def wrong_paths(right: str) -> list[str]:
    other = right[:-2] + ("A" if right[-2] != "A" else "B") + "/"
    ways = [
        right[:-1],
        right + "?",
        right + "config.json",
        right + "../",
        right + "state/",
        "/." + right,
        right.lower(),
    ]
    return ["/", "/state", "//", "*", "/favicon.ico", "/..%2f..%2fetc/passwd", other, *ways]


def test_any_other_path_is_not_found_and_says_nothing(server):
    for path in wrong_paths(path_of(server)):
        status, _, content = ask(server, "GET", path)
        assert (status, content) == (404, b"404 Not Found\n"), path


def test_a_path_of_other_letters_is_not_found_either(server, capsys):
    with socket.create_connection(("127.0.0.1", server.port)) as one:
        one.sendall(f"GET /\xe9/ HTTP/1.0\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode("latin-1"))
        assert one.recv(1000).startswith(b"HTTP/1.0 404 ")
    assert capsys.readouterr() == ("", "")


def test_a_request_that_names_another_host_is_refused(server):
    port, right = server.port, path_of(server)
    for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
        assert ask(server, "GET", right, [host])[0] == 200
    wrong = [
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1",
        "localhost",
        f"127.0.0.1:{port + 1}",
        f"[::1]:{port}",
        "",
    ]
    for hosts in [[], *([one] for one in wrong), [f"localhost:{port}", "evil.example"], [f"localhost:{port}"] * 2]:
        for path in (right, right + "state", "/"):
            assert ask(server, "GET", path, hosts)[0] == 403, hosts


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"])
def test_nothing_but_get_and_head_is_answered(server, method):
    status, _, content = ask(server, method, path_of(server))
    assert status == (501 if method == "BREW" else 405) and b"the page" not in content


def test_a_reader_that_goes_away_in_the_middle_is_nobodys_fault(server, capsys):
    server.show(b"x" * 2**24, 4, "")
    with socket.create_connection(("127.0.0.1", server.port)) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.sendall(f"GET {path_of(server)} HTTP/1.0\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
        one.recv(1000)
    assert ask(server, "GET", path_of(server) + "state")[0] == 200
    assert capsys.readouterr() == ("", "")


def test_a_port_that_cannot_be_had_is_said(server):
    with pytest.raises(
        GrokscopeError, match=f"Port {server.port} of 127.0.0.1 cannot be had: .*another --port, or 0"
    ):
        Server(server.port)
    for port in (-1, 65536):
        with pytest.raises(GrokscopeError, match=f"--port {port}: allowed: .* to 65535"):
            Server(port)


def test_a_page_that_asks_is_behind_until_it_has_loaded_the_newest(server):
    assert not server.is_behind(60)
    ask(server, "GET", path_of(server) + "state")
    assert server.is_behind(60) and not server.is_behind(0)
    ask(server, "GET", path_of(server))
    assert not server.is_behind(60)


# -- What is shown.


def test_a_page_is_renewed_from_what_is_new_alone_and_is_what_a_new_one_would_be(young, monkeypatch):
    evaluated: list[tuple[str, list[int]]] = []
    evaluate = measures.evaluate

    def noted(name: str, trajectory: Trajectory, /, **options: Any) -> Any:
        evaluated.append((name, trajectory.steps.tolist()))
        return evaluate(name, trajectory, **options)

    monkeypatch.setattr(measures, "evaluate", noted)
    run = Watched(young)
    view = View(run, 5.0)
    assert (run.step, view.version, run.is_over) == (30, 1, True) and not run.look()
    assert run.sentence == "Training has stopped at step 30 of 60: nobody trains this run at the moment."
    while_training: list[str] = []

    def observe(step: int, row: dict[str, float]) -> None:
        if step == 45:
            assert run.look() and not run.is_over
            while_training.append(run.sentence)

    training.resume(young, observer=observe)
    assert while_training[0].startswith("Training goes on: committed to step 40 of 60.")
    assert run.look() and not run.look()
    evaluated.clear()
    view.renew()
    assert dict(evaluated) == {
        **{name: [40, 50, 60] for name in ("weight_norm", "attention", "example_loss")},
        **{name: [0, 10, 20, 30, 40, 50, 60] for name in ("embedding", "fourier")},
    }
    assert run.sentence == "Training has ended: it has reached its last step, 60." in view.page.decode()
    assert view.version == 2 and run.is_over
    whole = View(Watched(young), 5.0)
    assert numbers(view.page) == numbers(whole.page)
    assert 'data-version="2" data-every="5.0"' in view.page.decode()


@pytest.mark.slow
def test_what_was_saved_is_shown_and_not_measured_again(run_copy, monkeypatch):
    saved = report.write(Trajectory.open(run_copy)).read_bytes()
    monkeypatch.setattr(measures, "evaluate", lambda *_, **__: pytest.fail("it is saved"))
    shown = View(Watched(run_copy), 5.0).page
    keys = [one["key"] for one in numbers(shown)["quantities"]]
    assert {"sharpness.sharpness", "progress.restricted_loss", "weight_norm.norms"} <= set(keys)
    assert len(keys) == len(set(keys)) and numbers(shown) == numbers(saved)


def test_only_a_page_that_is_watched_may_ask(tiny_run):
    run = Watched(tiny_run)
    view = View(run, 5.0)
    live = view.page.decode()
    saved = page.of_run(run.trajectory, view._measured, [], run.store.record).decode()
    assert "connect-src 'self';" in live and "fetch(" in live
    assert "connect-src" not in saved and "fetch(" not in saved and 'id="live"' not in saved
    for one in (live, saved):
        assert "default-src 'none'; script-src 'sha256-" in one and "unsafe" not in one


def test_a_run_of_step_0_alone_is_shown(tiny_config, tmp_path):
    run = Watched(train_to(1, tiny_config, tmp_path / "newborn"))
    assert run.trajectory.steps.tolist() == [0] and run.steps_per_second is None
    assert b"stopped at step 0 of 60" in View(run, 5.0).page
    assert "before memorization · 1 checkpoint committed" in drawn(run, 80)


def test_a_run_that_is_lost_is_shown_as_it_was_and_found_again(run_copy, tmp_path):
    run = Watched(run_copy)
    run_copy.rename(tmp_path / "elsewhere")
    assert not run.look() and run.is_over and len(run.trajectory) == 7
    assert run.sentence.startswith("The run cannot be read any more; this is what it was at step 60. ")
    assert "copy" in run.sentence and "\n" not in run.sentence
    assert "cannot be read any more" in drawn(run, 80)
    (tmp_path / "elsewhere").rename(run_copy)
    assert run.look() and run.sentence.startswith("Training has ended")


def test_a_hostile_name_tells_the_terminal_nothing(run_copy):
    folder = run_copy.rename(run_copy.with_name("\x1b[2Jx\u202e"))
    run = Watched(folder)
    folder.rename(run_copy)
    assert not run.look()
    console = Console(width=80, file=io.StringIO())
    console.print(Screen(run))
    assert isinstance(console.file, io.StringIO) and not set("\x1b\u202e") & set(console.file.getvalue())


def test_damage_while_it_is_watched_is_said(run_copy):
    run = Watched(run_copy)
    view = View(run, 5.0)
    segments = sorted((run_copy / "segments").iterdir())
    truncate(segments[1])
    assert run.look()
    view.renew()
    assert segments[1].name in view.page.decode() and view.version == 2
    flip(segments[0], 8 * place(segments[0], "checkpoints/embed.W_E")[0])
    assert run.look()
    with pytest.warns(UserWarning, match="Left out, since damaged: the checkpoint at 0"):
        view.renew()
    assert "checkpoints/embed.W_E (step 0) does not match its checksum" in view.page.decode() and view.version == 3


@pytest.mark.slow
def test_another_run_under_the_same_name_is_measured_anew(young, tiny_config):
    run = Watched(young)
    view = View(run, 5.0)
    shutil.rmtree(young)
    training.train(dataclasses.replace(tiny_config, init_seed=5), young.name, young.parent)
    assert run.look()
    view.renew()
    assert numbers(view.page) == numbers(View(Watched(young), 5.0).page)


# -- The terminal.


def drawn(run: Watched, width: int) -> str:
    """Return what stands in a terminal of some width."""
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(Screen(run))
    assert isinstance(console.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue())


def test_a_curve_in_a_line_is_what_was_last_seen_up_to_each_column():
    # Of 1 + step/10 = 1 … 81 = 3⁴ the columns of eight end at 3^(i/2): there are 1, 3, 5, 9, 15, 27, 46 and 81.
    steps = np.arange(81) * 10
    shares = np.log(1 + steps / 10) / np.log(81)
    assert sparkline(steps, shares, (0, 1.1), 8) == "▁▃▃▄▅▆▇▇"
    assert sparkline(steps, shares, (0, 1.1), 8, is_plain=True) == "_--~=+**"
    assert sparkline(steps, 10.0 ** (-7 * shares), (10**-7.7, 1), 8, is_log=True) == "█▆▆▅▄▃▂▂"
    assert sparkline(steps[:2], np.array([1.0, np.nan]), (0, 1), 4) == "███ "
    assert sparkline(steps[:1], np.array([0.5]), (0.5, 0.5), 3) == "▁▁▁"
    assert sparkline(steps[:3], np.array([0.0, 1.0, 9.0]), (0.1, 1.0), 3, is_log=True) == "▁██"


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_terminal_shows_numbers_and_curves_as_wide_as_it_is(tiny_run, width):
    run = Watched(tiny_run)
    text, log = drawn(run, width), Trajectory.open(tiny_run).log
    lines = text.splitlines()
    assert lines[0] == "tiny: a + b mod 7" and "Training has ended" in text
    assert "memorized · 7 checkpoints" in text
    assert max(map(len, lines)) <= width
    for name in ("train_loss", "test_loss"):
        (line,) = [one for one in lines if one.lstrip().startswith(name.replace("_", " "))]
        assert f"{log[name][-1]:.4g}" in line and len(line.rstrip().split()[-1]) == width - 32
    assert f"{log['test_accuracy'][-1]:.2%}" in text


def test_the_speed_is_that_between_the_last_two_commits(run_copy):
    run = Watched(run_copy)
    ends = sorted((one.coverage[1], one.path) for one in run.store.segments if one.coverage)
    for i, (_, path) in enumerate(ends):
        os.utime(path, (1000 + 4 * i, 1000 + 4 * i))
    assert run.steps_per_second == (ends[-1][0] - ends[-2][0]) / 4


# -- The commands.


@pytest.mark.parametrize("flags", [[], ["--terminal"]], ids=["page", "terminal"])
def test_a_run_is_the_same_to_the_bit_after_it_was_watched(grokscope, run_copy, flags):
    (run_copy / "lock").unlink()
    before = everything(run_copy)
    status, output, errors = grokscope("watch", run_copy, "--until-end", "--every", "0.1", *flags)
    assert (status, errors) == (0, "") and "Training has ended: it has reached its last step, 60." in output
    assert ("http://127.0.0.1:" in output) == (not flags)
    assert everything(run_copy) == before and not (run_copy / "lock").exists()


@pytest.mark.parametrize("flags", [[], ["--terminal"]], ids=["page", "terminal"])
def test_ctrl_c_ends_it_with_status_0(grokscope, tiny_run, monkeypatch, flags):
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watching.time, "sleep", interrupt)
    status, output, errors = grokscope("watch", tiny_run, *flags)
    assert (status, errors) == (0, "") and output.endswith(
        f"No longer watching {tiny_run}; the run goes its own way.\n"
    )


def test_what_cannot_be_watched_is_said(grokscope, run_copy):
    for flags, said in (
        (["--every", "0"], "--every 0: allowed: from 0.1 to 3600 seconds"),
        (["--every", "nan"], "--every nan: allowed"),
        (["--port", "70000"], "--port 70000: allowed"),
        (["--terminal", "--open"], "neither --open nor --port"),
    ):
        status, _, errors = grokscope("watch", run_copy, "--until-end", *flags)
        assert status in (1, 2) and said in errors
    status, _, errors = grokscope("watch", "nothing")
    assert status == 1 and len(errors.splitlines()) == 1
    status, _, errors = grokscope("train", "quick", "--stay")
    assert status == 2 and "--stay goes with --live" in errors


def test_a_training_that_is_watched_is_the_same_and_hears_the_watcher(
    grokscope, tiny_run, tiny_config, toml, tmp_path, monkeypatch
):
    (tmp_path / "tiny.toml").write_text(toml(tiny_config.to_dict()))
    monkeypatch.setattr(background.sys, "executable", "/bin/echo")
    status, output, errors = grokscope("train", tmp_path / "tiny.toml", "--root", tmp_path / "runs", "--live")
    folder = tmp_path / "runs" / "tiny"
    assert status == 0 and "next: grokscope report" in output
    assert f"-m grokscope watch {folder} --until-end" in errors
    assert Trajectory.open(folder).digest == Trajectory.open(tiny_run).digest


def test_a_watcher_that_cannot_begin_is_said_once_and_the_training_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(background.sys, "executable", "/nowhere/python")
    said: list[str] = []
    steps: list[int] = []
    with Beside(tmp_path, said.append) as one:
        observe = one.before(lambda step, row: steps.append(step))
        for step in (1, 2, 3):
            observe(step, {})
    assert steps == [1, 2, 3]
    assert said == ["The run cannot be watched: No such file or directory. Training goes on."]


def test_the_watcher_ends_at_once_when_the_training_fails(tmp_path, monkeypatch):
    program = tmp_path / "sleeper"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(background.sys, "executable", str(program))
    started = time.monotonic()
    with pytest.raises(Enough), Beside(tmp_path, print) as one:
        one.before(lambda step, row: None)(1, {})
        process = one._process
        raise Enough
    assert process is not None and process.poll() is not None and time.monotonic() - started < 20


# -- The browser.

STEP = "document.getElementById('step-said').textContent"


@pytest.mark.slow
def test_a_page_renews_itself_and_keeps_what_its_reader_chose(young, tmp_path):
    run = Watched(young)
    view = View(run, 0.1)
    with chromium(tmp_path / "profile") as browser, Server() as server:

        def wait(expression: str) -> None:
            deadline = time.monotonic() + 30
            while not browser.run(f"Boolean({expression})"):
                assert time.monotonic() < deadline, expression
                time.sleep(0.05)

        def show() -> None:
            view.renew()
            server.show(view.page, view.version, run.sentence)

        server.show(view.page, view.version, run.sentence)
        browser.open(server.address, "#axis=linear&step=30")
        assert browser.run(STEP) == "30"
        training.resume(young)
        assert run.look()
        show()
        # Who was at the last step is at the new last step.
        wait(f"document.getElementById('live')?.dataset.version === '2' && {STEP} === '60'")
        assert browser.run("document.getElementById('axis').value") == "linear"
        browser.run("document.documentElement.className === 'ready' && (location.hash = '#axis=linear&step=20')")
        wait(f"{STEP} === '20'")
        show()
        wait(f"document.getElementById('live')?.dataset.version === '3' && {STEP} === '20'")
        assert browser.run("location.hash") == "#axis=linear&step=20"
        assert browser.run("document.getElementById('live').textContent").startswith("Training has ended")
        assert browser.complaints == []
        assert {one.split("#")[0] for one in browser.requests} == {server.address, f"{server.address}state"}
        # Nobody is torn from a table that is being read.
        browser.run("document.querySelector('details').open = true")
        show()
        wait("document.getElementById('live').textContent.includes('Newer checkpoints are shown as soon as')")
        browser.run("document.querySelector('details').open = false")
        wait("document.getElementById('live')?.dataset.version === '4'")
        server._server.server_close()
        server._server.shutdown()
        # What was said last stays, and who gets no answer stops asking.
        wait("document.getElementById('live').textContent.includes('Nobody shows this run any more')")
        assert browser.run("document.getElementById('live').textContent").startswith("Training has ended")
        time.sleep(2)
        browser.frame()
        n_asked = len(browser.requests)
        time.sleep(0.5)
        browser.frame()
        assert len(browser.requests) == n_asked


# -- Processes of their own.


def started(*arguments: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "grokscope", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1)


def heard(process: subprocess.Popen[str], pattern: str) -> str:
    """Return the first line in which a pattern is found."""
    assert process.stdout is not None
    for line in process.stdout:
        if re.search(pattern, line):
            return line
    return pytest.fail(f"it ended without {pattern}")


def test_a_dumb_terminal_has_plain_lines(grokscope, tiny_run, monkeypatch):
    # As rich takes it: a terminal that no line can be drawn over.
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "dumb")):
        monkeypatch.setenv(name, value)
    status, output, errors = grokscope("watch", tiny_run, "--until-end", "--every", "0.1", "--terminal")
    assert (status, errors) == (0, "") and output.count("\n") == 1 and "\N{ESCAPE}" not in output
    assert output.startswith("Training has ended: it has reached its last step, 60.") and "% test" in output


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--terminal"]], ids=["page", "terminal"])
def test_a_real_ctrl_c_ends_it_and_the_run_is_the_same(run_copy, flags):
    before = everything(run_copy)
    with started("watch", run_copy, "--every", "0.2", *flags) as process:
        heard(process, "Training has ended")
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "No longer watching" in said and "Traceback" not in said
    assert everything(run_copy) == before


@pytest.mark.slow
def test_a_real_training_is_served_while_it_trains_and_its_page_ends_with_it(tiny_config, toml, tmp_path):
    # Longer than anybody waits: it is stopped once it was seen.
    config = dataclasses.replace(tiny_config, n_steps=20_000, checkpoints="every 20", evaluate_every=20)
    (tmp_path / "long.toml").write_text(toml(config.to_dict()))
    with started("train", tmp_path / "long.toml", "--root", tmp_path / "runs", "--live") as process:
        address = heard(process, "is shown at").split()[-1]
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)(/.+/)", address)
        assert found is not None
        connection = HTTPConnection("127.0.0.1", int(found[1]), timeout=20)
        connection.request("GET", found[2] + "state")
        assert "Training goes on" in json.loads(connection.getresponse().read())["sentence"]
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "grokscope resume" in said and "Traceback" not in said
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(found[1])), timeout=5)
    watched = Trajectory.open(tmp_path / "runs" / "long")
    steps = watched.steps.tolist()
    plain = training.train(dataclasses.replace(config, n_steps=max(steps)), "plain", tmp_path)
    assert len(steps) > 1 and plain.select(steps).digest == watched.digest
