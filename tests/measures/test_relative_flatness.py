"""Relative flatness against the sum over blocks of a dense Hessian, as Petzka et al. define it."""

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
    return {name: one.double() for name, one in memorized(plant_once({0: {}}, **TINY), 20).items()}


def by_definition(trajectory: Trajectory, layer: str) -> float:
    """Return Σ_{s,s'} ⟨w_s, w_s'⟩ Tr H_{s,s'} from every second derivative, over HookedTransformer's forward."""
    parameters = {name: one.double() for name, one in trajectory.first.parameters.items()}
    hooked, train = trajectory.model.hooked_transformer(parameters), trajectory.split.train
    W = parameters[layer].requires_grad_()
    logits = torch.func.functional_call(hooked, {layer: W}, (trajectory.task.inputs[train],))[:, -1]
    loss = F.cross_entropy(logits, trajectory.task.labels[train])
    (gradient,) = torch.autograd.grad(loss, W, create_graph=True)
    kappa, products = 0.0, (W.T @ W).detach()
    for s in range(W.shape[1]):
        for t in range(W.shape[0]):
            (row,) = torch.autograd.grad(gradient[t, s], W, retain_graph=True)
            # H of (t, s) and (t, s') for every s', each with the product of the two outputs' weights.
            kappa += float(row[t] @ products[s])
    return kappa


@pytest.mark.parametrize("layer", LAYERS)
def test_it_is_the_definitions_sum_over_blocks(plant, weights, layer):
    trajectory = plant({0: weights}, **TINY)
    series = measures.evaluate("relative_flatness", trajectory, layer=layer, n_probes=64)
    found, stderr = series["relative_flatness"][0], series["relative_flatness_stderr"][0]
    expected = by_definition(trajectory, layer)
    if layer == "unembed.W_U":
        assert found == pytest.approx(expected, rel=1e-9) and stderr == 0
    else:
        assert abs(found - expected) < 4 * stderr < expected


def test_the_closed_form_holds_after_layer_norm_and_the_estimate_agrees_under_another_loss(plant):
    form = {"n_layers": 2, "normalization_type": "LN", "biases": "all", "d_model": 4, "d_mlp": 4, "n_heads": 1}
    trajectory = plant({0: {}}, **{**TINY, **form})
    series = measures.evaluate("relative_flatness", trajectory)
    assert series["relative_flatness"][0] == pytest.approx(by_definition(trajectory, "unembed.W_U"), rel=1e-9)
    other = measures.evaluate("relative_flatness", plant({0: {}}, **TINY, run={"loss": "stablemax"}))
    assert other["relative_flatness_stderr"][0] > 0, "there is no closed form of stablemax"


def test_of_softmax_regression_by_hand():
    """Two answers with odds 3 : 1, an input of length 5: ½ · 25 · 2 · (3/4)(1/4) · ‖w_0 − w_1‖²."""
    p = torch.tensor([[0.75, 0.25]]).double()
    W = torch.tensor([[1.0, 0.0], [0.0, 2.0]]).double()
    assert of_softmax(p, torch.tensor([[3.0, 4.0]]).double(), W) == pytest.approx(25 * 3 / 16 * 5)


def test_a_nearly_certain_answer_does_not_cancel():
    """As a difference of two means of squares it would be rounding."""
    rest = 1e-14
    p = torch.tensor([[1 - rest, rest]]).double()
    W = torch.tensor([[1.0, 1.5]]).double()
    assert of_softmax(p, torch.ones(1, 1).double(), W) == pytest.approx(rest / 4, rel=1e-6)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("kind", ["neurons", "VO", "QK"])
def test_it_does_not_notice_rescaling(plant, weights, kind, layer):
    """Also not an estimate with the same probes; but W_out notices that its inputs get factors of their own."""
    one, other = (
        measures.evaluate("relative_flatness", plant({0: w}, **TINY), layer=layer, n_probes=64)
        for w in (weights, rescaled(weights, kind))
    )
    is_same = other["relative_flatness"] == pytest.approx(one["relative_flatness"], rel=1e-9)
    assert is_same == ((kind, layer) != ("neurons", "blocks.0.mlp.W_out"))


def test_the_plain_trace_notices_what_it_does_not(plant, weights):
    """The control: Tr H of W_in alone changes by the factor squared."""
    traces = []
    for w in (weights, rescaled(weights, "neurons")):
        trajectory = plant({0: w}, **TINY)
        traces.append(measures.evaluate("sharpness", trajectory, dtype="float64")["hessian_trace"][0])
    assert abs(traces[1] / traces[0] - 1) > 0.02


@pytest.mark.parametrize("option", [{"layer": "blocks.0.attn.W_Q"}, {"n_probes": 1}])
def test_an_option_out_of_range_is_refused_by_name(plant, option):
    with pytest.raises(GrokscopeError, match=next(iter(option))):
        measures.evaluate("relative_flatness", plant({0: {}}, **TINY), **option)
