"""Muon, against torch's implementation and against its definition by singular values."""

from typing import Any

import pytest
import torch
from einops import rearrange

from grokscope import tasks
from grokscope.config import ModelConfig, OptimizerConfig, TaskConfig
from grokscope.model import families
from grokscope.training.muon import COEFFICIENTS, N_ITERATIONS, as_matrix, from_matrix, orthogonalized
from grokscope.training.optimizers import Optimizer, learning_rate

MUON = OptimizerConfig(name="muon", lr=0.05, weight_decay=0.3, warmup_steps=0)


def drawn(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(6, 6), (12, 5), (4, 9)])
def test_orthogonalization_maps_each_singular_value(shape: tuple[int, int]):
    a, b, c = COEFFICIENTS
    matrix = drawn(shape, 1).double()
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    values = values / matrix.norm()
    for _ in range(N_ITERATIONS):
        values = a * values + b * values**3 + c * values**5
    torch.testing.assert_close(orthogonalized(matrix), u @ torch.diag(values) @ v, rtol=1e-9, atol=1e-9)
    assert ((values > 0.6) & (values < 1.3)).all()


def test_zero_gradient_gives_a_zero_update():
    assert not orthogonalized(torch.zeros(3, 4)).any()


@pytest.mark.parametrize("settings", [{}, {"weight_decay": 0.0}, {"muon_momentum": 0.5, "schedule": "linear 9"}])
def test_updates_match_torch_muon(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    """torch iterates in bfloat16, which leaves errors of a few percent; here it is given float32 instead."""
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("needs torch.optim.Muon, in torch 2.9 and later")
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)
    config = OptimizerConfig(**{**vars(MUON), **settings})
    weight = drawn((8, 20), 0)
    theirs = weight.clone().requires_grad_()
    muon = torch.optim.Muon(
        [theirs],
        weight_decay=config.weight_decay,
        momentum=config.muon_momentum,
        adjust_lr_fn="match_rms_adamw",
    )
    ours = Optimizer(config, {"blocks.0.mlp.W_in": weight})
    for u in range(6):
        gradient = drawn((8, 20), u + 1)
        theirs.grad = gradient.clone()
        muon.param_groups[0]["lr"] = learning_rate(config, u)
        muon.step()
        ours.update({"blocks.0.mlp.W_in": gradient}, u)
        torch.testing.assert_close(weight, theirs.detach(), rtol=1e-5, atol=1e-5)


def test_momentum_and_decay_follow_their_recursion():
    """With two updates written out: B = (1 − μ)g₁, then μB + (1 − μ)g₂, and Nesterov's mean of g and B."""
    mu, lr, decay = MUON.muon_momentum, MUON.lr, MUON.weight_decay
    weight, gradients = drawn((5, 3), 0), [drawn((5, 3), seed) for seed in (1, 2)]
    optimizer, expected, buffer = Optimizer(MUON, {"blocks.0.mlp.W_out": weight}), weight.clone(), torch.zeros(5, 3)
    for u, gradient in enumerate(gradients):
        optimizer.update({"blocks.0.mlp.W_out": gradient}, u)
        buffer = mu * buffer + (1 - mu) * gradient
        update = orthogonalized((1 - mu) * gradient + mu * buffer)
        expected = expected * (1 - lr * decay) - lr * 0.2 * 5**0.5 * update
    torch.testing.assert_close(weight, expected)


@pytest.mark.parametrize(
    ("shape", "form"), [((2, 8, 4), "h d_model d_head -> d_model (h d_head)"), ((2, 4, 8), "h a b -> (h a) b")]
)
def test_heads_form_one_matrix_like_a_linear_layer(shape: tuple[int, ...], form: str):
    weight = drawn(shape, 0)
    assert torch.equal(as_matrix(weight), rearrange(weight, form))
    assert torch.equal(from_matrix(as_matrix(weight), weight.shape), weight)


def test_adamw_trains_what_muon_does_not_cover():
    model = families.build(
        ModelConfig(d_model=8, n_heads=2, d_mlp=12, normalization_type="LN", biases="all"),
        tasks.build(TaskConfig(p=5)),
    )
    start = {name: drawn(model.shapes[name], i) for i, name in enumerate(model.trained)}
    gradients = {name: drawn(model.shapes[name], 100 + i) for i, name in enumerate(model.trained)}
    weights: dict[str, dict[str, torch.Tensor]] = {}
    for name in ("muon", "adamw"):
        weights[name] = {parameter: tensor.clone() for parameter, tensor in start.items()}
        optimizer = Optimizer(OptimizerConfig(**{**vars(MUON), "name": name}), weights[name])
        optimizer.update(gradients, 0)
    hidden = {name for name in start if name.startswith("blocks.") and ".W_" in name}
    assert len(hidden) == 6
    for name in start:
        assert torch.equal(weights["muon"][name], weights["adamw"][name]) == (name not in hidden)
