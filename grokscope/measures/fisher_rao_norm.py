"""The Fisher–Rao norm: how fast the model's answers change as all weights grow together."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from grokscope.errors import GrokscopeError
from grokscope.landscape.objective import Objective, objectives
from grokscope.measures._declaration import measure
from grokscope.model import losses
from grokscope.series import Series
from grokscope.trajectory import Trajectory
from grokscope.variable import Variable


def along_weights(objective: Objective) -> tuple[Float[Tensor, "n d_vocab_out"], Float[Tensor, "n d_vocab_out"]]:
    """Return log p of every answer to every equation, and its derivative w · ∇_w log p along the weights.

    The derivative is Jw, with J the Jacobian of all log p. Since v ↦ wᵀJᵀv is linear in v, its gradient by v is Jw.
    Two backward passes suffice, for any model that can be differentiated twice in reverse mode.
    """
    with torch.enable_grad():
        leaves = {name: objective.parameters[name].detach().requires_grad_() for name in objective.model.trained}
        dtype, function = objective.config.loss_dtype, objective.config.loss
        log_p = losses.log_probabilities(objective.logits(leaves), dtype, function)
        v = torch.zeros_like(log_p, requires_grad=True)
        gradients = torch.autograd.grad(log_p, list(leaves.values()), v, create_graph=True)
        inner_product = sum((g * leaf.detach()).sum() for g, leaf in zip(gradients, leaves.values(), strict=True))
        assert isinstance(inner_product, Tensor)
        return log_p.detach(), torch.autograd.grad(inner_product, v)[0].detach()


_VARIABLES = {
    "fisher_rao_norm": Variable("Fisher–Rao norm", "nats", is_logarithmic=True),
    "empirical_fisher_rao_norm": Variable("empirical Fisher–Rao norm", "nats", is_logarithmic=True),
}


@measure(n_checkpoints=100, by_checkpoint=True, variables=_VARIABLES)
def fisher_rao_norm(trajectory: Trajectory, *, part: str = "train", dtype: str = "float32") -> Series:
    """Compute ‖w‖_FR = √(wᵀ F w), with F the Fisher information of the trained parameters w.

    wᵀ F w = E[(w · ∇_w log p(y | x))²], the mean over the equations x of a part of the task. It is 0 if log p does
    not change as all weights grow by a common factor.

    A ReLU network without biases or attention is homogeneous of some degree k: w · ∇_w f = k f for the logits f. Its
    norm is k √E[Var_p f] (Liang et al. 2019, lemma 2.1). Biases, attention's softmax and the residual stream break
    that here, so Jw is computed instead.

    Args:
        trajectory: The checkpoints to measure.
        part: The equations of the mean, "train" or "test". The default is the part that the loss is minimised on.
        dtype: The precision of parameters and logits, "float32" or "float64". log p has the config's `loss_dtype`.
            float32 is the default because it moved the norms by less than 1e-6 of their values.

    Returns:
        Series with arrays over the steps. The unit is nats. Both norms are exact.

        - `fisher_rao_norm` (steps): y is distributed as the model's own answers, so F = E[Jᵀ (diag p − p pᵀ) J] with
          J the Jacobian of the logits. The mean over y is a sum over all answers, so nothing is sampled. It falls
          only as far as the answers become certain.
        - `empirical_fisher_rao_norm` (steps): y is the label. It falls with the loss, whose gradients these are.

    Raises:
        GrokscopeError: `part` or `dtype` is not one of the above, or log p is not finite.

    References:
        - Liang et al. 2019, equation 1.3 and lemma 2.1. Their own form of the norm has y the label.

    Invariances:
        - Every linear change of the weights that keeps the function: rescaled layers, rotations, and orders.
        - A shift of all logits.

    Cost:
        - About three gradients per checkpoint.
    """
    trajectory.task.require_single_answer()
    if trajectory.config.loss == "mse":
        raise GrokscopeError("The run's loss, 'mse', has no softmax. Allowed: the loss 'softmax' or 'stablemax'.")
    rows = []
    for _, objective in objectives(trajectory, part=part, dtype=dtype):
        log_p, derivatives = along_weights(objective)
        of_labels = derivatives.gather(1, objective.labels[:, None])
        squared_norms = (log_p.exp() * derivatives.square()).sum(1).mean(), of_labels.square().mean()
        row = [squared_norm.item() ** 0.5 for squared_norm in squared_norms]
        if not np.isfinite(row).all():
            raise GrokscopeError(
                f"The {part} loss or its gradient is not finite, so the Fisher–Rao norm is undefined."
            )
        rows.append(row)
    keys = ("fisher_rao_norm", "empirical_fisher_rao_norm")
    return Series("fisher_rao_norm", trajectory.steps, dict(zip(keys, np.array(rows).T, strict=True)))
