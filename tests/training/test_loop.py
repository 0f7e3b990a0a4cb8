"""The training loop: against a plain loop over HookedTransformer, its batches, the points where gradients are taken,
and numbers that are not finite.
"""

import dataclasses
import functools
import math
import random
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from grokscope import rng
from grokscope.config import ModelConfig, OptimizerConfig, RunConfig, TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.model import losses, transformer
from grokscope.training import loop
from grokscope.training.loop import NotFiniteError, Setup, optimize

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
    hooked = setup.model.hooked_transformer(start)
    fixed = {"mlp": ("attn.b_", "unembed.b_U"), "none": ("attn.b_", "mlp.b_", "unembed.b_U"), "all": ()}
    frozen = fixed[config.model.biases] + (("W_pos",) if config.model.positions == "sinusoidal" else ())
    free = [p for name, p in hooked.named_parameters() if not any(x in name for x in frozen)]
    o = config.optimizer
    adamw = torch.optim.AdamW(free, lr=o.lr, betas=o.betas, weight_decay=o.weight_decay, foreach=False, fused=False)
    warm_up = torch.optim.lr_scheduler.LambdaLR(adamw, lambda u: min(u / o.warmup_steps, 1))
    n_train = len(setup.split.train)
    for step in range(n_updates):
        chosen = setup.split.train
        if config.batch_size is not None:
            size = min(config.batch_size, math.ceil(config.batch_share * n_train))
            epoch, position = divmod(step, -(-n_train // size))
            order = rng.permutation("batches", config.training_seed, epoch, n_train)
            chosen = chosen[order[position * size : (position + 1) * size]]
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
        RunConfig(
            task=TaskConfig(name="composition", group="S3", train_fraction=0.5, form="a ∘ b ="),
            model=dataclasses.replace(DEEP, act_fn="relu", biases="none", positions="sinusoidal", init="torch"),
            batch_size=512,
            batch_share=0.5,
        ),
    ],
    ids=["nanda", "deep", "minibatch", "power"],
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


def tokens_and_labels(setup: Setup, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    equations, labels = setup.batch(step)
    return equations.tokens, labels


def batches(setup: Setup, steps: Any) -> list[bytes]:
    return [b"".join(tensor.numpy().tobytes() for tensor in tokens_and_labels(setup, step)) for step in steps]


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
        drawn = [tokens_and_labels(setup, step) for step in range(epoch * n_batches, (epoch + 1) * n_batches)]
        inputs, labels = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        assert sorted(inputs.tolist()) == expected
        assert torch.equal(labels, (inputs[:, 0] + inputs[:, 1]) % 7)
        assert all(len(one) == batch_size for one, _ in drawn[:-1])
        orders.append(inputs.tolist())
    assert orders[0] != orders[1] != orders[2]


@pytest.mark.parametrize("batch_size", [30, 512, 10**9])
def test_a_batch_size_beyond_the_training_set_is_the_training_set(tiny_config: RunConfig, batch_size: int):
    setup, whole = Setup(dataclasses.replace(tiny_config, batch_size=batch_size)), Setup(tiny_config)
    for step in (0, 1, 17):
        shown, everything = (sorted(one.batch(step)[0].tokens.tolist()) for one in (setup, whole))
        assert shown == everything


@pytest.mark.parametrize(
    ("batch_size", "batch_share", "expected"),
    [(512, 0.5, 15), (None, 0.5, 29), (10, 0.5, 10), (15, 0.5, 15), (16, 0.5, 15), (None, 1.0, 29), (512, 1e-9, 1)],
)
def test_a_batch_is_no_larger_than_its_share_of_the_training_set_rounded_up(
    tiny_config: RunConfig, batch_size: int | None, batch_share: float, expected: int
):
    setup = Setup(dataclasses.replace(tiny_config, batch_size=batch_size, batch_share=batch_share))
    assert len(setup.split.train) == 29
    sizes = [len(setup.batch(step)[0]) for step in range(-(-29 // expected))]
    assert sizes[:-1] == [expected] * (len(sizes) - 1)
    assert sum(sizes) == 29


@pytest.mark.parametrize(("n_train", "batch_share"), [(25, 0.28), (25, 0.56), (28, 0.5), (25, 0.5)])
def test_a_share_is_rounded_up_from_the_decimal_that_was_written(
    tiny_config: RunConfig, n_train: int, batch_share: float
):
    """In floating point 0.28 · 25 is above 7, which rounds up to 8. `tasks.draw_split` takes the same care."""
    task = TaskConfig(p=7, train_fraction=(n_train + 0.5) / 49)
    setup = Setup(dataclasses.replace(tiny_config, task=task, batch_size=512, batch_share=batch_share))
    assert len(setup.split.train) == n_train
    assert len(setup.batch(0)[0]) == math.ceil(Fraction(str(batch_share)) * n_train)


def test_a_full_batch_is_the_training_set_at_every_step(tiny_config: RunConfig):
    setup = Setup(tiny_config)
    for step in (0, 1, 1000):
        inputs, labels = tokens_and_labels(setup, step)
        assert torch.equal(inputs, setup.task.inputs[setup.split.train])
        assert torch.equal(labels, setup.task.labels[setup.split.train])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 0}, r"batch_size: 0"),
        ({"batch_share": 0.0}, r"batch_share: 0\.0.*above 0 and up to 1"),
        ({"batch_share": 1.5}, r"batch_share: 1\.5.*above 0 and up to 1"),
        ({"residual_dropout": 1.0}, r"residual_dropout: 1\.0.*0 to below 1"),
        ({"device": "cuda:99"}, r"^device: 'cuda:99'"),
        ({"device": "cuda:300"}, r"device: 'cuda:300'"),
        ({"device": "cuda:07"}, r"device: 'cuda:07'"),
        (
            {"task": TaskConfig(p=3, train_fraction=0.1)},
            r"task\.train_fraction: 0\.1 of 9 equations",
        ),
    ],
    ids=lambda one: str(one)[:40],
)
def test_what_cannot_be_used_is_refused_by_name(tiny_config: RunConfig, changes: dict[str, Any], said: str):
    with pytest.raises(GrokscopeError, match=said):
        Setup(dataclasses.replace(tiny_config, **changes))


def raised_by(setup: Setup) -> tuple[NotFiniteError, dict[str, torch.Tensor], int]:
    """Train until something is not finite; return the error, the parameters and the number of updates."""
    state = setup.state()
    with pytest.raises(NotFiniteError) as refusal:
        for _ in optimize(setup, state):
            assert state.step < 1000
    return refusal.value, {name: one.detach() for name, one in state.parameters.items()}, state.step


def test_a_loss_that_overflows_stops_before_it_reaches_the_weights(tiny_config: RunConfig):
    wild = dataclasses.replace(tiny_config, optimizer=OptimizerConfig(lr=100.0, weight_decay=1000.0, warmup_steps=0))
    setup = Setup(wild)
    error, parameters, step = raised_by(setup)
    assert f"is not finite at step {step}; the last finite step is {step - 1}." in str(error)
    found, _ = losses.evaluate(setup.model, parameters, *setup.batch(0))
    assert not torch.isfinite(found.mean())
    before = trained_by(setup, step - 1)
    found, _ = losses.evaluate(setup.model, before, *setup.batch(0))
    assert torch.isfinite(found.mean())


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
    update = loop.Optimizer.update

    def poisoned(self: Any, gradients: Any, u: int) -> None:
        update(self, gradients, u)
        if u == 5:
            self._parameters["unembed.W_U"].data[2, 1] = torch.inf

    monkeypatch.setattr(loop.Optimizer, "update", poisoned)
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
    state, cross_entropy = setup.state(), losses.cross_entropy

    def poisoned(logits: torch.Tensor, labels: torch.Tensor, *arguments: Any) -> torch.Tensor:
        found = cross_entropy(logits, labels, *arguments).detach().clone()
        found[setup.split.test[0]] = torch.inf
        return found

    monkeypatch.setattr(losses, "cross_entropy", poisoned)
    with pytest.raises(NotFiniteError, match="^The test_loss is not finite at step 0; "):
        setup.evaluate(state)


PARTS = RunConfig(
    task=TaskConfig(p=7, train_fraction=0.6, form="a ∘ b ="),
    model=dataclasses.replace(DEEP, biases="mlp", act_fn="relu", positions="sinusoidal", init_scale=1.0),
    batch_size=10,
    training_seed=2,
)


def with_parts(config: RunConfig = PARTS, **optimizer: Any) -> RunConfig:
    return dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, **optimizer))


def moved_setup(config: RunConfig) -> tuple[Setup, loop.State]:
    """Return a setup and a state a few plain updates from the initialization, where no gradient is special."""
    state, plain = Setup(config).state(), Setup(dataclasses.replace(PARTS, optimizer=OptimizerConfig(lr=1e-2)))
    updates = optimize(plain, plain_state := plain.state())
    for _ in range(13):
        next(updates)
    with torch.no_grad():
        for name, tensor in state.parameters.items():
            tensor.copy_(plain_state.parameters[name])
    state.step = plain_state.step
    return Setup(config), state


def by_hooked(
    setup: Setup,
    parameters: Mapping[str, torch.Tensor],
    step: int,
    masks: Mapping[str, torch.Tensor] | None = None,
) -> tuple[float, dict[str, torch.Tensor]]:
    """Return loss and gradient by a HookedTransformer in float64, its hooks multiplying by dropout's masks."""
    hooked = setup.model.hooked_transformer({name: one.detach().double() for name, one in parameters.items()})
    inputs, labels = tokens_and_labels(setup, step)

    def multiply(mask: torch.Tensor, value: torch.Tensor, hook: Any) -> torch.Tensor:
        return torch.cat([value[:, : -mask.shape[1]], value[:, -mask.shape[1] :] * mask], dim=1)

    hooks = [(name, functools.partial(multiply, mask.double())) for name, mask in (masks or {}).items()]
    logits = torch.as_tensor(hooked.run_with_hooks(inputs, fwd_hooks=hooks))[:, -1]  # pyright: ignore
    if setup.config.loss == "stablemax":
        s = torch.where(logits >= 0, logits + 1, 1 / (1 - logits))
        loss = -(s.gather(1, labels[:, None])[:, 0] / s.sum(1)).log().mean()
    else:
        loss = F.cross_entropy(logits, labels)
    loss.backward()
    return float(loss.detach()), {
        name: one.grad
        for name, one in hooked.named_parameters()
        if name in setup.model.trained and one.grad is not None
    }


def further(
    parameters: Mapping[str, torch.Tensor], directions: Mapping[str, torch.Tensor], distance: float
) -> dict[str, torch.Tensor]:
    """Return the parameters in float64, moved along the directions."""
    return {
        name: one.detach().double() + distance * directions[name].double() if name in directions else one.detach()
        for name, one in parameters.items()
    }


def length(gradients: Mapping[str, torch.Tensor]) -> float:
    return float(torch.cat([one.flatten() for one in gradients.values()]).double().norm())


def assert_gradient(setup: Setup, found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    assert tuple(found) == setup.model.trained and set(expected) == set(found)
    size = length(expected)
    for name, gradient in found.items():
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(
            gradient.double(), expected[name], rtol=0, atol=2e-5 * size, msg=lambda m, n=name: f"{n}: {m}"
        )


def distance(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> float:
    """Return how far two gradients are apart, in units of the first one's length."""
    return length({name: a[name].double() - b[name].double() for name in a}) / length(a)


class Watched:
    """What was drawn while a gradient was taken: weight noise, and dropout's masks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.noise: list[torch.Tensor] = []
        self.masks: list[dict[str, torch.Tensor]] = []
        noise_like, dropout_masks = loop.noise_like, transformer.Model.dropout_masks

        def noted(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            self.noise.append(noise_like(tensor, generator))
            return self.noise[-1]

        def masks(model: transformer.Model, *arguments: Any) -> dict[str, torch.Tensor]:
            self.masks.append(dropout_masks(model, *arguments))
            return self.masks[-1]

        monkeypatch.setattr(loop, "noise_like", noted)
        monkeypatch.setattr(transformer.Model, "dropout_masks", masks)


def bits(state: loop.State) -> dict[str, tuple[bytes, bool]]:
    return {name: (one.detach().numpy().tobytes(), one.requires_grad) for name, one in state.parameters.items()}


@pytest.mark.parametrize("loss", ["softmax", "stablemax"])
def test_the_gradient_is_hooked_transformer_s(loss: str):
    setup, state = moved_setup(dataclasses.replace(PARTS, loss=loss))
    found, gradients = loop.loss_and_gradients(setup, state)
    expected_loss, expected = by_hooked(setup, state.parameters, state.step)
    assert float(found) == pytest.approx(expected_loss, rel=1e-5)
    assert_gradient(setup, gradients, expected)


@pytest.mark.parametrize("sigma", [0.01, 0.3])
def test_weight_noise_moves_the_gradient_s_place_and_not_the_weights(sigma: float, monkeypatch: pytest.MonkeyPatch):
    setup, state = moved_setup(with_parts(weight_noise=sigma))
    before, watched = bits(state), Watched(monkeypatch)
    found, gradients = loop.loss_and_gradients(setup, state)
    assert bits(state) == before
    shapes = [setup.model.shapes[name] for name in setup.model.trained]
    assert [tuple(one.shape) for one in watched.noise] == shapes, "every trained weight has noise, once"
    drawn = torch.cat([one.flatten() for one in watched.noise]).numpy()
    assert stats.kstest(drawn, "norm").pvalue > 1e-3 and len(drawn) > 1000
    noise = dict(zip(setup.model.trained, watched.noise, strict=True))
    expected_loss, expected = by_hooked(setup, further(state.parameters, noise, sigma), state.step)
    assert float(found) == pytest.approx(expected_loss, rel=1e-5)
    assert_gradient(setup, gradients, expected)
    assert distance(expected, by_hooked(setup, state.parameters, state.step)[1]) > 0.01


@pytest.mark.parametrize("part", ["weight noise", "dropout"])
def test_what_is_random_in_a_gradient_is_a_function_of_seed_and_step(part: str, monkeypatch: pytest.MonkeyPatch):
    config = (
        with_parts(weight_noise=0.1) if part == "weight noise" else dataclasses.replace(PARTS, residual_dropout=0.3)
    )
    watched, drawn = Watched(monkeypatch), {}
    for seed in (0, 1):
        setup, state = moved_setup(dataclasses.replace(config, training_seed=seed))
        for step in (0, 1, 2, 1, 0):
            watched.noise.clear()
            watched.masks.clear()
            state.step = step
            loop.loss_and_gradients(setup, state)
            parts = watched.noise if part == "weight noise" else [*watched.masks[0].values()]
            now = b"".join(one.numpy().tobytes() for one in parts)
            assert drawn.setdefault((seed, step), now) == now
    assert len(set(drawn.values())) == 6


@pytest.mark.parametrize("radius", [0.05, 1.0])
@pytest.mark.parametrize("loss", ["softmax", "stablemax"])
def test_sam_takes_the_gradient_at_the_radius_along_the_gradient_of_all_weights(radius: float, loss: str):
    setup, state = moved_setup(dataclasses.replace(with_parts(sam_radius=radius), loss=loss))
    before = bits(state)
    found, gradients = loop.loss_and_gradients(setup, state)
    assert bits(state) == before
    plain_loss, plain = by_hooked(setup, state.parameters, state.step)
    _, expected = by_hooked(setup, further(state.parameters, plain, radius / length(plain)), state.step)
    assert_gradient(setup, gradients, expected)
    assert float(found) == pytest.approx(plain_loss, rel=1e-5), "the loss is that of the weights themselves"
    assert distance(expected, plain) > 0.01


def test_a_vanishing_radius_gives_the_plain_gradient():
    plain_setup, state = moved_setup(PARTS)
    _, plain = loop.loss_and_gradients(plain_setup, state)
    apart = []
    for radius in (1e-1, 1e-2, 1e-3):
        _, gradients = loop.loss_and_gradients(Setup(with_parts(sam_radius=radius)), state)
        apart.append(distance(plain, gradients))
    assert apart[0] > 5 * apart[1] > 25 * apart[2] > 0


def test_a_gradient_of_zero_has_no_direction_and_sam_leaves_it_zero():
    """With W_U and the last LayerNorm at zero every logit is zero, and so is every gradient."""
    setup, state = moved_setup(with_parts(sam_radius=0.5))
    with torch.no_grad():
        for name in ("unembed.W_U", "ln_final.w", "ln_final.b"):
            state.parameters[name].zero_()
    loss, gradients = loop.loss_and_gradients(setup, state)
    assert float(loss) == pytest.approx(math.log(7))
    assert not any(one.any() for one in gradients.values())


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_training_drops_what_sublayers_add_and_evaluation_drops_nothing(
    probability: float, monkeypatch: pytest.MonkeyPatch
):
    setup, state = moved_setup(dataclasses.replace(PARTS, residual_dropout=probability))
    watched, before = Watched(monkeypatch), bits(state)
    found, gradients = loop.loss_and_gradients(setup, state)
    (masks,) = watched.masks
    dropped = np.concatenate([one.numpy().ravel() for one in masks.values()]) == 0
    assert abs(dropped.mean() - probability) < 4 * (probability * (1 - probability) / dropped.size) ** 0.5
    expected_loss, expected = by_hooked(setup, state.parameters, state.step, masks)
    assert float(found) == pytest.approx(expected_loss, rel=1e-5)
    assert_gradient(setup, gradients, expected)
    assert distance(expected, by_hooked(setup, state.parameters, state.step)[1]) > 0.01
    row = setup.evaluate(state)
    assert row == setup.evaluate(state) == Setup(PARTS).evaluate(state)
    assert len(watched.masks) == 1 and bits(state) == before


@pytest.mark.parametrize("loss", ["softmax", "stablemax"])
def test_noise_dropout_and_sam_share_batch_noise_and_masks(loss: str, monkeypatch: pytest.MonkeyPatch):
    config = dataclasses.replace(with_parts(weight_noise=0.1, sam_radius=0.5), residual_dropout=0.2, loss=loss)
    setup, state = moved_setup(config)
    watched, before = Watched(monkeypatch), bits(state)
    found, gradients = loop.loss_and_gradients(setup, state)
    assert bits(state) == before
    (masks,), noise = watched.masks, dict(zip(setup.model.trained, watched.noise, strict=True))
    noisy = further(state.parameters, noise, 0.1)
    noisy_loss, first = by_hooked(setup, noisy, state.step, masks)
    assert float(found) == pytest.approx(noisy_loss, rel=1e-5)
    assert_gradient(
        setup, gradients, by_hooked(setup, further(noisy, first, 0.5 / length(first)), state.step, masks)[1]
    )


def test_an_evaluation_takes_the_loss_that_the_config_names():
    rows = {}
    for loss in ("softmax", "stablemax"):
        setup, state = moved_setup(dataclasses.replace(PARTS, loss=loss, batch_size=None))
        rows[loss] = setup.evaluate(state)
        # Of a full batch the log's train loss is the one that training goes down.
        assert rows[loss]["train_loss"] == pytest.approx(float(loop.loss_and_gradients(setup, state)[0]), rel=1e-6)
    assert rows["softmax"]["train_accuracy"] == rows["stablemax"]["train_accuracy"]
    assert abs(rows["softmax"]["train_loss"] - rows["stablemax"]["train_loss"]) > 1e-3


def test_sinusoids_and_frozen_biases_stay_where_they_are_whatever_moves_the_rest():
    config = dataclasses.replace(
        with_parts(lr=1e-2, warmup_steps=0, weight_noise=0.1, update_noise=1.0, sam_radius=0.1, weight_decay=1.0),
        residual_dropout=0.2,
    )
    setup = Setup(config)
    start, found = setup.model.initialize(config.init_seed), trained_by(setup, 8)
    moved = [name for name in start if not torch.equal(found[name], start[name])]
    assert moved == list(setup.model.trained)
    assert "pos_embed.W_pos" in start and "pos_embed.W_pos" not in moved


def test_full_decay_to_the_initialization_begins_every_update_there():
    """With lr·λ = 1 nothing is left of the updates before, so after many the weights are one update away."""
    config = with_parts(
        dataclasses.replace(PARTS, batch_size=None),
        lr=1e-3,
        weight_decay=1000.0,
        warmup_steps=0,
        betas=(0.0, 0.0),
        decay_centre="initialization",
    )
    setup = Setup(config)
    start, one, many = setup.model.initialize(config.init_seed), trained_by(setup, 1), trained_by(setup, 9)
    for name in setup.model.trained:
        assert abs(one[name] - start[name]).max() < 1.01e-3
        assert abs(many[name] - start[name]).max() < 1.01e-3
    assert max(float(abs(many[name] - start[name]).max()) for name in setup.model.trained) > 0.9e-3


@pytest.mark.parametrize(("name", "torchs"), [("float32", "highest"), ("tf32", "high"), ("bfloat16", "medium")])
def test_matrix_products_change_the_gradient_alone_and_nothing_afterwards(
    tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch, name: str, torchs: str
):
    seen: list[str] = []
    for where in ("cross_entropy", "evaluate"):
        original = getattr(losses, where)

        def noting(*arguments: Any, original: Any = original) -> Any:
            seen.append(torch.get_float32_matmul_precision())
            return original(*arguments)

        monkeypatch.setattr(losses, where, noting)
    setup = Setup(dataclasses.replace(tiny_config, matrix_products=name))
    state = setup.state()
    next(optimize(setup, state))
    assert (seen, torch.get_float32_matmul_precision()) == ([torchs], "highest")
    setup.evaluate(state)
    assert seen[1] == "highest"
