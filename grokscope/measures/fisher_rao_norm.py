"""The Fisher–Rao norm: how fast the model's answers change as all weights grow together."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from grokscope.errors import GrokscopeError
from grokscope.landscape.objective import Objective, objectives
from grokscope.model import losses
from grokscope.series import Series, by_checkpoint
from grokscope.trajectory import Trajectory


def along_weights(objective: Objective) -> tuple[Float[Tensor, "n d_vocab_out"], Float[Tensor, "n d_vocab_out"]]:
    """Return log p of every answer to every equation, and its derivative w · ∇_w log p along the weights themselves.

    Jw for the Jacobian J of all log p is the derivative of v ↦ wᵀJᵀv, which is linear in v: two backward passes, for
    any model that can be differentiated twice in reverse.
    """
    with torch.enable_grad():
        leaves = {name: objective.parameters[name].detach().requires_grad_() for name in objective.model.trained}
        dtype, function = objective.config.loss_dtype, objective.config.loss
        log_p = losses.log_probabilities(objective.logits(leaves), dtype, function)
        v = torch.zeros_like(log_p, requires_grad=True)
        pulled = torch.autograd.grad(log_p, list(leaves.values()), v, create_graph=True)
        along = sum((one * leaf.detach()).sum() for one, leaf in zip(pulled, leaves.values(), strict=True))
        assert isinstance(along, Tensor)
        return log_p.detach(), torch.autograd.grad(along, v)[0].detach()


@by_checkpoint
def fisher_rao_norm(trajectory: Trajectory, *, part: str = "train", dtype: str = "float32") -> Series:
    """Measure ‖w‖_FR = √(wᵀ F w), F the Fisher information of the trained parameters w (Liang et al. 2019, eq. 1.3).

    wᵀ F w = E[(w · ∇_w log p(y | x))²], the mean over the equations x of a part, "train" or "test". Arrays over
    steps:

    - `fisher_rao_norm`: y is drawn from the model's own answers, F = E[Jᵀ (diag p − p pᵀ) J] with J the Jacobian of
      the logits. The mean over y is a sum over all answers, so nothing is sampled;
    - `empirical_fisher_rao_norm`: y is the label, as in Liang et al.'s own form of it. It falls with the loss, whose
      gradients are these; the first does so only as far as the answers become certain.

    Both are exact. In nats: 0 if log p does not change as all weights grow by a common factor. For a ReLU network
    without biases or attention, homogeneous of degree k, w · ∇_w f = k f in the logits f (Liang et al., lemma 2.1, k
    = L + 1), so that the norm is k √E[Var_p f]; here biases, attention's softmax and the residual stream, whose paths
    have several degrees, break that, and Jw is taken instead. Invariant to whatever linear change of the weights
    leaves the function as it is: rescaling a layer against the next, rotations, orders, and also to what is added to
    all logits. Parameters and logits are in `dtype`, log p in the config's `loss_dtype`: float32 logits moved the
    norms by less than 1e-6 of them. Costs about three gradients a checkpoint. Raise GrokscopeError for another part
    or dtype, and where log p is not finite.
    """
    rows = []
    for _, objective in objectives(trajectory, part=part, dtype=dtype):
        log_p, along = along_weights(objective)
        by_label = along.gather(1, objective.labels[:, None])
        row = [(log_p.exp() * along.square()).sum(1).mean().item() ** 0.5, by_label.square().mean().item() ** 0.5]
        if not np.isfinite(row).all():
            raise GrokscopeError(f"The {part} loss or its gradient is not finite, so there is no Fisher–Rao norm.")
        rows.append(row)
    keys = ("fisher_rao_norm", "empirical_fisher_rao_norm")
    return Series("fisher_rao_norm", trajectory.steps, dict(zip(keys, np.array(rows).T, strict=True)))
