"""Relative flatness: the curvature of one layer, weighted with the layer's weights so that a scale cancels."""

import re

import numpy as np
import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from grokscope import curvature
from grokscope.errors import GrokscopeError, unknown_name
from grokscope.landscape.objective import Objective, objectives
from grokscope.measures._declaration import measure
from grokscope.measures._ranges import check_ranges
from grokscope.model import losses
from grokscope.series import Series
from grokscope.tasks import NO_TARGET
from grokscope.trajectory import Trajectory
from grokscope.variable import Variable, with_companions

UNEMBEDDING = "unembed.W_U"


def of_softmax(p: Float[Tensor, "n d_out"], inputs: Float[Tensor, "n d_in"], W: Float[Tensor, "d_in d_out"]) -> float:
    """Return κ = ½ E[‖r‖² Σ_{s,s'} p_s p_s' ‖w_s − w_s'‖²] of a layer whose outputs go through a softmax.

    The blocks of the Hessian are H_{s,s'} = E[(p_s δ_{ss'} − p_s p_s') r rᵀ]. So κ = E[‖r‖² (Σ_s p_s ‖w_s‖² − ‖Σ_s
    p_s w_s‖²)]. The sum over pairs of answers equals that, and does not cancel when one answer is nearly certain.

    Args:
        p: The probability of each answer to each equation.
        inputs: The layer's input r at each equation.
        W: The layer's weights; column s is w_s.

    Returns:
        κ, in nats.
    """
    distances = torch.cdist(W.T, W.T, compute_mode="donot_use_mm_for_euclid_dist").square()
    spread = einsum(p @ distances, p, "n answer, n answer -> n") / 2
    return float((inputs.square().sum(1) * spread).mean())


def weighted_operator(hessian: curvature.Product, W: Float[Tensor, "d_in d_out"]) -> tuple[curvature.Product, int]:
    """Return the operator Z ↦ (H[Z W]) Wᵀ on d_in × d_in matrices, whose trace is κ.

    κ = Σ_{s,s'} ⟨w_s, w_s'⟩ Tr H_{s,s'} = Σ_{t,k} ⟨V, H V⟩ with V = E_{tk} W. Row t of V is row k of W, and V is zero
    elsewhere.

    Args:
        hessian: The product with the Hessian over the layer's weights.
        W: The layer's weights; column s is w_s.

    Returns:
        The operator on flat vectors, and their length d_in².
    """
    n = len(W)

    def product(z: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        direction = rearrange(z, "(row k) -> row k", k=n).to(W) @ W
        image = hessian(direction.flatten())
        return (rearrange(image, "(row out) -> row out", row=n) @ W.T).flatten()

    return product, n * n


_VARIABLES = with_companions(
    {"relative_flatness": Variable("relative flatness κ of the {loss} loss", "nats", is_logarithmic=True)},
    stderr=("relative_flatness",),
)


@measure(n_checkpoints=100, by_checkpoint=True, variables=_VARIABLES)
def relative_flatness(
    trajectory: Trajectory,
    *,
    layer: str = UNEMBEDDING,
    n_probes: int = 16,
    seed: int = 0,
    dtype: str = "float64",
) -> Series:
    """Compute κ = Σ_{s,s'} ⟨w_s, w_s'⟩ Tr H_{s,s'} of one layer.

    w_s are the weights into the layer's output s. H_{s,s'} is the block of the mean train loss's Hessian between the
    weights into s and the weights into s'. Despite the paper's name, a large κ is sharp and 0 is flat. κ describes
    this layer only.

    The value is exact for the unembedding under softmax, from the residual stream at the answer (`of_softmax`). For
    another layer or loss it is the trace of an operator (`weighted_operator`), estimated by Hutchinson.

    Args:
        trajectory: The checkpoints to measure.
        layer: A TransformerLens name: "unembed.W_U", or an MLP's weight such as "blocks.0.mlp.W_in". The default is
            exact and the cheapest.
        n_probes: The number of random sign matrices of an estimate, from 2, because one probe has no standard error.
            The error falls as 1/√n_probes.
        seed: The seed of the probes. All steps share the probes.
        dtype: The precision of parameters and logits, "float32" or "float64". The default float64 keeps nearly
            certain answers exact.

    Returns:
        Series with arrays over the steps, in nats.

        - `relative_flatness` (steps): κ.
        - `relative_flatness_stderr` (steps): the standard error over the probes; 0 if κ is exact.

    Raises:
        GrokscopeError: An option is not one of the above or out of range, or κ is not finite.

    References:
        - Petzka et al. 2021, definition 3.

    Invariances:
        - A factor on all inputs of the layer against its weights, and a factor on each output against the next layer.
        - A rotation of the residual stream; an estimate only within its standard error.
        - The order of neurons and heads, and a shift of all logits.

    Cost:
        - Exact: one forward pass per checkpoint.
        - Estimated: one gradient and `n_probes` products with the layer's Hessian per checkpoint.
    """
    model, config = trajectory.model, trajectory.config
    layers = [name for name in model.shapes if name == UNEMBEDDING or re.search(r"\bmlp\.(\d+\.)?W_", name)]
    if not layers:
        raise GrokscopeError("Relative flatness needs a network with the layer 'unembed.W_U' or 'mlp.….W_in'.")
    if layer not in layers:
        raise GrokscopeError(unknown_name("layer", layer, layers))
    check_ranges(("n_probes", n_probes, n_probes >= 2, "from 2"))
    is_exact = layer == UNEMBEDDING and config.loss == "softmax"
    rows = []
    for _, train_loss in objectives(trajectory, dtype=dtype):
        if is_exact:
            kappa = curvature.Estimate(_of_unembedding(train_loss), 0.0, 0)
        else:
            product, n = weighted_operator(train_loss.hessian([layer])[0], train_loss.parameters[layer])
            kappa = curvature.hutchinson(product, n, n_probes=n_probes, seed=seed)
        if not np.isfinite(kappa.value):
            raise GrokscopeError("The train loss or its Hessian is not finite, so relative flatness is undefined.")
        rows.append({"relative_flatness": kappa.value, "relative_flatness_stderr": kappa.stderr})
    return Series.of_rows("relative_flatness", trajectory.steps, rows)


@torch.no_grad()
def _of_unembedding(train_loss: Objective) -> float:
    """Return κ of the unembedding under softmax."""
    W = train_loss.parameters[UNEMBEDDING]
    b = train_loss.parameters["unembed.b_U"]
    # With the identity as the unembedding, the logits are the unembedding's inputs.
    identity = {UNEMBEDDING: torch.eye(len(W)).to(W), "unembed.b_U": torch.zeros(len(W)).to(W)}
    inputs = train_loss.logits(identity)
    if inputs.ndim == 3:
        inputs = inputs[train_loss.labels != NO_TARGET]
    p = losses.log_probabilities(inputs @ W + b, train_loss.config.loss_dtype).exp()
    return of_softmax(p.double(), inputs.double(), W.double())
