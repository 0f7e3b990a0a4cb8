"""The family "mlp" against dense one-hot matrix products, and what measures read from it."""

import pytest
import torch
import torch.nn.functional as F
from support.small_models import random_parameters

from grokscope import tasks
from grokscope.config import MlpConfig, ModelConfig, TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.model import families, losses
from grokscope.model.families import LacksPartError, Model

ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "quadratic": torch.square, "tanh": torch.tanh}


def mlp_model(form: str = "a ∘ b =", **settings) -> tuple[Model, tasks.Task]:
    """Return a small MLP for addition mod 5, and the task."""
    task = tasks.build(TaskConfig(p=5, form=form))
    config = ModelConfig(family="mlp", mlp=MlpConfig(d_hidden=6, d_embed=4, **settings))
    return families.build(config, task), task


@pytest.mark.parametrize("act_fn", ACTIVATIONS)
@pytest.mark.parametrize("operands", ["one-hot", "embedded", "embedded separately"])
@pytest.mark.parametrize("combination", ["concatenated", "summed"])
def test_logits_are_dense_products_of_one_hot_operands(operands: str, combination: str, act_fn: str):
    model, task = mlp_model(operands=operands, combination=combination, act_fn=act_fn, n_layers=2)
    p = random_parameters(model)
    vectors = [F.one_hot(operand, model.d_vocab).double() for operand in task.operands.T]
    if operands != "one-hot":
        tables = p["embed.W_E"].view(-1, model.d_vocab, 4)
        vectors = [vector @ tables[i % len(tables)] for i, vector in enumerate(vectors)]
    x = torch.cat(vectors, 1) if combination == "concatenated" else vectors[0] + vectors[1]
    for layer in range(2):
        x = ACTIVATIONS[act_fn](x @ p[f"mlp.{layer}.W_in"] + p[f"mlp.{layer}.b_in"])
    expected = x @ p["unembed.W_U"] + p["unembed.b_U"]
    torch.testing.assert_close(model.logits(p, task.inputs), expected, rtol=0, atol=1e-10)


def test_form_of_the_equation_does_not_change_an_mlp():
    expected = None
    for form in ("a b =", "a ∘ b =", "a b"):
        task = tasks.build(TaskConfig(p=5, form=form))
        model = families.build(ModelConfig(family="mlp", mlp=MlpConfig(d_hidden=6)), task)
        weights = torch.zeros(2, model.d_vocab, 6).double()
        weights[:, :5] = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0)).double()
        W_U = torch.randn(6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        parameters = {
            "mlp.0.W_in": weights.flatten(0, 1),
            "mlp.0.b_in": torch.ones(6).double(),
            "unembed.W_U": W_U,
            "unembed.b_U": torch.zeros(5).double(),
        }
        logits = model.logits(parameters, task.inputs)
        expected = logits if expected is None else expected
        torch.testing.assert_close(logits, expected)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_mlps_can_be_vmapped_and_differentiated_twice():
    model, task = mlp_model(act_fn="quadratic")
    members = [random_parameters(model, seed) for seed in range(2)]
    stacked = {name: torch.stack([member[name] for member in members]) for name in model.shapes}

    def loss(parameters):
        return losses.cross_entropy(model.logits(parameters, task.inputs), task.labels).mean()

    gradients = torch.func.vmap(torch.func.grad(loss))(stacked)
    for i, member in enumerate(members):
        for name, gradient in torch.func.grad(loss)(member).items():
            torch.testing.assert_close(gradients[name][i], gradient)
    direction, step = members[1], 1e-5
    product = torch.func.jvp(torch.func.grad(loss), (members[0],), (direction,))[1]
    after, before = (
        torch.func.grad(loss)({name: tensor + sign * step * direction[name] for name, tensor in members[0].items()})
        for sign in (1, -1)
    )
    for name in model.shapes:
        torch.testing.assert_close(product[name], (after[name] - before[name]) / (2 * step), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("combination", ["concatenated", "summed"])
def test_embedding_of_one_hot_operands_is_each_token_s_weights(combination: str):
    model, task = mlp_model(combination=combination)
    p = random_parameters(model)
    embedding = model.matrix("embedding")
    W_E, W_in = embedding.read(p), p["mlp.0.W_in"]
    n_slots = 2 if combination == "concatenated" else 1
    for token in range(model.d_vocab):
        rows = [W_in[slot * model.d_vocab + token] for slot in range(n_slots)]
        torch.testing.assert_close(W_E[token], torch.cat(rows))
    assert embedding.write is not None
    rewritten = embedding.write(p, 2 * W_E)
    torch.testing.assert_close(rewritten["mlp.0.W_in"], 2 * W_in)
    seen = {}
    model.logits(p, task.inputs, hook=lambda name, value: seen.setdefault(name, value))
    assert list(seen) == ["hook_embed", "mlp.0.hook_post"]
    first = [model.embedded_positions.index(position) for position in task.operand_positions][0]
    torch.testing.assert_close(seen["hook_embed"][:, first], W_in[task.operands[:, 0]])


def test_neurons_times_w_l_are_the_logits_without_bias():
    model, task = mlp_model()
    p = random_parameters(model)
    posts: list[torch.Tensor] = []
    logits = model.logits(p, task.inputs, hook=lambda name, value: (posts.append(value), value)[1])
    W_L = model.matrix("neuron_logits").read(p)
    torch.testing.assert_close(posts[-1][:, -1] @ W_L.mT + p["unembed.b_U"], logits)


def test_mlp_lacks_attention_and_a_residual_stream():
    model, task = mlp_model()
    with pytest.raises(LacksPartError, match="family 'mlp', has no attention"):
        model.require("attention", model.attention)
    with pytest.raises(GrokscopeError, match="HookedTransformer cannot represent the family 'mlp'"):
        model.hooked_transformer(model.initialize(0))
    assert [name for name in model.shapes if name not in model.trained] == ["mlp.0.b_in", "unembed.b_U"]


def test_mean_squared_error_is_that_of_torch():
    logits = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(7) % 5
    computed = losses.cross_entropy(logits, labels, function="mse").mean()
    torch.testing.assert_close(computed, F.mse_loss(logits, F.one_hot(labels, 5).double()))
