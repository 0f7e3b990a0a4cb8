"""The merged loss and its explicit gradient against automatic differentiation of the plain form in float64."""

import dataclasses
from itertools import product

import pytest
import torch

from grokscope import tasks
from grokscope.config import ModelConfig, RunConfig, TaskConfig
from grokscope.model import families, forward, losses, merged, merged_loss
from grokscope.threads import Threads


def random_setup(act_fn: str, form: str, p: int = 5):
    """Return a model, all equations and answers of its task, and float64 parameters without zeros."""
    task = tasks.build(TaskConfig(p=p, form=form))
    model = families.build(ModelConfig(d_model=8, n_heads=2, d_mlp=12, act_fn=act_fn, biases="all"), task)
    generator = torch.Generator().manual_seed(0)
    parameters = {
        name: (torch.randn(shape, generator=generator, dtype=torch.float64) / 2).requires_grad_()
        for name, shape in model.shapes.items()
    }
    return model, model.equations(task.inputs), task.labels, parameters


def plain_loss(model, parameters, equations, labels) -> torch.Tensor:
    """Return the mean loss of the plain form, by torch's own cross-entropy."""
    logits = forward.plain(model.config, parameters, equations.tokens)
    return torch.nn.functional.cross_entropy(logits, labels)


@pytest.mark.parametrize(("act_fn", "form"), list(product(("relu", "gelu"), ("a b =", "a ∘ b ="))))
@pytest.mark.parametrize("n_values", [(2**18, 2**22), (7 * 32, 2**22), (3 * 32, 9 * 32)])
def test_gradient_agrees_with_the_plain_form(monkeypatch: pytest.MonkeyPatch, act_fn: str, form: str, n_values):
    monkeypatch.setattr(merged_loss, "_PART_VALUES", n_values[0])
    monkeypatch.setattr(merged_loss, "_BLOCK_VALUES", n_values[1])
    model, equations, labels, parameters = random_setup(act_fn, form)
    expected_loss = plain_loss(model, parameters, equations, labels)
    expected = torch.autograd.grad(expected_loss, [parameters[name] for name in model.trained])
    loss, gradients = losses.mean_loss_and_gradient(model, parameters, equations, labels, RunConfig())
    torch.testing.assert_close(loss, expected_loss.detach(), rtol=1e-12, atol=0)
    for name, theirs in zip(model.trained, expected, strict=True):
        torch.testing.assert_close(gradients[name], theirs, rtol=1e-9, atol=1e-10, msg=name)


def test_gradients_by_tables_agree_with_finite_differences():
    model, equations, labels, parameters = random_setup("gelu", "a b =")
    tables = merged.Tables(*(table.detach() for table in merged.tables(model.config, parameters, equations)))
    examples = merged_loss.Examples("gelu", equations, labels, torch.float64)
    _, gradients = merged_loss.value_and_gradient(tables, examples)
    generator = torch.Generator().manual_seed(1)
    for i, gradient in enumerate(gradients):
        direction = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
        ends = []
        for sign in (-1, 1):
            moved = list(tables)
            moved[i] = moved[i] + sign * 1e-5 * direction
            ends.append(merged_loss.value_and_gradient(merged.Tables(*moved), examples)[0])
        torch.testing.assert_close((ends[1] - ends[0]) / 2e-5, (gradient * direction).sum(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("norm", [None, "LN"])
def test_bits_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch, norm: str | None):
    monkeypatch.setattr(merged_loss, "_PART_VALUES", 3 * 32)
    monkeypatch.setattr(losses, "_PART_EXAMPLES", 6)
    model, equations, labels, parameters = random_setup("relu", "a b =")
    model = dataclasses.replace(model, config=dataclasses.replace(model.config, normalization_type=norm))
    parameters = {
        name: parameters.get(name, torch.ones(shape, dtype=torch.float64)).detach().float().requires_grad_()
        for name, shape in model.shapes.items()
    }
    results = []
    for n in (1, 2, 3):
        with Threads(n, over_parts=True).active():
            loss, gradients = losses.mean_loss_and_gradient(model, parameters, equations, labels, RunConfig())
            with torch.no_grad():
                results.append([loss, *gradients.values(), model.logits(parameters, equations)])
    assert losses.n_parts(model, equations, len(labels)) > 3
    for others in results[1:]:
        assert all(
            ours.numpy().tobytes() == theirs.numpy().tobytes()
            for ours, theirs in zip(results[0], others, strict=True)
        )


@pytest.mark.parametrize("loss", ["softmax", "stablemax"])
def test_parts_of_the_shared_form_sum_to_the_mean(monkeypatch: pytest.MonkeyPatch, loss: str):
    monkeypatch.setattr(losses, "_PART_EXAMPLES", 6)
    model, equations, labels, parameters = random_setup("relu", "a ∘ b =")
    model = dataclasses.replace(model, config=dataclasses.replace(model.config, normalization_type="LN"))
    parameters |= {
        name: torch.ones(shape, dtype=torch.float64, requires_grad=True)
        for name, shape in model.shapes.items()
        if name not in parameters
    }
    masks = {name: mask.double() for name, mask in model.dropout_masks(25, 0.5, torch.Generator()).items()}
    config = RunConfig(loss=loss)
    for dropout in (None, masks):
        logits = forward.plain(model.config, parameters, equations.tokens, dropout)
        expected = losses.cross_entropy(logits, labels, "float64", loss).mean()
        theirs = torch.autograd.grad(expected, [parameters[name] for name in model.trained])
        ours, gradients = losses.mean_loss_and_gradient(model, parameters, equations, labels, config, dropout)
        torch.testing.assert_close(ours, expected.detach(), rtol=1e-12, atol=0)
        for name, gradient in zip(model.trained, theirs, strict=True):
            torch.testing.assert_close(gradients[name], gradient, rtol=1e-9, atol=1e-10, msg=name)


@pytest.mark.parametrize("n_examples", [1, 25, 3830, 48_240])
def test_blocks_and_parts_cover_every_example_once(n_examples: int):
    sizes = merged_loss.block_sizes(n_examples, 640)
    assert sum(sizes) == n_examples and max(sizes) * 640 <= 2**22
    assert all(-(-size // merged_loss.n_parts(size, 640)) * 640 <= 5 * 2**16 for size in sizes)


def test_tiny_losses_keep_their_relative_precision():
    model, equations, labels, parameters = random_setup("relu", "a b =")
    scaled = {name: (tensor.detach() * 4).float().requires_grad_() for name, tensor in parameters.items()}
    with torch.no_grad():
        best = model.logits(scaled, equations).argmax(1)
    loss, _ = losses.mean_loss_and_gradient(model, scaled, equations, best, RunConfig())
    logits = model.logits(scaled, equations).detach().double()
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, best), rtol=1e-4, atol=0)
