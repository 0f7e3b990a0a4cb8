"""The model against HookedTransformer's own forward, for every architecture that a config admits.

HookedTransformer is an independent oracle: it computes every position of every example with einsums and hooks of
its own, and shares with `Model.logits` the parameters' names alone.
"""

import functools
import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from grokscope import tasks
from grokscope.config import ModelConfig, TaskConfig
from grokscope.config.run_config import TOKEN_FORMS
from grokscope.model import forward, losses, transformer

ARCHITECTURES = [
    {"n_layers": n_layers, "act_fn": act_fn, "normalization_type": norm, "biases": biases}
    for n_layers, act_fn, norm, biases in product((1, 2, 3), ("relu", "gelu"), (None, "LN"), ("all", "mlp", "none"))
]
# At its first vmap torch imports its decompositions, one of which still calls torch.jit.script.
VMAP = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


def build(form: str = "a b =", *, p: int = 5, d_model: int = 8, n_heads: int = 2, d_mlp: int = 12, **changes):
    """Return a small model and the task that it is for."""
    task = tasks.build(TaskConfig(p=p, form=form))
    config = ModelConfig(d_model=d_model, n_heads=n_heads, d_mlp=d_mlp, **changes)
    return transformer.build(config, task), task


def scattered(model: transformer.Model, seed: int = 0, scale: float = 0.5) -> dict[str, torch.Tensor]:
    """Return float64 parameters none of which is zero or one, so that each can be seen in the logits."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64) * scale + (name.endswith(".w"))
        for name, shape in model.shapes.items()
    }


def assert_agrees_with_hooked(model: transformer.Model, task: tasks.Task) -> None:
    parameters = {name: one.requires_grad_() for name, one in scattered(model).items()}
    hooked = model.hooked(parameters)
    logits = model.logits(parameters, task.inputs)
    expected = hooked(task.inputs)[:, -1]
    assert logits.dtype == expected.dtype == torch.float64
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = torch.autograd.grad((logits * weights).sum(), list(parameters.values()))
    (expected * weights).sum().backward()
    theirs = dict(hooked.named_parameters())
    assert set(theirs) == set(parameters)
    for name, gradient in zip(parameters, gradients, strict=True):
        torch.testing.assert_close(gradient, theirs[name].grad, rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("form", TOKEN_FORMS)
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda one: "-".join(map(str, one.values())))
def test_logits_and_gradients_are_hooked_transformers(architecture, form):
    assert_agrees_with_hooked(*build(form, **architecture))


@pytest.mark.parametrize("n_heads", [1, 4, 8])
def test_any_number_of_heads_that_divides_d_model_agrees(n_heads):
    assert_agrees_with_hooked(*build(n_layers=2, n_heads=n_heads, normalization_type="LN"))


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda one: "-".join(map(str, one.values())))
def test_shapes_are_hooked_transformers_and_frozen_biases_are_not_trained(architecture):
    model, _ = build(**architecture)
    hooked = model.hooked(model.initialize(0))
    assert model.shapes == {name: tuple(one.shape) for name, one in hooked.named_parameters()}
    assert hooked.cfg.eps == 1e-5, "LayerNorm's ε is TransformerLens' own"
    biases = {name for name in model.shapes if name.split(".")[-1].startswith("b_")}
    in_the_mlp = {name for name in biases if ".mlp." in name}
    frozen = {"all": set(), "mlp": biases - in_the_mlp, "none": biases}[architecture["biases"]]
    assert set(model.trained) == set(model.shapes) - frozen


@pytest.mark.parametrize("n_layers", [1, 2])
def test_an_answer_depends_on_its_own_tokens_alone(n_layers):
    """What is shared between examples is looked up, not mixed: any batch in any order gives the same rows."""
    model, task = build(n_layers=n_layers, normalization_type="LN")
    parameters = scattered(model)
    chosen = torch.tensor([17, 3, 3, 24, 0])
    torch.testing.assert_close(
        model.logits(parameters, task.inputs[chosen]), model.logits(parameters, task.inputs)[chosen]
    )


@VMAP
@pytest.mark.parametrize(("n_layers", "norm"), [(1, None), (1, "LN"), (2, None), (2, "LN")])
def test_many_models_at_once_are_each_alone(n_layers, norm):
    model, task = build(n_layers=n_layers, normalization_type=norm)
    several = [scattered(model, seed) for seed in range(3)]
    stacked = {name: torch.stack([one[name] for one in several]) for name in model.shapes}

    def loss(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        return losses.cross_entropy(model.logits(parameters, task.inputs), task.labels).mean()

    together = torch.func.vmap(lambda parameters: model.logits(parameters, task.inputs))(stacked)
    gradients = torch.func.vmap(torch.func.grad(loss))(stacked)
    for i, alone in enumerate(several):
        torch.testing.assert_close(together[i], model.logits(alone, task.inputs))
        leaves = {name: one.clone().requires_grad_() for name, one in alone.items()}
        expected = torch.autograd.grad(loss(leaves), list(leaves.values()))
        for name, gradient in zip(leaves, expected, strict=True):
            torch.testing.assert_close(gradients[name][i], gradient)


@pytest.mark.parametrize("form", TOKEN_FORMS)
@pytest.mark.parametrize(("n_layers", "norm"), [(1, None), (1, "LN"), (2, "LN"), (3, None)])
def test_the_second_derivative_is_the_difference_of_gradients(n_layers, norm, form):
    """Central differences of the gradient know nothing of double backward; their error is of order ε²."""
    model, task = build(form, n_layers=n_layers, normalization_type=norm, act_fn="gelu")
    parameters, direction = scattered(model, scale=0.25), scattered(model, seed=1)

    def gradient(at: float, create_graph: bool = False):
        leaves = {name: (one + at * direction[name]).requires_grad_() for name, one in parameters.items()}
        loss = losses.cross_entropy(model.logits(leaves, task.inputs), task.labels).mean()
        return list(leaves.values()), torch.autograd.grad(loss, list(leaves.values()), create_graph=create_graph)

    leaves, first = gradient(0.0, create_graph=True)
    along = torch.stack([(g * direction[name]).sum() for name, g in zip(parameters, first, strict=True)]).sum()
    second = torch.autograd.grad(along, leaves, materialize_grads=True)
    ahead, behind = gradient(1e-5)[1], gradient(-1e-5)[1]
    for exact, more, less in zip(second, ahead, behind, strict=True):
        torch.testing.assert_close(exact, (more - less) / 2e-5, rtol=1e-5, atol=1e-7)


def test_hooked_is_a_copy_for_hooks_and_caches():
    model, task = build(n_layers=2)
    parameters = model.initialize(0)
    before = {name: one.clone() for name, one in parameters.items()}
    hooked = model.hooked(parameters)
    logits, cache = hooked.run_with_cache(task.inputs)
    assert cache["pattern", 0].shape == (25, 2, 3, 3)
    answers = torch.as_tensor(logits)[:, -1]
    torch.testing.assert_close(answers, model.logits(parameters, task.inputs), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        for one in hooked.parameters():
            one.add_(1)
    assert all(torch.equal(parameters[name], before[name]) for name in before)


def test_nothing_touches_a_global_generator():
    """HookedTransformerConfig would reset torch's, NumPy's and Python's. beartype itself draws from Python's."""
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()  # pyright: ignore
    model, task = build()
    parameters = model.initialize(3)
    model.hooked(parameters)
    losses.evaluate(model, parameters, task.inputs, task.labels)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.random.get_state()[1].tolist() == numpy_state  # pyright: ignore


def test_initial_weights_have_the_papers_deviations():
    model, _ = build(p=113, d_model=128, n_heads=4, d_mlp=512, normalization_type="LN")
    for name, one in model.initialize(0).items():
        kind = name.split(".")[-1]
        assert one.dtype == torch.float32
        if kind.startswith("W_"):
            expected = (114 if kind == "W_U" else 128) ** -0.5
            # The standard error of a normal sample's deviation is σ/√(2n), that of its mean σ/√n.
            assert abs(one.std() / expected - 1) < 4 / (2 * one.numel()) ** 0.5
            assert abs(one.mean()) < 4 * expected / one.numel() ** 0.5
        else:
            assert (one == (1 if kind == "w" else 0)).all()


def test_an_initialization_is_a_function_of_the_seed_with_a_stream_for_each_tensor():
    model, _ = build(n_layers=2)
    first, again, other = model.initialize(0), model.initialize(0), model.initialize(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    weights = [name for name in first if ".W_" in name]
    assert not any(torch.equal(first[name], other[name]) for name in weights)
    # No two tensors of one shape are alike, and a deeper model begins like a shallower one.
    assert len({tuple(first[name].flatten()[:4].tolist()) for name in weights}) == len(weights)
    shallow = build(n_layers=1)[0].initialize(0)
    assert all(torch.equal(shallow[name], first[name]) for name in shallow)


def test_init_scale_multiplies_every_weight_matrix_and_nothing_else():
    plain, scaled = (build(init_scale=s, normalization_type="LN")[0].initialize(0) for s in (1.0, 4.0))
    for name, one in plain.items():
        torch.testing.assert_close(scaled[name], one * (4 if ".W_" in name else 1))


def test_faults_name_every_missing_unknown_and_misshapen_parameter():
    model, _ = build()
    parameters = model.initialize(0)
    assert model.faults(parameters) == []
    del parameters["embed.W_E"]
    parameters["blocks.0.attn.W_Q"] = torch.zeros(2, 8, 3)
    parameters["head.weight"] = torch.zeros(1)
    found = model.faults(parameters)
    assert len(found) == 3
    assert any("embed.W_E is missing" in one for one in found)
    assert any("head.weight is unknown" in one for one in found)
    assert any("blocks.0.attn.W_Q" in one and "(2, 8, 3)" in one and "(2, 8, 4)" in one for one in found)


def test_equal_logits_cost_the_logarithm_of_their_number():
    found = losses.cross_entropy(torch.full((3, 59), 7.0), torch.tensor([0, 5, 58]))
    torch.testing.assert_close(found, torch.full((3,), math.log(59), dtype=torch.float64))


@pytest.mark.parametrize("margin", [4.0, 18.0, 24.0, 30.0])
def test_a_tiny_loss_is_exact_to_the_rounding_of_a_logit_in_float64(margin):
    """−log softmax = log(1 + (n − 1)e^−margin); the float32 setting is the control that loses it."""
    logits = torch.zeros(1, 59)
    logits[0, 7] = margin
    exact = math.log1p(58 * math.exp(-margin))
    found = losses.cross_entropy(logits, torch.tensor([7]), "float64")
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(exact, rel=1e-12, abs=margin * 2**-52)
    in_float32 = losses.cross_entropy(logits, torch.tensor([7]), "float32").item()
    assert (abs(in_float32 / exact - 1) < 1e-3) == (margin < 10)


def test_losses_are_cross_entropy():
    logits = torch.randn(20, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(20) % 7
    expected = F.cross_entropy(logits.double(), labels, reduction="none")
    torch.testing.assert_close(losses.cross_entropy(logits, labels), expected)


def test_evaluation_in_parts_is_evaluation_at_once(monkeypatch):
    model, task = build()
    parameters = scattered(model)
    loss, right = losses.evaluate(model, parameters, task.inputs, task.labels)
    logits = model.logits(parameters, task.inputs)
    torch.testing.assert_close(loss, F.cross_entropy(logits, task.labels, reduction="none"))
    assert right.tolist() == (logits.argmax(-1) == task.labels).tolist()
    monkeypatch.setattr(forward, "_AT_ONCE", 7)
    monkeypatch.setattr(losses, "AT_ONCE", 7)
    parts = losses.evaluate(model, parameters, task.inputs, task.labels)
    torch.testing.assert_close(parts[0], loss)
    assert parts[1].tolist() == right.tolist()


def test_evaluation_builds_no_graph():
    model, task = build()
    parameters = {name: one.requires_grad_() for name, one in scattered(model).items()}
    assert not losses.evaluate(model, parameters, task.inputs, task.labels)[0].requires_grad


def answers_with_masks(
    model: transformer.Model,
    parameters: dict[str, torch.Tensor],
    tokens: torch.Tensor,
    masks: dict[str, torch.Tensor],
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return HookedTransformer's answers, and its parameters, with hooks that multiply by the masks.

    A mask of the answer position alone leaves the other positions of its block as they are.
    """
    hooked = model.hooked(parameters)

    def multiply(mask: torch.Tensor, value: torch.Tensor, hook: Any) -> torch.Tensor:
        return torch.cat([value[:, : -mask.shape[1]], value[:, -mask.shape[1] :] * mask], dim=1)

    hooks = [(name, functools.partial(multiply, mask)) for name, mask in masks.items()]
    logits = hooked.run_with_hooks(tokens, fwd_hooks=hooks)  # pyright: ignore[reportArgumentType]
    return torch.as_tensor(logits)[:, -1], dict(hooked.named_parameters())


@pytest.mark.parametrize("form", TOKEN_FORMS)
@pytest.mark.parametrize(("n_layers", "norm"), list(product((1, 2, 3), (None, "LN"))))
def test_dropout_masks_are_hooks_on_hooked_transformers_sublayers(n_layers: int, norm: str | None, form: str):
    model, task = build(form, n_layers=n_layers, normalization_type=norm, biases="all")
    parameters = {name: one.requires_grad_() for name, one in scattered(model).items()}
    masks = model.dropout_masks(len(task.inputs), 0.4, torch.Generator().manual_seed(0))
    logits = model.logits(parameters, task.inputs, masks)
    expected, theirs = answers_with_masks(model, parameters, task.inputs, masks)
    assert logits.dtype == torch.float64
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)
    gradients = torch.autograd.grad(F.cross_entropy(logits, task.labels), list(parameters.values()))
    F.cross_entropy(expected, task.labels).backward()
    for name, gradient in zip(parameters, gradients, strict=True):
        torch.testing.assert_close(gradient, theirs[name].grad, rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")
    # Each mask matters, and with none it is the plain forward.
    for name in masks:
        others = {one: mask if one != name else torch.ones_like(mask) for one, mask in masks.items()}
        assert not torch.allclose(model.logits(parameters, task.inputs, others), logits, atol=1e-3)
    ones = {name: torch.ones_like(mask) for name, mask in masks.items()}
    torch.testing.assert_close(model.logits(parameters, task.inputs, ones), model.logits(parameters, task.inputs))


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_masks_have_mean_one_and_two_values_and_the_positions_that_are_computed(probability: float):
    model, task = build("a ∘ b =", n_layers=3, d_model=32)
    masks = model.dropout_masks(400, probability, torch.Generator().manual_seed(1))
    assert list(masks) == [f"blocks.{layer}.hook_{part}_out" for layer in range(3) for part in ("attn", "mlp")]
    assert set(masks) <= set(model.hooked(model.initialize(0)).hook_dict)
    kept = float(np.float32(1) / np.float32(1 - probability))
    for name, mask in masks.items():
        assert mask.shape == (400, 1 if name.startswith("blocks.2.") else task.n_ctx, 32)
        assert mask.dtype == torch.float32
        assert mask.unique().tolist() == [0.0, pytest.approx(kept, rel=1e-6)]
        # The variance of one element is p/(1 − p).
        assert abs(mask.mean() - 1) < 4 * (probability / (1 - probability) / mask.numel()) ** 0.5
    flat = np.array([mask[:, -1].numpy().ravel() for mask in masks.values()])
    assert abs(np.corrcoef(flat) - np.eye(6)).max() < 5 / flat.shape[1] ** 0.5
    again = model.dropout_masks(400, probability, torch.Generator().manual_seed(1))
    other = model.dropout_masks(400, probability, torch.Generator().manual_seed(2))
    assert all(torch.equal(again[name], mask) and not torch.equal(other[name], mask) for name, mask in masks.items())


@pytest.mark.parametrize(("d_model", "n_heads"), [(8, 2), (128, 4), (7, 1)])
def test_sinusoids_are_those_of_the_paper(d_model: int, n_heads: int):
    """Vaswani et al. 2017, section 3.5: PE(pos, 2i) = sin(pos/10000^(2i/d)), PE(pos, 2i + 1) = cos of the same."""
    model, task = build("a ∘ b =", d_model=d_model, n_heads=n_heads, positions="sinusoidal", init_scale=3.0)
    expected = np.empty((4, d_model))
    for position in range(4):
        for column in range(d_model):
            angle = position / 10_000 ** (2 * (column // 2) / d_model)
            expected[position, column] = math.cos(angle) if column % 2 else math.sin(angle)
    for seed in (0, 1):
        found = model.initialize(seed)["pos_embed.W_pos"]
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=6e-8)
    parameters = model.initialize(0)
    answers = torch.as_tensor(model.hooked(parameters)(task.inputs))[:, -1]
    torch.testing.assert_close(model.logits(parameters, task.inputs), answers, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("biases", ["all", "mlp", "none"])
def test_sinusoids_are_not_trained_and_nothing_else_changes_place(biases: str):
    learned, sinusoidal = (build(biases=biases, positions=one)[0] for one in ("learned", "sinusoidal"))
    assert set(learned.trained) - set(sinusoidal.trained) == {"pos_embed.W_pos"}
    assert [name for name in learned.trained if name != "pos_embed.W_pos"] == list(sinusoidal.trained)
    assert learned.shapes == sinusoidal.shapes
    first, second = learned.initialize(0), sinusoidal.initialize(0)
    assert all(torch.equal(first[name], second[name]) for name in sinusoidal.trained)


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_init_torch_is_what_torch_s_own_layers_do(scale: float):
    """Each matrix beside a fresh torch.nn.Linear or Embedding of its sizes: the same law, and bounds."""
    model, task = build(
        p=97, d_model=96, n_heads=4, d_mlp=200, normalization_type="LN", n_layers=2, init="torch", init_scale=scale
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        linear = {
            "W_U": torch.nn.Linear(96, 97),
            "W_in": torch.nn.Linear(96, 200),
            "W_out": torch.nn.Linear(200, 96),
            **{f"W_{name}": torch.nn.Linear(96, 96) for name in "QKVO"},
        }
        embedding = {"W_E": torch.nn.Embedding(98, 96), "W_pos": torch.nn.Embedding(3, 96)}
        theirs = {kind: layer.weight.detach() * scale for kind, layer in (linear | embedding).items()}
    seen = set()
    for name, one in model.initialize(0).items():
        kind = name.split(".")[-1]
        assert one.dtype == torch.float32
        if not kind.startswith("W_"):
            assert (one == (1 if kind == "w" else 0)).all()
            continue
        seen.add(kind)
        other, ours = theirs[kind].flatten().numpy(), one.flatten().numpy()
        assert len(ours) == len(other)
        assert abs(ours.mean()) < 4 * other.std() / len(ours) ** 0.5
        if kind in embedding:
            assert abs(ours.std() / scale - 1) < 4 / (2 * len(ours)) ** 0.5
            assert stats.kstest(ours / scale, "norm").pvalue > 1e-3
        else:
            bound = scale / linear[kind].in_features ** 0.5
            assert 0.999 * bound < abs(ours).max() <= bound * (1 + 1e-6)
            assert 0.999 * bound < abs(other).max() <= bound * (1 + 1e-6)
            # The standard error of a uniform sample's deviation is σ/√(5n).
            assert abs(ours.std() / (bound / 3**0.5) - 1) < 4 / (5 * len(ours)) ** 0.5
            assert stats.kstest(ours, "uniform", (-bound, 2 * bound)).pvalue > 1e-3
        # The distance of two samples of n with the same law is above 1.95 √(2/n) once in a thousand times.
        assert stats.ks_2samp(ours, other).statistic < 1.95 * (2 / len(ours)) ** 0.5  # pyright: ignore
    assert seen == set(theirs)


def naive_stablemax(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return −log(s(x)/Σ s) as Prieto et al. write it in their equation 5, branch by branch."""
    s = torch.stack([torch.stack([x + 1 if x >= 0 else 1 / (1 - x) for x in row]) for row in logits])
    return -(s / s.sum(-1, keepdim=True)).log()[torch.arange(len(labels)), labels]


@pytest.mark.parametrize("size", [1e-3, 1.0, 50.0, 1e4])
def test_stablemax_and_its_gradient_are_those_of_the_naive_formula(size: float):
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * size
    logits[2] = 0.0
    logits[3, :3] = 0.0
    labels = torch.tensor([0, 1, 2, 1, 4, 3])
    found, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss, expected = losses.cross_entropy(found, labels, "float64", "stablemax"), naive_stablemax(theirs, labels)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    loss.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(found.grad, theirs.grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_at_a_logit_of_exactly_zero_stablemax_has_the_derivative_one(zero: float, dtype: str):
    """Of n equal zeros, d(−log p)/dx is 1/n for the others and 1/n − 1 for the label: log s has slope 1 there."""
    logits = torch.full((1, 4), zero, requires_grad=True)
    losses.cross_entropy(logits, torch.tensor([1]), dtype, "stablemax").sum().backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[0.25, -0.75, 0.25, 0.25]]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_stablemax_is_finite_and_right_at_huge_logits_and_so_is_its_gradient(dtype: str):
    x, n = 1e6, 3
    logits = torch.tensor([[x, -x, 0.0], [-x, x, 0.0], [x, x, x], [-x, -x, -x]], requires_grad=True)
    found = losses.cross_entropy(logits, torch.tensor([0, 0, 0, 0]), dtype, "stablemax")
    total = (x + 1) + 1 / (1 + x) + 1
    expected = [-math.log((x + 1) / total), math.log((1 + x) * total), math.log(n), math.log(n)]
    assert found.dtype == getattr(torch, dtype)
    rounding = 1e-5 if dtype == "float32" else 1e-9
    assert found.tolist() == pytest.approx(expected, rel=rounding, abs=rounding)
    found.sum().backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


def test_stablemax_falls_like_a_power_where_softmax_collapses():
    """The loss of a margin of 1e3: 1 − p is zero to softmax's rounding, to stablemax it is about n/margin."""
    logits = torch.zeros(1, 5, dtype=torch.float64)
    logits[0, 2] = 1e3
    softmax, stablemax = (
        losses.cross_entropy(logits, torch.tensor([2]), "float64", one) for one in ("softmax", "stablemax")
    )
    assert softmax.item() == 0
    assert stablemax.item() == pytest.approx(math.log1p(4 / 1001), rel=1e-9)


def test_stablemax_changes_the_loss_and_nothing_that_is_right_and_softmax_stays_the_default():
    model, task = build()
    parameters = scattered(model)
    plain = losses.evaluate(model, parameters, task.inputs, task.labels)
    for function in ("softmax", "stablemax"):
        loss, right = losses.evaluate(model, parameters, task.inputs, task.labels, "float64", function)
        assert torch.equal(right, plain[1])
        assert torch.equal(loss, plain[0]) == (function == "softmax")
    logits = model.logits(parameters, task.inputs)
    torch.testing.assert_close(loss, naive_stablemax(logits, task.labels))
    assert torch.equal(
        losses.cross_entropy(logits, task.labels), losses.cross_entropy(logits, task.labels, "float64", "softmax")
    )
