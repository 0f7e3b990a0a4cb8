"""Schedules of the learning rate, against torch's schedulers and their formulas."""

import math
import warnings

import pytest
import torch
from torch.optim import lr_scheduler

from grokscope.config import OptimizerConfig, RunConfig, lr_schedule

WARMUP, END = 4, 20


def torch_factors(schedule: str, n: int) -> list[float]:
    """Return the learning rates of n updates under torch's schedulers, with a base learning rate of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    warmup = lr_scheduler.LambdaLR(optimizer, lambda u: u / WARMUP)
    later = {
        "constant": lambda: lr_scheduler.ConstantLR(optimizer, factor=1.0),
        f"linear {END}": lambda: lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=END - WARMUP),
        f"cosine {END}": lambda: lr_scheduler.CosineAnnealingLR(optimizer, T_max=END - WARMUP),
    }[schedule]()
    scheduler = lr_scheduler.SequentialLR(optimizer, [warmup, later], milestones=[WARMUP])
    factors = []
    for _ in range(n):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        with warnings.catch_warnings(
            action="ignore", category=UserWarning
        ):  # SequentialLR uses a deprecated argument.
            scheduler.step()
    return factors


@pytest.mark.parametrize("schedule", ["constant", f"linear {END}", f"cosine {END}"])
def test_schedule_matches_torch_scheduler_after_warm_up(schedule: str):
    factors = [lr_schedule.factor(schedule, WARMUP, u) for u in range(END + 1)]
    assert factors == pytest.approx(torch_factors(schedule, END + 1), abs=1e-12)
    assert factors[WARMUP] == 1 and (schedule == "constant" or factors[WARMUP + 1] < 1)


@pytest.mark.parametrize("schedule", [f"linear {END}", f"cosine {END}"])
def test_learning_rate_stays_zero_after_the_end(schedule: str):
    assert [lr_schedule.factor(schedule, WARMUP, END + i) for i in range(3)] == [0.0, 0.0, 0.0]


def test_inverse_square_root_continues_the_warm_up():
    factors = [lr_schedule.factor("inverse_sqrt", WARMUP, u) for u in (0, 2, 4, 16, 400)]
    assert factors == [0.0, 0.5, 1.0, 0.5, 0.1]
    # Without a warm-up, updates 0 and 1 have the full learning rate.
    assert [lr_schedule.factor("inverse_sqrt", 0, u) for u in (0, 1, 2)] == [1.0, 1.0, math.sqrt(0.5)]


@pytest.mark.parametrize(
    "text", ["cosine", "linear 0", "linear -5", "constant 5", "step 10", "", 3, None, "cosine 1e3"]
)
def test_text_of_another_form_is_no_schedule(text: object):
    assert not lr_schedule.is_schedule(text)
    (fault,) = RunConfig(optimizer=OptimizerConfig(schedule=text)).faults()  # pyright: ignore[reportArgumentType]
    assert fault.startswith("optimizer.schedule: ") and "'cosine N'" in fault


def test_schedule_that_ends_within_the_warm_up_is_a_fault():
    (fault,) = RunConfig(optimizer=OptimizerConfig(schedule="linear 10", warmup_steps=10)).faults()
    assert "allowed: an end above warmup_steps = 10" in fault
    assert not RunConfig(optimizer=OptimizerConfig(schedule="linear 11", warmup_steps=10)).faults()
