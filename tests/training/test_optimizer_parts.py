"""Clipping, clamping, decay by part and schedules in the optimizer, against torch and closed forms."""

import dataclasses

import pytest
import torch

from grokscope.config import OptimizerConfig
from grokscope.training.optimizers import Optimizer, clipped, learning_rate

SHAPES = {"embed.W_E": (3, 4), "blocks.0.mlp.b_in": (5,), "unembed.W_U": (4, 3)}
N_UPDATES = 6


def drawn(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def total_norm(tensors: dict[str, torch.Tensor]) -> float:
    return float(torch.cat([tensor.double().flatten() for tensor in tensors.values()]).norm())


def trained(config: OptimizerConfig, n: int = N_UPDATES) -> dict[str, torch.Tensor]:
    """Return the weights after n updates with the gradients `drawn(1)`, `drawn(2)`, …"""
    weights = drawn(0)
    optimizer = Optimizer(config, weights)
    for u in range(n):
        optimizer.update(drawn(u + 1), u)
    return weights


@pytest.mark.parametrize("largest", [0.5, 3.0, 100.0])
def test_clipped_gradient_is_that_of_torch(largest: float):
    gradients = drawn(1)
    parameters = [tensor.clone().requires_grad_() for tensor in gradients.values()]
    for parameter, gradient in zip(parameters, gradients.values(), strict=True):
        parameter.grad = gradient.clone()
    torch.nn.utils.clip_grad_norm_(parameters, largest)
    ours = clipped(gradients, largest)
    for parameter, gradient in zip(parameters, ours.values(), strict=True):
        assert parameter.grad is not None and torch.equal(parameter.grad, gradient)
    assert total_norm(ours) == pytest.approx(min(largest, total_norm(gradients)), rel=1e-5)


def test_training_with_clip_and_decay_by_part_is_torch_adamw():
    config = OptimizerConfig(
        lr=0.02, weight_decay=0.5, decay_by_part="embed 0 + biases 2", gradient_clip=1.0, schedule="cosine 9"
    )
    weights = {name: tensor.requires_grad_() for name, tensor in drawn(0).items()}
    decays = {"embed.W_E": 0.0, "blocks.0.mlp.b_in": 2.0, "unembed.W_U": 0.5}
    groups = [{"params": [weights[name]], "weight_decay": decay} for name, decay in decays.items()]
    reference = torch.optim.AdamW(groups, betas=config.betas)
    config = dataclasses.replace(config, warmup_steps=2)
    for u in range(N_UPDATES):
        for name, gradient in drawn(u + 1).items():
            weights[name].grad = gradient
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        for group in reference.param_groups:
            group["lr"] = learning_rate(config, u)
        reference.step()
    for name, tensor in trained(config).items():
        torch.testing.assert_close(tensor, weights[name].detach(), rtol=1e-5, atol=1e-6)


def test_decay_to_the_initialization_uses_the_decay_of_the_part():
    config = OptimizerConfig(
        lr=0.1, weight_decay=1.0, decay_by_part="embed 0.5 + biases 0", warmup_steps=0, decay_centre="initialization"
    )
    weights, centre = drawn(0), {name: torch.ones(shape) for name, shape in SHAPES.items()}
    Optimizer(config, weights, centre).update({name: torch.zeros(shape) for name, shape in SHAPES.items()}, 0)
    for name, decay in (("embed.W_E", 0.5), ("blocks.0.mlp.b_in", 0.0), ("unembed.W_U", 1.0)):
        torch.testing.assert_close(weights[name], drawn(0)[name] - 0.1 * decay * (drawn(0)[name] - 1))


@pytest.mark.parametrize("name", ["adamw", "sgd", "muon"])
def test_clamped_norm_is_exact_after_every_update(name: str):
    config = OptimizerConfig(name=name, lr=0.3, warmup_steps=3, norm_clamp=2.5, update_noise=0.1)
    for n in range(1, N_UPDATES):
        assert total_norm(trained(config, n)) == pytest.approx(2.5, rel=1e-6)
    # The first update of the warm-up has learning rate 0, so it only scales the weights.
    weights, start = trained(config, 1), drawn(0)
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, start[name] * 2.5 / total_norm(start))


def test_clamp_makes_uniform_decay_of_sgd_a_change_of_lr():
    """On a sphere the decay only rescales: w(1 − ηλ) − ηg has the direction of w − (η / (1 − ηλ)) g."""
    decayed = OptimizerConfig(name="sgd", lr=0.1, weight_decay=2.0, warmup_steps=0, norm_clamp=1.0)
    plain = dataclasses.replace(decayed, lr=0.1 / 0.8, weight_decay=0.0)
    for name, tensor in trained(decayed).items():
        torch.testing.assert_close(tensor, trained(plain)[name], rtol=1e-5, atol=1e-6)


def test_learning_rate_combines_warm_up_and_schedule():
    config = OptimizerConfig(lr=0.5, warmup_steps=2, schedule="linear 6")
    assert [learning_rate(config, u) for u in range(8)] == [0, 0.25, 0.5, 0.375, 0.25, 0.125, 0, 0]
