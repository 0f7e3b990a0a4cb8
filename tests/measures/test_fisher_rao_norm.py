"""The Fisher–Rao norm against the Fisher matrix written out, and Liang et al.'s closed form where it holds."""

import pytest
import torch
import torch.nn.functional as F
from support.memorizing import memorized, rescaled

from grokscope import Trajectory, measures
from grokscope.errors import GrokscopeError

TINY = {"p": 5, "d_model": 8, "d_mlp": 8}
BLOCK = ("W_Q", "W_K", "W_V", "W_O", "W_in", "W_out")


@pytest.fixture(scope="module")
def weights(plant_once) -> dict[str, torch.Tensor]:
    return {name: one.double() for name, one in memorized(plant_once({0: {}}, **TINY), 20).items()}


def by_hand(trajectory: Trajectory, part: str = "train") -> tuple[float, float]:
    """Return both norms from each example's gradient of each answer's log p, over HookedTransformer's forward."""
    examples = getattr(trajectory.split, part)
    parameters = {name: one.double() for name, one in trajectory.first.parameters.items()}
    hooked, labels = trajectory.model.hooked_transformer(parameters), trajectory.task.labels[examples]
    leaves = {name: parameters[name].requires_grad_() for name in trajectory.model.trained}
    w = torch.cat([one.detach().flatten() for one in leaves.values()])
    logits = torch.func.functional_call(hooked, leaves, (trajectory.task.inputs[examples],))[:, -1]
    log_p = F.log_softmax(logits, -1)
    of_model = of_label = 0.0
    for i, label in enumerate(labels.tolist()):
        for y in range(log_p.shape[1]):
            g = torch.autograd.grad(log_p[i, y], [*leaves.values()], retain_graph=True, materialize_grads=True)
            squared = float(torch.cat([one.flatten() for one in g]) @ w) ** 2
            of_model += log_p[i, y].exp().item() * squared / len(labels)
            of_label += squared * (y == label) / len(labels)
    return of_model**0.5, of_label**0.5


@pytest.mark.parametrize("part", ["train", "test"])
def test_it_is_the_quadratic_form_of_the_fisher_matrix(plant, weights, part):
    trajectory = plant({0: weights}, **TINY)
    series = measures.evaluate("fisher_rao_norm", trajectory, part=part, dtype="float64")
    expected = by_hand(trajectory, part)
    assert series["fisher_rao_norm"][0] == pytest.approx(expected[0], rel=1e-9)
    assert series["empirical_fisher_rao_norm"][0] == pytest.approx(expected[1], rel=1e-9)


def test_it_is_that_also_with_layer_norm_and_two_layers(plant):
    form = {"n_layers": 2, "normalization_type": "LN", "act_fn": "gelu", "biases": "all", "d_model": 4, "d_mlp": 4}
    trajectory = plant({0: {}}, **{**TINY, **form, "n_heads": 1})
    series = measures.evaluate("fisher_rao_norm", trajectory, dtype="float64")
    assert series["fisher_rao_norm"][0] == pytest.approx(by_hand(trajectory)[0], rel=1e-9)


def closed_form(trajectory: Trajectory, degree: int) -> float:
    """Return k √E[Var_p f], what the norm is of logits f that are homogeneous of degree k in the weights."""
    train = trajectory.split.train
    parameters = {name: one.double() for name, one in trajectory.first.parameters.items()}
    f = trajectory.model.logits(parameters, trajectory.task.inputs[train])
    p = f.softmax(1)
    variance = (p * f.square()).sum(1) - (p * f).sum(1).square()
    return degree * float(variance.mean()) ** 0.5


def test_of_a_homogeneous_network_it_is_liangs_closed_form_and_of_a_transformer_not(plant, weights):
    """Without its block the model is (W_E + W_pos) W_U, of degree two."""
    bare = weights | {name: 0 * one for name, one in weights.items() if name.endswith((*BLOCK, "b_in", "b_out"))}
    for planted, is_so in ((bare, True), (weights, False)):
        trajectory = plant({0: planted}, **TINY)
        found = measures.evaluate("fisher_rao_norm", trajectory, dtype="float64")["fisher_rao_norm"][0]
        assert (found == pytest.approx(closed_form(trajectory, 2), rel=1e-9)) == is_so


@pytest.mark.parametrize("kind", ["neurons", "VO", "QK"])
def test_it_does_not_notice_rescaling(plant, weights, kind):
    one, other = (
        measures.evaluate("fisher_rao_norm", plant({0: w}, **TINY), dtype="float64")
        for w in (weights, rescaled(weights, kind))
    )
    for key in one.arrays:
        assert other[key] == pytest.approx(one[key], rel=1e-9)


def test_with_stablemax_the_answers_are_stablemaxs(plant, weights):
    """A derivative by differences along the weights, of log p as the config's loss has it."""
    trajectory = plant({0: weights}, **TINY, run={"loss": "stablemax"})
    series = measures.evaluate("fisher_rao_norm", trajectory, dtype="float64")
    train, step = trajectory.split.train, 1e-6

    def log_p(scale: float) -> torch.Tensor:
        x = trajectory.model.logits({k: v * scale for k, v in weights.items()}, trajectory.task.inputs[train])
        s = torch.where(x >= 0, x + 1, 1 / (1 - x))
        return (s / s.sum(1, keepdim=True)).log()

    along = (log_p(1 + step) - log_p(1 - step)) / (2 * step)
    expected = float((log_p(1).exp() * along.square()).sum(1).mean()) ** 0.5
    assert series["fisher_rao_norm"][0] == pytest.approx(expected, rel=1e-6)


def test_another_part_is_refused(plant):
    with pytest.raises(GrokscopeError, match="part: 'all'"):
        measures.evaluate("fisher_rao_norm", plant({0: {}}, **TINY), part="all")
