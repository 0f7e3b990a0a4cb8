"""The progress of a training run: what stands in the bar, and in the plain lines where there is no terminal."""

import pytest

from grokscope.progress import Progress


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
    monkeypatch.setattr("grokscope.progress.time.monotonic", iter(range(0, 10**6)).__next__)
    with Progress(200, start=100) as progress:
        for (train, test, stage), step in zip(STAGES, (120, 140, 160), strict=True):
            progress(step, row(train, test))
            progress._bar.refresh()
            shown = capsys.readouterr().err
            for part in (f"{step}/200", "2.5e-01 train", f"{test:.0%} test", "steps/s", stage):
                assert part in shown, part
    assert "\N{ESCAPE}[" in shown


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
