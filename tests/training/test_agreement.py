"""Training against a plain loop over HookedTransformer: the same trajectory within rounding, the same grokking."""

import dataclasses
from collections.abc import Iterator
from itertools import islice

import pytest
import torch

from grokscope import phases
from grokscope.config import ModelConfig, OptimizerConfig, RunConfig, TaskConfig, presets
from grokscope.model.losses import cross_entropy
from grokscope.training.loop import Setup, optimize

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


def hooked_steps(setup: Setup, dtype: torch.dtype) -> Iterator[dict[str, torch.Tensor]]:
    """Make the updates as HookedTransformer's own demonstration does, and yield the parameters after each."""
    hooked = setup.model.hooked_transformer(setup.model.initialize(setup.config.init_seed)).to(dtype)
    parameters = dict(hooked.named_parameters())
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in setup.model.trained)
    config = setup.config.optimizer
    trained = [one for one in parameters.values() if one.requires_grad]
    adam = torch.optim.AdamW(trained, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)
    step = 0
    while True:
        batch = setup.split.train[setup.chosen(step)]
        logits = torch.as_tensor(hooked(setup.inputs[batch]))[:, -1]
        adam.param_groups[0]["lr"] = config.lr * min(step / config.warmup_steps, 1)
        cross_entropy(logits, setup.labels[batch]).mean().backward()
        adam.step()
        adam.zero_grad()
        step += 1
        yield {name: one.detach().clone() for name, one in parameters.items()}


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Return the relative distance of two models' parameters, together."""
    squares = [((one[name].double() - other[name]).square().sum(), other[name].square().sum()) for name in other]
    return float((sum(a for a, _ in squares) / sum(b for _, b in squares)) ** 0.5)  # pyright: ignore


@pytest.mark.parametrize(
    ("name", "n_updates"),
    [*((name, 60) for name in CONFIGS), *(pytest.param(name, 200, marks=pytest.mark.slow) for name in CONFIGS)],
)
def test_updates_are_those_of_the_plain_loop_within_float32_rounding(name: str, n_updates: int):
    """Both loops round; the same loop in float64 says how far float32 rounding alone leads away by then."""
    setup = Setup(CONFIGS[name])
    theirs = islice(hooked_steps(setup, torch.float32), n_updates)
    exact = islice(hooked_steps(setup, torch.float64), n_updates)
    for rounded, truth, state in zip(theirs, exact, optimize(setup, setup.state()), strict=False):
        step = state.step
        if step % 20 == 0:
            ours = distance({n: one.detach() for n, one in state.parameters.items()}, truth)
            # Two roundings differ by chance, so not by much more than this; the weights have moved far by then.
            assert ours < 4 * distance(rounded, truth) + 1e-7, f"step {step}"
    assert step == n_updates
    assert distance(truth, dict(setup.model.initialize(setup.config.init_seed))) > 0.0005 * n_updates


@pytest.mark.slow
def test_it_groks_when_the_plain_loop_does():
    """Rounding is amplified until the two loops part; when they grok differs by less than between seeds."""
    ours, theirs = [], []
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
        runs = {
            "ours": (state.parameters for state in optimize(setup, setup.state())),
            "theirs": hooked_steps(setup, torch.float32),
        }
        for run, found in zip(runs.values(), (ours, theirs), strict=True):
            found.append(generalisation(setup, run))
    between_seeds = max(ours + theirs) - min(ours + theirs)
    apart = [abs(one - other) for one, other in zip(ours, theirs, strict=True)]
    print(f"99% test accuracy at step {ours} by grokscope, {theirs} by the plain loop")
    assert max(apart) < between_seeds / 2


def generalisation(setup: Setup, run: Iterator[dict[str, torch.Tensor]]) -> int:
    """Return the first tenth step with 99% test accuracy."""
    for step, parameters in enumerate(islice(run, setup.config.n_steps), 1):
        if step % 10 == 0:
            with torch.no_grad():
                right = setup.model.logits(parameters, setup.equations).argmax(-1) == setup.labels
            if right[setup.split.test].double().mean() >= phases.LEVEL:
                return step
    raise AssertionError(f"not within {setup.config.n_steps} steps")
