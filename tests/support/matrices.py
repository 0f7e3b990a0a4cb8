"""Symmetric matrices with planted spectra."""

import torch


def rotation(n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q


def matrix(eigenvalues: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Return a symmetric matrix with these eigenvalues, in a random basis."""
    Q = rotation(len(eigenvalues), seed)
    return Q * eigenvalues @ Q.T


SPECTRA = {
    "one outlier": torch.cat([torch.linspace(0, 1, 199), torch.tensor([50.0])]),
    "a large negative end": torch.cat([torch.linspace(-1e3, 0, 150), torch.linspace(0, 2, 50)]),
    "all negative": torch.linspace(-5, -1, 80),
    "a gap of one percent at the top": torch.cat([torch.linspace(0, 50, 198), torch.tensor([99.0, 100.0])]),
    "a double top": torch.cat([torch.linspace(0, 50, 198), torch.tensor([100.0, 100.0])]),
    "two values only": torch.cat([torch.full((60,), 1.0), torch.full((40,), 3.0)]),
    "tiny": torch.cat([torch.linspace(0, 1e-9, 99), torch.tensor([1e-7])]),
    "the identity": torch.ones(30),
    "zero": torch.zeros(30),
    "one dimension": torch.tensor([-2.5]),
}
