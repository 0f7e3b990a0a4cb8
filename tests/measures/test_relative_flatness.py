"""The measure `relative_flatness` against the sum over blocks of a dense Hessian, as in Petzka et al."""

import pytest
import torch
import torch.nn.functional as F
from support.memorizing import memorized, rescaled

from grokscope import Trajectory, measures
from grokscope.errors import GrokscopeError
from grokscope.measures.relative_flatness import of_softmax

TINY = {"p": 5, "d_model": 8, "d_mlp": 8}
LAYERS = ["unembed.W_U", "blocks.0.mlp.W_in", "blocks.0.mlp.W_out"]


@pytest.fixture(scope="module")
def weights(plant_once) -> dict[str, torch.Tensor]:
    """The parameters of a model that has memorized the train set, in float64."""
    return {name: tensor.double() for name, tensor in memorized(plant_once({0: {}}, **TINY), 20).items()}


def by_definition(trajectory: Trajectory, layer: str) -> float:
    """Return Σ_{s,s'} ⟨w_s, w_s'⟩ Tr H_{s,s'} from all second derivatives, over HookedTransformer's forward pass."""
    parameters = {name: tensor.double() for name, tensor in trajectory.first.parameters.items()}
    hooked, train = trajectory.model.hooked_transformer(parameters), trajectory.split.train
    W = parameters[layer].requires_grad_()
    logits = torch.func.functional_call(hooked, {layer: W}, (trajectory.task.inputs[train],))[:, -1]
    loss = F.cross_entropy(logits, trajectory.task.labels[train])
    (gradient,) = torch.autograd.grad(loss, W, create_graph=True)
    kappa, products = 0.0, (W.T @ W).detach()
    for s in range(W.shape[1]):
        for t in range(W.shape[0]):
            (row,) = torch.autograd.grad(gradient[t, s], W, retain_graph=True)
            # The entries of H at (t, s) and (t, s') for every s', times ⟨w_s, w_s'⟩.
            kappa += float(row[t] @ products[s])
    return kappa


@pytest.mark.parametrize("layer", LAYERS)
def test_value_is_the_sum_over_blocks(plant, weights, layer):
    trajectory = plant({0: weights}, **TINY)
    series = measures.evaluate("relative_flatness", trajectory, layer=layer, n_probes=64)
    value, stderr = series["relative_flatness"][0], series["relative_flatness_stderr"][0]
    expected = by_definition(trajectory, layer)
    if layer == "unembed.W_U":
        assert value == pytest.approx(expected, rel=1e-9) and stderr == 0
    else:
        assert abs(value - expected) < 4 * stderr < expected


def test_closed_form_holds_with_layer_norm_but_not_for_stablemax(plant):
    form = {"n_layers": 2, "normalization_type": "LN", "biases": "all", "d_model": 4, "d_mlp": 4, "n_heads": 1}
    trajectory = plant({0: {}}, **{**TINY, **form})
    series = measures.evaluate("relative_flatness", trajectory)
    assert series["relative_flatness"][0] == pytest.approx(by_definition(trajectory, "unembed.W_U"), rel=1e-9)
    stablemax = measures.evaluate("relative_flatness", plant({0: {}}, **TINY, run={"loss": "stablemax"}))
    assert stablemax["relative_flatness_stderr"][0] > 0, "stablemax has no closed form"


def test_softmax_regression_by_hand():
    """Two answers with odds 3 : 1, an input of length 5: ½ · 25 · 2 · (3/4)(1/4) · ‖w_0 − w_1‖²."""
    p = torch.tensor([[0.75, 0.25]]).double()
    W = torch.tensor([[1.0, 0.0], [0.0, 2.0]]).double()
    assert of_softmax(p, torch.tensor([[3.0, 4.0]]).double(), W) == pytest.approx(25 * 3 / 16 * 5)


def test_nearly_certain_answer_does_not_cancel():
    """A difference of two means of squares would be rounding."""
    rest = 1e-14
    p = torch.tensor([[1 - rest, rest]]).double()
    W = torch.tensor([[1.0, 1.5]]).double()
    assert of_softmax(p, torch.ones(1, 1).double(), W) == pytest.approx(rest / 4, rel=1e-6)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("kind", ["neurons", "VO", "QK"])
def test_rescaling_does_not_change_the_value(plant, weights, kind, layer):
    """Estimates with the same probes do not change either, except for factors on the single inputs of W_out."""
    before, after = (
        measures.evaluate("relative_flatness", plant({0: w}, **TINY), layer=layer, n_probes=64)
        for w in (weights, rescaled(weights, kind))
    )
    is_same = after["relative_flatness"] == pytest.approx(before["relative_flatness"], rel=1e-9)
    assert is_same == ((kind, layer) != ("neurons", "blocks.0.mlp.W_out"))


def test_rescaling_changes_the_plain_trace(plant, weights):
    """The control: Tr H of W_in changes by the squared factor."""
    traces = []
    for w in (weights, rescaled(weights, "neurons")):
        trajectory = plant({0: w}, **TINY)
        traces.append(measures.evaluate("sharpness", trajectory, dtype="float64")["hessian_trace"][0])
    assert abs(traces[1] / traces[0] - 1) > 0.02


@pytest.mark.parametrize("option", [{"layer": "blocks.0.attn.W_Q"}, {"n_probes": 1}])
def test_option_out_of_range_is_rejected_by_name(plant, option):
    with pytest.raises(GrokscopeError, match=next(iter(option))):
        measures.evaluate("relative_flatness", plant({0: {}}, **TINY), **option)
