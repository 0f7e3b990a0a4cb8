"""Norms and ranks of each weight matrix, from its singular values."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from grokscope.circuits import controls
from grokscope.measures._declaration import measure
from grokscope.model.families import Model
from grokscope.model.forward import Parameters
from grokscope.series import Series
from grokscope.trajectory import Trajectory
from grokscope.variable import Variable, with_companions


def singular_values(A: Float[Tensor, "*batch rows columns"]) -> Float[Tensor, "*batch rank"]:
    """Return the singular values of matrices in descending order, in float64."""
    return torch.linalg.svdvals(A.double())


def product_singular_values(
    A: Float[Tensor, "*batch rows inner"], B: Float[Tensor, "*batch inner columns"]
) -> Float[Tensor, "*batch rank"]:
    """Return the singular values of A B that can differ from 0, in float64, without forming A B.

    With A = Q R and Bᵀ = P S, these are the singular values of the small matrix R Sᵀ. Their number is the least of
    `rows`, `inner` and `columns`.
    """
    R, S = (torch.linalg.qr(matrix.double(), mode="r").R for matrix in (A, B.mT))
    return singular_values(R @ S.mT)


def norms_and_ranks(sigma: Float[Tensor, "*batch rank"]) -> dict[str, Float[Tensor, "*batch"]]:
    """Return the norms and ranks that `matrix_norms` defines, from descending singular values."""
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


_VARIABLES = with_companions(
    {
        "spectral_norm": Variable("spectral norm", "weight", ("matrix",)),
        "nuclear_norm": Variable("nuclear norm", "weight", ("matrix",)),
        "frobenius_norm": Variable("Frobenius norm", "weight", ("matrix",)),
        "stable_rank": Variable("stable rank", dims=("matrix",)),
        "effective_rank": Variable("effective rank", dims=("matrix",)),
        "matrices": Variable("matrix", dims=("matrix",), role="coordinate"),
        "largest_rank": Variable("largest possible rank", dims=("matrix",)),
    },
    initialization=("spectral_norm", "nuclear_norm", "frobenius_norm", "stable_rank", "effective_rank"),
)


@measure(n_checkpoints=100, by_checkpoint=True, variables=_VARIABLES)
def matrix_norms(trajectory: Trajectory) -> Series:
    """Compute norms and ranks of every weight matrix from its singular values σ₁ ≥ σ₂ ≥ ….

    The constant `matrices` names the matrices: the embeddings, the MLP and the unembedding by their TransformerLens
    names; each head's own, as in "blocks.0.attn.W_Q.1" for head 1; and the products by which a head acts,
    "blocks.0.attn.QK.1" for W_Q W_Kᵀ and "blocks.0.attn.OV.1" for W_V W_O. The scale of a LayerNorm is not multiplied
    in.

    Args:
        trajectory: The checkpoints to measure.

    Returns:
        Series with arrays over the steps and the matrices. A matrix of zeros has both ranks 0.

        - `spectral_norm` (steps, matrices): σ₁, the largest factor by which the matrix lengthens a vector.
        - `nuclear_norm` (steps, matrices): Σσ.
        - `frobenius_norm` (steps, matrices): √Σσ².
        - `stable_rank` (steps, matrices): Σσ²/σ₁², from 1 to the rank. It counts the σ comparable to the largest.
        - `effective_rank` (steps, matrices): exp(−Σ p ln p) with p = σ/Σσ, from 1 to the rank. It also counts the
          many small σ.

        Constants: `matrices`; `largest_rank` (matrices), the largest possible rank of each.

    References:
        - Elhage et al. 2021: the products of a head.
        - Rudelson & Vershynin 2007: the stable rank.
        - Roy & Vetterli 2007: the effective rank.

    Invariances:
        - A rotation of the residual stream, and the order of neurons.
        - The order of heads only reorders the matrices.
        - The norms change with rescaled ReLU neurons, and norms and ranks with a shift of all logits.

    Controls:
        - `…_initialization` (matrices): the untrained model.

    Cost:
        - One singular value decomposition of each matrix per checkpoint, in float64. The last bits depend on the
          number of threads.
    """
    rows = [_row(_singular_values(trajectory.model, snapshot.parameters)) for snapshot in trajectory]
    untrained = _singular_values(trajectory.model, trajectory.untrained)
    constants = {
        "matrices": np.array(list(untrained), np.str_),
        "largest_rank": np.array([len(sigma) for sigma in untrained.values()]),
        **controls.untrained_control(_row(untrained)),
    }
    return Series.of_rows("matrix_norms", trajectory.steps, rows, constants)


def _row(spectra: dict[str, Float[Tensor, " rank"]]) -> dict[str, Float[Tensor, " matrices"]]:
    """Return each norm and rank of all matrices."""
    quantities = [norms_and_ranks(sigma) for sigma in spectra.values()]
    return {name: torch.stack([of_matrix[name] for of_matrix in quantities]) for name in quantities[0]}


def _singular_values(model: Model, parameters: Parameters) -> dict[str, Float[Tensor, " rank"]]:
    """Return the singular values of each matrix by its name, in the order of the forward pass.

    A network without attention has those of its trained matrices. Grouped queries have fewer keys than heads; each
    head then has no product of its own, and only the single matrices are listed.
    """
    if not model.attention:
        return {name: singular_values(parameters[name]) for name in model.trained if parameters[name].ndim == 2}
    spectra = {
        name: singular_values(parameters[name]) for name in ("embed.W_E", "pos_embed.W_pos") if name in parameters
    }
    for layer in range(len(model.attention)):
        attn, mlp = f"blocks.{layer}.attn.", f"blocks.{layer}.mlp."
        letters = [letter for letter in "QKVO" if f"{attn}W_{letter}" in parameters]
        weights = [parameters[f"{attn}W_{letter}"] for letter in letters]
        of_heads = {f"W_{name}": singular_values(W) for name, W in zip(letters, weights, strict=True)}
        if len(weights) == 4:
            W_Q, W_K, W_V, W_O = weights
            of_heads |= {"QK": product_singular_values(W_Q, W_K.mT), "OV": product_singular_values(W_V, W_O)}
        spectra |= {f"{attn}{name}.{i}": sigma for name, sigmas in of_heads.items() for i, sigma in enumerate(sigmas)}
        names = [f"{mlp}W_{name}" for name in ("in", "gate", "out")]
        spectra |= {name: singular_values(parameters[name]) for name in names if name in parameters}
    return spectra | {"unembed.W_U": singular_values(parameters["unembed.W_U"])}
