"""Every model of an ensemble against its single run, which does not use the ensemble's code."""

import dataclasses
from typing import Any

import pytest
import torch
from support.shared import companions, make_tiny_config, quick

from grokscope.config import OptimizerConfig, RunConfig
from grokscope.errors import GrokscopeError
from grokscope.model import losses
from grokscope.model.transformer import Transformer
from grokscope.training.ensemble import Ensemble
from grokscope.training.loop import Setup, optimize
from grokscope.training.state import NotFiniteError, State

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

ULP = torch.finfo(torch.float32).eps
EARLY, LATE = 50, 200
TOLERANCE = {EARLY: 8 * ULP, LATE: 5e-3}
"""The allowed distance of a model from its single run, relative to the norm of all its parameters.

An update rounds each weight by up to half an ulp, so 50 updates leave a few ulps of the norm. From about step 100 on,
two effects magnify any difference: a neuron crosses zero in one run only, and Adam divides small gradients by their
own size. Single runs that start an ulp apart are then up to about 1e-3 apart.
"""


def config(**changes: Any) -> RunConfig:
    """Return the tiny config with changes, each applied to the part of the config that has the field."""
    tiny = make_tiny_config()
    parts = {"optimizer": OptimizerConfig(lr=2e-3), "model": tiny.model, "task": tiny.task}
    for part_name, part in parts.items():
        names = {field.name for field in dataclasses.fields(part)} & changes.keys()
        parts[part_name] = dataclasses.replace(part, **{name: changes.pop(name) for name in names})
    return dataclasses.replace(tiny, **parts, **changes)


OTHER_OPTIONS = {"positions": "sinusoidal", "biases": "all", "act_fn": "gelu"}
CONFIGS = {
    "one layer": config(),
    "layer norm": config(n_layers=2, normalization_type="LN", form="a ∘ b =", loss_dtype="float32"),
    "minibatches": config(batch_size=8, form="a ∘ b =", name="adam", weight_decay=0.0, loss="stablemax"),
    # The clamp moves the weights even at a learning rate of zero, so here the first update has a full one.
    "limits and schedule": config(
        decay_by_part="embed 0 + biases 3", gradient_clip=0.5, norm_clamp=9.0, schedule="cosine 300", warmup_steps=0
    ),
    "layer norm in minibatches": config(n_layers=2, normalization_type="LN", batch_size=8, **OTHER_OPTIONS),
}
LAST_STEPS = [EARLY, pytest.param(LATE, marks=pytest.mark.slow)]


class SingleRun:
    """A single run that makes its steps as `training.train` does.

    Args:
        config: The run's config.
        nudged: Whether every initial weight moves by an ulp.
    """

    def __init__(self, config: RunConfig, nudged: bool = False):
        self.setup = Setup(config)
        self.state = self.setup.learner.initial_state()
        generator = torch.Generator().manual_seed(0)
        for tensor in self.state.parameters.values() if nudged else ():
            tensor.detach().mul_(1 + ULP * (2 * torch.randint(0, 2, tensor.shape, generator=generator) - 1))
        self._states = optimize(self.setup, self.state)

    def advance(self) -> None:
        next(self._states)


def train_both(configs: list[RunConfig], n_updates: int) -> tuple[Ensemble, list[SingleRun]]:
    """Return an ensemble and its single runs after some updates."""
    ensemble, singles = Ensemble(configs), [SingleRun(config) for config in configs]
    for _ in range(n_updates):
        for trainer in (ensemble, *singles):
            trainer.advance()
    return ensemble, singles


def distance(state: State, reference: State) -> float:
    """Return the distance of two runs' parameters, relative to the norm of the reference.

    b_K is left out: attention does not depend on it, so its gradient is rounding, which Adam scales to steps of lr.
    """

    def flat(state: State) -> torch.Tensor:
        tensors = [tensor.detach() for name, tensor in state.parameters.items() if "b_K" not in name]
        return torch.cat([tensor.double().flatten() for tensor in tensors])

    expected = flat(reference)
    return float((flat(state) - expected).norm() / expected.norm())


@pytest.mark.parametrize("last", LAST_STEPS)
@pytest.mark.parametrize("name", quick(CONFIGS, ["one layer", "limits and schedule", "layer norm in minibatches"]))
def test_each_model_matches_its_single_run_within_rounding(name: str, last: int):
    configs = companions(CONFIGS[name])[:2]
    ensemble, singles = Ensemble(configs), [SingleRun(config) for config in configs]
    for step in range(1, last + 1):
        for trainer in (ensemble, *singles):
            trainer.advance()
        if step in TOLERANCE:
            for i, single in enumerate(singles):
                assert distance(ensemble.state(i), single.state) < TOLERANCE[step], f"run {i} at step {step}"
    assert ensemble.step == last and ensemble.failed_updates() == [-1, -1]


@pytest.mark.slow
@pytest.mark.parametrize("last", LAST_STEPS)
def test_tolerance_admits_an_ulp_and_no_other_settings(last: int):
    """The control of the test above: runs that differ by rounding pass, and the least real difference fails."""
    start = CONFIGS["one layer"]
    faster = dataclasses.replace(start.optimizer, lr=start.optimizer.lr * 1.01)
    weaker = dataclasses.replace(start.optimizer, weight_decay=0.99)
    single, nudged = SingleRun(start), SingleRun(start, nudged=True)
    different = [
        SingleRun(dataclasses.replace(start, init_seed=1)),
        SingleRun(dataclasses.replace(start, split_seed=1)),
        SingleRun(dataclasses.replace(start, optimizer=faster)),
        SingleRun(dataclasses.replace(start, optimizer=weaker)),
    ]
    for step in range(1, last + 1):
        for run in (single, nudged, *different) if step <= EARLY else (single, nudged, different[0]):
            run.advance()
        if step in TOLERANCE:
            assert ULP / 2 < distance(nudged.state, single.state) < TOLERANCE[step]
        if step == EARLY:
            assert all(distance(run.state, single.state) > 10 * TOLERANCE[EARLY] for run in different)
    assert distance(different[0].state, single.state) > 10 * TOLERANCE[last]


@pytest.mark.parametrize("name", CONFIGS)
def test_first_update_matches_to_a_few_ulps_in_each_tensor(name: str):
    # The first update of a warm-up has a learning rate of zero.
    ensemble, singles = train_both(companions(CONFIGS[name]), 2 if CONFIGS[name].optimizer.warmup_steps else 1)
    for i, single in enumerate(singles):
        state = ensemble.state(i)
        assert state.step == single.state.step
        for parameter, expected in single.state.parameters.items():
            if "b_K" not in parameter:
                # Where a gradient is near Adam's ε, the update amplifies the rounding of sums in another order.
                atol = 64 * ULP * float(expected.detach().abs().max())
                torch.testing.assert_close(
                    state.parameters[parameter], expected.detach(), rtol=0, atol=atol, msg=f"{parameter} of run {i}"
                )


@pytest.mark.parametrize("name", CONFIGS)
def test_log_row_and_optimizer_state_match_the_single_run(name: str):
    assert Ensemble(companions(CONFIGS[name])).state(0).optimizer.state() == {}
    ensemble, singles = train_both(companions(CONFIGS[name]), 5)
    for i, single in enumerate(singles):
        state = ensemble.state(i)
        row, expected = ensemble.evaluate(i, state), single.setup.evaluator.evaluate(state)
        assert list(row) == list(expected) and row == pytest.approx(expected, rel=1e-6)
        assert ensemble.evaluate(1, ensemble.state(1)) != row or i == 1, "two models have the same row"
        optimizer_state, expected_state = state.optimizer.state(), single.state.optimizer.state()
        assert optimizer_state.keys() == expected_state.keys()
        for key, tensor in optimizer_state.items():
            assert (tensor.dtype, tensor.shape) == (expected_state[key].dtype, expected_state[key].shape)
            torch.testing.assert_close(tensor, expected_state[key], rtol=1e-3, atol=1e-6)


def test_large_table_is_evaluated_in_parts(monkeypatch: pytest.MonkeyPatch):
    configs = companions(make_tiny_config())
    sizes, logits = [], Transformer.logits

    def counting_logits(model: Transformer, parameters: Any, tokens: Any, *options: Any) -> torch.Tensor:
        sizes.append(len(tokens))
        return logits(model, parameters, tokens, *options)

    whole, ensemble = Ensemble(configs), Ensemble(configs)
    row = whole.evaluate(1, whole.state(1))
    monkeypatch.setattr(losses, "EVALUATION_CHUNK", 7)
    monkeypatch.setattr(Transformer, "logits", counting_logits)
    assert ensemble.evaluate(1, ensemble.state(1)) == pytest.approx(row, rel=1e-6)
    assert max(sizes) == 7 and sum(sizes) == len(ensemble.datasets[1].inputs)


def test_diverging_model_is_named_and_others_are_unaffected():
    stable = companions(CONFIGS["one layer"])[:2]
    diverging = dataclasses.replace(stable[0], optimizer=OptimizerConfig(lr=100.0, warmup_steps=0))
    stable = [
        dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, warmup_steps=0))
        for config in stable
    ]
    ensemble, singles = Ensemble([stable[0], diverging, stable[1]]), [SingleRun(config) for config in stable]
    for _ in range(40):
        for trainer in (ensemble, *singles):
            trainer.advance()
    diverged = SingleRun(diverging)
    with pytest.raises(NotFiniteError):
        for _ in range(40):
            diverged.advance()
    first, failed, last = ensemble.failed_updates()
    assert first == last == -1 and abs(failed - diverged.state.step) <= 1
    with pytest.raises(NotFiniteError, match="The train_loss is not finite at step 40"):
        ensemble.evaluate(1, ensemble.state(1))
    for i, single in zip((0, 2), singles, strict=True):
        assert distance(ensemble.state(i), single.state) < TOLERANCE[EARLY]
        ensemble.evaluate(i, ensemble.state(i))


def test_incompatible_configs_raise():
    with pytest.raises(GrokscopeError, match="An ensemble cannot train with"):
        Ensemble([config(), config(sam_radius=0.1)])


def test_resume_state_that_does_not_fit_raises():
    ensemble = Ensemble([config()])
    parameters = {f"parameters/{name}": tensor for name, tensor in ensemble.state(0).parameters.items()}
    with pytest.raises(GrokscopeError, match="The resume state does not fit the run: it lacks schedule/n_adaptive"):
        ensemble.load(0, {"step": torch.tensor(0), **parameters})
