"""Training against a plain loop over HookedTransformer: equal trajectories within rounding, and equal grokking."""

import dataclasses
from collections.abc import Iterator
from itertools import islice

import pytest
import torch

from grokscope import phases
from grokscope.config import ModelConfig, OptimizerConfig, RunConfig, TaskConfig, presets
from grokscope.model.losses import cross_entropy
from grokscope.training.loop import Setup, optimize

Parameters = dict[str, torch.Tensor]

CONFIGS = {
    "one layer": dataclasses.replace(presets.get("quick"), task=TaskConfig(p=23, train_fraction=0.5)),
    "minibatches": dataclasses.replace(
        presets.get("quick"), task=TaskConfig(name="division", p=23, form="a ∘ b ="), batch_size=100
    ),
    "two layers, LayerNorm": dataclasses.replace(
        presets.get("power2022"),
        task=TaskConfig(p=23, form="a ∘ b ="),
        model=dataclasses.replace(presets.get("power2022").model, d_model=32, d_mlp=64),
    ),
}


def plain_steps(setup: Setup, dtype: torch.dtype) -> Iterator[Parameters]:
    """Make updates as HookedTransformer's own demonstration does, and yield the parameters after each."""
    hooked = setup.model.hooked_transformer(setup.model.initialize(setup.config.init_seed)).to(dtype)
    parameters = dict(hooked.named_parameters())
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in setup.model.trained)
    config, dataset = setup.config.optimizer, setup.dataset
    trained = [parameter for parameter in parameters.values() if parameter.requires_grad]
    adam = torch.optim.AdamW(trained, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)
    step = 0
    while True:
        batch = dataset.split.train[dataset.batch_indices(step)]
        logits = torch.as_tensor(hooked(dataset.inputs[batch]))[:, -1]
        adam.param_groups[0]["lr"] = config.lr * min(step / config.warmup_steps, 1)
        cross_entropy(logits, dataset.labels[batch]).mean().backward()
        adam.step()
        adam.zero_grad()
        step += 1
        yield {name: parameter.detach().clone() for name, parameter in parameters.items()}


def distance(parameters: Parameters, reference: Parameters) -> float:
    """Return the distance of all parameters together, relative to the norm of the reference."""
    squares = [
        ((parameters[name].double() - expected).square().sum(), expected.square().sum())
        for name, expected in reference.items()
    ]
    return float((sum(a for a, _ in squares) / sum(b for _, b in squares)) ** 0.5)  # pyright: ignore


@pytest.mark.parametrize(
    ("name", "n_updates"),
    [*((name, 60) for name in CONFIGS), *(pytest.param(name, 200, marks=pytest.mark.slow) for name in CONFIGS)],
)
def test_updates_match_the_plain_loop_within_rounding(name: str, n_updates: int):
    """The plain loop in float64 shows how far float32 rounding alone leads away."""
    setup = Setup(CONFIGS[name])
    plain = islice(plain_steps(setup, torch.float32), n_updates)
    exact = islice(plain_steps(setup, torch.float64), n_updates)
    states = optimize(setup, setup.learner.initial_state())
    for rounded, truth, state in zip(plain, exact, states, strict=False):
        step = state.step
        if step % 20 == 0:
            error = distance({name: tensor.detach() for name, tensor in state.parameters.items()}, truth)
            # Two rounding errors differ by chance, so the factor is small; the weights have moved far by then.
            assert error < 4 * distance(rounded, truth) + 1e-7, f"step {step}"
    assert step == n_updates
    assert distance(truth, dict(setup.model.initialize(setup.config.init_seed))) > 0.0005 * n_updates


@pytest.mark.slow
def test_grokking_occurs_when_the_plain_loop_groks():
    """Rounding makes the two loops diverge, but their grokking times differ less than between seeds."""
    steps, plain_loop_steps = [], []
    for seed in range(3):
        config = RunConfig(
            task=TaskConfig(p=23, train_fraction=0.7),
            model=ModelConfig(d_model=32, d_mlp=64),
            optimizer=OptimizerConfig(lr=3e-3),
            n_steps=4_000,
            init_seed=seed,
            split_seed=seed,
        )
        setup = Setup(config)
        states = optimize(setup, setup.learner.initial_state())
        steps.append(generalisation_step(setup, (state.parameters for state in states)))
        plain_loop_steps.append(generalisation_step(setup, plain_steps(setup, torch.float32)))
    between_seeds = max(steps + plain_loop_steps) - min(steps + plain_loop_steps)
    differences = [abs(step - plain) for step, plain in zip(steps, plain_loop_steps, strict=True)]
    print(f"99% test accuracy at step {steps} in grokscope, {plain_loop_steps} in the plain loop")
    assert max(differences) < between_seeds / 2


def generalisation_step(setup: Setup, trajectory: Iterator[Parameters]) -> int:
    """Return the first of every tenth step with 99% test accuracy."""
    for step, parameters in enumerate(islice(trajectory, setup.config.n_steps), 1):
        if step % 10 == 0:
            with torch.no_grad():
                logits = setup.model.logits(parameters, setup.evaluator.equations)
            is_right = logits.argmax(-1) == setup.dataset.labels
            if is_right[setup.dataset.split.test].double().mean() >= phases.LEVEL:
                return step
    raise AssertionError(f"not within {setup.config.n_steps} steps")
