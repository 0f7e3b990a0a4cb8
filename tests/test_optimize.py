"""The training loop: against a plain loop over HookedTransformer, its batches, and numbers that are not finite."""

import dataclasses
import random
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from grokscope import model as models
from grokscope import optimize as loops
from grokscope import streams
from grokscope.config import ModelConfig, OptimizerConfig, RunConfig, TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.optimize import NotFinite, Setup, optimize

NANDA = ModelConfig(d_model=16, n_heads=2, d_mlp=24)
DEEP = ModelConfig(
    n_layers=2, d_model=12, n_heads=3, d_mlp=8, act_fn="gelu", normalization_type="LN", biases="all", init_scale=1.5
)


def trained_by(setup: Setup, n_updates: int) -> dict[str, torch.Tensor]:
    state = setup.state()
    updates = optimize(setup, state)
    for _ in range(n_updates):
        next(updates)
    return {name: tensor.detach() for name, tensor in state.parameters.items()}


def plain_loop(config: RunConfig, n_updates: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Train as a textbook would: a HookedTransformer, its forward on every example, torch's own AdamW."""
    setup = Setup(config)
    start = {name: one.to(dtype) for name, one in setup.model.initialize(config.init_seed).items()}
    hooked = setup.model.hooked(start)
    fixed = {"mlp": ("attn.b_", "unembed.b_U"), "none": ("attn.b_", "mlp.b_", "unembed.b_U"), "all": ()}
    free = [p for name, p in hooked.named_parameters() if not any(x in name for x in fixed[config.model.biases])]
    o = config.optimizer
    adamw = torch.optim.AdamW(free, lr=o.lr, betas=o.betas, weight_decay=o.weight_decay, foreach=False, fused=False)
    warm_up = torch.optim.lr_scheduler.LambdaLR(adamw, lambda u: min(u / o.warmup_steps, 1))
    n_train = len(setup.split.train)
    for step in range(n_updates):
        chosen = setup.split.train
        if config.batch_size is not None:
            epoch, position = divmod(step, -(-n_train // config.batch_size))
            order = streams.permutation("batches", config.training_seed, epoch, n_train)
            chosen = chosen[order[position * config.batch_size : (position + 1) * config.batch_size]]
        logits = hooked(setup.task.inputs[chosen])[:, -1]
        adamw.zero_grad()
        F.cross_entropy(logits.double(), setup.task.labels[chosen]).backward()
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
    ],
    ids=["nanda", "deep", "minibatch"],
)
def test_thirty_steps_are_those_of_a_plain_loop_over_hooked_transformer(config: RunConfig):
    config = dataclasses.replace(config, optimizer=OptimizerConfig(lr=3e-3, warmup_steps=5))
    found, start = trained_by(Setup(config), 30), Setup(config).model.initialize(config.init_seed)
    expected = plain_loop(config, 30, torch.float64)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        if name.endswith("attn.b_K"):
            # Softmax cancels this bias, so its gradient is rounding noise, which Adam scales up to full size.
            continue
        torch.testing.assert_close(
            tensor.double(), expected[name], rtol=0, atol=5e-6, msg=lambda m, n=name: f"{n}: {m}"
        )
    moved = [name for name, tensor in found.items() if not torch.equal(tensor, start[name])]
    assert moved == list(Setup(config).model.trained)


def test_the_loss_s_precision_is_the_config_s():
    results = {}
    for dtype in ("float32", "float64"):
        config = RunConfig(task=TaskConfig(p=7, train_fraction=0.6), model=NANDA, loss_dtype=dtype)
        results[dtype] = trained_by(Setup(config), 20)["embed.W_E"]
    assert results["float32"].dtype == results["float64"].dtype == torch.float32
    torch.testing.assert_close(results["float32"], results["float64"], rtol=0, atol=1e-4)
    assert not torch.equal(results["float32"], results["float64"])


def batches(setup: Setup, steps: Any) -> list[bytes]:
    return [b"".join(tensor.numpy().tobytes() for tensor in setup.batch(step)) for step in steps]


def test_a_batch_is_a_function_of_seed_and_step_alone(tiny_config: RunConfig):
    config = dataclasses.replace(tiny_config, batch_size=5)
    in_order = batches(Setup(config), range(40))
    shuffled, setup = list(range(40)), Setup(config)
    random.Random(0).shuffle(shuffled)
    assert dict(zip(shuffled, batches(setup, shuffled), strict=True)) == dict(enumerate(in_order))
    other = dataclasses.replace(config, training_seed=1)
    assert not set(batches(Setup(other), range(40))) & set(in_order)
    assert batches(Setup(dataclasses.replace(config, init_seed=1)), range(40)) == in_order


@pytest.mark.parametrize("batch_size", [1, 5, 7, 28, 29])
def test_an_epoch_shows_every_training_example_once_in_an_order_of_its_own(tiny_config: RunConfig, batch_size: int):
    setup = Setup(dataclasses.replace(tiny_config, batch_size=batch_size))
    n_train = len(setup.split.train)
    assert n_train == 29
    expected = sorted(setup.task.inputs[setup.split.train].tolist())
    n_batches, orders = -(-n_train // batch_size), []
    for epoch in range(3):
        drawn = [setup.batch(step) for step in range(epoch * n_batches, (epoch + 1) * n_batches)]
        inputs, labels = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        assert sorted(inputs.tolist()) == expected
        assert torch.equal(labels, (inputs[:, 0] + inputs[:, 1]) % 7)
        assert all(len(one) == batch_size for one, _ in drawn[:-1])
        orders.append(inputs.tolist())
    assert orders[0] != orders[1] != orders[2]


def test_a_full_batch_is_the_training_set_at_every_step(tiny_config: RunConfig):
    setup = Setup(tiny_config)
    for step in (0, 1, 1000):
        inputs, labels = setup.batch(step)
        assert torch.equal(inputs, setup.task.inputs[setup.split.train])
        assert torch.equal(labels, setup.task.labels[setup.split.train])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 30}, r"^batch_size: 30 .*allowed: from 1 to 29, or none"),
        ({"device": "cuda:99"}, r"^device: 'cuda:99'"),
        ({"device": "cuda:300"}, r"device: 'cuda:300'"),
        ({"device": "cuda:07"}, r"device: 'cuda:07'"),
        ({"task": TaskConfig(p=3, train_fraction=0.1)}, r"^task\.train_fraction: 0\.1 "),
    ],
    ids=lambda one: str(one)[:40],
)
def test_what_only_the_task_or_the_machine_can_refuse_is_refused_by_name(
    tiny_config: RunConfig, changes: dict[str, Any], said: str
):
    with pytest.raises(GrokscopeError, match=said):
        Setup(dataclasses.replace(tiny_config, **changes))


def raised_by(setup: Setup) -> tuple[NotFinite, dict[str, torch.Tensor], int]:
    """Train until something is not finite; return the error, the parameters and the number of updates."""
    state = setup.state()
    with pytest.raises(NotFinite) as refusal:
        for _ in optimize(setup, state):
            assert state.step < 1000
    return refusal.value, {name: one.detach() for name, one in state.parameters.items()}, state.step


def test_a_loss_that_overflows_stops_before_it_reaches_the_weights(tiny_config: RunConfig):
    wild = dataclasses.replace(tiny_config, optimizer=OptimizerConfig(lr=100.0, weight_decay=1000.0, warmup_steps=0))
    setup = Setup(wild)
    error, parameters, step = raised_by(setup)
    assert f"is not finite at step {step}; the last finite step is {step - 1}." in str(error)
    losses, _ = models.evaluate(setup.model, parameters, *setup.batch(0))
    assert not torch.isfinite(losses.mean())
    before = trained_by(setup, step - 1)
    losses, _ = models.evaluate(setup.model, before, *setup.batch(0))
    assert torch.isfinite(losses.mean())


def test_a_gradient_that_is_not_finite_is_named_and_leaves_the_weights_alone(
    tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch
):
    setup, calls, grad = Setup(tiny_config), [], torch.autograd.grad

    def poisoned(loss: torch.Tensor, weights: Any) -> tuple[torch.Tensor, ...]:
        calls.append(loss)
        gradients = list(grad(loss, weights))
        if len(calls) == 6:
            gradients[setup.model.trained.index("blocks.0.mlp.W_in")][3, 4] = torch.nan
        return tuple(gradients)

    monkeypatch.setattr(torch.autograd, "grad", poisoned)
    error, parameters, step = raised_by(setup)
    assert str(error).startswith("The gradient of blocks.0.mlp.W_in is not finite at step 5; ")
    assert (step, error.resumable) == (5, True)
    monkeypatch.undo()
    expected = trained_by(setup, 5)
    assert all(torch.equal(parameters[name], tensor) for name, tensor in expected.items())


def test_a_weight_that_is_not_finite_is_named(tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch):
    update = loops.Optimizer.update

    def poisoned(self: Any, gradients: Any, u: int) -> None:
        update(self, gradients, u)
        if u == 5:
            self._parameters["unembed.W_U"].data[2, 1] = torch.inf

    monkeypatch.setattr(loops.Optimizer, "update", poisoned)
    error, _, step = raised_by(Setup(tiny_config))
    assert str(error).startswith("The parameter unembed.W_U is not finite at step 6; the last finite step is 5.")
    assert (step, error.resumable) == (6, False)


def test_finite_numbers_whose_norm_overflows_are_no_reason_to_stop(
    tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch
):
    grad = torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda loss, weights: tuple(torch.full_like(g, 3e38) for g in grad(loss, weights))
    )
    setup = Setup(tiny_config)
    state = setup.state()
    next(optimize(setup, state))
    assert state.step == 1


def test_an_evaluation_that_is_not_finite_is_named(tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch):
    setup = Setup(tiny_config)
    state, losses = setup.state(), models.losses

    def poisoned(logits: torch.Tensor, labels: torch.Tensor, dtype: str = "float64") -> torch.Tensor:
        found = losses(logits, labels, dtype).detach().clone()
        found[setup.split.test[0]] = torch.inf
        return found

    monkeypatch.setattr(models, "losses", poisoned)
    with pytest.raises(NotFinite, match="^The test_loss is not finite at step 0; "):
        setup.evaluate(state)
