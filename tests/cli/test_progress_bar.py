"""The progress of a run and of a sweep: the bar on a terminal, and plain lines elsewhere."""

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


@pytest.mark.parametrize(("train", "test", "stage"), STAGES, ids=str)
def test_run_without_a_terminal_prints_one_plain_line(
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


def test_run_on_a_terminal_shows_all_parts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setattr("grokscope.training.run_progress.time.monotonic", iter(range(0, 10**6)).__next__)
    with Progress(200, start=100) as progress:
        for (train, test, stage), step in zip(STAGES, (120, 140, 160), strict=True):
            progress(step, row(train, test))
            progress._bar.refresh()
            errors = capsys.readouterr().err
            for part in (f"{step}/200", "2.5e-01 train", f"{test:.0%} test", "steps/s", stage):
                assert part in errors, part
    assert "\N{ESCAPE}[" in errors


@pytest.mark.parametrize("steps", [(160, 200), (26_300, 100_000)], ids=["200", "100000"])
@pytest.mark.parametrize(
    ("width", "text"), [(60, "/s"), (80, "generalised"), (110, "99% test · "), (140, "5e+00 test")]
)
def test_run_on_a_narrow_terminal_fits_in_one_line(
    steps: tuple[int, int],
    width: int,
    text: str,
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
        line = re.sub(r"\N{ESCAPE}\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err).strip("\r\n")
    assert len(line.rstrip()) <= width and "\n" not in line and "…" not in line
    assert re.match(rf"step {step:,}/{n_steps:,} [━╸╺]{{6,20}} ", line)
    for part in ("100%", "99%", "/s", text):
        assert part in line, part
    assert re.search(r"[\d-]+:[\d-]+:[\d-]+$", line.rstrip())


def test_run_on_a_dumb_terminal_prints_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "dumb")):
        monkeypatch.setenv(name, value)
    with Progress(1) as progress:
        progress(1, row(1.0, 0.5))
    errors = capsys.readouterr().err
    assert errors.startswith("step 1/1 · loss 2.5e-01 train") and errors.count("\n") == 1


def test_stage_never_goes_back(capsys: pytest.CaptureFixture[str]):
    with Progress(3) as progress:
        for step, (train, test, _) in enumerate(STAGES, 1):
            progress._last = (-1e9, 0)
            progress(step, row(train, test))
        progress._last = (-1e9, 0)
        progress(3, row(0.5, 0.5))
    lines = capsys.readouterr().err.splitlines()
    assert [line.rsplit("· ", 1)[1] for line in lines] == [*(stage for _, _, stage in STAGES), "generalised"]


def test_run_without_a_log_row_shows_its_speed(capsys: pytest.CaptureFixture[str]):
    with Progress(1) as progress:
        progress(1, {})
    assert "steps/s" in capsys.readouterr().err


# Of a sweep.


@pytest.fixture
def plan(tiny_config: RunConfig) -> Sweep:
    """Four cells of the tiny config, of 60 steps each."""
    return Sweep(tuple(Cell(f"seed={seed}", {"seed": seed}, tiny_config) for seed in range(4)))


@pytest.fixture
def shown_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[[SweepProgress], str]:
    """The function that updates a sweep's progress once, and returns its text without colours."""
    monkeypatch.setenv("COLUMNS", "150")

    def show(progress: SweepProgress) -> str:
        capsys.readouterr()
        progress._show()
        progress._bar.refresh()
        return re.sub(r"\N{ESCAPE}\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)

    return show


def test_sweep_without_a_terminal_prints_plain_lines(
    plan: Sweep, tiny_run: Path, tmp_path: Path, shown_text: Callable[[SweepProgress], str]
):
    progress = SweepProgress(plan, tmp_path)
    assert shown_text(progress) == "0 finished of 4 cells\n"
    for name in ("seed=0", "seed=3"):
        shutil.copytree(tiny_run, tmp_path / name)
    assert shown_text(progress) == shown_text(progress) == "2 finished of 4 cells\n"
    shutil.copytree(tiny_run, tmp_path / "seed=1")
    for path in sorted((tmp_path / "seed=1" / "segments").iterdir())[1:]:
        path.unlink()
    sweep_folder.mark_failed(plan.cells[2], tmp_path, "So.")
    with Lock(tmp_path / "seed=1"):
        assert shown_text(progress) == "2 finished, 1 running, 1 failed of 4 cells\n"
    sweep_folder.forget_failure(plan.cells[2], tmp_path)
    assert shown_text(progress) == "2 finished of 4 cells\n"


def test_sweep_on_a_terminal_has_a_bar_over_all_steps(
    plan: Sweep,
    tiny_run: Path,
    tmp_path: Path,
    shown_text: Callable[[SweepProgress], str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("FORCE_COLOR", "1")
    progress = SweepProgress(plan, tmp_path)
    with progress:
        assert re.search(r"0 finished of 4 cells .* 0%", shown_text(progress))
        shutil.copytree(tiny_run, tmp_path / "seed=0")
        assert re.search(r"1 finished of 4 cells .* 25%", shown_text(progress))
        shutil.copytree(tiny_run, tmp_path / "seed=1")
        steps = sweep_folder.cell_state(plan.cells[1], tmp_path).step
        for path in sorted((tmp_path / "seed=1" / "segments").iterdir())[1:]:
            path.unlink()
        step = sweep_folder.cell_state(plan.cells[1], tmp_path).step
        assert step < steps == 60
        assert re.search(rf"1 finished of 4 cells .* {(60 + step) / 240:.0%}", shown_text(progress))
        for name in ("seed=2", "seed=3"):
            shutil.copytree(tiny_run, tmp_path / name)
        assert re.search(r"3 finished of 4 cells", shown_text(progress))


def test_progress_of_a_sweep_updates_until_its_block_ends(
    plan: Sweep, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    progress = SweepProgress(plan, tmp_path)
    monkeypatch.setattr(progress, "_interval", 0.01)
    text, deadline = "", time.monotonic() + 60
    with progress:
        while "0 finished" not in text and time.monotonic() < deadline:
            text += capsys.readouterr().err
        shutil.copytree(tiny_run, tmp_path / "building")
        (tmp_path / "building").rename(tmp_path / "seed=2")
        while "1 finished of 4 cells" not in text and time.monotonic() < deadline:
            text += capsys.readouterr().err
    assert "0 finished of 4 cells\n" in text and "1 finished of 4 cells\n" in text
    assert not progress._thread.is_alive()


def test_exception_ends_the_progress_of_a_sweep(plan: Sweep, tmp_path: Path):
    progress = SweepProgress(plan, tmp_path)
    with pytest.raises(ZeroDivisionError), progress:
        assert progress._thread.is_alive()
        raise ZeroDivisionError
    assert not progress._thread.is_alive()
