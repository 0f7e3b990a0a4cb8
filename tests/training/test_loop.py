"""The training loop against a plain loop over HookedTransformer, and numbers that are not finite."""

import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from grokscope import rng
from grokscope.config import ModelConfig, OptimizerConfig, RunConfig, TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.model import losses
from grokscope.training.loop import Setup, optimize
from grokscope.training.optimizers import Optimizer
from grokscope.training.state import NotFiniteError

Parameters = dict[str, torch.Tensor]

NANDA = ModelConfig(d_model=16, n_heads=2, d_mlp=24)
DEEP = ModelConfig(
    n_layers=2, d_model=12, n_heads=3, d_mlp=8, act_fn="gelu", normalization_type="LN", biases="all", init_scale=1.5
)


def train(setup: Setup, n_updates: int) -> Parameters:
    """Return the parameters after some updates."""
    state = setup.learner.initial_state()
    updates = optimize(setup, state)
    for _ in range(n_updates):
        next(updates)
    return {name: tensor.detach() for name, tensor in state.parameters.items()}


def train_plainly(config: RunConfig, n_updates: int, dtype: torch.dtype) -> Parameters:
    """Train as in a textbook: a HookedTransformer, its forward pass on every example, and torch's own AdamW."""
    setup = Setup(config)
    task, split = setup.dataset.task, setup.dataset.split
    initialization = {name: tensor.to(dtype) for name, tensor in setup.model.initialize(config.init_seed).items()}
    hooked = setup.model.hooked_transformer(initialization)
    frozen_biases = {"mlp": ("attn.b_", "unembed.b_U"), "none": ("attn.b_", "mlp.b_", "unembed.b_U"), "all": ()}
    frozen = frozen_biases[config.model.biases] + (("W_pos",) if config.model.positions == "sinusoidal" else ())
    trained = [tensor for name, tensor in hooked.named_parameters() if not any(part in name for part in frozen)]
    o = config.optimizer
    adamw = torch.optim.AdamW(
        trained, lr=o.lr, betas=o.betas, weight_decay=o.weight_decay, foreach=False, fused=False
    )
    warm_up = torch.optim.lr_scheduler.LambdaLR(adamw, lambda u: min(u / o.warmup_steps, 1))
    n_train = len(split.train)
    for step in range(n_updates):
        examples = split.train
        if config.batch_size is not None:
            size = min(config.batch_size, math.ceil(config.batch_share * n_train))
            epoch, position = divmod(step, -(-n_train // size))
            order = rng.permutation("batches", config.training_seed, epoch, n_train)
            examples = examples[order[position * size : (position + 1) * size]]
        logits = hooked(task.inputs[examples])[:, -1]
        adamw.zero_grad()
        F.cross_entropy(logits.double(), task.labels[examples]).backward()
        adamw.step()
        warm_up.step()
    return {name: parameter.detach() for name, parameter in hooked.named_parameters()}


@pytest.mark.parametrize(
    "config",
    [
        RunConfig(task=TaskConfig(p=7, train_fraction=0.6), model=NANDA),
        RunConfig(task=TaskConfig(p=7, name="division", form="a ∘ b ="), model=DEEP),
        RunConfig(
            task=TaskConfig(p=7, train_fraction=0.6),
            model=dataclasses.replace(NANDA, biases="none"),
            batch_size=8,
            training_seed=3,
        ),
        RunConfig(
            task=TaskConfig(name="composition", group="S3", train_fraction=0.5, form="a ∘ b ="),
            model=dataclasses.replace(DEEP, act_fn="relu", biases="none", positions="sinusoidal", init="torch"),
            batch_size=512,
            batch_share=0.5,
        ),
    ],
    ids=["nanda", "deep", "minibatch", "power"],
)
def test_thirty_updates_match_a_plain_loop(config: RunConfig):
    config = dataclasses.replace(config, optimizer=OptimizerConfig(lr=3e-3, warmup_steps=5))
    parameters, initialization = train(Setup(config), 30), Setup(config).model.initialize(config.init_seed)
    expected = train_plainly(config, 30, torch.float64)
    assert parameters.keys() == expected.keys()
    for name, tensor in parameters.items():
        if name.endswith("attn.b_K"):
            # Softmax cancels this bias, so its gradient is rounding noise, which Adam scales to full size.
            continue
        torch.testing.assert_close(
            tensor.double(), expected[name], rtol=0, atol=5e-6, msg=lambda message, name=name: f"{name}: {message}"
        )
    moved = [name for name, tensor in parameters.items() if not torch.equal(tensor, initialization[name])]
    assert moved == list(Setup(config).model.trained)


def test_loss_dtype_sets_the_precision_of_the_loss():
    embeddings = {}
    for dtype in ("float32", "float64"):
        config = RunConfig(task=TaskConfig(p=7, train_fraction=0.6), model=NANDA, loss_dtype=dtype)
        embeddings[dtype] = train(Setup(config), 20)["embed.W_E"]
    assert embeddings["float32"].dtype == embeddings["float64"].dtype == torch.float32
    torch.testing.assert_close(embeddings["float32"], embeddings["float64"], rtol=0, atol=1e-4)
    assert not torch.equal(embeddings["float32"], embeddings["float64"])


NOISY = RunConfig(
    task=TaskConfig(p=7, train_fraction=0.6, form="a ∘ b ="),
    model=dataclasses.replace(DEEP, biases="mlp", act_fn="relu", positions="sinusoidal", init_scale=1.0),
    optimizer=OptimizerConfig(
        lr=1e-2, warmup_steps=0, weight_noise=0.1, update_noise=1.0, sam_radius=0.1, weight_decay=1.0
    ),
    batch_size=10,
    training_seed=2,
    residual_dropout=0.2,
)


def test_sinusoids_and_frozen_biases_never_move():
    setup = Setup(NOISY)
    initialization, parameters = setup.model.initialize(NOISY.init_seed), train(setup, 8)
    moved = [name for name in initialization if not torch.equal(parameters[name], initialization[name])]
    assert moved == list(setup.model.trained)
    assert "pos_embed.W_pos" in initialization and "pos_embed.W_pos" not in moved


def test_full_decay_to_the_initialization_restarts_each_update():
    """With lr·λ = 1 nothing of earlier updates remains, so the weights are always one update away."""
    decay_to_start = OptimizerConfig(
        lr=1e-3, weight_decay=1000.0, warmup_steps=0, betas=(0.0, 0.0), decay_centre="initialization"
    )
    setup = Setup(dataclasses.replace(NOISY, batch_size=None, residual_dropout=0.0, optimizer=decay_to_start))
    initialization = setup.model.initialize(setup.config.init_seed)
    after_1, after_9 = train(setup, 1), train(setup, 9)
    for name in setup.model.trained:
        assert abs(after_1[name] - initialization[name]).max() < 1.01e-3
        assert abs(after_9[name] - initialization[name]).max() < 1.01e-3
    largest = max(float(abs(after_9[name] - initialization[name]).max()) for name in setup.model.trained)
    assert largest > 0.9e-3


# Configs that cannot be used.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, r"batch_size: 0"),
        ({"batch_share": 0.0}, r"batch_share: 0\.0.*above 0 and up to 1"),
        ({"batch_share": 1.5}, r"batch_share: 1\.5.*above 0 and up to 1"),
        ({"residual_dropout": 1.0}, r"residual_dropout: 1\.0.*0 to below 1"),
        ({"device": "cuda:99"}, r"^device: 'cuda:99'"),
        ({"device": "cuda:300"}, r"device: 'cuda:300'"),
        ({"device": "cuda:07"}, r"device: 'cuda:07'"),
        ({"task": TaskConfig(p=3, train_fraction=0.1)}, r"task\.train_fraction: 0\.1 of 9 equations"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_invalid_setting_is_named(tiny_config: RunConfig, changes: dict[str, Any], message: str):
    with pytest.raises(GrokscopeError, match=message):
        Setup(dataclasses.replace(tiny_config, **changes))


# Numbers that are not finite.


def train_until_not_finite(setup: Setup) -> tuple[NotFiniteError, Parameters, int]:
    """Return the error, the parameters and the number of updates."""
    state = setup.learner.initial_state()
    with pytest.raises(NotFiniteError) as raised:
        for _ in optimize(setup, state):
            assert state.step < 1000
    return raised.value, {name: tensor.detach() for name, tensor in state.parameters.items()}, state.step


def test_overflowing_loss_stops_before_it_reaches_the_weights(tiny_config: RunConfig):
    optimizer = OptimizerConfig(lr=100.0, weight_decay=1000.0, warmup_steps=0)
    setup = Setup(dataclasses.replace(tiny_config, optimizer=optimizer))
    error, parameters, step = train_until_not_finite(setup)
    assert f"is not finite at step {step}; the last finite step is {step - 1}." in str(error)
    loss, _ = losses.evaluate(setup.model, parameters, *setup.batch(0))
    assert not torch.isfinite(loss.mean())
    loss_before, _ = losses.evaluate(setup.model, train(setup, step - 1), *setup.batch(0))
    assert torch.isfinite(loss_before.mean())


def test_gradient_that_is_not_finite_leaves_the_weights_alone(
    tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch
):
    setup, n_calls, grad = Setup(tiny_config), 0, torch.autograd.grad

    def poisoned_grad(*arguments: Any) -> tuple[torch.Tensor, ...]:
        nonlocal n_calls
        n_calls += 1
        gradients = list(grad(*arguments))
        if n_calls == 6:
            gradients[setup.model.trained.index("blocks.0.mlp.W_in")][3, 4] = torch.nan
        return tuple(gradients)

    monkeypatch.setattr(torch.autograd, "grad", poisoned_grad)
    error, parameters, step = train_until_not_finite(setup)
    assert str(error).startswith("The gradient of blocks.0.mlp.W_in is not finite at step 5; ")
    assert (step, error.resumable) == (5, True)
    monkeypatch.undo()
    assert all(torch.equal(parameters[name], tensor) for name, tensor in train(setup, 5).items())


def test_weight_that_is_not_finite_is_named(tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch):
    update = Optimizer.update

    def poisoned_update(self: Any, gradients: Any, u: int) -> None:
        update(self, gradients, u)
        if u == 5:
            self._parameters["unembed.W_U"].data[2, 1] = torch.inf

    monkeypatch.setattr(Optimizer, "update", poisoned_update)
    error, _, step = train_until_not_finite(Setup(tiny_config))
    assert str(error).startswith("The parameter unembed.W_U is not finite at step 6; the last finite step is 5.")
    assert (step, error.resumable) == (6, False)


def test_norm_of_finite_gradients_may_overflow(tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch):
    grad = torch.autograd.grad

    def huge_grad(*arguments: Any) -> tuple[torch.Tensor, ...]:
        return tuple(torch.full_like(gradient, 3e38) for gradient in grad(*arguments))

    monkeypatch.setattr(torch.autograd, "grad", huge_grad)
    setup = Setup(tiny_config)
    state = setup.learner.initial_state()
    next(optimize(setup, state))
    assert state.step == 1
