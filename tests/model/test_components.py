"""Components of a transformer, and vectors by component."""

import pytest
import torch

from grokscope.model.components import COMPONENTS, by_component, cosine, vectors


def test_parameters_are_grouped_in_the_components_order_and_none_is_lost():
    names = ["unembed.W_U", "blocks.0.mlp.W_in", "embed.W_E", "blocks.1.ln2.w", "ln_final.b"]
    found = by_component(names)
    assert list(found) == [one for one in COMPONENTS if one in ("embedding", "mlp", "unembedding")]
    assert found["mlp"] == ["blocks.0.mlp.W_in", "blocks.1.ln2.w"]
    assert found["unembedding"] == ["unembed.W_U", "ln_final.b"]
    tensors = {name: torch.full((2, i + 1), float(i)) for i, name in enumerate(names)}
    assert [one.tolist() for one in vectors(tensors, found)] == [
        [2.0] * 6, [1.0] * 4 + [3.0] * 8, [0.0] * 2 + [4.0] * 10,
    ]  # fmt: skip


def test_a_cosine_has_no_length_and_of_nothing_is_zero():
    a, b = torch.tensor([1.0, 1.0]).double(), torch.tensor([2.0, 0.0]).double()
    for scale in (1.0, 1e-30, 1e100):
        assert cosine(a * scale, b).item() == pytest.approx(0.5**0.5, rel=1e-12)
    assert cosine(a, 0 * b) == 0 and cosine(0 * a, 0 * b) == 0
    assert torch.isnan(cosine(a, b * torch.nan))
