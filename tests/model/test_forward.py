"""The three forms of the forward pass against each other, and the choice between them."""

import dataclasses
from itertools import product

import pytest
import torch

from grokscope import tasks
from grokscope.config import ModelConfig, TaskConfig
from grokscope.config.task_config import TOKEN_FORMS
from grokscope.model import families, forward

ARCHITECTURES = [
    ModelConfig(n_layers=n_layers, d_model=8, n_heads=2, d_mlp=12, act_fn=act_fn, normalization_type=norm)
    for n_layers, act_fn, norm in product((1, 2, 3), ("relu", "gelu"), (None, "LN"))
]


def random_setup(config: ModelConfig, form: str):
    """Return a model, nine equations of its task, and float64 parameters without zeros or ones."""
    task = tasks.build(TaskConfig(p=5, form=form))
    model = families.build(config, task)
    generator = torch.Generator().manual_seed(0)
    parameters = {
        name: (
            torch.randn(shape, generator=generator, dtype=torch.float64) / 2 + name.endswith(".w")
        ).requires_grad_()
        for name, shape in model.shapes.items()
    }
    return model, model.equations(task.inputs[torch.randperm(25, generator=generator)[:9]]), parameters


def derivatives(logits: torch.Tensor, parameters: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Return the logits, and the gradient and a Hessian-vector product of a nonlinear function of them."""
    leaves = list(parameters.values())
    loss = logits.log_softmax(-1)[:, 0].square().mean()
    first = torch.autograd.grad(loss, leaves, create_graph=True)
    generator = torch.Generator().manual_seed(1)
    directions = [torch.randn(g.shape, generator=generator, dtype=g.dtype) for g in first]
    slope = torch.stack([(g * direction).sum() for g, direction in zip(first, directions, strict=True)]).sum()
    second = torch.autograd.grad(slope, leaves, materialize_grads=True)
    return [logits, *first, *second]


@pytest.mark.parametrize("form", TOKEN_FORMS)
@pytest.mark.parametrize("config", ARCHITECTURES, ids=lambda c: f"{c.n_layers}-{c.act_fn}-{c.normalization_type}")
def test_every_form_agrees_with_the_plain_form(config: ModelConfig, form: str):
    _, equations, parameters = random_setup(config, form)
    expected = derivatives(forward.plain(config, parameters, equations.tokens), parameters)
    is_mergeable = config.n_layers == 1 and config.normalization_type is None
    forms = [forward.shared, forward.merged] if is_mergeable else [forward.shared]
    for logits in forms:
        computed = derivatives(logits(config, parameters, equations), parameters)
        rounding = 1e-10 * max(float(theirs.detach().abs().max()) for theirs in expected)
        for ours, theirs in zip(computed, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=rounding)


@pytest.mark.parametrize(
    ("changes", "form"), [({}, "merged"), ({"n_layers": 2}, "shared"), ({"normalization_type": "LN"}, "shared")]
)
def test_logits_choose_the_cheapest_form_that_applies(monkeypatch: pytest.MonkeyPatch, changes: dict, form: str):
    config = ModelConfig(d_model=8, n_heads=2, d_mlp=12, **changes)
    model, equations, parameters = random_setup(config, "a b =")
    calls = []
    for name in ("plain", "shared", "merged"):
        monkeypatch.setattr(forward, name, lambda *_, name=name: calls.append(name) or torch.zeros(9, 5))
    model.logits(parameters, equations)
    masks = model.dropout_masks(9, 0.5, torch.Generator())
    model.logits(parameters, equations, masks)
    mixed_ends = equations.tokens.clone()
    mixed_ends[0, -1] = 0
    model.logits(parameters, mixed_ends)
    assert calls == [form, "plain", "plain"]


@pytest.mark.parametrize("norm", [None, "LN"])
def test_arbitrary_tokens_agree_with_hooked_transformer(norm: str | None):
    """Covers any token at any position, one example and many, and identical examples."""
    config = ModelConfig(n_layers=2 if norm else 1, d_model=8, n_heads=2, d_mlp=12, normalization_type=norm)
    model, _, parameters = random_setup(config, "a ∘ b =")
    hooked = model.hooked_transformer(parameters)
    random = torch.randint(0, model.d_vocab, (30, 4), generator=torch.Generator().manual_seed(2))
    same_operator, same_end, identical = random.clone(), random.clone(), random[:1].expand(4, -1)
    same_operator[:, 1] = 2
    same_end[:, 3] = 1
    for tokens in (random, same_operator, same_end, identical, random[:1]):
        torch.testing.assert_close(
            model.logits(parameters, tokens), torch.as_tensor(hooked(tokens))[:, -1], rtol=0, atol=1e-10
        )


def test_empty_batch_has_empty_logits():
    model, _, parameters = random_setup(ModelConfig(d_model=8, n_heads=2, d_mlp=12), "a b =")
    assert model.logits(parameters, torch.empty(0, 3, dtype=torch.long)).shape == (0, 5)


@pytest.mark.parametrize(("n_layers", "norm"), [(1, None), (2, "LN")])
def test_logits_at_all_positions_agree_with_hooked(n_layers: int, norm: str | None):
    config = ModelConfig(n_layers=n_layers, d_model=8, n_heads=2, d_mlp=12, normalization_type=norm)
    single, equations, parameters = random_setup(config, "a ∘ b =")
    model = dataclasses.replace(single, has_all_positions=True)
    expected = torch.as_tensor(model.hooked_transformer(parameters)(equations.tokens))
    logits = model.logits(parameters, equations)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)
    masks = model.dropout_masks(9, 0.0, torch.Generator())
    torch.testing.assert_close(model.logits(parameters, equations, masks), expected, rtol=0, atol=1e-10)


def test_labels_with_positions_make_logits_at_all_positions():
    task = tasks.build(TaskConfig(p=5))
    config = ModelConfig(d_model=8, n_heads=2, d_mlp=12)
    sequences = dataclasses.replace(task, labels=task.inputs)
    assert not families.build(config, task).has_all_positions
    assert families.build(config, sequences).has_all_positions
