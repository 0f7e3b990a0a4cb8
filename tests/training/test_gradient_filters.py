"""Gradient filters against Grokfast and ⊥Grad written in NumPy in float64, and ⊥Grad against its promises."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from grokscope.config import OptimizerConfig
from grokscope.training.gradient_filters import FILTERS, grokfast_ema, grokfast_ma, orthogonal

SHAPES = {"a": (3, 4), "bb": (5,), "ccc": (2, 3, 2)}
N_UPDATES = 11


def draw(u: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Return the gradients of update u, or the weights for u = −1, with a different scale for each tensor."""
    generator = torch.Generator().manual_seed(u + 1)
    return {
        name: torch.randn(shape, generator=generator, dtype=dtype) * 10.0 ** (i - 1)
        for i, (name, shape) in enumerate(SHAPES.items())
    }


def apply_repeatedly(function: Callable[..., dict[str, Tensor]], config: OptimizerConfig) -> list[dict[str, Tensor]]:
    """Return a filter's results for N_UPDATES gradients."""
    state: dict[str, Tensor] = {}
    return [function(config, draw(u), draw(-1), state, u) for u in range(N_UPDATES)]


@pytest.mark.parametrize(("alpha", "factor"), [(0.98, 2.0), (0.5, 0.1), (0.0, 3.0)])
def test_grokfast_ema_matches_numpy_and_starts_at_g(alpha: float, factor: float):
    filtered = apply_repeatedly(grokfast_ema, OptimizerConfig(filter_alpha=alpha, filter_lambda=factor))
    for name in SHAPES:
        mu = draw(0)[name].numpy()
        for u in range(N_UPDATES):
            g = draw(u)[name].numpy()
            mu = alpha * mu + (1 - alpha) * g
            np.testing.assert_allclose(filtered[u][name].numpy(), g + factor * mu, rtol=1e-12)
        np.testing.assert_allclose(filtered[0][name].numpy(), (1 + factor) * draw(0)[name].numpy(), rtol=1e-12)


@pytest.mark.parametrize("factor", [2.0, 0.1])
@pytest.mark.parametrize("window", [1, 2, 5, N_UPDATES, N_UPDATES + 1])
def test_grokfast_ma_matches_numpy_and_waits_for_its_window(window: int, factor: float):
    filtered = apply_repeatedly(grokfast_ma, OptimizerConfig(filter_window=window, filter_lambda=factor))
    for name in SHAPES:
        past: list[np.ndarray] = []
        for u in range(N_UPDATES):
            past.append(draw(u)[name].numpy())
            expected = past[-1] + factor * np.mean(past[-window:], axis=0) if len(past) >= window else past[-1]
            np.testing.assert_allclose(filtered[u][name].numpy(), expected, rtol=1e-12, atol=1e-13)


def test_grokfast_with_lambda_zero_returns_the_gradient():
    for function in (grokfast_ema, grokfast_ma):
        filtered = apply_repeatedly(function, OptimizerConfig(filter_window=3, filter_lambda=0.0))
        assert all(torch.equal(filtered[u][name], draw(u)[name]) for u in range(N_UPDATES) for name in SHAPES)


def test_filter_state_matches_the_paper():
    config = OptimizerConfig(filter_window=3, filter_alpha=0.75)
    states: dict[str, dict[str, Tensor]] = {name: {} for name in FILTERS}
    for u in range(5):
        for name, function in FILTERS.items():
            function(config, draw(u), draw(-1), states[name], u)
    assert states["orthogonal"] == {}
    for name, shape in SHAPES.items():
        past = [draw(u)[name] for u in range(5)]
        weights = [0.75**4] + [0.25 * 0.75 ** (4 - u) for u in range(1, 5)]
        expected = sum(weight * g for weight, g in zip(weights, past, strict=True))
        torch.testing.assert_close(states["grokfast_ema"][name], expected)
        ring = states["grokfast_ma"][name]
        assert ring.shape == (3, *shape)
        assert sorted(map(str, ring.tolist())) == sorted(str(g.tolist()) for g in past[-3:])


@pytest.mark.parametrize("name", FILTERS)
def test_filter_keeps_inputs_and_shares_no_memory_with_them(name: str):
    config, state = OptimizerConfig(filter_window=2), {}
    for u in range(4):
        gradients, weights = draw(u), draw(-1)
        filtered = FILTERS[name](config, gradients, weights, state, u)
        assert all(torch.equal(gradients[key], draw(u)[key]) for key in SHAPES)
        assert all(torch.equal(weights[key], draw(-1)[key]) for key in SHAPES)
        assert filtered.keys() == SHAPES.keys() and all(filtered[key].dtype == torch.float64 for key in SHAPES)
        before = {key: tensor.clone() for key, tensor in state.items()}
        for tensor in (*gradients.values(), *filtered.values()):
            tensor.fill_(torch.nan)
        assert all(torch.equal(state[key], tensor) for key, tensor in before.items())


def orthogonalize(gradient: Tensor, weight: Tensor) -> Tensor:
    return orthogonal(OptimizerConfig(), {"w": gradient}, {"w": weight}, {}, 0)["w"]


def cosine(a: Tensor, b: Tensor) -> float:
    return float((a.double() * b.double()).sum() / (a.double().norm() * b.double().norm()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(7,), (64, 48), (4, 128, 32)], ids=str)
def test_orthogonal_matches_numpy_and_keeps_the_norm(shape: tuple[int, ...], dtype: torch.dtype):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator, dtype=dtype)
    gradient = 1e-3 * (torch.randn(shape, generator=generator, dtype=dtype) - 0.5 * weight)
    g, w = gradient.double().numpy().ravel(), weight.double().numpy().ravel()
    across = g - (w @ g) / (w @ w) * w
    expected = (across * np.linalg.norm(g) / np.linalg.norm(across)).reshape(shape)
    filtered, rounding = orthogonalize(gradient, weight), 20 * torch.finfo(dtype).eps
    np.testing.assert_allclose(filtered.double().numpy(), expected, rtol=0, atol=rounding * np.abs(g).max())
    assert abs(cosine(filtered, weight)) < rounding
    assert float(filtered.double().norm()) == pytest.approx(np.linalg.norm(g), rel=rounding)
    assert abs(cosine(gradient, weight)) > 0.3, "the gradient must have a component along the weight"


def test_orthogonal_treats_each_tensor_alone():
    gradients, weights = draw(0), draw(-1)
    filtered = orthogonal(OptimizerConfig(), gradients, weights, {}, 0)
    for name in SHAPES:
        assert abs(cosine(filtered[name], weights[name])) < 1e-14
        assert torch.equal(filtered[name], orthogonalize(gradients[name], weights[name]))


@pytest.mark.parametrize("share", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5])
def test_orthogonal_is_exact_when_g_is_almost_parallel_to_w(share: float):
    """⊥Grad matters most there: once only growing weights reduce the loss, the gradient turns along −w."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(64, 128, generator=generator)
    gradient = share * torch.randn(64, 128, generator=generator) - weight
    filtered = orthogonalize(gradient, weight)
    assert float(filtered.norm()) == pytest.approx(float(gradient.norm()), rel=1e-5)
    assert abs(cosine(filtered, weight)) < 1e-5


@pytest.mark.parametrize("factor", [0.37, -1.0, -0.3e-6, 7e4])
@pytest.mark.parametrize("shape", [(1,), (5,), (128, 512)], ids=str)
def test_orthogonal_of_a_parallel_gradient_is_zero(shape: tuple[int, ...], factor: float):
    """Only rounding is left of it, which must not be scaled up."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    assert not orthogonalize(weight * factor, weight).any()


def test_orthogonal_with_a_zero_weight_returns_the_gradient():
    gradient = draw(0, torch.float32)["a"]
    torch.testing.assert_close(orthogonalize(gradient, torch.zeros(3, 4)), gradient, rtol=1e-6, atol=0)
    assert not orthogonalize(torch.zeros(3, 4), gradient).any()
    assert not orthogonalize(torch.zeros(3, 4), torch.zeros(3, 4)).any()


def test_orthogonal_passes_on_a_gradient_that_is_not_finite():
    gradient = draw(0, torch.float32)["a"]
    gradient[1, 2] = torch.nan
    assert torch.isnan(orthogonalize(gradient, torch.ones(3, 4))).all()
