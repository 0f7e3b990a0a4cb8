"""Layouts of torch modules: the imported network gives the logits of the module's own forward pass."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.foreign_modules import N_HEADS, NETS

from grokscope import Trajectory
from grokscope.config import RunConfig
from grokscope.errors import GrokscopeError
from grokscope.interop import layouts
from grokscope.interop.import_run import import_checkpoints

pytestmark = pytest.mark.filterwarnings("ignore:.*above chance", "ignore:.*accuracy")
CONFIG: dict[str, Any] = {"n_heads": N_HEADS, "act_fn": "GELU", "causal": True}
"""The config beside the weights, in the words of another program."""


def import_net(content: Any, folder: Path, **options: Any) -> Trajectory:
    path = folder / "step_60.pt"
    torch.save(content, path)
    return import_checkpoints([path], RunConfig(), "run", folder, is_described=False, **options)


@pytest.mark.parametrize("name", NETS)
def test_layout_gives_the_logits_of_its_module(name: str, tmp_path: Path):
    net = NETS[name]()
    run = import_net({"model": net.state_dict(), "config": CONFIG}, tmp_path)
    assert run.config.task.p == 7 and run.config.task.form == "a b ="
    with torch.no_grad():
        expected = net(run.task.inputs)
    assert float(expected.std()) > 0.1, "so equal logits mean something"
    logits = run.model.logits(run.last.parameters, run.task.inputs)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "net.", "transformer.", "grokker.inner."])
def test_prefix_leaves_the_same_parameters(prefix: str):
    state_dict = NETS["nanoGPT"]().state_dict()
    bare = layouts.read(state_dict)
    prefixed = layouts.read({prefix + name: value for name, value in state_dict.items()})
    assert bare is not None and prefixed is not None
    expected, parameters = (layout.to_transformer_lens(N_HEADS) for layout in (bare, prefixed))
    assert parameters.keys() == expected.keys()
    assert all(torch.equal(parameters[name], expected[name]) for name in expected)


def test_prefix_of_a_part_of_the_names_is_dropped():
    state_dict = NETS["nanoGPT"]().state_dict()
    partly = {name if "lm_head" in name else f"transformer.{name}": value for name, value in state_dict.items()}
    layout = layouts.read(partly)
    assert layout is not None and layout.unknown == ()
    assert layout.to_transformer_lens(N_HEADS)["unembed.W_U"].shape == (12, 7)


def test_tied_output_is_the_embedding():
    state_dict = {name: value for name, value in NETS["GPT-2"]().state_dict().items() if "lm_head" not in name}
    layout = layouts.read(state_dict)
    assert layout is not None
    parameters = layout.to_transformer_lens(N_HEADS)
    assert torch.equal(parameters["unembed.W_U"], parameters["embed.W_E"].T)


def test_unknown_heads_and_activation_are_asked(tmp_path: Path):
    state_dict = NETS["separate"]().state_dict()
    with pytest.raises(
        GrokscopeError, match=r"number of heads and the activation.* Add --model\.n-heads … --model\.act"
    ):
        import_net(state_dict, tmp_path, is_causal=True)
    assert not (tmp_path / "run").exists()


def test_unknown_tensor_is_named(tmp_path: Path):
    state_dict = {**NETS["separate"]().state_dict(), "probe.table": torch.ones(3)}
    content = {"model": state_dict, "config": CONFIG}
    with pytest.raises(GrokscopeError, match=r"probe\.table is unknown\n.*--leave-out probe\.table"):
        import_net(content, tmp_path)
    assert import_net(content, tmp_path, leave_out=["probe.table"]).steps.tolist() == [60]


def test_mask_that_hides_the_future_is_causal():
    state_dict = NETS["separate"]().state_dict()
    hidden = torch.full((3, 3), -torch.inf).triu(1)
    for mask in (torch.ones(3, 3).tril(), hidden, torch.ones(3, 3, dtype=torch.bool).triu(1)):
        layout = layouts.read({**state_dict, "blocks.0.self_attn.mask": mask})
        assert layout is not None and layout.facts["attention_dir"] == "causal"
    layout = layouts.read({**state_dict, "blocks.0.self_attn.mask": torch.ones(3, 3)})
    assert layout is not None and layout.facts["attention_dir"] == "bidirectional"


class PostNorm(torch.nn.Module):
    """A decoder of torch's own layers, with LayerNorm after each residual addition."""

    def __init__(self):
        super().__init__()
        self.embedding, self.pos_embedding = torch.nn.Embedding(8, 16), torch.nn.Embedding(3, 16)
        layer = torch.nn.TransformerEncoderLayer(16, 2, 24, 0.0, batch_first=True)
        self.encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.fc = torch.nn.Linear(16, 7)
        generator = torch.Generator().manual_seed(3)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 3

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the logits at the last position."""
        mask = torch.nn.Transformer.generate_square_subsequent_mask(3)
        return self.fc(self.encoder(self.embedding(tokens) + self.pos_embedding.weight, mask=mask)[:, -1])


def test_norm_after_the_residual_is_read_or_asked(tmp_path: Path):
    net = PostNorm().eval()
    config = {"nhead": 2, "activation": "relu", "causal": True}
    with pytest.raises(GrokscopeError, match=r"do not name its normalization\..*--model\.normalization-type LNPost"):
        import_net({"model": net.state_dict(), "config": config}, tmp_path)
    run = import_net({"model": net.state_dict(), "config": {**config, "norm_first": False}}, tmp_path)
    with torch.no_grad():
        expected = net(run.task.inputs)
    torch.testing.assert_close(run.model.logits(run.last.parameters, run.task.inputs), expected, rtol=1e-4, atol=1e-5)
