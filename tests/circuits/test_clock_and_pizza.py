"""The formulas of clock and pizza on logits in closed form, and the verdict on series with chosen values."""

import math

import numpy as np
import pytest
import torch
from support.clock_and_pizza import algorithm_series, share_of_other_formula

from grokscope.circuits.clock_and_pizza import (
    clock_logits,
    distance_irrelevance,
    explained_variance,
    gradient_symmetricity,
    pizza_logits,
    verdict,
)


def sums_and_distances(n: int, sign: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return s = i + sign·j and d = i − sign·j for all n² pairs of positions."""
    i, j = torch.cartesian_prod(torch.arange(n), torch.arange(n)).unbind(1)
    return i + sign * j, i - sign * j


def share(logits: torch.Tensor, formula: torch.Tensor) -> float:
    """Return the explained share of logits over all equations."""
    return float(explained_variance(logits, formula, len(logits))[0])


@pytest.mark.parametrize(("n", "frequency"), [(59, 7), (113, 56), (12, 5), (12, 3), (96, 45)])
@pytest.mark.parametrize("sign", [1, -1])
def test_explained_share_equals_closed_form(n: int, frequency: int, sign: int):
    pairs = sums_and_distances(n, sign)
    clock, pizza = (formula(n, frequency, *pairs) for formula in (clock_logits, pizza_logits))
    # Offsets of an equation and of an answer do not count.
    scaled = 3.7 * clock + torch.arange(n * n)[:, None] + 5 * torch.arange(n).double()
    for logits in (clock, scaled):
        assert share(logits, clock) == pytest.approx(1, abs=1e-9)
    assert share(-pizza, pizza) == pytest.approx(1, abs=1e-12)
    for logits, formula in ((clock, pizza), (pizza, clock)):
        assert share(logits, formula) == pytest.approx(share_of_other_formula(n, frequency))
    if n > 50:
        assert share_of_other_formula(n, frequency) == pytest.approx(8 / math.pi**2, rel=2e-3)
    _, error, variance = explained_variance(3.7 * clock, clock, n * n)
    assert float(variance) == pytest.approx(3.7**2 / 2) and float(error) == 0
    assert share(clock_logits(n, 1, *pairs), clock) < 1e-12
    assert share(0 * clock, clock) == 0


def test_error_of_explained_share_is_the_spread_of_draws():
    n, generator = 59, torch.Generator().manual_seed(0)
    total, distance = sums_and_distances(n, 1)
    noise = torch.randn(n * n, n, generator=generator, dtype=torch.float64)
    logits = pizza_logits(n, 5, total, distance) + 0.3 * noise
    formula = clock_logits(n, 5, total, distance)
    expected = share(logits, formula)
    errors, deviations = [], []
    for _ in range(200):
        drawn = torch.randperm(n * n, generator=generator)[:500]
        estimate, error, _ = explained_variance(logits[drawn], formula[drawn], n * n)
        errors.append(float(error))
        deviations.append(float(estimate) - expected)
    assert np.mean(errors) == pytest.approx(np.std(deviations), rel=0.2)
    assert abs(np.mean(deviations)) < 4 * np.std(deviations) / 200**0.5 + 2e-3


@pytest.mark.parametrize("n", [11, 12])
@pytest.mark.parametrize("sign", [1, -1])
def test_distance_irrelevance_equals_its_definition(n: int, sign: int):
    """The reference groups the equations by distance, one at a time."""
    correct = torch.randn(3, n, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for logits, irrelevance in zip(correct.numpy(), distance_irrelevance(correct, sign), strict=True):
        by_distance: dict[int, list[float]] = {}
        for i in range(n):
            for j in range(n):
                by_distance.setdefault((i - sign * j) % n, []).append(logits[i, j])
        assert [len(values) for values in by_distance.values()] == [n] * n
        expected = np.mean([np.std(values) for values in by_distance.values()]) / logits.std()
        assert float(irrelevance) == pytest.approx(expected)


@pytest.mark.parametrize("n", [59, 58])
@pytest.mark.parametrize("sign", [1, -1])
def test_distance_irrelevance_separates_pizza_from_clock(n: int, sign: int):
    total, distance = sums_and_distances(n, sign)
    rows = torch.arange(n * n)
    pizza, clock = (
        (formula(n, 3, total, distance) + formula(n, 8, total, distance))[rows, total % n].reshape(n, n)
        for formula in (pizza_logits, clock_logits)
    )
    assert float(distance_irrelevance(pizza, sign)) < 1e-9
    assert float(distance_irrelevance(clock, sign)) > 0.9, "the clock's logit is 2 up to rounding"
    assert float(distance_irrelevance(torch.full((n, n), 2.0, dtype=torch.float64), sign)) == 1
    # A logit that depends on the answer's position alone varies equally at every distance.
    assert float(distance_irrelevance((total % n).double().reshape(n, n), sign)) == pytest.approx(1, abs=0.02)
    # With the sign of the opposite operation, the distance does not decide a pizza's logit.
    assert float(distance_irrelevance(pizza, -sign)) > 0.5


def test_symmetricity_is_the_mean_cosine_with_its_error():
    first = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, 0.0]])
    second = torch.tensor([[2.0, 0.0], [0.0, -1.0], [3.0, 3.0], [1.0, 0.0]])
    mean, error = gradient_symmetricity(first, second)
    cosines = [1, -1, 0.5**0.5, 0]
    assert float(mean) == pytest.approx(np.mean(cosines))
    assert float(error) == pytest.approx(np.std(cosines, ddof=1) / 2)


@pytest.mark.parametrize(
    ("symmetricity", "irrelevance", "clock", "pizza", "algorithm"),
    [
        (0.33, 0.85, [0.98, 0.81, 0.2], [0.80, 0.99, 0.3], "clock"),
        (0.99, 0.17, [0.80, 0.81, 0.2], [0.98, 0.99, 0.3], "pizza"),
        # One criterion contradicts the other two.
        (0.33, 0.17, [0.80, 0.81, 0.2], [0.98, 0.99, 0.3], "undecided"),
        (0.99, 0.85, [0.98, 0.81, 0.2], [0.80, 0.99, 0.3], "undecided"),
        (0.33, 0.85, [0.80, 0.81, 0.2], [0.98, 0.99, 0.3], "undecided"),
        # The strongest circle has three times the weight of each other circle.
        (0.33, 0.85, [0.98, 0.7, 0.2], [0.80, 0.99, 0.3], "clock"),
        (1.0, 1.0, [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], "undecided"),
    ],
)  # fmt: skip
def test_verdict_requires_three_criteria(symmetricity, irrelevance, clock, pizza, algorithm):
    judged = verdict(algorithm_series(symmetricity, irrelevance, clock, pizza))
    assert judged.algorithm == algorithm
    for frequency, of_clock, of_pizza in zip((4, 23, 6), clock, pizza, strict=True):
        kind = "clock" if of_clock >= 0.9 else "pizza" if of_pizza >= 0.9 else "neither"
        assert judged.circles[frequency] == kind
    assert f"{symmetricity:.2f} (untrained 1.00)" in judged.sentence


@pytest.mark.parametrize(
    ("clock", "pizza", "n", "kind"),
    [
        (0.99, 0.99, 59, "either"),
        (0.930, 0.940, 59, "either"),  # Within two standard errors of each share.
        (0.901, 0.956, 59, "pizza"),  # Both shares pass, and one is larger.
        (0.961, 0.903, 59, "clock"),
        (0.89, 0.80, 59, "neither"),
        (0.877, 0.877, 8, "either"),  # At frequency n/2 the formulas are equal.
        (0.01, 0.012, 59, "neither"),
    ],
)
def test_circle_is_of_the_kind_that_explains_more(clock: float, pizza: float, n: int, kind: str):
    judged = verdict(algorithm_series(0.33, 0.85, [clock, 0, 0], [pizza, 0, 0], n))
    assert judged.circles == {4: kind, 23: "neither", 6: "neither"}
    assert f"{kind} at 4" in judged.sentence


def test_sentence_names_circles_of_the_other_kind():
    mixed = verdict(algorithm_series(0.54, 0.78, [0.98, 0.90, 0.90], [0.85, 0.956, 0.961]))
    assert mixed.sentence.startswith("The network adds by a clock, but not on all circles. ")
    assert mixed.sentence.endswith("Circles by frequency: clock at 4; pizza at 23, 6.")
    pure = verdict(algorithm_series(0.25, 0.94, [0.98, 0.95, 0.95], [0.80, 0.8, 0.8]))
    assert pure.sentence.startswith("The network adds by a clock. ")
