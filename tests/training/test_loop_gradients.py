"""The loss and gradient of an update against HookedTransformer: weight noise, dropout and SAM."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from grokscope.config import ModelConfig, OptimizerConfig, RunConfig, TaskConfig
from grokscope.model import losses, transformer
from grokscope.training import loop
from grokscope.training.loop import Setup, loss_and_gradients, optimize
from grokscope.training.state import State

Tensors = Mapping[str, torch.Tensor]

PLAIN = RunConfig(
    task=TaskConfig(p=7, train_fraction=0.6, form="a ∘ b ="),
    model=ModelConfig(
        n_layers=2, d_model=12, n_heads=3, d_mlp=8, normalization_type="LN", biases="mlp", positions="sinusoidal"
    ),
    batch_size=10,
    training_seed=2,
)


def with_optimizer(config: RunConfig = PLAIN, **changes: Any) -> RunConfig:
    return dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, **changes))


def trained_setup(config: RunConfig) -> tuple[Setup, State]:
    """Return a setup, and a state a few plain updates after the initialization, where no gradient is special."""
    state = Setup(config).learner.initial_state()
    plain = Setup(dataclasses.replace(PLAIN, optimizer=OptimizerConfig(lr=1e-2)))
    updates = optimize(plain, plain_state := plain.learner.initial_state())
    for _ in range(13):
        next(updates)
    with torch.no_grad():
        for name, tensor in state.parameters.items():
            tensor.copy_(plain_state.parameters[name])
    state.step = plain_state.step
    return Setup(config), state


def expected_gradients(
    setup: Setup, parameters: Tensors, step: int, masks: Tensors | None = None
) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the loss and gradients of a HookedTransformer in float64, whose hooks multiply by the dropout masks."""
    hooked = setup.model.hooked_transformer({name: tensor.detach().double() for name, tensor in parameters.items()})
    equations, labels = setup.batch(step)

    def multiply(mask: torch.Tensor, value: torch.Tensor, hook: Any) -> torch.Tensor:
        return torch.cat([value[:, : -mask.shape[1]], value[:, -mask.shape[1] :] * mask], dim=1)

    hooks = [(name, functools.partial(multiply, mask.double())) for name, mask in (masks or {}).items()]
    logits = torch.as_tensor(hooked.run_with_hooks(equations.tokens, fwd_hooks=hooks))[:, -1]  # pyright: ignore
    if setup.config.loss == "stablemax":
        s = torch.where(logits >= 0, logits + 1, 1 / (1 - logits))
        loss = -(s.gather(1, labels[:, None])[:, 0] / s.sum(1)).log().mean()
    else:
        loss = F.cross_entropy(logits, labels)
    loss.backward()
    return float(loss.detach()), {
        name: parameter.grad
        for name, parameter in hooked.named_parameters()
        if name in setup.model.trained and parameter.grad is not None
    }


def displaced(parameters: Tensors, directions: Tensors, distance: float) -> dict[str, torch.Tensor]:
    """Return the parameters in float64, moved along the directions."""
    return {
        name: tensor.detach().double() + distance * directions[name].double()
        if name in directions
        else tensor.detach()
        for name, tensor in parameters.items()
    }


def norm(gradients: Tensors) -> float:
    return float(torch.cat([gradient.flatten() for gradient in gradients.values()]).double().norm())


def assert_gradients(setup: Setup, gradients: Tensors, expected: Tensors) -> None:
    assert tuple(gradients) == setup.model.trained and set(expected) == set(gradients)
    atol = 2e-5 * norm(expected)
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(
            gradient.double(),
            expected[name],
            rtol=0,
            atol=atol,
            msg=lambda message, name=name: f"{name}: {message}",
        )


def distance(gradients: Tensors, others: Tensors) -> float:
    """Return the distance of two gradients, relative to the norm of the first."""
    differences = {name: gradients[name].double() - others[name].double() for name in gradients}
    return norm(differences) / norm(gradients)


def bits(state: State) -> dict[str, tuple[bytes, bool]]:
    return {
        name: (tensor.detach().numpy().tobytes(), tensor.requires_grad) for name, tensor in state.parameters.items()
    }


class RandomDraws:
    """The weight noise and the dropout masks that are drawn while this is active."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.noise: list[torch.Tensor] = []
        self.masks: list[dict[str, torch.Tensor]] = []
        noise_like, dropout_masks = loop.noise_like, transformer.Transformer.dropout_masks

        def watched_noise_like(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            self.noise.append(noise_like(tensor, generator))
            return self.noise[-1]

        def watched_dropout_masks(model: transformer.Transformer, *arguments: Any) -> dict[str, torch.Tensor]:
            self.masks.append(dropout_masks(model, *arguments))
            return self.masks[-1]

        monkeypatch.setattr(loop, "noise_like", watched_noise_like)
        monkeypatch.setattr(transformer.Transformer, "dropout_masks", watched_dropout_masks)


@pytest.mark.parametrize("loss", ["softmax", "stablemax"])
def test_gradient_matches_hooked_transformer(loss: str):
    setup, state = trained_setup(dataclasses.replace(PLAIN, loss=loss))
    value, gradients = loss_and_gradients(setup, state)
    expected_loss, expected = expected_gradients(setup, state.parameters, state.step)
    assert float(value) == pytest.approx(expected_loss, rel=1e-5)
    assert_gradients(setup, gradients, expected)


@pytest.mark.parametrize("sigma", [0.01, 0.3])
def test_weight_noise_moves_the_gradient_but_not_the_weights(sigma: float, monkeypatch: pytest.MonkeyPatch):
    setup, state = trained_setup(with_optimizer(weight_noise=sigma))
    before, draws = bits(state), RandomDraws(monkeypatch)
    value, gradients = loss_and_gradients(setup, state)
    assert bits(state) == before
    shapes = [setup.model.shapes[name] for name in setup.model.trained]
    assert [tuple(tensor.shape) for tensor in draws.noise] == shapes, "every trained weight has noise, once"
    sample = torch.cat([tensor.flatten() for tensor in draws.noise]).numpy()
    assert stats.kstest(sample, "norm").pvalue > 1e-3 and len(sample) > 1000
    noise = dict(zip(setup.model.trained, draws.noise, strict=True))
    expected_loss, expected = expected_gradients(setup, displaced(state.parameters, noise, sigma), state.step)
    assert float(value) == pytest.approx(expected_loss, rel=1e-5)
    assert_gradients(setup, gradients, expected)
    assert distance(expected, expected_gradients(setup, state.parameters, state.step)[1]) > 0.01


@pytest.mark.parametrize("part", ["weight noise", "dropout"])
def test_random_draws_are_functions_of_seed_and_step(part: str, monkeypatch: pytest.MonkeyPatch):
    if part == "weight noise":
        config = with_optimizer(weight_noise=0.1)
    else:
        config = dataclasses.replace(PLAIN, residual_dropout=0.3)
    draws, content_by_step = RandomDraws(monkeypatch), {}
    for seed in (0, 1):
        setup, state = trained_setup(dataclasses.replace(config, training_seed=seed))
        for step in (0, 1, 2, 1, 0):
            draws.noise.clear()
            draws.masks.clear()
            state.step = step
            loss_and_gradients(setup, state)
            tensors = draws.noise if part == "weight noise" else [*draws.masks[0].values()]
            content = b"".join(tensor.numpy().tobytes() for tensor in tensors)
            assert content_by_step.setdefault((seed, step), content) == content
    assert len(set(content_by_step.values())) == 6


@pytest.mark.parametrize("radius", [0.05, 1.0])
@pytest.mark.parametrize("loss", ["softmax", "stablemax"])
def test_sam_takes_the_gradient_at_its_radius_uphill(radius: float, loss: str):
    setup, state = trained_setup(dataclasses.replace(with_optimizer(sam_radius=radius), loss=loss))
    before = bits(state)
    value, gradients = loss_and_gradients(setup, state)
    assert bits(state) == before
    plain_loss, plain = expected_gradients(setup, state.parameters, state.step)
    uphill = displaced(state.parameters, plain, radius / norm(plain))
    _, expected = expected_gradients(setup, uphill, state.step)
    assert_gradients(setup, gradients, expected)
    assert float(value) == pytest.approx(plain_loss, rel=1e-5), "the loss must be that of the weights themselves"
    assert distance(expected, plain) > 0.01


def test_sam_with_a_vanishing_radius_gives_the_plain_gradient():
    plain_setup, state = trained_setup(PLAIN)
    _, plain = loss_and_gradients(plain_setup, state)
    distances = []
    for radius in (1e-1, 1e-2, 1e-3):
        _, gradients = loss_and_gradients(Setup(with_optimizer(sam_radius=radius)), state)
        distances.append(distance(plain, gradients))
    assert distances[0] > 5 * distances[1] > 25 * distances[2] > 0


def test_sam_leaves_a_zero_gradient_zero():
    """With W_U and the last LayerNorm at zero, every logit and every gradient is zero."""
    setup, state = trained_setup(with_optimizer(sam_radius=0.5))
    with torch.no_grad():
        for name in ("unembed.W_U", "ln_final.w", "ln_final.b"):
            state.parameters[name].zero_()
    loss, gradients = loss_and_gradients(setup, state)
    assert float(loss) == pytest.approx(math.log(7))
    assert not any(gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_dropout_applies_in_training_but_not_in_evaluation(probability: float, monkeypatch: pytest.MonkeyPatch):
    setup, state = trained_setup(dataclasses.replace(PLAIN, residual_dropout=probability))
    draws, before = RandomDraws(monkeypatch), bits(state)
    value, gradients = loss_and_gradients(setup, state)
    (masks,) = draws.masks
    is_dropped = np.concatenate([mask.numpy().ravel() for mask in masks.values()]) == 0
    assert abs(is_dropped.mean() - probability) < 4 * (probability * (1 - probability) / is_dropped.size) ** 0.5
    expected_loss, expected = expected_gradients(setup, state.parameters, state.step, masks)
    assert float(value) == pytest.approx(expected_loss, rel=1e-5)
    assert_gradients(setup, gradients, expected)
    assert distance(expected, expected_gradients(setup, state.parameters, state.step)[1]) > 0.01
    row = setup.evaluator.evaluate(state)
    assert row == setup.evaluator.evaluate(state) == Setup(PLAIN).evaluator.evaluate(state)
    assert len(draws.masks) == 1 and bits(state) == before


@pytest.mark.parametrize("loss", ["softmax", "stablemax"])
def test_both_gradients_of_sam_share_batch_noise_and_masks(loss: str, monkeypatch: pytest.MonkeyPatch):
    config = with_optimizer(weight_noise=0.1, sam_radius=0.5)
    setup, state = trained_setup(dataclasses.replace(config, residual_dropout=0.2, loss=loss))
    draws, before = RandomDraws(monkeypatch), bits(state)
    value, gradients = loss_and_gradients(setup, state)
    assert bits(state) == before
    (masks,), noise = draws.masks, dict(zip(setup.model.trained, draws.noise, strict=True))
    noisy = displaced(state.parameters, noise, 0.1)
    noisy_loss, first = expected_gradients(setup, noisy, state.step, masks)
    assert float(value) == pytest.approx(noisy_loss, rel=1e-5)
    _, expected = expected_gradients(setup, displaced(noisy, first, 0.5 / norm(first)), state.step, masks)
    assert_gradients(setup, gradients, expected)


@pytest.mark.parametrize(("name", "torch_name"), [("float32", "highest"), ("tf32", "high"), ("bfloat16", "medium")])
def test_matrix_products_change_only_the_gradient(
    tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch, name: str, torch_name: str
):
    precisions: list[str] = []
    for function_name in ("mean_loss_and_gradient", "evaluate"):
        original = getattr(losses, function_name)

        def watched(*arguments: Any, original: Any = original) -> Any:
            precisions.append(torch.get_float32_matmul_precision())
            return original(*arguments)

        monkeypatch.setattr(losses, function_name, watched)
    setup = Setup(dataclasses.replace(tiny_config, matrix_products=name))
    state = setup.learner.initial_state()
    next(optimize(setup, state))
    assert (precisions, torch.get_float32_matmul_precision()) == ([torch_name], "highest")
    setup.evaluator.evaluate(state)
    assert precisions[1] == "highest"
