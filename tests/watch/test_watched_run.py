"""The state of a watched run: its status, its speed, and how it survives a folder that vanishes."""

import os

from grokscope import training
from grokscope.watch import WatchedRun


def test_status_follows_the_training(young_run):
    run = WatchedRun(young_run)
    assert run.step == 30 and run.is_over and not run.refresh()
    assert run.status == "Training stopped at step 30 of 60: no process is training this run."
    statuses: list[str] = []

    def observe(step: int, row: dict[str, float]) -> None:
        if step == 45:
            assert run.refresh() and not run.is_over
            statuses.append(run.status)

    training.resume(young_run, observer=observe)
    assert statuses == ["Training is in progress: committed up to step 40 of 60."]
    assert run.refresh() and not run.refresh()
    assert run.status == "Training has finished at its last step, 60." and run.is_over


def test_run_at_step_0_has_no_speed(tiny_config, train_dying_run, tmp_path):
    run = WatchedRun(train_dying_run(1, tiny_config, tmp_path / "newborn"))
    assert run.trajectory.steps.tolist() == [0] and run.steps_per_second is None


def test_speed_is_that_between_the_last_two_commits(run_copy):
    run = WatchedRun(run_copy)
    ends = sorted((segment.coverage[1], segment.path) for segment in run.store.segments if segment.coverage)
    for i, (_, path) in enumerate(ends):
        os.utime(path, (1000 + 4 * i, 1000 + 4 * i))
    assert run.steps_per_second == (ends[-1][0] - ends[-2][0]) / 4


def test_lost_run_keeps_its_last_state_until_it_returns(run_copy, tmp_path):
    run = WatchedRun(run_copy)
    run_copy.rename(tmp_path / "elsewhere")
    assert not run.refresh() and run.is_over and len(run.trajectory) == 7
    assert run.status.startswith("The run can no longer be read; this is its state at step 60. ")
    assert "copy" in run.status and "\n" not in run.status
    (tmp_path / "elsewhere").rename(run_copy)
    assert run.refresh() and run.status.startswith("Training has finished")
