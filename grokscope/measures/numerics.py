"""Numerics: the effect of precision on the train loss, its gradient, the gradient's direction, and the margins."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokscope.circuits import controls
from grokscope.errors import GrokscopeError
from grokscope.landscape.objective import Objective, objectives
from grokscope.measures._declaration import measure
from grokscope.model.components import component_vectors, cosine
from grokscope.model.losses import cross_entropy, has_collapsed
from grokscope.series import Series
from grokscope.trajectory import Trajectory
from grokscope.variable import Variable, with_companions

DTYPES = ("bfloat16", "float32", "float64")
"""The types in which the loss is computed."""
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
"""The quantiles of the margins."""


def margins(logits: Float[Tensor, "batch d_vocab_out"], labels: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Return z_label − max_{k ≠ label} z_k of each example in float64; positive for a right answer."""
    z = logits.double()
    wrong = z.scatter(1, labels[:, None], -torch.inf)
    return z.gather(1, labels[:, None])[:, 0] - wrong.amax(-1)


def logit_scale(logits: Float[Tensor, "batch d_vocab_out"]) -> Float[Tensor, ""]:
    """Return the root mean square of the logits about each example's mean.

    A margin divided by it does not change if all logits are multiplied by a factor.
    """
    return logits.double().var(-1, correction=0).mean().sqrt()


def logit_gradient(
    logits: Float[Tensor, "batch d_vocab_out"], labels: Int[Tensor, " batch"], dtype: str, function: str
) -> Float[Tensor, "batch d_vocab_out"]:
    """Return the gradient of the mean loss by the logits, as training computes it.

    Args:
        logits: The logits.
        labels: The answer of each example.
        dtype: The type in which the loss is computed.
        function: The loss function, "softmax" or "stablemax".

    Returns:
        The gradient in the logits' own type, in which entries below its smallest number are zero.
    """
    with torch.enable_grad():
        z = logits.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(z, labels, dtype, function).mean(), z)
    return gradient


def imbalance(gradient: Float[Tensor, "batch d_vocab_out"]) -> Float[Tensor, ""]:
    """Return the mean over examples of |Σ_k g_k| / Σ_k |g_k|; 0 for an example with zero gradient.

    The gradient p − onehot of a softmax sums to zero over the classes. If the right answer's entry is rounded away
    and the others' are not, the ratio is 1, and the weights of the last layer drift together.
    """
    g = gradient.double()
    size = g.abs().sum(-1)
    return (g.sum(-1).abs() / size.where(size > 0, 1.0)).mean()


_VARIABLES = with_companions(
    {
        "collapse_share": Variable("share of collapsed softmaxes", dims=("dtype",)),
        "zero_loss_share": Variable("share of {loss} losses that are zero", dims=("dtype",)),
        "zero_gradient_share": Variable("share of zero gradients of the {loss} loss", dims=("dtype",)),
        "gradient_imbalance": Variable("imbalance of the logits' gradient, {loss} loss", dims=("dtype",)),
        "zero_parameter_gradient_share": Variable("share of zero parameter gradients, {loss} loss", dims=("dtype",)),
        "gradient_norm": Variable(
            "gradient norm ‖∇L‖ of the {loss} train loss", "nats per unit of weight", ("dtype",), is_logarithmic=True
        ),
        "gradient_cosine": Variable("cosine with the float64 gradient, {loss} loss", dims=("dtype",)),
        "naive_loss_cosine": Variable("cosine of −∇L and w, {loss} loss"),
        "component_naive_loss_cosines": Variable(
            "cosine of −∇L and w of each component, {loss} loss", dims=("component",)
        ),
        "train_margins": Variable("quantiles of the train margins", "logit", ("quantile",)),
        "test_margins": Variable("quantiles of the test margins", "logit", ("quantile",)),
        "train_margin_mean": Variable("mean train margin", "logit"),
        "test_margin_mean": Variable("mean test margin", "logit"),
        "train_logit_scale": Variable("scale of the train logits", "logit"),
        "test_logit_scale": Variable("scale of the test logits", "logit"),
        "dtypes": Variable("precision", dims=("dtype",), role="coordinate"),
        "components": Variable("component", dims=("component",), role="coordinate"),
        "quantiles": Variable("quantile", "share", ("quantile",), role="coordinate"),
    },
    initialization=(
        *("collapse_share", "zero_loss_share", "zero_gradient_share", "gradient_imbalance"),
        *("zero_parameter_gradient_share", "gradient_norm", "gradient_cosine", "naive_loss_cosine"),
        *("component_naive_loss_cosines", "train_margins", "test_margins", "train_margin_mean", "test_margin_mean"),
        *("train_logit_scale", "test_logit_scale"),
    ),
)


@measure(n_checkpoints=48, by_checkpoint=True, variables=_VARIABLES)
def numerics(trajectory: Trajectory, *, dtype: str = "float32") -> Series:
    """Compute how precision affects the train loss: softmax collapse, lost gradients and naive loss minimization.

    The logits are computed in `dtype`, and the config's loss from these logits in each type of the constant `dtypes`.
    A softmax has collapsed if the sum of all its terms equals the right answer's term (`losses.has_collapsed`).

    Args:
        trajectory: The checkpoints to measure.
        dtype: The precision of parameters and logits: "float32", the default, as in training, or "float64".

    Returns:
        Series with arrays over the steps. The dimension dtypes is bfloat16, float32 and float64. Without test
        equations, the arrays with the prefix `test_` are missing.

        - `collapse_share` (steps, dtypes), from 0 to 1: the share of train examples whose softmax has collapsed.
        - `zero_loss_share` (steps, dtypes), from 0 to 1: the share with a loss of exactly 0. torch adds up bfloat16
          in float32 and rounds the loss only, so here bfloat16 equals float32.
        - `zero_gradient_share` (steps, dtypes), from 0 to 1: the share whose gradient by every logit is 0. A
          collapsed example mostly keeps the wrong answers' entries.
        - `gradient_imbalance` (steps, dtypes), from 0 to 1: see `imbalance`. 1 means that only the wrong answers'
          entries are left; 0 means that the entries cancel, as they should.
        - `zero_parameter_gradient_share` (steps, dtypes), from 0 to 1: the share of entries of the trained parameters
          whose gradient is exactly 0.
        - `gradient_norm` (steps, dtypes), in nats per unit of weight: ‖∇L‖.
        - `gradient_cosine` (steps, dtypes): the cosine of ∇L and the gradient of the float64 loss; 1 means that the
          precision does not matter.
        - `naive_loss_cosine` (steps): the cosine of −∇L, with the loss in the run's own `loss_dtype`, and the
          weights. If positive, scaling all weights up lowers the loss, which is naive loss minimization.
        - `component_naive_loss_cosines` (steps, components): the same for the parameters of each component.
        - `train_margins`, `test_margins` (steps, quantiles): the quantiles of the right answer's logit minus the
          largest other logit. The first is the smallest margin; below 0 is a wrong answer.
        - `train_margin_mean`, `test_margin_mean` (steps): the mean of the margins.
        - `train_logit_scale`, `test_logit_scale` (steps): see `logit_scale`. Margins grow with the weights; margins
          over this scale do not. The model is not homogeneous, so a power of ‖w‖ would not do.

        Constants: `dtypes`, `components`, `quantiles`.

    Raises:
        GrokscopeError: `dtype` is neither "float32" nor "float64".

    References:
        - Prieto et al. 2025, sections 3 and 4: softmax collapse and naive loss minimization.

    Invariances:
        - The order of neurons and heads, and a rotation of the residual stream.
        - Rescaled ReLU neurons and a shift of all logits change `gradient_norm` and the cosines with the weights.

    Controls:
        - `…_initialization`: the untrained model.

    Cost:
        - One gradient, two more backward passes and the test equations' logits per checkpoint.
    """
    task, split = trajectory.task, trajectory.split
    task.require_single_answer()
    equations = trajectory.model.equations(task.inputs[split.test]) if len(split.test) else None
    if trajectory.config.loss == "mse":
        raise GrokscopeError("The run's loss, 'mse', has no softmax. Allowed: the loss 'softmax' or 'stablemax'.")
    components = trajectory.model.components(trajectory.model.trained)

    def row_of(objective: Objective) -> dict[str, Tensor]:
        row = _train_quantities(objective, components)
        if equations is not None:
            with torch.no_grad():
                logits = trajectory.model.logits(objective.parameters, equations)
            row |= _margin_quantities("test", logits, task.labels[split.test])
        return row

    rows, untrained = [], None
    for _, objective in objectives(trajectory, dtype=dtype):
        if untrained is None:
            parameters = {name: tensor.to(getattr(torch, dtype)) for name, tensor in trajectory.untrained.items()}
            untrained = row_of(replace(objective, parameters=parameters))
        rows.append(row_of(objective))
    constants = {
        "dtypes": np.array(DTYPES, np.str_),
        "components": np.array(list(components), np.str_),
        "quantiles": torch.tensor(QUANTILES, dtype=torch.float64),
        **controls.untrained_control(untrained or {}),
    }
    return Series.of_rows("numerics", trajectory.steps, rows, constants)


def _train_quantities(objective: Objective, components: dict[str, list[str]]) -> dict[str, Tensor]:
    """Return every quantity of the train equations at one checkpoint."""
    config, labels = objective.config, objective.labels
    with torch.enable_grad():
        leaves = {name: objective.parameters[name].detach().requires_grad_() for name in objective.model.trained}
        logits = objective.logits(leaves)
    z, rows, gradients = logits.detach(), [], []
    for dtype in DTYPES:
        by_logits = logit_gradient(z, labels, dtype, config.loss)
        by_parameters = torch.autograd.grad(logits, list(leaves.values()), by_logits, retain_graph=True)
        gradients.append(component_vectors(dict(zip(leaves, by_parameters, strict=True)), components))
        gradient = torch.cat(gradients[-1])
        row = {
            "collapse_share": has_collapsed(z, labels, dtype, config.loss).double().mean(),
            "zero_loss_share": (cross_entropy(z, labels, dtype, config.loss) == 0).double().mean(),
            "zero_gradient_share": (by_logits == 0).all(-1).double().mean(),
            "gradient_imbalance": imbalance(by_logits),
            "zero_parameter_gradient_share": (gradient == 0).double().mean(),
            "gradient_norm": gradient.norm(),
        }
        rows.append(row)
    exact = torch.cat(gradients[-1])
    run_gradient = gradients[DTYPES.index(config.loss_dtype)]
    weights = component_vectors(objective.parameters, components)
    by_component = [-cosine(*pair) for pair in zip(run_gradient, weights, strict=True)]
    return {
        **{name: torch.stack([row[name] for row in rows]) for name in rows[0]},
        "gradient_cosine": torch.stack([cosine(torch.cat(gradient), exact) for gradient in gradients]),
        "naive_loss_cosine": -cosine(torch.cat(run_gradient), torch.cat(weights)),
        "component_naive_loss_cosines": torch.stack(by_component),
        **_margin_quantities("train", z, labels),
    }


def _margin_quantities(
    part: str, logits: Float[Tensor, "batch d_vocab_out"], labels: Int[Tensor, " batch"]
) -> dict[str, Tensor]:
    """Return the margins and the logit scale of a part of the equations, "train" or "test"."""
    z_margins = margins(logits, labels)
    return {
        f"{part}_margins": z_margins.quantile(torch.tensor(QUANTILES, dtype=z_margins.dtype)),
        f"{part}_margin_mean": z_margins.mean(),
        f"{part}_logit_scale": logit_scale(logits),
    }
