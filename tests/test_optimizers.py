"""AdamW with warm-up, against steps written out in NumPy with float64."""

import numpy as np
import pytest
import torch

from grokscope.config import OptimizerConfig
from grokscope.optimizers import Optimizer

N_UPDATES = 7
EPS = 1e-8


def gradient(name: str, u: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return the gradient of update u: any numbers will do, of very different sizes."""
    generator = np.random.default_rng([u, len(name)])
    return generator.standard_normal(shape) * 10.0 ** generator.uniform(-4, 1)


def start() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in {"a": (3, 4), "bb": (5,)}.items()}


def update(optimizer: Optimizer, parameters: dict[str, torch.Tensor], updates: range) -> None:
    for u in updates:
        drawn = {name: gradient(name, u, tuple(parameter.shape)) for name, parameter in parameters.items()}
        optimizer.update({name: torch.from_numpy(one).float() for name, one in drawn.items()}, u)


def by_hand(config: OptimizerConfig, w: np.ndarray, name: str) -> list[np.ndarray]:
    """Loshchilov & Hutter 2019, algorithm 2, with bias correction and linear warm-up; one array an update."""
    (beta1, beta2), m, v, found = config.betas, np.zeros_like(w), np.zeros_like(w), []
    for u in range(N_UPDATES):
        g = gradient(name, u, w.shape).astype(np.float32).astype(np.float64)
        lr = config.lr if config.warmup_steps == 0 else config.lr * min(u / config.warmup_steps, 1)
        w = w - lr * config.weight_decay * w
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat, v_hat = m / (1 - beta1 ** (u + 1)), v / (1 - beta2 ** (u + 1))
        w = w - lr * m_hat / (np.sqrt(v_hat) + EPS)
        found.append(w)
    return found


CONFIGS = [
    OptimizerConfig(),
    OptimizerConfig(lr=0.03, weight_decay=0.0, betas=(0.5, 0.75), warmup_steps=0),
    OptimizerConfig(lr=0.1, weight_decay=2.0, betas=(0.0, 0.0), warmup_steps=3),
]


@pytest.mark.parametrize("config", CONFIGS, ids=["nanda", "no warm-up", "no memory"])
def test_updates_are_adamw_s_by_hand(config: OptimizerConfig):
    parameters = start()
    expected = {name: by_hand(config, tensor.double().numpy(), name) for name, tensor in parameters.items()}
    optimizer = Optimizer(config, parameters)
    for u in range(N_UPDATES):
        update(optimizer, parameters, range(u, u + 1))
        for name, tensor in parameters.items():
            np.testing.assert_allclose(tensor.numpy(), expected[name][u], rtol=2e-6, atol=2e-7)


def test_a_gradient_s_memory_order_does_not_matter():
    """A gradient comes out of autograd in any memory order; a fused kernel that ignores strides scrambles it."""
    config, found = OptimizerConfig(warmup_steps=0), []
    drawn = torch.from_numpy(gradient("a", 0, (2, 3, 4))).float()
    for one in (drawn, drawn.permute(2, 0, 1).contiguous().permute(1, 2, 0)):
        assert torch.equal(one, drawn)
        parameter = torch.ones(2, 3, 4)
        Optimizer(config, {"a": parameter}).update({"a": one}, 0)
        found.append(parameter)
    assert torch.equal(*found)


def test_the_first_update_of_a_warm_up_moves_nothing_and_counts():
    config, parameters = OptimizerConfig(lr=1.0, warmup_steps=2), start()
    optimizer = Optimizer(config, parameters)
    update(optimizer, parameters, range(1))
    assert all(torch.equal(parameters[name], tensor) for name, tensor in start().items())
    assert all(optimizer.state()[f"{name}/step"] == 1 for name in parameters)
    update(optimizer, parameters, range(1, 2))
    assert all(not torch.equal(parameters[name], tensor) for name, tensor in start().items())


@pytest.mark.parametrize("n", [0, 1, 4])
def test_an_optimizer_goes_on_from_its_state_to_the_bit_and_without_it_does_not(n: int):
    config, whole = CONFIGS[0], start()
    update(Optimizer(config, whole), whole, range(N_UPDATES))

    for loads in (True, False):
        halves = start()
        first = Optimizer(config, halves)
        update(first, halves, range(n))
        halves = {name: tensor.clone() for name, tensor in halves.items()}
        second = Optimizer(config, halves)
        if loads:
            second.load(first.state())
        update(second, halves, range(n, N_UPDATES))
        same = all(halves[name].numpy().tobytes() == tensor.numpy().tobytes() for name, tensor in whole.items())
        assert same == (loads or n == 0)


def test_a_state_is_a_copy_and_is_copied():
    config, parameters = CONFIGS[0], start()
    optimizer = Optimizer(config, parameters)
    update(optimizer, parameters, range(2))
    state = optimizer.state()
    kept = {name: tensor.clone() for name, tensor in state.items()}
    update(optimizer, parameters, range(2, 4))
    assert all(torch.equal(state[name], tensor) for name, tensor in kept.items())
    optimizer.load(state)
    update(optimizer, parameters, range(4, 6))
    assert all(torch.equal(state[name], tensor) for name, tensor in kept.items())


def test_hyperparameters_are_the_config_s_and_not_the_state_s():
    parameters = start()
    first = Optimizer(CONFIGS[0], parameters)
    update(first, parameters, range(2))
    other = OptimizerConfig(lr=0.5, weight_decay=0.25, betas=(0.1, 0.2), warmup_steps=0)
    second = Optimizer(other, parameters)
    second.load(first.state())
    before = parameters["bb"].double().numpy()
    m, v = (first.state()[f"bb/{name}"].double().numpy() for name in ("exp_avg", "exp_avg_sq"))
    g = gradient("bb", 2, (5,)).astype(np.float32).astype(np.float64)
    update(second, parameters, range(2, 3))
    m, v = 0.1 * m + 0.9 * g, 0.2 * v + 0.8 * g**2
    step = (m / (1 - 0.1**3)) / (np.sqrt(v / (1 - 0.2**3)) + EPS)
    np.testing.assert_allclose(parameters["bb"].numpy(), before * (1 - 0.5 * 0.25) - 0.5 * step, rtol=1e-5)
