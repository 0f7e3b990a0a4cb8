"""The measure `fisher_rao_norm` against the explicit Fisher matrix and Liang et al.'s closed form."""

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
    """The parameters of a model that has memorized the train set, in float64."""
    return {name: tensor.double() for name, tensor in memorized(plant_once({0: {}}, **TINY), 20).items()}


def explicit_norms(trajectory: Trajectory, part: str = "train") -> tuple[float, float]:
    """Return both norms from the gradient of every log p, over HookedTransformer's forward pass."""
    examples = getattr(trajectory.split, part)
    parameters = {name: tensor.double() for name, tensor in trajectory.first.parameters.items()}
    hooked, labels = trajectory.model.hooked_transformer(parameters), trajectory.task.labels[examples]
    leaves = {name: parameters[name].requires_grad_() for name in trajectory.model.trained}
    w = torch.cat([tensor.detach().flatten() for tensor in leaves.values()])
    logits = torch.func.functional_call(hooked, leaves, (trajectory.task.inputs[examples],))[:, -1]
    log_p = F.log_softmax(logits, -1)
    of_model = of_label = 0.0
    for i, label in enumerate(labels.tolist()):
        for y in range(log_p.shape[1]):
            g = torch.autograd.grad(log_p[i, y], [*leaves.values()], retain_graph=True, materialize_grads=True)
            squared = float(torch.cat([tensor.flatten() for tensor in g]) @ w) ** 2
            of_model += log_p[i, y].exp().item() * squared / len(labels)
            of_label += squared * (y == label) / len(labels)
    return of_model**0.5, of_label**0.5


@pytest.mark.parametrize("part", ["train", "test"])
def test_norm_is_the_quadratic_form_of_the_fisher_matrix(plant, weights, part):
    trajectory = plant({0: weights}, **TINY)
    series = measures.evaluate("fisher_rao_norm", trajectory, part=part, dtype="float64")
    expected = explicit_norms(trajectory, part)
    assert series["fisher_rao_norm"][0] == pytest.approx(expected[0], rel=1e-9)
    assert series["empirical_fisher_rao_norm"][0] == pytest.approx(expected[1], rel=1e-9)


def test_norm_is_exact_with_layer_norm_and_two_layers(plant):
    form = {"n_layers": 2, "normalization_type": "LN", "act_fn": "gelu", "biases": "all", "d_model": 4, "d_mlp": 4}
    trajectory = plant({0: {}}, **{**TINY, **form, "n_heads": 1})
    series = measures.evaluate("fisher_rao_norm", trajectory, dtype="float64")
    assert series["fisher_rao_norm"][0] == pytest.approx(explicit_norms(trajectory)[0], rel=1e-9)


def closed_form(trajectory: Trajectory, degree: int) -> float:
    """Return k √E[Var_p f], the norm for logits f that are homogeneous of degree k in the weights."""
    train = trajectory.split.train
    parameters = {name: tensor.double() for name, tensor in trajectory.first.parameters.items()}
    f = trajectory.model.logits(parameters, trajectory.task.inputs[train])
    p = f.softmax(1)
    variance = (p * f.square()).sum(1) - (p * f).sum(1).square()
    return degree * float(variance.mean()) ** 0.5


def test_closed_form_holds_only_for_a_homogeneous_network(plant, weights):
    """Without its block the model is (W_E + W_pos) W_U, which has degree 2."""
    bare = weights | {
        name: 0 * tensor for name, tensor in weights.items() if name.endswith((*BLOCK, "b_in", "b_out"))
    }
    for parameters, is_homogeneous in ((bare, True), (weights, False)):
        trajectory = plant({0: parameters}, **TINY)
        norm = measures.evaluate("fisher_rao_norm", trajectory, dtype="float64")["fisher_rao_norm"][0]
        assert (norm == pytest.approx(closed_form(trajectory, 2), rel=1e-9)) == is_homogeneous


@pytest.mark.parametrize("kind", ["neurons", "VO", "QK"])
def test_rescaling_does_not_change_the_norm(plant, weights, kind):
    before, after = (
        measures.evaluate("fisher_rao_norm", plant({0: w}, **TINY), dtype="float64")
        for w in (weights, rescaled(weights, kind))
    )
    for key in before.arrays:
        assert after[key] == pytest.approx(before[key], rel=1e-9)


def test_stablemax_norm_uses_the_probabilities_of_stablemax(plant, weights):
    """The derivative of log p along the weights comes from finite differences."""
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


def test_unknown_part_is_rejected(plant):
    with pytest.raises(GrokscopeError, match="part: 'all'"):
        measures.evaluate("fisher_rao_norm", plant({0: {}}, **TINY), part="all")
