"""Optimizers, decay centre, filters and noise, against updates written in NumPy in float64."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from grokscope import tasks
from grokscope.config import ModelConfig, OptimizerConfig, TaskConfig
from grokscope.model import families
from grokscope.training.optimizers import Optimizer

N_UPDATES = 7
EPS = 1e-8


def gradient(name: str, u: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return an arbitrary gradient for update u; its scale differs widely between updates."""
    generator = np.random.default_rng([u, len(name)])
    return generator.standard_normal(shape) * 10.0 ** generator.uniform(-4, 1)


def initial_parameters() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in {"a": (3, 4), "bb": (5,)}.items()}


def update(optimizer: Optimizer, parameters: dict[str, torch.Tensor], updates: range) -> None:
    for u in updates:
        gradients = {name: gradient(name, u, tuple(tensor.shape)) for name, tensor in parameters.items()}
        optimizer.update({name: torch.from_numpy(g).float() for name, g in gradients.items()}, u)


def test_decay_applies_to_every_trained_parameter():
    """A gradient of zero leaves the decay alone: w(1 − lr · weight_decay) for weights, biases and LayerNorm."""
    config = ModelConfig(d_model=8, n_heads=2, d_mlp=8, normalization_type="LN", biases="all")
    model = families.build(config, tasks.build(TaskConfig(p=5)))
    generator = torch.Generator().manual_seed(0)
    before = {name: torch.randn(model.shapes[name], generator=generator) for name in model.trained}
    assert {"blocks.0.ln1.w", "blocks.0.ln1.b", "ln_final.b", "unembed.b_U", "embed.W_E"} <= before.keys()
    after = {name: tensor.clone() for name, tensor in before.items()}
    optimizer = Optimizer(OptimizerConfig(lr=0.1, weight_decay=0.5, warmup_steps=0), after)
    optimizer.update({name: torch.zeros_like(tensor) for name, tensor in after.items()}, 0)
    for name, tensor in after.items():
        torch.testing.assert_close(tensor, 0.95 * before[name])


def expected_weights(
    config: OptimizerConfig, w: np.ndarray, name: str, centre: np.ndarray | None = None
) -> list[np.ndarray]:
    """Return the weights after each update, with linear warm-up, as the papers and their code define them.

    - Adam with bias correction: Kingma & Ba 2015, algorithm 1.
    - AdamW, whose decay comes before the update: Loshchilov & Hutter 2019, algorithm 2. Decay towards a centre: the
      code of Power et al. 2022.
    - Gradient descent with momentum: torch's documentation.
    - Filters: Lee et al. 2024 and Prieto et al. 2025.
    """
    (beta1, beta2), m, v, weights = config.betas, np.zeros_like(w), np.zeros_like(w), []
    past: list[np.ndarray] = []
    for u in range(N_UPDATES):
        g = gradient(name, u, w.shape).astype(np.float32).astype(np.float64)
        past.append(g)
        if config.gradient_filter == "grokfast_ema":
            mu = past[0]
            for past_g in past[1:]:
                mu = config.filter_alpha * mu + (1 - config.filter_alpha) * past_g
            g = g + config.filter_lambda * mu
        elif config.gradient_filter == "grokfast_ma" and len(past) >= config.filter_window:
            g = g + config.filter_lambda * np.mean(past[-config.filter_window :], axis=0)
        elif config.gradient_filter == "orthogonal":
            across = g - (w * g).sum() / (w * w).sum() * w
            g = across * np.linalg.norm(g) / np.linalg.norm(across)
        lr = config.lr if config.warmup_steps == 0 else config.lr * min(u / config.warmup_steps, 1)
        if config.name == "sgd":
            g = g + config.weight_decay * w
            v = config.momentum * v + g
            w = w - lr * v
        else:
            decay = config.weight_decay if config.name == "adamw" else 0.0
            w = w - lr * decay * (w - (0.0 if centre is None else centre))
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g**2
            m_hat, v_hat = m / (1 - beta1 ** (u + 1)), v / (1 - beta2 ** (u + 1))
            w = w - lr * m_hat / (np.sqrt(v_hat) + EPS)
        weights.append(w)
    return weights


def sgd(**settings: Any) -> OptimizerConfig:
    return OptimizerConfig(**{"name": "sgd", "lr": 0.05, "weight_decay": 0.0, "warmup_steps": 0} | settings)


CONFIGS = {
    "nanda": OptimizerConfig(),
    "no warm-up": OptimizerConfig(lr=0.03, weight_decay=0.0, betas=(0.5, 0.75), warmup_steps=0),
    "no memory": OptimizerConfig(lr=0.1, weight_decay=2.0, betas=(0.0, 0.0), warmup_steps=3),
    "to the initialization": OptimizerConfig(
        lr=0.1, weight_decay=3.0, betas=(0.5, 0.75), warmup_steps=2, decay_centre="initialization"
    ),
    "adam": OptimizerConfig(name="adam", lr=0.03, weight_decay=0.0, warmup_steps=3),
    "adam, other betas": OptimizerConfig(name="adam", lr=0.1, weight_decay=0.0, betas=(0.3, 0.6), warmup_steps=0),
    "sgd": sgd(),
    "sgd with warm-up": sgd(warmup_steps=3),
    "sgd with decay": sgd(weight_decay=0.7),
    "sgd with momentum": sgd(momentum=0.9),
    "sgd with all": sgd(momentum=0.8, weight_decay=0.7, warmup_steps=2),
    "sgd, grokfast_ema": sgd(momentum=0.5, weight_decay=0.3, gradient_filter="grokfast_ema", filter_alpha=0.8),
    "sgd, grokfast_ma": sgd(weight_decay=0.3, gradient_filter="grokfast_ma", filter_window=3, filter_lambda=0.5),
    "sgd, orthogonal": sgd(lr=0.01, momentum=0.5, weight_decay=0.3, gradient_filter="orthogonal"),
    "adam, grokfast_ma": OptimizerConfig(
        name="adam", lr=0.01, weight_decay=0.0, gradient_filter="grokfast_ma", filter_window=2
    ),
    "adamw, grokfast_ema": OptimizerConfig(lr=0.01, gradient_filter="grokfast_ema", filter_alpha=0.7),
    "adamw, orthogonal": OptimizerConfig(lr=0.01, betas=(0.5, 0.75), gradient_filter="orthogonal"),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_updates_match_numpy(config: OptimizerConfig):
    parameters, centre = initial_parameters(), initial_parameters() if config.decay_centre == "initialization" else {}
    expected = {
        name: expected_weights(
            config, tensor.double().numpy(), name, centre[name].double().numpy() if name in centre else None
        )
        for name, tensor in parameters.items()
    }
    optimizer = Optimizer(config, parameters, centre)
    for u in range(N_UPDATES):
        update(optimizer, parameters, range(u, u + 1))
        for name, tensor in parameters.items():
            np.testing.assert_allclose(tensor.numpy(), expected[name][u], rtol=4e-6, atol=4e-7)


def test_order_of_decay_and_update_exceeds_the_tolerance():
    """The control of the test above: decay after the update gives other weights, far beyond the tolerance."""
    config, w = CONFIGS["to the initialization"], initial_parameters()["bb"].double().numpy()
    g, lr = gradient("bb", 0, (5,)), config.lr
    step = lr * g / (np.abs(g) + EPS)
    decay = config.weight_decay * lr
    before, after = w - decay * (w - 1) - step, (w - step) - decay * (w - step - 1)
    assert (abs(before - after) > 1e-2).all()


def test_decay_centre_matters_only_when_it_is_configured():
    ones, weights = {name: torch.ones_like(tensor) for name, tensor in initial_parameters().items()}, {}
    for decay_centre in ("zero", "initialization"):
        config = dataclasses.replace(CONFIGS["to the initialization"], decay_centre=decay_centre)
        parameters = initial_parameters()
        expected = expected_weights(
            config, parameters["a"].double().numpy(), "a", np.ones((3, 4)) if decay_centre != "zero" else None
        )
        update(Optimizer(config, parameters, ones), parameters, range(N_UPDATES))
        np.testing.assert_allclose(parameters["a"].numpy(), expected[-1], rtol=4e-6, atol=4e-7)
        weights[decay_centre] = parameters["a"]
    assert (abs(weights["zero"] - weights["initialization"]) > 0.1).all()
    assert all((tensor == 1).all() for tensor in ones.values())


def test_zero_gradient_leaves_only_the_decay_to_its_centre():
    config = OptimizerConfig(lr=0.1, weight_decay=2.0, warmup_steps=0, decay_centre="initialization")
    weight, centre = torch.tensor([1.0, 3.0, -2.0]), torch.tensor([1.0, 1.0, 0.0])
    Optimizer(config, {"a": weight}, {"a": centre}).update({"a": torch.zeros(3)}, 0)
    torch.testing.assert_close(weight, torch.tensor([1.0, 3.0 - 0.2 * 2, -2.0 + 0.2 * 2]))


def test_memory_order_of_a_gradient_does_not_matter():
    """Autograd returns gradients in any memory order, and a fused kernel that ignores strides would scramble them."""
    config, weights = OptimizerConfig(warmup_steps=0), []
    row_major = torch.from_numpy(gradient("a", 0, (2, 3, 4))).float()
    for g in (row_major, row_major.permute(2, 0, 1).contiguous().permute(1, 2, 0)):
        assert torch.equal(g, row_major)
        parameter = torch.ones(2, 3, 4)
        Optimizer(config, {"a": parameter}).update({"a": g}, 0)
        weights.append(parameter)
    assert torch.equal(*weights)


def test_first_update_of_warm_up_moves_nothing_but_counts():
    config, parameters = OptimizerConfig(lr=1.0, warmup_steps=2), initial_parameters()
    optimizer = Optimizer(config, parameters)
    update(optimizer, parameters, range(1))
    assert all(torch.equal(parameters[name], tensor) for name, tensor in initial_parameters().items())
    assert all(optimizer.state()[f"{name}/step"] == 1 for name in parameters)
    update(optimizer, parameters, range(1, 2))
    assert all(not torch.equal(parameters[name], tensor) for name, tensor in initial_parameters().items())


@pytest.mark.parametrize("n", [0, 1, 4])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_optimizer_resumes_exactly_from_its_state_alone(config: OptimizerConfig, n: int):
    uninterrupted = initial_parameters()
    update(Optimizer(config, uninterrupted, initial_parameters()), uninterrupted, range(N_UPDATES))

    has_state = n > 0 and (
        config.name != "sgd" or config.momentum > 0 or "grokfast" in (config.gradient_filter or "")
    )
    for is_own_state in (True, False):
        parameters = initial_parameters()
        first = Optimizer(config, parameters, initial_parameters())
        update(first, parameters, range(n))
        parameters = {name: tensor.clone() for name, tensor in parameters.items()}
        state = first.state()
        assert bool(state) == has_state
        if not is_own_state:
            state = {name: tensor * (0.5 if tensor.ndim else 1) for name, tensor in state.items()}
        second = Optimizer(config, parameters, initial_parameters())
        second.load(state)
        update(second, parameters, range(n, N_UPDATES))
        is_exact = all(
            parameters[name].numpy().tobytes() == tensor.numpy().tobytes() for name, tensor in uninterrupted.items()
        )
        # With betas of zero the updates do not depend on the state.
        assert is_exact == (is_own_state or not has_state or config.betas == (0.0, 0.0))


def test_state_contains_the_quantities_of_each_part():
    expected = {
        "sgd": set(),
        "sgd with momentum": {"momentum_buffer"},
        "adam": {"step", "exp_avg", "exp_avg_sq"},
        "nanda": {"step", "exp_avg", "exp_avg_sq"},
    }
    for kind, quantities in expected.items():
        parameters = initial_parameters()
        optimizer = Optimizer(CONFIGS[kind], parameters)
        update(optimizer, parameters, range(2))
        assert set(optimizer.state()) == {f"{name}/{quantity}" for name in parameters for quantity in quantities}
    parameters = initial_parameters()
    optimizer = Optimizer(CONFIGS["sgd, grokfast_ma"], parameters)
    update(optimizer, parameters, range(2))
    assert {name: tuple(tensor.shape) for name, tensor in optimizer.state().items()} == {
        "filter/a": (3, 3, 4),
        "filter/bb": (3, 5),
    }


def test_state_and_load_copy_their_tensors():
    config, parameters = CONFIGS["adamw, grokfast_ema"], initial_parameters()
    optimizer = Optimizer(config, parameters)
    update(optimizer, parameters, range(2))
    state = optimizer.state()
    before = {name: tensor.clone() for name, tensor in state.items()}
    update(optimizer, parameters, range(2, 4))
    assert all(torch.equal(state[name], tensor) for name, tensor in before.items())
    optimizer.load(state)
    update(optimizer, parameters, range(4, 6))
    assert all(torch.equal(state[name], tensor) for name, tensor in before.items())


def test_load_keeps_the_hyperparameters_of_the_config():
    parameters = initial_parameters()
    first = Optimizer(CONFIGS["nanda"], parameters)
    update(first, parameters, range(2))
    config = OptimizerConfig(lr=0.5, weight_decay=0.25, betas=(0.1, 0.2), warmup_steps=0)
    second = Optimizer(config, parameters)
    second.load(first.state())
    before = parameters["bb"].double().numpy()
    m, v = (first.state()[f"bb/{name}"].double().numpy() for name in ("exp_avg", "exp_avg_sq"))
    g = gradient("bb", 2, (5,)).astype(np.float32).astype(np.float64)
    update(second, parameters, range(2, 3))
    m, v = 0.1 * m + 0.9 * g, 0.2 * v + 0.8 * g**2
    step = (m / (1 - 0.1**3)) / (np.sqrt(v / (1 - 0.2**3)) + EPS)
    np.testing.assert_allclose(parameters["bb"].numpy(), before * (1 - 0.5 * 0.25) - 0.5 * step, rtol=1e-5)


LARGE = {"a": (100, 150), "bb": (9_000,), "c": (80, 10)}


def noise_of(config: OptimizerConfig, u: int, seed: int = 0, first: int | None = None) -> dict[str, np.ndarray]:
    """Return what update noise adds in update `u`, divided by lr·σ: the difference from the update without noise.

    Updates start at `first`, by default at `u`. The weights start at zero, where a small difference is exact.
    """
    moved = {}
    for sigma in (config.update_noise, 0.0):
        parameters = {name: torch.zeros(shape) for name, shape in LARGE.items()}
        optimizer = Optimizer(dataclasses.replace(config, update_noise=sigma), parameters, None, seed)
        for v in range(u if first is None else first, u + 1):
            for tensor in parameters.values():
                tensor.zero_()
            update(optimizer, parameters, range(v, v + 1))
        moved[sigma] = {name: tensor.double().numpy() for name, tensor in parameters.items()}
    lr = config.lr if not config.warmup_steps else config.lr * min(u / config.warmup_steps, 1)
    return {
        name: (moved[config.update_noise][name] - moved[0.0][name]) / (lr * config.update_noise) for name in LARGE
    }


NOISY = {
    "adamw": OptimizerConfig(lr=0.01, warmup_steps=0, update_noise=5.0),
    "adam in warm-up": OptimizerConfig(name="adam", weight_decay=0.0, lr=0.5, warmup_steps=8, update_noise=2.0),
    "to the initialization": OptimizerConfig(
        lr=0.01, warmup_steps=0, update_noise=5.0, decay_centre="initialization"
    ),
}


@pytest.mark.parametrize("kind", ["adamw", "adam in warm-up"])
def test_update_noise_is_standard_normal_times_lr_and_sigma(kind: str):
    for u in (1, 6):
        for noise in noise_of(NOISY[kind], u).values():
            n = noise.size
            assert abs(noise.mean()) < 4 / n**0.5
            assert abs(noise.var() - 1) < 4 * (2 / n) ** 0.5
            assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
            assert stats.kstest(noise.ravel() * 1.1, "norm").pvalue < 1e-3 or n < 5000, (
                "the test must notice a wrong scale"
            )


def test_update_noise_is_a_function_of_seed_and_update():
    config = NOISY["adamw"]
    noises = {(u, seed): noise_of(config, u, seed) for u in (0, 1, 5) for seed in (0, 1)}
    for (u, seed), noise in noises.items():
        if u:
            repeated = noise_of(config, u, seed, first=0)
            for name in LARGE:
                np.testing.assert_allclose(repeated[name], noise[name], atol=1e-5)
    samples = [tensor.ravel()[:800] for noise in noises.values() for tensor in noise.values()]
    correlations = np.corrcoef(samples) - np.eye(len(samples))
    assert abs(correlations).max() < 5 / 800**0.5


def test_first_update_of_warm_up_has_no_noise():
    parameters = initial_parameters()
    update(Optimizer(NOISY["adam in warm-up"], parameters), parameters, range(1))
    assert all(torch.equal(parameters[name], tensor) for name, tensor in initial_parameters().items())


def test_noise_and_decay_to_the_centre_add_up():
    """The weights start at zero, so decay towards ones adds lr·λ to the noise."""
    config = NOISY["to the initialization"]
    weights = []
    for centre in (0.0, 1.0):
        parameters = {"a": torch.zeros(4, 5)}
        Optimizer(config, parameters, {"a": torch.full((4, 5), centre)}).update({"a": torch.ones(4, 5)}, 0)
        weights.append(parameters["a"])
    torch.testing.assert_close(weights[1] - weights[0], torch.full((4, 5), config.lr * config.weight_decay))
