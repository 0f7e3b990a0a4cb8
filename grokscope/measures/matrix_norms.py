"""Norms and ranks of each weight matrix, from its singular values."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from grokscope.circuits import controls
from grokscope.measures._declaration import measure
from grokscope.model.forward import Parameters
from grokscope.model.transformer import Model
from grokscope.series import Series
from grokscope.trajectory import Trajectory


def singular_values(A: Float[Tensor, "*batch rows columns"]) -> Float[Tensor, "*batch rank"]:
    """Return the singular values of matrices, the largest first, in float64."""
    return torch.linalg.svdvals(A.double())


def product_singular_values(
    A: Float[Tensor, "*batch rows inner"], B: Float[Tensor, "*batch inner columns"]
) -> Float[Tensor, "*batch rank"]:
    """Return the at most `inner` singular values of A B that can differ from 0, in float64.

    With A = Q R and Bᵀ = P S they are those of the small matrix R Sᵀ. Where rows or columns are fewer than `inner`
    there are as many as these.
    """
    R, S = (torch.linalg.qr(one.double(), mode="r").R for one in (A, B.mT))
    return singular_values(R @ S.mT)


def norms_and_ranks(sigma: Float[Tensor, "*batch rank"]) -> dict[str, Float[Tensor, "*batch"]]:
    """Return the norms and effective numbers of dimensions that singular values σ₁ ≥ σ₂ ≥ … give (`matrix_norms`)."""
    nuclear, squares = sigma.sum(-1), sigma.square().sum(-1)
    shares = sigma / nuclear.clamp_min(torch.finfo(sigma.dtype).tiny)[..., None]
    entropy = -torch.xlogy(shares, shares).sum(-1)
    top = sigma[..., 0]
    return {
        "spectral_norm": top,
        "nuclear_norm": nuclear,
        "frobenius_norm": squares.sqrt(),
        "stable_rank": torch.where(top > 0, squares / top.square().where(top > 0, 1.0), 0.0),
        "effective_rank": torch.where(top > 0, entropy.exp(), 0.0),
    }


@measure(n_checkpoints=100, by_checkpoint=True)
def matrix_norms(trajectory: Trajectory) -> Series:
    """Measure norms and ranks of every weight matrix from its singular values σ.

    The constant `matrices` names them (`Series.words`): in TransformerLens' names those of the embeddings, the MLP
    and the unembedding; of attention each head's own, "blocks.0.attn.W_Q.1" for head 1, and the products that a head
    acts by, "blocks.0.attn.QK.1" for W_Q W_Kᵀ and "blocks.0.attn.OV.1" for W_V W_O (Elhage et al. 2021). Arrays over
    steps, with an axis of the matrices:

    - `spectral_norm` σ₁: by how much the matrix lengthens a vector at most;
    - `nuclear_norm` Σσ and `frobenius_norm` √Σσ²;
    - `stable_rank` Σσ²/σ₁² (Rudelson & Vershynin 2007) and `effective_rank` exp(−Σ p ln p), p = σ/Σσ (Roy &
      Vetterli 2007): from 1, one direction alone, to the rank, all alike. The first counts what is comparable to the
      largest, the second also the many small. A matrix of zeros has both 0.

    Constants besides: `largest_rank` (matrices), the rank that each can have at most, and, as controls,
    `…_initialization`, the untrained model. All are invariant to rotations of the residual stream. A LayerNorm's
    scale is not multiplied in. Costs one singular value decomposition of each matrix a checkpoint, in float64; their
    last bits depend on the number of threads.
    """
    rows = [_row(_spectra(trajectory.model, snapshot.parameters)) for snapshot in trajectory]
    untrained = _spectra(trajectory.model, trajectory.untrained)
    constants = {
        "matrices": np.array(list(untrained), np.str_),
        "largest_rank": np.array([len(sigma) for sigma in untrained.values()]),
        **controls.untrained_control(_row(untrained)),
    }
    return Series.of_rows("matrix_norms", trajectory.steps, rows, constants)


def _row(spectra: dict[str, Float[Tensor, " rank"]]) -> dict[str, Float[Tensor, " matrices"]]:
    every = [norms_and_ranks(sigma) for sigma in spectra.values()]
    return {name: torch.stack([one[name] for one in every]) for name in every[0]}


def _spectra(model: Model, parameters: Parameters) -> dict[str, Float[Tensor, " rank"]]:
    """Return the singular values of each matrix by its name, in the order of the forward pass."""
    found = {name: singular_values(parameters[name]) for name in ("embed.W_E", "pos_embed.W_pos")}
    for layer in range(model.config.n_layers):
        attn, mlp = f"blocks.{layer}.attn.", f"blocks.{layer}.mlp."
        W_Q, W_K, W_V, W_O = (parameters[f"{attn}W_{one}"] for one in "QKVO")
        by_head = {f"{attn}W_{one}": singular_values(W) for one, W in zip("QKVO", (W_Q, W_K, W_V, W_O), strict=True)}
        by_head |= {f"{attn}QK": product_singular_values(W_Q, W_K.mT), f"{attn}OV": product_singular_values(W_V, W_O)}
        found |= {f"{name}.{head}": one for name, sigmas in by_head.items() for head, one in enumerate(sigmas)}
        found |= {name: singular_values(parameters[name]) for name in (f"{mlp}W_in", f"{mlp}W_out")}
    return found | {"unembed.W_U": singular_values(parameters["unembed.W_U"])}
