"""Losses against closed forms and torch's own cross-entropy, and stablemax against the formula of its paper."""

import math

import pytest
import torch
import torch.nn.functional as F
from support.small_models import random_parameters, small_model

from grokscope.model import forward, losses


def test_loss_of_equal_logits_is_log_of_their_number():
    loss = losses.cross_entropy(torch.full((3, 59), 7.0), torch.tensor([0, 5, 58]))
    torch.testing.assert_close(loss, torch.full((3,), math.log(59), dtype=torch.float64))


@pytest.mark.parametrize("margin", [4.0, 18.0, 24.0, 30.0])
def test_tiny_loss_is_exact_in_float64(margin):
    """−log softmax = log(1 + (n − 1)e^−margin). The control is float32, which cannot represent tiny losses."""
    logits = torch.zeros(1, 59)
    logits[0, 7] = margin
    exact = math.log1p(58 * math.exp(-margin))
    loss = losses.cross_entropy(logits, torch.tensor([7]), "float64")
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(exact, rel=1e-12, abs=margin * 2**-52)
    in_float32 = losses.cross_entropy(logits, torch.tensor([7]), "float32").item()
    assert (abs(in_float32 / exact - 1) < 1e-3) == (margin < 10)


def test_loss_agrees_with_torch_cross_entropy():
    logits = torch.randn(20, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(20) % 7
    expected = F.cross_entropy(logits.double(), labels, reduction="none")
    torch.testing.assert_close(losses.cross_entropy(logits, labels), expected)


def test_evaluation_in_chunks_agrees(monkeypatch):
    model, task = small_model()
    parameters = random_parameters(model)
    loss, is_right = losses.evaluate(model, parameters, task.inputs, task.labels)
    logits = model.logits(parameters, task.inputs)
    torch.testing.assert_close(loss, F.cross_entropy(logits, task.labels, reduction="none"))
    assert is_right.tolist() == (logits.argmax(-1) == task.labels).tolist()
    monkeypatch.setattr(forward, "_CHUNK", 7)
    monkeypatch.setattr(losses, "EVALUATION_CHUNK", 7)
    chunked_loss, chunked_is_right = losses.evaluate(model, parameters, task.inputs, task.labels)
    torch.testing.assert_close(chunked_loss, loss)
    assert chunked_is_right.tolist() == is_right.tolist()


def test_evaluation_builds_no_graph():
    model, task = small_model()
    parameters = {name: tensor.requires_grad_() for name, tensor in random_parameters(model).items()}
    assert not losses.evaluate(model, parameters, task.inputs, task.labels)[0].requires_grad


def naive_stablemax(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return −log(s(x)/Σ s) branch by branch, as in equation 5 of Prieto et al. 2025."""
    s = torch.stack([torch.stack([x + 1 if x >= 0 else 1 / (1 - x) for x in row]) for row in logits])
    return -(s / s.sum(-1, keepdim=True)).log()[torch.arange(len(labels)), labels]


@pytest.mark.parametrize("size", [1e-3, 1.0, 50.0, 1e4])
def test_stablemax_and_gradient_agree_with_naive_formula(size: float):
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * size
    logits[2] = 0.0
    logits[3, :3] = 0.0
    labels = torch.tensor([0, 1, 2, 1, 4, 3])
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss, expected = losses.cross_entropy(ours, labels, "float64", "stablemax"), naive_stablemax(theirs, labels)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    loss.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_stablemax_has_slope_one_at_zero(zero: float, dtype: str):
    """For n logits of zero, d(−log p)/dx is 1/n − 1 at the label and 1/n elsewhere, because log s has slope 1."""
    logits = torch.full((1, 4), zero, requires_grad=True)
    losses.cross_entropy(logits, torch.tensor([1]), dtype, "stablemax").sum().backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[0.25, -0.75, 0.25, 0.25]]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_stablemax_is_exact_at_huge_logits(dtype: str):
    x, n = 1e6, 3
    logits = torch.tensor([[x, -x, 0.0], [-x, x, 0.0], [x, x, x], [-x, -x, -x]], requires_grad=True)
    loss = losses.cross_entropy(logits, torch.tensor([0, 0, 0, 0]), dtype, "stablemax")
    total = (x + 1) + 1 / (1 + x) + 1
    expected = [-math.log((x + 1) / total), math.log((1 + x) * total), math.log(n), math.log(n)]
    assert loss.dtype == getattr(torch, dtype)
    rounding = 1e-5 if dtype == "float32" else 1e-9
    assert loss.tolist() == pytest.approx(expected, rel=rounding, abs=rounding)
    loss.sum().backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


def test_stablemax_loss_is_above_zero_in_softmax_collapse():
    """At a margin of 1e3, softmax rounds 1 − p to zero; stablemax gives about n/margin."""
    logits = torch.zeros(1, 5, dtype=torch.float64)
    logits[0, 2] = 1e3
    softmax, stablemax = (
        losses.cross_entropy(logits, torch.tensor([2]), "float64", function) for function in ("softmax", "stablemax")
    )
    assert softmax.item() == 0
    assert stablemax.item() == pytest.approx(math.log1p(4 / 1001), rel=1e-9)


def test_stablemax_changes_losses_but_not_accuracy():
    model, task = small_model()
    parameters = random_parameters(model)
    default_loss, default_is_right = losses.evaluate(model, parameters, task.inputs, task.labels)
    for function in ("softmax", "stablemax"):
        loss, is_right = losses.evaluate(model, parameters, task.inputs, task.labels, "float64", function)
        assert torch.equal(is_right, default_is_right)
        assert torch.equal(loss, default_loss) == (function == "softmax")
    logits = model.logits(parameters, task.inputs)
    torch.testing.assert_close(loss, naive_stablemax(logits, task.labels))
    assert torch.equal(
        losses.cross_entropy(logits, task.labels), losses.cross_entropy(logits, task.labels, "float64", "softmax")
    )
