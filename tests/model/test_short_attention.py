"""Attention over few keys against torch's own attention, with derivatives."""

import pytest
import torch

from grokscope.model import short_attention


@pytest.mark.parametrize(("n_queries", "n_keys"), [(1, 4), (2, 4), (3, 3), (2, 11)])
def test_attention_agrees_with_that_of_torch(n_queries: int, n_keys: int):
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    queries, keys_values, weights = random(5, n_queries, 6), random(5, n_keys, 12), random(5, n_queries, 6).detach()
    heads = [
        tensor.unflatten(2, (2, 3)).transpose(1, 2)
        for tensor in (queries, keys_values[..., :6], keys_values[..., 6:])
    ]
    mask = torch.ones(n_queries, n_keys, dtype=torch.bool).tril(n_keys - n_queries)
    # The backend without a kernel of its own can be differentiated twice.
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask).transpose(1, 2).flatten(2)
    results = []
    for z in (short_attention.attend(queries, keys_values, 2), expected):
        first = torch.autograd.grad((z**2 * weights).sum(), (queries, keys_values), create_graph=True)
        slope = torch.stack([(part**2).sum() for part in first]).sum()
        results.append([z, *first, *torch.autograd.grad(slope, (queries, keys_values))])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
