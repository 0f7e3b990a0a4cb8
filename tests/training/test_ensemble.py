"""Every model of an ensemble against its single run, which knows nothing of ensembles."""

import dataclasses
import re
from typing import Any

import pytest
import torch
from support.shared import companions, make_tiny_config

from grokscope.config import OptimizerConfig, RunConfig
from grokscope.errors import GrokscopeError
from grokscope.model import losses
from grokscope.model.transformer import Model
from grokscope.training.ensemble import Ensemble, likeness
from grokscope.training.loop import NotFiniteError, Setup, State, optimize

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

ULP = torch.finfo(torch.float32).eps
EARLY, LATE = 50, 200
CLOSE = {EARLY: 8 * ULP, LATE: 5e-3}
"""How far a model may be from its single run, relative to the length of its parameters as one vector.

An update rounds each weight by up to half an ulp, so 50 of them leave a few ulps of the whole. From about step 100
on, a neuron that crosses zero in one run and not in the other, and Adam, which divides small gradients by their own
size, magnify any difference: single runs that begin an ulp apart are then up to some 1e-3 apart.
"""


def config(**changes: Any) -> RunConfig:
    """Return the tiny config with a usual learning rate; what a part of the config knows changes that part."""
    tiny = make_tiny_config()
    parts = {"optimizer": OptimizerConfig(lr=2e-3), "model": tiny.model, "task": tiny.task}
    for name, part in parts.items():
        own = {field.name for field in dataclasses.fields(part)} & changes.keys()
        parts[name] = dataclasses.replace(part, **{one: changes.pop(one) for one in own})
    return dataclasses.replace(tiny, **parts, **changes)


ALL_ELSE = {"positions": "sinusoidal", "biases": "all", "act_fn": "gelu"}
CONFIGS = {
    "one layer": config(),
    "layer norm": config(n_layers=2, normalization_type="LN", form="a ∘ b =", loss_dtype="float32"),
    "minibatches": config(batch_size=8, form="a ∘ b =", name="adam", weight_decay=0.0, loss="stablemax"),
    "layer norm in minibatches": config(n_layers=2, normalization_type="LN", batch_size=8, **ALL_ELSE),
}
SHORT_AND_LONG = [EARLY, pytest.param(LATE, marks=pytest.mark.slow)]


class Single:
    """A single run, as `training.train` makes its steps."""

    def __init__(self, config: RunConfig, nudged: bool = False):
        self.setup = Setup(config)
        self.state = self.setup.state()
        generator = torch.Generator().manual_seed(0)
        for one in self.state.parameters.values() if nudged else ():
            one.detach().mul_(1 + ULP * (2 * torch.randint(0, 2, one.shape, generator=generator) - 1))
        self._steps = optimize(self.setup, self.state)

    def advance(self) -> None:
        next(self._steps)


def distance(one: State, other: State) -> float:
    """Return the distance of two runs' parameters, relative to their length.

    Attention is the same with any b_K: its gradient is nothing but rounding, which Adam makes steps of lr.
    """

    def flat(state: State) -> torch.Tensor:
        chosen = [tensor.detach() for name, tensor in state.parameters.items() if "b_K" not in name]
        return torch.cat([tensor.double().flatten() for tensor in chosen])

    ours, theirs = flat(one), flat(other)
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("last", SHORT_AND_LONG)
@pytest.mark.parametrize("name", CONFIGS)
def test_each_model_is_within_rounding_of_its_single_run(name: str, last: int):
    configs = companions(CONFIGS[name])[:2]
    ensemble, singles = Ensemble(configs), [Single(one) for one in configs]
    for step in range(1, last + 1):
        for one in (ensemble, *singles):
            one.advance()
        if step in CLOSE:
            for i, single in enumerate(singles):
                assert distance(ensemble.state(i), single.state) < CLOSE[step], f"run {i} at step {step}"
    assert ensemble.step == last and ensemble.failures() == [-1, -1]


@pytest.mark.parametrize("last", SHORT_AND_LONG)
def test_the_tolerance_is_what_single_runs_an_ulp_apart_need_and_not_what_other_settings_do(last: int):
    """The control of the test above: runs that differ by rounding pass, and the least real difference does not."""
    start = CONFIGS["one layer"]
    faster = dataclasses.replace(start.optimizer, lr=start.optimizer.lr * 1.01)
    weaker = dataclasses.replace(start.optimizer, weight_decay=0.99)
    single, nudged = Single(start), Single(start, nudged=True)
    others = [
        Single(dataclasses.replace(start, init_seed=1)),
        Single(dataclasses.replace(start, split_seed=1)),
        Single(dataclasses.replace(start, optimizer=faster)),
        Single(dataclasses.replace(start, optimizer=weaker)),
    ]
    for step in range(1, last + 1):
        for one in (single, nudged, *others) if step <= EARLY else (single, nudged, others[0]):
            one.advance()
        if step in CLOSE:
            assert ULP / 2 < distance(nudged.state, single.state) < CLOSE[step]
        if step == EARLY:
            assert all(distance(one.state, single.state) > 10 * CLOSE[EARLY] for one in others)
    assert distance(others[0].state, single.state) > 10 * CLOSE[last]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_first_update_agrees_to_a_few_ulps_of_each_tensor_s_largest_weight(name: str):
    configs = companions(CONFIGS[name])
    ensemble, singles = Ensemble(configs), [Single(one) for one in configs]
    for _ in range(2 if CONFIGS[name].optimizer.warmup_steps else 1):  # In a warm-up the first has a rate of zero.
        for one in (ensemble, *singles):
            one.advance()
    for i, single in enumerate(singles):
        found = ensemble.state(i)
        assert found.step == single.state.step
        for parameter, expected in single.state.parameters.items():
            if "b_K" not in parameter:
                atol = 4 * ULP * float(expected.detach().abs().max())
                torch.testing.assert_close(
                    found.parameters[parameter], expected.detach(), rtol=0, atol=atol, msg=f"{parameter} of run {i}"
                )


@pytest.mark.parametrize("name", CONFIGS)
def test_a_row_of_the_log_and_what_the_optimizer_remembers_are_those_of_the_single_run(name: str):
    configs = companions(CONFIGS[name])
    ensemble, singles = Ensemble(configs), [Single(one) for one in configs]
    assert ensemble.state(0).optimizer.state() == {}
    for _ in range(5):
        for one in (ensemble, *singles):
            one.advance()
    for i, single in enumerate(singles):
        state = ensemble.state(i)
        row, expected = ensemble.members[i].evaluate(state), single.setup.evaluate(state)
        assert list(row) == list(expected) and row == pytest.approx(expected, rel=1e-6)
        assert ensemble.members[1].evaluate(ensemble.state(1)) != row or i == 1, "it is another run's"
        remembered, theirs = state.optimizer.state(), single.state.optimizer.state()
        assert remembered.keys() == theirs.keys()
        for key, tensor in remembered.items():
            assert (tensor.dtype, tensor.shape) == (theirs[key].dtype, theirs[key].shape)
            torch.testing.assert_close(tensor, theirs[key], rtol=1e-3, atol=1e-6)


def test_a_large_table_is_evaluated_in_parts(monkeypatch: pytest.MonkeyPatch):
    configs = companions(make_tiny_config())
    sizes, logits = [], Model.logits

    def counted(model: Model, parameters: Any, tokens: Any, *rest: Any) -> torch.Tensor:
        sizes.append(len(tokens))
        return logits(model, parameters, tokens, *rest)

    whole, ensemble = Ensemble(configs), Ensemble(configs)
    row = whole.members[1].evaluate(whole.state(1))
    monkeypatch.setattr(losses, "AT_ONCE", 7)
    monkeypatch.setattr(Model, "logits", counted)
    assert ensemble.members[1].evaluate(ensemble.state(1)) == pytest.approx(row, rel=1e-6)
    assert max(sizes) == 7 and sum(sizes) == len(ensemble.members[1].inputs)


def test_a_model_that_diverges_is_named_with_its_update_and_leaves_the_others_alone():
    tame = companions(CONFIGS["one layer"])[:2]
    wild = dataclasses.replace(tame[0], optimizer=OptimizerConfig(lr=100.0, warmup_steps=0))
    tame = [dataclasses.replace(one, optimizer=dataclasses.replace(one.optimizer, warmup_steps=0)) for one in tame]
    ensemble, singles = Ensemble([tame[0], wild, tame[1]]), [Single(one) for one in tame]
    for _ in range(40):
        for one in (ensemble, *singles):
            one.advance()
    diverged = Single(wild)
    with pytest.raises(NotFiniteError):
        for _ in range(40):
            diverged.advance()
    first, failed, other = ensemble.failures()
    assert first == other == -1 and abs(failed - diverged.state.step) <= 1
    with pytest.raises(NotFiniteError, match="The train_loss is not finite at step 40"):
        ensemble.members[1].evaluate(ensemble.state(1))
    for i, single in zip((0, 2), singles, strict=True):
        assert distance(ensemble.state(i), single.state) < CLOSE[EARLY]
        ensemble.members[i].evaluate(ensemble.state(i))


def test_what_no_run_can_use_is_named_with_what_is_allowed():
    with pytest.raises(GrokscopeError, match="batch_size: 'all'; allowed: "):
        Ensemble([config(), config(batch_size="all")])


CANNOT = {
    "sgd": {"name": "sgd"},
    "decay_centre": {"decay_centre": "initialization"},
    "gradient_filter": {"gradient_filter": "grokfast_ema"},
    "update_noise": {"update_noise": 1.0},
    "weight_noise": {"weight_noise": 1.0},
    "sam_radius": {"sam_radius": 0.1},
    "residual_dropout": {"residual_dropout": 0.1},
}


@pytest.mark.parametrize("named", CANNOT)
def test_what_an_ensemble_cannot_train_with_is_named_in_one_sentence(named: str):
    with pytest.raises(GrokscopeError, match=named) as refused:
        Ensemble([config(), config(**CANNOT[named])])
    assert re.fullmatch(r"An ensemble cannot train with [^\n]+; train these runs one by one\.", str(refused.value))


def test_all_that_it_cannot_train_with_is_named_once():
    with pytest.raises(GrokscopeError, match=r"with optimizer\.name 'sgd' \(.*\), residual_dropout; train"):
        Ensemble([config(name="sgd"), config(name="sgd", residual_dropout=0.1)])


@pytest.mark.parametrize(
    "other", [{"p": 5}, {"form": "a ∘ b ="}, {"d_model": 8}, {"warmup_steps": 3}, {"n_steps": 61}, {"batch_size": 8}]
)
def test_runs_that_are_unlike_are_refused(other: dict[str, Any]):
    assert likeness(config()) != likeness(config(**other))
    with pytest.raises(GrokscopeError, match="may differ in seeds, learning rate, weight decay and train fraction"):
        Ensemble([config(), config(**other)])
    assert len({likeness(one) for one in companions(config())}) == 1
