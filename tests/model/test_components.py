"""The grouping of parameters by component."""

import pytest
import torch

from grokscope.model.components import COMPONENTS, component_of, component_vectors, cosine, group_by_component


def test_groups_contain_every_parameter_in_order():
    names = ["unembed.W_U", "blocks.0.mlp.W_in", "embed.W_E", "blocks.1.ln2.w", "ln_final.b"]
    groups = group_by_component(names)
    assert list(groups) == [component for component in COMPONENTS if component in ("embedding", "mlp", "unembedding")]
    assert groups["mlp"] == ["blocks.0.mlp.W_in", "blocks.1.ln2.w"]
    assert groups["unembedding"] == ["unembed.W_U", "ln_final.b"]
    tensors = {name: torch.full((2, i + 1), float(i)) for i, name in enumerate(names)}
    assert [vector.tolist() for vector in component_vectors(tensors, groups)] == [
        [2.0] * 6, [1.0] * 4 + [3.0] * 8, [0.0] * 2 + [4.0] * 10,
    ]  # fmt: skip


def test_cosine_ignores_scale_and_is_zero_for_zero_vector():
    a, b = torch.tensor([1.0, 1.0]).double(), torch.tensor([2.0, 0.0]).double()
    for scale in (1.0, 1e-30, 1e100):
        assert cosine(a * scale, b).item() == pytest.approx(0.5**0.5, rel=1e-12)
    assert cosine(a, 0 * b) == 0 and cosine(0 * a, 0 * b) == 0
    assert torch.isnan(cosine(a, b * torch.nan))


@pytest.mark.parametrize("model", [{}, {"n_layers": 2, "normalization_type": "LN"}], ids=["one layer", "LayerNorm"])
def test_every_parameter_belongs_to_one_component(model, plant):
    components = {name: component_of(name) for name in plant({0: {}}, **model).model.shapes}
    assert components["embed.W_E"] == "embedding"
    assert components["unembed.W_U"] == components["unembed.b_U"] == "unembedding"
    assert components["pos_embed.W_pos"] == "positions" and components["blocks.0.attn.b_O"] == "attention"
    assert components["blocks.0.mlp.W_in"] == "mlp" and set(components.values()) == set(COMPONENTS)
    if model:
        assert (components["blocks.1.ln1.w"], components["blocks.1.ln2.b"]) == ("attention", "mlp")
        assert components["ln_final.w"] == "unembedding"


def test_parameter_of_another_package_has_a_component():
    groups = group_by_component(["table", "embed.W_E", "table.bias"])
    assert groups == {"embedding": ["embed.W_E"], "table": ["table", "table.bias"]}
