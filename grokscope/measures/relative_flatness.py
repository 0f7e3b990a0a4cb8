"""Relative flatness: the curvature of one layer, weighed with its weights so that a scale cancels."""

import numpy as np
import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from grokscope import curvature
from grokscope.errors import GrokscopeError, unknown_name
from grokscope.landscape.objective import Objective, objectives
from grokscope.model import losses
from grokscope.series import Series, by_checkpoint
from grokscope.trajectory import Trajectory

UNEMBEDDING = "unembed.W_U"


def of_softmax(p: Float[Tensor, "n d_out"], inputs: Float[Tensor, "n d_in"], W: Float[Tensor, "d_in d_out"]) -> float:
    """Return κ of a layer whose outputs' softmax are the answers p: ½ E[‖r‖² Σ_{s,s'} p_s p_s' ‖w_s − w_s'‖²].

    There H_{s,s'} = E[(p_s δ_{ss'} − p_s p_s') r rᵀ], r the layer's input, so κ = E[‖r‖² (Σ_s p_s ‖w_s‖² −
    ‖Σ_s p_s w_s‖²)]. As a sum over pairs of answers nothing cancels where one of them is nearly certain.
    """
    distances = torch.cdist(W.T, W.T, compute_mode="donot_use_mm_for_euclid_dist").square()
    spread = einsum(p @ distances, p, "n answer, n answer -> n") / 2
    return float((inputs.square().sum(1) * spread).mean())


def weighed(hessian: curvature.Product, W: Float[Tensor, "d_in d_out"]) -> tuple[curvature.Product, int]:
    """Return Z ↦ (H[Z W]) Wᵀ over d_in × d_in matrices, as flat vectors, and their length; its trace is κ.

    For κ = Σ_{s,s'} ⟨w_s, w_s'⟩ Tr H_{s,s'} = Σ_{t,k} ⟨V, H V⟩ with V = E_{tk} W, which has the k-th row of W as its
    t-th and is zero elsewhere.
    """
    n = len(W)

    def product(z: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        moved = rearrange(z, "(row k) -> row k", k=n).to(W) @ W
        image = hessian(moved.flatten())
        return (rearrange(image, "(row out) -> row out", row=n) @ W.T).flatten()

    return product, n * n


@by_checkpoint
def relative_flatness(
    trajectory: Trajectory,
    *,
    layer: str = UNEMBEDDING,
    n_probes: int = 16,
    seed: int = 0,
    dtype: str = "float64",
) -> Series:
    """Measure κ = Σ_{s,s'} ⟨w_s, w_s'⟩ Tr H_{s,s'} of one layer (Petzka et al. 2021, definition 3).

    w_s are the weights into the layer's output s, H_{s,s'} the block of the mean train loss's Hessian between the
    weights into s and into s', in nats. `layer` is one of TransformerLens' names: "unembed.W_U", or an MLP's, such as
    "blocks.0.mlp.W_in". Arrays over steps: `relative_flatness` and `relative_flatness_stderr`.

    Of the unembedding under softmax it is exact, from the residual stream at the answer (`of_softmax`), and the
    standard error 0. Of another layer it is the trace of an operator (`weighed`), estimated by Hutchinson with
    `n_probes` random sign matrices, the same at every step. The name is the paper's; a large κ is sharp, 0 is flat.
    Invariant to scaling all that goes into the layer against its weights, or the layer's outputs, each by a factor of
    its own, against the next layer, to a rotation of the residual stream (of an estimate within its standard error),
    to the order of neurons and heads, and to what is added to all logits. It says nothing of the other layers. Exact
    it costs one forward pass a checkpoint, estimated one gradient and `n_probes` products with the layer's Hessian.
    Raise GrokscopeError for a layer that is none of these, and where κ is not finite.
    """
    model, config = trajectory.model, trajectory.config
    allowed = [one for one in model.shapes if one == UNEMBEDDING or ".mlp.W_" in one]
    if layer not in allowed:
        raise GrokscopeError(unknown_name("layer", layer, allowed))
    if n_probes < 2:
        raise GrokscopeError(f"n_probes: {n_probes}, allowed: from 2.")
    rows = []
    for _, train_loss in objectives(trajectory, dtype=dtype):
        if layer == UNEMBEDDING and config.loss == "softmax":
            found = curvature.Estimate(_of_unembedding(train_loss), 0.0, 0)
        else:
            product, n = weighed(train_loss.hessian([layer])[0], train_loss.parameters[layer])
            found = curvature.hutchinson(product, n, n_probes=n_probes, seed=seed)
        if not np.isfinite(found.value):
            raise GrokscopeError("The train loss or its Hessian is not finite, so there is no relative flatness.")
        rows.append({"relative_flatness": found.value, "relative_flatness_stderr": found.stderr})
    return Series.of_rows("relative_flatness", trajectory.steps, rows)


@torch.no_grad()
def _of_unembedding(train_loss: Objective) -> float:
    W = train_loss.parameters[UNEMBEDDING]
    b = train_loss.parameters["unembed.b_U"]
    # With the identity in the unembedding's place the logits are what goes into it.
    inputs = train_loss.logits({UNEMBEDDING: torch.eye(len(W)).to(W), "unembed.b_U": torch.zeros(len(W)).to(W)})
    p = losses.log_probabilities(inputs @ W + b, train_loss.config.loss_dtype).exp()
    return of_softmax(p.double(), inputs.double(), W.double())
