"""Gradient filters, against Grokfast and ⊥Grad written out in NumPy with float64, and against what ⊥Grad promises."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from grokscope.config import OptimizerConfig
from grokscope.training.gradient_filters import FILTERS, grokfast_ema, grokfast_ma, orthogonal

SHAPES = {"a": (3, 4), "bb": (5,), "ccc": (2, 3, 2)}
N_UPDATES = 11


def drawn(u: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Return gradients of update u, or weights of "update" −1, that differ in size from tensor to tensor."""
    generator = torch.Generator().manual_seed(u + 1)
    return {
        name: torch.randn(shape, generator=generator, dtype=dtype) * 10.0 ** (i - 1)
        for i, (name, shape) in enumerate(SHAPES.items())
    }


def filtered(function: Callable[..., dict[str, Tensor]], config: OptimizerConfig) -> list[dict[str, Tensor]]:
    """Return what a filter makes of N_UPDATES gradients, one after the other."""
    state: dict[str, Tensor] = {}
    return [function(config, drawn(u), drawn(-1), state, u) for u in range(N_UPDATES)]


@pytest.mark.parametrize(("alpha", "factor"), [(0.98, 2.0), (0.5, 0.1), (0.0, 3.0)])
def test_grokfast_ema_is_the_one_by_hand_and_starts_at_the_first_gradient(alpha: float, factor: float):
    found = filtered(grokfast_ema, OptimizerConfig(filter_alpha=alpha, filter_lambda=factor))
    for name in SHAPES:
        mu = drawn(0)[name].numpy()
        for u in range(N_UPDATES):
            g = drawn(u)[name].numpy()
            mu = alpha * mu + (1 - alpha) * g
            np.testing.assert_allclose(found[u][name].numpy(), g + factor * mu, rtol=1e-12)
        np.testing.assert_allclose(found[0][name].numpy(), (1 + factor) * drawn(0)[name].numpy(), rtol=1e-12)


@pytest.mark.parametrize("factor", [2.0, 0.1])
@pytest.mark.parametrize("window", [1, 2, 5, N_UPDATES, N_UPDATES + 1])
def test_grokfast_ma_is_the_one_by_hand_and_waits_until_its_window_is_full(window: int, factor: float):
    found = filtered(grokfast_ma, OptimizerConfig(filter_window=window, filter_lambda=factor))
    for name in SHAPES:
        past: list[np.ndarray] = []
        for u in range(N_UPDATES):
            past.append(drawn(u)[name].numpy())
            expected = past[-1] + factor * np.mean(past[-window:], axis=0) if len(past) >= window else past[-1]
            np.testing.assert_allclose(found[u][name].numpy(), expected, rtol=1e-12, atol=1e-13)


def test_a_grokfast_filter_with_lambda_zero_returns_the_gradient():
    for function in (grokfast_ema, grokfast_ma):
        found = filtered(function, OptimizerConfig(filter_window=3, filter_lambda=0.0))
        assert all(torch.equal(found[u][name], drawn(u)[name]) for u in range(N_UPDATES) for name in SHAPES)


def test_a_filter_s_state_is_what_its_paper_remembers():
    config = OptimizerConfig(filter_window=3, filter_alpha=0.75)
    states: dict[str, dict[str, Tensor]] = {name: {} for name in FILTERS}
    for u in range(5):
        for name, function in FILTERS.items():
            function(config, drawn(u), drawn(-1), states[name], u)
    assert states["orthogonal"] == {}
    for name, shape in SHAPES.items():
        past = [drawn(u)[name] for u in range(5)]
        weights = [0.75**4] + [0.25 * 0.75 ** (4 - u) for u in range(1, 5)]
        torch.testing.assert_close(
            states["grokfast_ema"][name], sum(w * g for w, g in zip(weights, past, strict=True))
        )
        ring = states["grokfast_ma"][name]
        assert ring.shape == (3, *shape)
        assert sorted(map(str, ring.tolist())) == sorted(str(g.tolist()) for g in past[-3:])


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_leaves_gradients_and_weights_as_they_are_and_remembers_no_memory_of_theirs(name: str):
    config, state = OptimizerConfig(filter_window=2), {}
    for u in range(4):
        gradients, weights = drawn(u), drawn(-1)
        found = FILTERS[name](config, gradients, weights, state, u)
        assert all(torch.equal(gradients[one], drawn(u)[one]) for one in SHAPES)
        assert all(torch.equal(weights[one], drawn(-1)[one]) for one in SHAPES)
        assert found.keys() == SHAPES.keys() and all(found[one].dtype == torch.float64 for one in SHAPES)
        before = {one: tensor.clone() for one, tensor in state.items()}
        for tensor in (*gradients.values(), *found.values()):
            tensor.fill_(torch.nan)
        assert all(torch.equal(state[one], tensor) for one, tensor in before.items())


def one_orthogonal(gradient: Tensor, weight: Tensor) -> Tensor:
    return orthogonal(OptimizerConfig(), {"w": gradient}, {"w": weight}, {}, 0)["w"]


def cosine(a: Tensor, b: Tensor) -> float:
    return float((a.double() * b.double()).sum() / (a.double().norm() * b.double().norm()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(7,), (64, 48), (4, 128, 32)], ids=str)
def test_orthogonal_is_the_projection_by_hand_with_the_gradient_s_norm(shape: tuple[int, ...], dtype: torch.dtype):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator, dtype=dtype)
    gradient = 1e-3 * (torch.randn(shape, generator=generator, dtype=dtype) - 0.5 * weight)
    g, w = gradient.double().numpy().ravel(), weight.double().numpy().ravel()
    across = g - (w @ g) / (w @ w) * w
    expected = (across * np.linalg.norm(g) / np.linalg.norm(across)).reshape(shape)
    found, rounding = one_orthogonal(gradient, weight), 20 * torch.finfo(dtype).eps
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=0, atol=rounding * np.abs(g).max())
    assert abs(cosine(found, weight)) < rounding
    assert float(found.double().norm()) == pytest.approx(np.linalg.norm(g), rel=rounding)
    assert abs(cosine(gradient, weight)) > 0.3, "the gradient is meant to point along the weight, too"


def test_orthogonal_looks_at_each_tensor_alone():
    gradients, weights = drawn(0), drawn(-1)
    found = orthogonal(OptimizerConfig(), gradients, weights, {}, 0)
    for name in SHAPES:
        assert abs(cosine(found[name], weights[name])) < 1e-14
        assert torch.equal(found[name], one_orthogonal(gradients[name], weights[name]))


@pytest.mark.parametrize("share", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5])
def test_orthogonal_is_so_to_rounding_also_where_the_gradient_lies_nearly_along_the_weight(share: float):
    """There it is needed most: once the loss falls by growing weights alone, the gradient turns along −w."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(64, 128, generator=generator)
    gradient = share * torch.randn(64, 128, generator=generator) - weight
    found = one_orthogonal(gradient, weight)
    assert float(found.norm()) == pytest.approx(float(gradient.norm()), rel=1e-5)
    assert abs(cosine(found, weight)) < 1e-5


@pytest.mark.parametrize("factor", [0.37, -1.0, -0.3e-6, 7e4])
@pytest.mark.parametrize("shape", [(1,), (5,), (128, 512)], ids=str)
def test_a_gradient_along_the_weight_becomes_zero_and_not_rounding_at_full_size(
    shape: tuple[int, ...], factor: float
):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    assert not one_orthogonal(weight * factor, weight).any()


def test_where_the_weight_is_zero_orthogonal_returns_the_gradient_and_where_that_is_zero_zero():
    gradient = drawn(0, torch.float32)["a"]
    torch.testing.assert_close(one_orthogonal(gradient, torch.zeros(3, 4)), gradient, rtol=1e-6, atol=0)
    assert not one_orthogonal(torch.zeros(3, 4), gradient).any()
    assert not one_orthogonal(torch.zeros(3, 4), torch.zeros(3, 4)).any()


def test_orthogonal_does_not_hide_a_gradient_that_is_not_finite():
    gradient = drawn(0, torch.float32)["a"]
    gradient[1, 2] = torch.nan
    assert torch.isnan(one_orthogonal(gradient, torch.ones(3, 4))).all()
