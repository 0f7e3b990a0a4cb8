"""A run in the terminal: its numbers, its curves, and names that cannot control the terminal."""

import io
import re

import numpy as np
import pytest
from rich.console import Console
from support.shared import Command

from grokscope import Trajectory
from grokscope.watch import Screen, WatchedRun
from grokscope.watch.terminal import sparkline


def draw(run: WatchedRun, width: int) -> str:
    """Return the text of a terminal of this width."""
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(Screen(run))
    assert isinstance(console.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue())


def test_sparkline_shows_the_last_value_of_each_column():
    # 1 + step/10 goes from 1 to 81 = 3⁴, so the eight columns end at 3^(i/2): 1, 3, 5, 9, 15, 27, 46 and 81.
    steps = np.arange(81) * 10
    shares = np.log(1 + steps / 10) / np.log(81)
    assert sparkline(steps, shares, (0, 1.1), 8) == "▁▃▃▄▅▆▇▇"
    assert sparkline(steps, shares, (0, 1.1), 8, is_ascii=True) == "_--~=+**"
    assert sparkline(steps, 10.0 ** (-7 * shares), (10**-7.7, 1), 8, is_log=True) == "█▆▆▅▄▃▂▂"


def test_sparkline_of_nan_constant_and_outliers():
    steps = np.arange(3) * 10
    assert sparkline(steps[:2], np.array([1.0, np.nan]), (0, 1), 4) == "███ "
    assert sparkline(steps[:1], np.array([0.5]), (0.5, 0.5), 3) == "▁▁▁"
    assert sparkline(steps, np.array([0.0, 1.0, 9.0]), (0.1, 1.0), 3, is_log=True) == "▁██"


@pytest.mark.parametrize("width", [40, 80, 200])
def test_screen_fills_the_width_of_the_terminal(tiny_run, width):
    text, log = draw(WatchedRun(tiny_run), width), Trajectory.open(tiny_run).log
    lines = text.splitlines()
    assert lines[0] == "tiny: a + b mod 7" and "Training has finished" in text
    assert "memorized · 7 checkpoints" in text
    assert max(map(len, lines)) <= width
    for name in ("train_loss", "test_loss"):
        (line,) = [line for line in lines if line.lstrip().startswith(f"softmax {name.replace('_', ' ')}")]
        assert f"{log[name][-1]:.4g}" in line and len(line.rstrip().split()[-1]) == width - 32
    assert f"{log['test_accuracy'][-1]:.2%}" in text


def test_run_at_step_0_is_drawn(tiny_config, train_dying_run, tmp_path):
    run = WatchedRun(train_dying_run(1, tiny_config, tmp_path / "newborn"))
    assert "before memorization · 1 checkpoint committed" in draw(run, 80)


def test_lost_run_is_drawn_as_it_was(run_copy, tmp_path):
    run = WatchedRun(run_copy)
    run_copy.rename(tmp_path / "elsewhere")
    run.refresh()
    assert "can no longer be read" in draw(run, 80)


def test_hostile_name_cannot_control_the_terminal(run_copy):
    folder = run_copy.rename(run_copy.with_name("\x1b[2Jx\u202e"))
    run = WatchedRun(folder)
    folder.rename(run_copy)
    assert not run.refresh()
    console = Console(width=80, file=io.StringIO())
    console.print(Screen(run))
    assert isinstance(console.file, io.StringIO) and not set("\x1b\u202e") & set(console.file.getvalue())


def test_dumb_terminal_gets_one_line_per_look(grokscope: Command, tiny_run, monkeypatch):
    # Rich takes a dumb terminal for one in which no line can be drawn over.
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "dumb")):
        monkeypatch.setenv(name, value)
    status, output, errors = grokscope("watch", tiny_run, "--until-end", "--every", "0.1", "--terminal")
    assert (status, errors) == (0, "") and output.count("\n") == 1 and "\N{ESCAPE}" not in output
    assert output.startswith("Training has finished at its last step, 60.") and "% test" in output
