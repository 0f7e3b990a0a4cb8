"""The progress of a training: where it is shown, and that it changes no bit."""

import dataclasses
import io
import sys
from contextlib import nullcontext

import pytest

from grokscope import Trajectory
from grokscope.training import densification, fork, run, run_progress


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def open_terminal(monkeypatch):
    """The function that makes standard error a terminal; pytest replaces the stream after the fixtures."""

    def replace() -> Terminal:
        stream = Terminal()
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("FORCE_COLOR", raising=False)
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return replace


@pytest.fixture
def notebook(monkeypatch):
    """A Jupyter notebook, as rich recognises it."""
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)


def test_train_shows_a_bar_in_a_terminal(open_terminal, tiny_config, tiny_run, tmp_path):
    terminal = open_terminal()
    trajectory = run.train(tiny_config, "shown", tmp_path)
    assert "step 60/60" in terminal.getvalue()
    assert trajectory.digest == Trajectory.open(tiny_run).digest


def test_progress_false_is_silent(open_terminal, tiny_config, tmp_path, capsys):
    terminal = open_terminal()
    run.train(tiny_config, "silent", tmp_path, progress=False)
    assert terminal.getvalue() == "" and capsys.readouterr().out == ""


def test_pipe_stays_empty_even_with_forced_colours(tiny_config, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    run.train(tiny_config, "piped", tmp_path)
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("notebook")
def test_notebook_shows_one_line_that_changes(tiny_config, tiny_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run_progress.time, "monotonic", iter(range(0, 10**6, 2)).__next__)
    trajectory = run.train(tiny_config, "notebook", tmp_path)
    output, errors = capsys.readouterr()
    assert "step 60/60 · softmax loss" in output and output.count("\n") == 1 and output.count("\r") == 60
    assert errors == "" and trajectory.digest == Trajectory.open(tiny_run).digest


def test_progress_and_observer_see_the_same_steps(open_terminal, tiny_config, tmp_path):
    terminal = open_terminal()
    steps = []
    run.train(tiny_config, "both", tmp_path, observer=lambda step, row: steps.append(step))
    assert steps == list(range(1, 61)) and "step 60/60" in terminal.getvalue()


def test_total_of_densify_is_the_confirming_step(run_copy):
    last_steps, seen = [], []

    def display(n_steps, start):
        last_steps.append(n_steps)
        return nullcontext(lambda step, row: seen.append(step))

    densification.densify(run_copy, 3, 5, progress=display)
    assert last_steps == [10] and max(seen) == 10


def test_refused_training_shows_no_progress(run_copy, tiny_config, tmp_path):
    def display(n_steps, start):
        raise AssertionError("the training was announced")

    for refused in (
        lambda: run.resume(run_copy, 10, progress=display),
        lambda: fork.prepare_fork(run_copy, 33, dataclasses.replace(tiny_config, n_steps=30), display),
    ):
        with pytest.raises(run.GrokscopeError):
            refused()


def test_marimo_notebook_gets_one_line_that_changes(monkeypatch):
    import sys
    from types import SimpleNamespace

    lines: list[str] = []
    marimo = SimpleNamespace(
        running_in_notebook=lambda: True, output=SimpleNamespace(replace=lambda line: lines.append(line))
    )
    monkeypatch.setitem(sys.modules, "marimo", marimo)
    with run_progress.displayed(True, 2, 0) as observe:
        assert observe is not None
        observe(2, {"train_loss": 1.0, "test_loss": 2.0, "train_accuracy": 0.5, "test_accuracy": 0.25})
    assert len(lines) == 1 and lines[0].startswith("step 2/2 ") and "50% train 25% test" in lines[0]
    monkeypatch.setattr(marimo, "running_in_notebook", lambda: False)
    with run_progress.displayed(True, 2, 0) as observe:
        assert observe is None
