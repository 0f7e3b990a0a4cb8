"""Numerics: what the precision of the loss leaves of it and of its gradient, where that points, and the margins."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokscope.circuits import controls
from grokscope.landscape.objective import Objective, objectives
from grokscope.measures._declaration import measure
from grokscope.model.components import by_component, cosine, component_vectors
from grokscope.model.losses import cross_entropy, has_collapsed
from grokscope.series import Series
from grokscope.trajectory import Trajectory

DTYPES = ("bfloat16", "float32", "float64")
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


def margins(logits: Float[Tensor, "batch d_vocab_out"], labels: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Return z_label − max_{k ≠ label} z_k of each example, in float64: above 0 where the answer is right."""
    z = logits.double()
    others = z.scatter(1, labels[:, None], -torch.inf)
    return z.gather(1, labels[:, None])[:, 0] - others.amax(-1)


def logit_scale(logits: Float[Tensor, "batch d_vocab_out"]) -> Float[Tensor, ""]:
    """Return the root mean square of the logits about each example's mean: a margin over it has no scale."""
    return logits.double().var(-1, correction=0).mean().sqrt()


def logit_gradient(
    logits: Float[Tensor, "batch d_vocab_out"], labels: Int[Tensor, " batch"], dtype: str, function: str
) -> Float[Tensor, "batch d_vocab_out"]:
    """Return the mean loss's gradient by the logits, as training takes it with the loss in `dtype`.

    It is a tensor of the logits' own type: what lies below its smallest number is zero.
    """
    with torch.enable_grad():
        z = logits.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(z, labels, dtype, function).mean(), z)
    return gradient


def imbalance(gradient: Float[Tensor, "batch d_vocab_out"]) -> Float[Tensor, ""]:
    """Return the mean over examples of |Σ_k g_k| / Σ_k |g_k|, 0 for an example without gradient.

    A softmax's gradient p − onehot adds up to zero over the classes; where the right answer's part is rounded away
    and the others' are not, the ratio is 1, and the last layer's weights drift together.
    """
    g = gradient.double()
    size = g.abs().sum(-1)
    return (g.sum(-1).abs() / size.where(size > 0, 1.0)).mean()


@measure(n_checkpoints=48, by_checkpoint=True)
def numerics(trajectory: Trajectory, *, dtype: str = "float32") -> Series:
    """Measure what precision does to the train loss: softmax collapse, lost gradients, naive loss minimization.

    Parameters and logits are in `dtype`, "float32" as in training, or "float64"; the loss is the config's, computed
    from these logits in each type of the constant `dtypes` (bfloat16, float32, float64). Arrays over steps, those
    with an axis of the dtypes first:

    - `collapse_share`: of the train examples, those whose softmax has collapsed (`losses.has_collapsed`; Prieto et
      al. 2025): the sum of all terms is the right answer's own. `zero_loss_share`: those with a loss of exactly 0;
      torch's bfloat16 rounds the loss alone, not the sum in it, so here bfloat16 does as float32;
    - `zero_gradient_share`: those without any gradient by the logits. A collapsed example mostly keeps the wrong
      answers' part; `gradient_imbalance` (`imbalance`) is 1 where nothing else is left, and 0 where the parts add up
      to zero, as they should;
    - `zero_parameter_gradient_share`: of the trained parameters' entries, those whose gradient is exactly 0;
      `gradient_norm` ‖∇L‖; `gradient_cosine`: of ∇L and that of the float64 loss: 1 where the precision does no harm;
    - `naive_loss_cosine`: of −∇L, the loss in the run's own `loss_dtype`, and the weights w; positive: to scale all
      weights up lowers the loss (naive loss minimization, section 4). `component_naive_loss_cosines` (components):
      of the parameters of each component in the constant `components` alone;
    - `train_margins`, `test_margins` (quantiles): quantiles, at the constant `quantiles`, of the right answer's logit
      minus the largest other; the first is the smallest margin, and below 0 is a wrong answer. `train_margin_mean`,
      `test_margin_mean`; `train_logit_scale`, `test_logit_scale` (`logit_scale`): margins grow with the weights,
      margins over it do not. The model is not homogeneous, so no power of ‖w‖ would do. Without test equations
      what begins with `test_` is left out.

    Control: `…_initialization`, the untrained model. Costs one gradient, two more passes backward and the test
    equations' logits a checkpoint. Raise GrokscopeError for another dtype.
    """
    task, split = trajectory.task, trajectory.split
    equations = trajectory.model.equations(task.inputs[split.test]) if len(split.test) else None
    components = by_component(trajectory.model.trained)

    def row(there: Objective) -> dict[str, Tensor]:
        found = _of_train(there, components)
        if equations is not None:
            with torch.no_grad():
                logits = trajectory.model.logits(there.parameters, equations)
            found |= _of_margins("test", logits, task.labels[split.test])
        return found

    rows, untrained = [], None
    for _, there in objectives(trajectory, dtype=dtype):
        if untrained is None:
            origin = {name: one.to(getattr(torch, dtype)) for name, one in trajectory.untrained.items()}
            untrained = row(replace(there, parameters=origin))
        rows.append(row(there))
    constants = {
        "dtypes": np.array(DTYPES, np.str_),
        "components": np.array(list(components), np.str_),
        "quantiles": torch.tensor(QUANTILES, dtype=torch.float64),
        **controls.untrained_control(untrained or {}),
    }
    return Series.of_rows("numerics", trajectory.steps, rows, constants)


def _of_train(there: Objective, components: dict[str, list[str]]) -> dict[str, Tensor]:
    config, labels = there.config, there.labels
    with torch.enable_grad():
        leaves = {name: there.parameters[name].detach().requires_grad_() for name in there.model.trained}
        logits = there.logits(leaves)
    z, by_dtype, gradients = logits.detach(), [], []
    for dtype in DTYPES:
        by_logits = logit_gradient(z, labels, dtype, config.loss)
        by_parameters = torch.autograd.grad(logits, list(leaves.values()), by_logits, retain_graph=True)
        gradients.append(component_vectors(dict(zip(leaves, by_parameters, strict=True)), components))
        whole = torch.cat(gradients[-1])
        row = {
            "collapse_share": has_collapsed(z, labels, dtype, config.loss).double().mean(),
            "zero_loss_share": (cross_entropy(z, labels, dtype, config.loss) == 0).double().mean(),
            "zero_gradient_share": (by_logits == 0).all(-1).double().mean(),
            "gradient_imbalance": imbalance(by_logits),
            "zero_parameter_gradient_share": (whole == 0).double().mean(),
            "gradient_norm": whole.norm(),
        }
        by_dtype.append(row)
    exact = torch.cat(gradients[-1])
    own, weights = gradients[DTYPES.index(config.loss_dtype)], component_vectors(there.parameters, components)
    return {
        **{name: torch.stack([row[name] for row in by_dtype]) for name in by_dtype[0]},
        "gradient_cosine": torch.stack([cosine(torch.cat(one), exact) for one in gradients]),
        "naive_loss_cosine": -cosine(torch.cat(own), torch.cat(weights)),
        "component_naive_loss_cosines": torch.stack([-cosine(*pair) for pair in zip(own, weights, strict=True)]),
        **_of_margins("train", z, labels),
    }


def _of_margins(
    part: str, logits: Float[Tensor, "batch d_vocab_out"], labels: Int[Tensor, " batch"]
) -> dict[str, Tensor]:
    found = margins(logits, labels)
    return {
        f"{part}_margins": found.quantile(torch.tensor(QUANTILES, dtype=found.dtype)),
        f"{part}_margin_mean": found.mean(),
        f"{part}_logit_scale": logit_scale(logits),
    }
