"""The draw of Nanda et al. 2023, against their sequence of calls written by hand."""

import random

import numpy as np
import pytest
import torch

from grokscope import tasks
from grokscope.config import presets
from grokscope.model import families

D_MODEL, D_VOCAB, D_HEAD, N_HEADS, D_MLP, N_CTX, P = 128, 114, 32, 4, 512, 3, 113


@pytest.fixture
def global_draw() -> dict[str, torch.Tensor]:
    """The tensors that their code draws from torch's global generator, in their order and layout."""
    state = torch.get_rng_state()
    torch.manual_seed(0)
    root = np.sqrt(D_MODEL)
    draw = {
        "W_E": torch.randn(D_MODEL, D_VOCAB) / root,
        "W_pos": torch.randn(N_CTX, D_MODEL) / root,
        "W_K": torch.randn(N_HEADS, D_HEAD, D_MODEL) / root,
        "W_Q": torch.randn(N_HEADS, D_HEAD, D_MODEL) / root,
        "W_V": torch.randn(N_HEADS, D_HEAD, D_MODEL) / root,
        "W_O": torch.randn(D_MODEL, D_HEAD * N_HEADS) / root,
        "W_in": torch.randn(D_MLP, D_MODEL) / root,
        "W_out": torch.randn(D_MODEL, D_MLP) / root,
        "W_U": torch.randn(D_MODEL, D_VOCAB) / np.sqrt(D_VOCAB),
    }
    torch.set_rng_state(state)
    return draw


def test_mainline_weights_are_the_published_draw(global_draw: dict[str, torch.Tensor]):
    config = presets.get("nanda2023-mainline")
    state = torch.get_rng_state()
    parameters = families.build(config.model, tasks.build(config.task)).initialize(config.init_seed)
    assert torch.equal(torch.get_rng_state(), state), "the global generator must not be touched"
    block, theirs = "blocks.0", global_draw
    assert torch.equal(parameters["embed.W_E"], theirs["W_E"].T)
    assert torch.equal(parameters["pos_embed.W_pos"], theirs["W_pos"])
    for name in ("W_K", "W_Q", "W_V"):
        assert torch.equal(parameters[f"{block}.attn.{name}"], theirs[name].transpose(1, 2))
    heads = torch.stack(theirs["W_O"].split(D_HEAD, dim=1)).transpose(1, 2)
    assert torch.equal(parameters[f"{block}.attn.W_O"], heads)
    assert torch.equal(parameters[f"{block}.mlp.W_in"], theirs["W_in"].T)
    assert torch.equal(parameters[f"{block}.mlp.W_out"], theirs["W_out"].T)
    assert torch.equal(parameters["unembed.W_U"], theirs["W_U"])
    biases = [tensor for name, tensor in parameters.items() if ".b_" in name]
    assert len(biases) == 7 and not any(tensor.any() for tensor in biases)


def test_mainline_split_is_the_published_shuffle():
    config = presets.get("nanda2023-mainline")
    task, split = tasks.load(config.task, config.split_seed)
    state = random.getstate()
    random.seed(0)
    pairs = [(i, j, 113) for i in range(P) for j in range(P)]
    random.shuffle(pairs)
    random.setstate(state)
    expected = sorted(pairs[: int(0.3 * len(pairs))])
    assert [tuple(row) for row in task.inputs[split.train].tolist()] == expected
    assert len(expected) == 3830 and len(split.test) == P * P - 3830


def test_mainline_model_has_an_output_that_is_no_answer():
    config = presets.get("nanda2023-mainline")
    task = tasks.build(config.task)
    model = families.build(config.model, task)
    assert model.d_vocab_out == 114 and task.d_vocab_out == 113 and int(task.labels.max()) == 112
    assert model.logits(model.initialize(0), task.inputs[:2]).shape == (2, 114)
