"""The progress of a run and of a sweep: what stands in the bar, and in the plain lines without a terminal."""

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from grokscope.cli.progress_bar import SweepProgress
from grokscope.config import RunConfig
from grokscope.disk.lock import Lock
from grokscope.sweep import sweep_folder
from grokscope.sweep.plan import Cell, Sweep
from grokscope.training.run_progress import Progress


def row(train: float, test: float) -> dict[str, float]:
    return {"train_loss": 0.25, "test_loss": 3.5, "train_accuracy": train, "test_accuracy": test}


STAGES = [(0.2, 0.1, "before memorization"), (1.0, 0.1, "memorized"), (1.0, 0.995, "generalised")]


@pytest.mark.parametrize(("train", "test", "stage"), STAGES, ids=lambda one: str(one))
def test_without_a_terminal_the_last_step_is_one_plain_line(
    train: float, test: float, stage: str, capsys: pytest.CaptureFixture[str]
):
    with Progress(50) as progress:
        for step in range(1, 51):
            progress(step, row(train, test))
    output, errors = capsys.readouterr()
    (line,) = errors.splitlines()
    assert output == "" and line.startswith("step 50/50 ")
    for part in ("2.5e-01 train", "3.5e+00 test", f"{train:.0%} train", "steps/s", stage):
        assert part in line


def test_on_a_terminal_a_bar_shows_step_losses_accuracies_speed_time_left_and_stage(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setattr("grokscope.training.run_progress.time.monotonic", iter(range(0, 10**6)).__next__)
    with Progress(200, start=100) as progress:
        for (train, test, stage), step in zip(STAGES, (120, 140, 160), strict=True):
            progress(step, row(train, test))
            progress._bar.refresh()
            shown = capsys.readouterr().err
            for part in (f"{step}/200", "2.5e-01 train", f"{test:.0%} test", "steps/s", stage):
                assert part in shown, part
    assert "\N{ESCAPE}[" in shown


@pytest.mark.parametrize("steps", [(160, 200), (26_300, 100_000)], ids=lambda one: f"{one[1]}")
@pytest.mark.parametrize(
    ("width", "said"), [(60, "/s"), (80, "generalised"), (110, "99% test · "), (140, "5e+00 test")]
)
def test_a_narrow_terminal_shows_step_bar_accuracies_speed_and_time_left_in_one_line(
    steps: tuple[int, int],
    width: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("grokscope.training.run_progress.time.monotonic", iter(range(0, 10**6)).__next__)
    step, n_steps = steps
    with Progress(n_steps, start=step - 82) as progress:
        progress(step, row(1.0, 0.991))
        capsys.readouterr()
        progress._bar.refresh()
        shown = re.sub(r"\N{ESCAPE}\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err).strip("\r\n")
    assert len(shown.rstrip()) <= width and "\n" not in shown and "…" not in shown
    assert re.match(rf"step {step:,}/{n_steps:,} [━╸╺]{{6,20}} ", shown)
    for part in ("100%", "99%", "/s", said):
        assert part in shown, part
    assert re.search(r"[\d-]+:[\d-]+:[\d-]+$", shown.rstrip())


def test_a_dumb_terminal_has_plain_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "dumb")):
        monkeypatch.setenv(name, value)
    with Progress(1) as progress:
        progress(1, row(1.0, 0.5))
    shown = capsys.readouterr().err
    assert shown.startswith("step 1/1 · loss 2.5e-01 train") and shown.count("\n") == 1


def test_a_stage_once_reached_is_not_taken_back(capsys: pytest.CaptureFixture[str]):
    with Progress(3) as progress:
        for step, (train, test, _) in enumerate(STAGES, 1):
            progress._last = (-1e9, 0)
            progress(step, row(train, test))
        progress._last = (-1e9, 0)
        progress(3, row(0.5, 0.5))
    lines = capsys.readouterr().err.splitlines()
    assert [line.rsplit("· ", 1)[1] for line in lines] == [*(stage for _, _, stage in STAGES), "generalised"]


def test_a_run_that_has_no_row_yet_shows_its_speed(capsys: pytest.CaptureFixture[str]):
    with Progress(1) as progress:
        progress(1, {})
    assert "steps/s" in capsys.readouterr().err


# Of a sweep.


@pytest.fixture
def plan(tiny_config: RunConfig) -> Sweep:
    """Four cells of the tiny config, of 60 steps each."""
    return Sweep(tuple(Cell(f"seed={seed}", {"seed": seed}, tiny_config) for seed in range(4)))


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[[SweepProgress], str]:
    """The function that lets a sweep's progress look once and returns what it shows, without its colours."""
    monkeypatch.setenv("COLUMNS", "150")

    def show(progress: SweepProgress) -> str:
        capsys.readouterr()
        progress._show()
        progress._bar.refresh()
        return re.sub(r"\N{ESCAPE}\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)

    return show


def test_a_sweep_without_a_terminal_says_in_plain_lines_how_many_cells_are_how_far(
    plan: Sweep, tiny_run: Path, tmp_path: Path, shown: Callable[[SweepProgress], str]
):
    progress = SweepProgress(plan, tmp_path)
    assert shown(progress) == "0 finished of 4 cells\n"
    for name in ("seed=0", "seed=3"):
        shutil.copytree(tiny_run, tmp_path / name)
    assert shown(progress) == shown(progress) == "2 finished of 4 cells\n"
    shutil.copytree(tiny_run, tmp_path / "seed=1")
    for path in sorted((tmp_path / "seed=1" / "segments").iterdir())[1:]:
        path.unlink()
    sweep_folder.mark_failed(plan.cells[2], tmp_path, "So.")
    with Lock(tmp_path / "seed=1"):
        assert shown(progress) == "2 finished, 1 running, 1 failed of 4 cells\n"
    sweep_folder.forget_failure(plan.cells[2], tmp_path)
    assert shown(progress) == "2 finished of 4 cells\n"


def test_a_sweep_on_a_terminal_has_a_bar_over_the_steps_of_all_cells(
    plan: Sweep,
    tiny_run: Path,
    tmp_path: Path,
    shown: Callable[[SweepProgress], str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("FORCE_COLOR", "1")
    progress = SweepProgress(plan, tmp_path)
    with progress:
        assert re.search(r"0 finished of 4 cells .* 0%", shown(progress))
        shutil.copytree(tiny_run, tmp_path / "seed=0")
        assert re.search(r"1 finished of 4 cells .* 25%", shown(progress))
        shutil.copytree(tiny_run, tmp_path / "seed=1")
        steps = sweep_folder.cell_state(plan.cells[1], tmp_path).step
        for path in sorted((tmp_path / "seed=1" / "segments").iterdir())[1:]:
            path.unlink()
        step = sweep_folder.cell_state(plan.cells[1], tmp_path).step
        assert step < steps == 60
        assert re.search(rf"1 finished of 4 cells .* {(60 + step) / 240:.0%}", shown(progress))
        for name in ("seed=2", "seed=3"):
            shutil.copytree(tiny_run, tmp_path / name)
        assert re.search(r"3 finished of 4 cells", shown(progress))


def test_a_sweep_s_progress_looks_by_itself_while_it_lasts_and_no_longer(
    plan: Sweep, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    progress = SweepProgress(plan, tmp_path)
    monkeypatch.setattr(progress, "_interval", 0.01)
    seen, deadline = "", time.monotonic() + 60
    with progress:
        while "0 finished" not in seen and time.monotonic() < deadline:
            seen += capsys.readouterr().err
        shutil.copytree(tiny_run, tmp_path / "building")
        (tmp_path / "building").rename(tmp_path / "seed=2")
        while "1 finished of 4 cells" not in seen and time.monotonic() < deadline:
            seen += capsys.readouterr().err
    assert "0 finished of 4 cells\n" in seen and "1 finished of 4 cells\n" in seen
    assert not progress._thread.is_alive()


def test_a_sweep_that_a_signal_or_a_fault_ends_ends_its_progress_too(plan: Sweep, tmp_path: Path):
    progress = SweepProgress(plan, tmp_path)
    with pytest.raises(ZeroDivisionError), progress:
        assert progress._thread.is_alive()
        raise ZeroDivisionError
    assert not progress._thread.is_alive()
