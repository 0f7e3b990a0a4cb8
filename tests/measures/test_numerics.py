"""The measure `numerics`: collapse at exact thresholds, gradients and cosines in closed form, exact arithmetic."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from grokscope import Trajectory, measures
from grokscope.errors import GrokscopeError
from grokscope.measures import numerics as module
from grokscope.model import losses

BITS = {"bfloat16": 8, "float32": 24, "float64": 53}
W_U = "unembed.W_U"


def at(series, name: str, dtype: str, step: int = 0) -> float:
    """Return a quantity in one type at one step."""
    return float(series[name][step, series.words("dtypes").index(dtype)])


@pytest.mark.parametrize(("dtype", "bits"), BITS.items())
def test_logits_collapse_if_a_term_is_half_the_last_bit(dtype, bits):
    threshold = bits * math.log(2)
    grid = 2.0**-6 if dtype == "bfloat16" else 1e-3
    gaps = torch.tensor([threshold - 4 * grid, threshold + 4 * grid], dtype=torch.float64)
    logits = torch.stack([torch.zeros(2, dtype=torch.float64), -gaps], -1)
    labels = torch.zeros(2, dtype=torch.int64)
    assert losses.has_collapsed(logits, labels, dtype).tolist() == [False, True]
    assert losses.has_collapsed(logits + 3, labels, dtype).tolist() == [False, True], "a softmax ignores a shift"
    assert not losses.has_collapsed(logits, 1 - labels, dtype).any(), "the sum is never the term of a wrong answer"
    assert not losses.has_collapsed(logits, labels, dtype, "stablemax").any()


def test_collapse_agrees_with_rounded_exact_sums():
    """Terms by numpy, sums by fractions, for the many rows whose sum does not depend on the order."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(400, 3, generator=generator) + torch.tensor([17.0, 0.0, -9.0])
    has_collapsed = losses.has_collapsed(logits, torch.zeros(400, dtype=torch.int64)).tolist()
    z = logits.numpy()
    terms = np.exp(z - z.max(1, keepdims=True), dtype=np.float32)
    n_compared = 0
    for is_collapsed, row in zip(has_collapsed, terms, strict=True):
        exact = sum(Fraction(float(term)) for term in row)
        rounded = Fraction(float(np.float32(float(exact))))  # Three such terms add up exactly in float64.
        one_by_one = np.float32(np.float32(row[0] + row[1]) + row[2])
        if float(rounded) == float(one_by_one):
            n_compared += 1
            assert is_collapsed == (rounded == Fraction(float(row[0])))
    assert n_compared > 380 and 50 < sum(has_collapsed) < 350


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logit_gradient_is_probability_minus_one_hot_over_n(dtype):
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3
    labels = torch.arange(50) % 7
    gradient = module.logit_gradient(logits, labels, dtype, "softmax")
    expected = (logits.softmax(-1) - F.one_hot(labels, 7)) / 50
    torch.testing.assert_close(gradient, expected, rtol=1e-4 if dtype == "float32" else 1e-12, atol=1e-9)
    assert module.imbalance(gradient) < (1e-5 if dtype == "float32" else 1e-14)


def test_collapsed_example_keeps_only_wrong_answers_gradient():
    logits = torch.tensor([[20.0, 0.0, 0.0], [200.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    labels = torch.zeros(3, dtype=torch.int64)
    gradient = module.logit_gradient(logits, labels, "float32", "softmax")
    assert gradient[0, 0] == 0 and gradient[0, 1:].tolist() == pytest.approx([math.exp(-20) / 3] * 2, rel=1e-5)
    assert (gradient[1] == 0).all() and (gradient[2] != 0).all()
    assert module.imbalance(gradient).item() == pytest.approx(1 / 3, abs=1e-6)
    # The float64 loss keeps both gradients, until they are too small for float32 logits.
    exact = module.logit_gradient(logits, labels, "float64", "softmax")
    assert (exact[0] != 0).all() and (exact[1] == 0).all()
    assert module.imbalance(exact) < 1e-6


def test_margins_and_scale_by_hand():
    logits = torch.tensor([[3.0, 1.0, -1.0], [0.0, 5.0, 1.0]])
    assert module.margins(logits, torch.tensor([0, 0])).tolist() == [2, -5]
    variance = (8 / 3 + 14 / 3) / 2
    assert module.logit_scale(logits).item() == pytest.approx(variance**0.5, rel=1e-12)
    assert module.logit_scale(logits * 4 + 7).item() == pytest.approx(4 * variance**0.5, rel=1e-6)


def linear(plant, scale: float, **options) -> Trajectory:
    """Return a model whose logits are b_U: one class leads by `scale`, and all other parameters are zero."""
    zeros = {name: torch.zeros(shape) for name, shape in plant({0: {}}).model.shapes.items()}
    b_U = torch.zeros(11)
    b_U[4] = scale
    return plant({0: {**zeros, "unembed.b_U": b_U}}, biases="all", **options)


@pytest.mark.parametrize("scale", [1.0, 2.0, 8.0])
def test_linear_model_has_every_quantity_in_closed_form(plant, scale):
    trajectory = linear(plant, scale)
    series = measures.evaluate("numerics", trajectory, dtype="float64")
    labels = trajectory.task.labels[trajectory.split.train]
    shares = torch.bincount(labels, minlength=11).double() / len(labels)
    logits = torch.zeros(11, dtype=torch.float64)
    logits[4] = scale
    gradient = logits.softmax(0) - shares
    # w = scale · e_4, so the cosine is the fourth entry of −∇L over its length.
    expected = -(gradient[4] / gradient.norm()).item()
    assert series["naive_loss_cosine"][0] == pytest.approx(expected, rel=1e-9)
    by_component = dict(zip(series.words("components"), series["component_naive_loss_cosines"][0], strict=True))
    assert by_component.pop("unembedding") == pytest.approx(expected, rel=1e-9)
    assert set(by_component.values()) == {0.0}
    for dtype in ("float32", "float64"):
        assert at(series, "gradient_norm", dtype) == pytest.approx(gradient.norm().item(), rel=1e-6)
    n = sum(math.prod(trajectory.model.shapes[name]) for name in trajectory.model.trained)
    assert at(series, "zero_parameter_gradient_share", "float64") == pytest.approx(1 - 11 / n)
    quantiles = np.where(labels == 4, scale, -scale)
    np.testing.assert_allclose(series["train_margins"][0], np.quantile(quantiles, series["quantiles"]), rtol=1e-12)
    assert series["train_margin_mean"][0] == pytest.approx(quantiles.mean(), rel=1e-12)


def test_shares_count_the_collapsed_examples_in_each_type(plant):
    """Only the right answers of the leading class can collapse."""
    trajectory = linear(plant, 25.0)
    series = measures.evaluate("numerics", trajectory)
    labels = trajectory.task.labels[trajectory.split.train]
    share = (labels == 4).double().mean().item()
    assert share > 0
    assert [at(series, "collapse_share", dtype) for dtype in BITS] == pytest.approx([share, share, 0])
    assert [at(series, "zero_loss_share", dtype) for dtype in BITS] == pytest.approx([share, share, 0])
    assert at(series, "zero_gradient_share", "float32") == 0
    # float32 has e^-25 but not e^-200, which removes the wrong answers' entries too.
    far = measures.evaluate("numerics", linear(plant, 200.0))
    assert at(far, "zero_gradient_share", "float32") == pytest.approx(share)
    assert at(far, "collapse_share", "float64") == pytest.approx(share)


def test_stablemax_does_not_collapse(plant):
    series = measures.evaluate("numerics", linear(plant, 200.0, run={"loss": "stablemax"}))
    for name in ("collapse_share", "zero_loss_share", "zero_gradient_share"):
        assert series[name][0, 1:].tolist() == [0, 0]


def test_gradient_of_a_trained_model_equals_the_objectives(tiny_run):
    from grokscope.landscape.objective import objectives

    trajectory = Trajectory.open(tiny_run).thin(2)
    series = measures.evaluate("numerics", trajectory, dtype="float64")
    for i, (_, objective) in enumerate(objectives(trajectory)):
        _, gradient = objective.value_and_gradient(objective.point)
        assert at(series, "gradient_norm", "float64", i) == pytest.approx(gradient.norm().item(), rel=1e-9)
        cosine = -F.cosine_similarity(gradient, objective.point, dim=0).item()
        assert series["naive_loss_cosine"][i] == pytest.approx(cosine, rel=1e-9)
        # The slope of the loss along w(1 + t) is ∇L · w.
        up, down = objective.value(objective.point * (1 + 1e-6)), objective.value(objective.point * (1 - 1e-6))
        slope = -cosine * gradient.norm().item() * objective.point.norm().item()
        assert (up - down) / 2e-6 == pytest.approx(slope, rel=1e-4)
    assert series["gradient_cosine"][:, 2].tolist() == pytest.approx([1, 1])


def test_test_margins_are_missing_without_test_equations(plant):
    n = 11 * 11
    trajectory = plant({0: {}}, split=(torch.arange(n), torch.arange(0)))
    series = measures.evaluate("numerics", trajectory)
    assert "train_margins" in series and not any("test_" in name for name in series.arrays)


def test_unknown_dtype_is_rejected(plant):
    with pytest.raises(GrokscopeError, match="dtype: 'bfloat16'. Allowed: float32 or float64"):
        measures.evaluate("numerics", plant({0: {}}), dtype="bfloat16")
