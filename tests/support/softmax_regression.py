"""A softmax regression, whose Hessian has a closed form."""

import torch


def softmax_regression() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return examples, labels and weights of a softmax regression, and its Hessian 1/N Σ (diag p − ppᵀ) ⊗ xxᵀ."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(30, 6, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 4, (30,), generator=generator)
    W = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    p = (X @ W.T).softmax(-1)
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    H = torch.einsum("nab,ni,nj->aibj", inner, X, X).reshape(24, 24) / 30
    return X, y, W, H
