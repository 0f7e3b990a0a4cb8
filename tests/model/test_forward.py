"""The three forms of the forward pass against each other, and which of them is chosen."""

from itertools import product

import pytest
import torch

from grokscope import tasks
from grokscope.config import ModelConfig, TaskConfig
from grokscope.config.run_config import TOKEN_FORMS
from grokscope.model import forward, transformer
from grokscope.model.equation_batch import Equations

ARCHITECTURES = [
    ModelConfig(n_layers=n_layers, d_model=8, n_heads=2, d_mlp=12, act_fn=act_fn, normalization_type=norm)
    for n_layers, act_fn, norm in product((1, 2, 3), ("relu", "gelu"), (None, "LN"))
]


def prepared(config: ModelConfig, form: str):
    """Return a model, a part of its task's equations, and float64 parameters none of which is zero or one."""
    task = tasks.build(TaskConfig(p=5, form=form))
    model = transformer.build(config, task)
    generator = torch.Generator().manual_seed(0)
    parameters = {
        name: (
            torch.randn(shape, generator=generator, dtype=torch.float64) / 2 + name.endswith(".w")
        ).requires_grad_()
        for name, shape in model.shapes.items()
    }
    return model, model.equations(task.inputs[torch.randperm(25, generator=generator)[:9]]), parameters


def derivatives(logits: torch.Tensor, parameters: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Return logits, gradients, and the Hessian's product with a fixed vector, of a scalar that is not linear."""
    leaves = list(parameters.values())
    loss = logits.log_softmax(-1)[:, 0].square().mean()
    first = torch.autograd.grad(loss, leaves, create_graph=True)
    generator = torch.Generator().manual_seed(1)
    drawn = [torch.randn(g.shape, generator=generator, dtype=g.dtype) for g in first]
    along = torch.stack([(g * direction).sum() for g, direction in zip(first, drawn, strict=True)]).sum()
    second = torch.autograd.grad(along, leaves, materialize_grads=True)
    return [logits, *first, *second]


@pytest.mark.parametrize("form", TOKEN_FORMS)
@pytest.mark.parametrize("config", ARCHITECTURES, ids=lambda c: f"{c.n_layers}-{c.act_fn}-{c.normalization_type}")
def test_every_form_that_applies_is_the_plain_one(config: ModelConfig, form: str):
    _, equations, parameters = prepared(config, form)
    expected = derivatives(forward.plain(config, parameters, equations.tokens), parameters)
    forms = [forward.shared] + [forward.merged] * (config.n_layers == 1 and config.normalization_type is None)
    for one in forms:
        found = derivatives(one(config, parameters, equations), parameters)
        rounding = 1e-10 * max(float(theirs.detach().abs().max()) for theirs in expected)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=rounding)


@pytest.mark.parametrize(
    ("changes", "form"), [({}, "merged"), ({"n_layers": 2}, "shared"), ({"normalization_type": "LN"}, "shared")]
)
def test_the_cheapest_form_that_applies_is_chosen(monkeypatch: pytest.MonkeyPatch, changes: dict, form: str):
    config = ModelConfig(d_model=8, n_heads=2, d_mlp=12, **changes)
    model, equations, parameters = prepared(config, "a b =")
    called = []
    for name in ("plain", "shared", "merged"):
        monkeypatch.setattr(forward, name, lambda *_, name=name: called.append(name) or torch.zeros(9, 5))
    model.logits(parameters, equations)
    masks = model.dropout_masks(9, 0.5, torch.Generator())
    model.logits(parameters, equations, masks)
    other_ends = equations.tokens.clone()
    other_ends[0, -1] = 0
    model.logits(parameters, other_ends)
    assert called == [form, "plain", "plain"]


@pytest.mark.parametrize("norm", [None, "LN"])
def test_tokens_that_are_no_equations_of_the_task_are_computed_as_hooked_transformer_does(norm: str | None):
    """Any tokens at any position, one example or many, all alike or not."""
    config = ModelConfig(n_layers=2 if norm else 1, d_model=8, n_heads=2, d_mlp=12, normalization_type=norm)
    model, _, parameters = prepared(config, "a ∘ b =")
    hooked = model.hooked(parameters)
    drawn = torch.randint(0, model.d_vocab, (30, 4), generator=torch.Generator().manual_seed(2))
    same_operator, same_end, all_alike = drawn.clone(), drawn.clone(), drawn[:1].expand(4, -1)
    same_operator[:, 1] = 2
    same_end[:, 3] = 1
    for tokens in (drawn, same_operator, same_end, all_alike, drawn[:1]):
        torch.testing.assert_close(
            model.logits(parameters, tokens), torch.as_tensor(hooked(tokens))[:, -1], rtol=0, atol=1e-10
        )


def test_no_equations_have_no_logits():
    model, _, parameters = prepared(ModelConfig(d_model=8, n_heads=2, d_mlp=12), "a b =")
    assert model.logits(parameters, torch.empty(0, 3, dtype=torch.long)).shape == (0, 5)


def test_equations_know_what_their_tokens_have_in_common():
    cases = [
        ([[0, 1, 9], [2, 1, 9]], 2, True),
        ([[0, 1, 9], [2, 3, 9]], 1, True),
        ([[0, 7, 1, 9], [2, 7, 3, 9], [2, 7, 0, 9]], 2, True),
        ([[0, 7, 1, 9], [2, 7, 3, 8]], 2, False),
        ([[0, 6, 1, 9], [2, 7, 1, 9]], 1, True),
    ]
    for tokens, n_shared, same_end in cases:
        found = Equations.of(torch.tensor(tokens), 10, 2)
        assert (found.n_shared, found.same_end) == (n_shared, same_end)
        part = found[torch.tensor([1])]
        assert (part.n_shared, part.same_end, part.tokens.tolist()) == (n_shared, same_end, tokens[1:2])
