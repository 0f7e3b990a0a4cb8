"""Cross-entropy of a model's logits, in the precision that grokking needs."""

import math
from collections.abc import Mapping
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokscope import threads
from grokscope.config import RunConfig
from grokscope.model import forward, merged, merged_loss
from grokscope.model.equation_batch import Equations
from grokscope.model.families import Model
from grokscope.model.forward import Masks, Parameters
from grokscope.model.transformer import Transformer
from grokscope.tasks import NO_TARGET

EVALUATION_CHUNK = 32_768
"""The number of equations that are evaluated at once, so that a large p fits in memory."""
_PART_EXAMPLES = 1024
"""The most examples of a part whose gradient is computed at once, unless the form is merged."""


def log_probabilities(
    logits: Float[Tensor, "batch d_vocab_out"], dtype: str = "float64", function: str = "softmax"
) -> Float[Tensor, "batch d_vocab_out"]:
    """Return log p of every answer, for p = softmax(logits) or p = stablemax(logits).

    Stablemax is s(x) / Σ s with s(x) = x + 1 for x ≥ 0 and 1/(1 − x) for x < 0. It grows linearly, so it cannot
    collapse.

    Args:
        logits: The logits of a batch.
        dtype: The precision of the computation, as the name of a torch dtype.
        function: "softmax" or "stablemax".

    References:
        Prieto et al. 2025, equation 5.
    """
    x = logits.to(getattr(torch, dtype))
    if function == "stablemax":
        log_s = _log_stablemax_terms(x)
        return log_s - log_s.exp().sum(-1, keepdim=True).log()
    return x.log_softmax(-1)


def cross_entropy(
    logits: Float[Tensor, "batch *positions d_vocab_out"],
    labels: Int[Tensor, "batch *positions"],
    dtype: str = "float64",
    function: str = "softmax",
) -> Float[Tensor, " n_targets"]:
    """Return the loss of each target: the cross-entropy −log p[label] in nats, with p from `log_probabilities`.

    With the function "mse" it is the mean over the C columns of (logit − δ)², δ = 1 for the label and 0 otherwise.

    Args:
        logits: The logits of a batch, at one position or at several.
        labels: The answer of each example, or the target at each position, NO_TARGET without one. Targets of several
            positions are in the order of the examples, and then of the positions.
        dtype: The precision. After memorization, losses are about 1e-7, where 1 − softmax cancels in float32. The
            default is therefore float64, as in Nanda et al. 2023 and Prieto et al. 2025.
        function: "softmax", "stablemax" or "mse".
    """
    if labels.ndim == 2:
        targets = (labels != NO_TARGET).flatten().nonzero()[:, 0]
        logits, labels = logits.flatten(0, 1).index_select(0, targets), labels.flatten()[targets]
    if function == "mse":
        x = logits.to(getattr(torch, dtype))
        target = torch.zeros_like(x).scatter(1, labels[:, None], 1.0)
        return (x - target).square().mean(-1)
    return -log_probabilities(logits, dtype, function).gather(1, labels[:, None])[:, 0]


def has_collapsed(
    logits: Float[Tensor, "batch d_vocab_out"],
    labels: Int[Tensor, " batch"],
    dtype: str = "float32",
    function: str = "softmax",
) -> Bool[Tensor, " batch"]:
    """Return whether each example shows softmax collapse: Σ_k s_k = s_label exactly in `dtype`.

    Here s_k = e^(z_k − max z), or stablemax's s(z_k). In a collapse, rounding absorbs the other terms of the sum. The
    loss is then exactly 0, and so is its gradient with respect to the label's logit, but not to the other logits.

    Rounding absorbs the smaller of two terms if their logits differ by

    - ln 2⁸ = 5.5 in bfloat16 (torch sums bfloat16 in float32 and rounds the sum once),
    - ln 2²⁴ = 16.6 in float32,
    - ln 2⁵³ = 36.7 in float64.

    Args:
        logits: The logits of a batch.
        labels: The answer of each example.
        dtype: The precision to test, "bfloat16", "float32" or "float64".
        function: "softmax" or "stablemax".

    References:
        Prieto et al. 2025, section 3.
    """
    x = logits.to(getattr(torch, dtype))
    terms = (_log_stablemax_terms(x) if function == "stablemax" else x - x.amax(-1, keepdim=True)).exp()
    return terms.sum(-1) == terms.gather(1, labels[:, None])[:, 0]


def mean_loss_and_gradient(
    model: Model,
    parameters: Parameters,
    equations: Equations,
    labels: Int[Tensor, "n_examples *positions"],
    config: RunConfig,
    dropout: Masks | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Return `mean_loss` over a batch and its gradient by each trained parameter.

    Args:
        model: The architecture.
        parameters: The parameters under TransformerLens names; the trained ones require gradients.
        equations: The batch.
        labels: The answer of each equation, or its targets at each position.
        config: The config, for `loss` and `loss_dtype`.
        dropout: Masks that multiply the outputs of attention and MLP; by default no dropout.
    """
    leaves = [parameters[name] for name in model.trained]
    if dropout is None and config.loss == "softmax" and _is_merged(model, equations):
        tables = merged.tables(model.config, parameters, equations)
        detached = merged.Tables(*(table.detach() for table in tables))
        examples = merged_loss.Examples(model.config.act_fn, equations, labels, getattr(torch, config.loss_dtype))
        loss, of_tables = merged_loss.value_and_gradient(detached, examples)
        gradients = torch.autograd.grad(tables, leaves, of_tables)
    elif labels.ndim > 1:
        logits = model.logits(parameters, equations, dropout)
        loss = cross_entropy(logits, labels, config.loss_dtype, config.loss).mean()
        gradients = torch.autograd.grad(loss, leaves)
    else:

        def of_part(start: int, part: Equations, answers: Int[Tensor, " part"]) -> list[Tensor]:
            masks = dropout and {name: mask[start : start + len(part)] for name, mask in dropout.items()}
            with torch.enable_grad():
                logits = model.logits(parameters, part, masks)
                loss = cross_entropy(logits, answers, config.loss_dtype, config.loss).sum() / len(labels)
                return [loss.detach(), *torch.autograd.grad(loss, leaves)]

        n_part = -(-len(labels) // n_parts(model, equations, len(labels)))
        parts = zip(range(0, len(labels), n_part), equations.parts(n_part), labels.split(n_part), strict=True)
        results = threads.compute([partial(of_part, *part) for part in parts])
        loss, *gradients = (merged_loss.total(tensors) for tensors in zip(*results, strict=True))
    return loss.detach(), dict(zip(model.trained, gradients, strict=True))


def n_parts(model: Model, equations: Equations, n_examples: int) -> int:
    """Return the number of parts in which `mean_loss_and_gradient` computes a batch.

    Args:
        model: The architecture.
        equations: Equations of the task.
        n_examples: The number of equations in the batch.
    """
    if model.has_all_positions or not isinstance(model, Transformer):
        return 1
    if not _is_merged(model, equations):
        return -(-n_examples // _PART_EXAMPLES)
    n_columns = merged.n_columns(model.config.d_mlp, model.d_vocab_out)
    return sum(merged_loss.n_parts(n, n_columns) for n in merged_loss.block_sizes(n_examples, n_columns))


def n_operations(model: Model, equations: Equations, n_examples: int) -> int:
    """Return about how many operations the products of a step take: 6 per example and weight that it passes.

    Args:
        model: The architecture.
        equations: Equations of the task.
        n_examples: The number of equations in the batch.
    """
    if _is_merged(model, equations):
        n_entries = (model.n_ctx - 1) * model.config.n_heads
        n_columns = merged.n_columns(model.config.d_mlp, model.d_vocab_out)
        return 6 * n_examples * (model.config.d_mlp * model.d_vocab_out + n_entries * n_columns)
    n_weights = sum(math.prod(shape) for name, shape in model.shapes.items() if name.startswith("blocks."))
    return 6 * n_examples * (len(equations.tokens[0]) - equations.n_shared) * n_weights


def _is_merged(model: Model, equations: Equations) -> bool:
    is_transformer = isinstance(model, Transformer) and not model.has_all_positions
    return is_transformer and forward.is_merged(model.config, equations)


def mean_loss(
    model: Model,
    parameters: Parameters,
    inputs: Equations | Int[Tensor, "n_examples n_ctx"],
    labels: Int[Tensor, "n_examples *positions"],
    config: RunConfig,
) -> Float[Tensor, ""]:
    """Return the mean loss over a batch's targets in nats, as the config defines it; it has a gradient."""
    return cross_entropy(model.logits(parameters, inputs), labels, config.loss_dtype, config.loss).mean()


@torch.no_grad()
def evaluate(
    model: Model,
    parameters: Parameters,
    inputs: Equations | Int[Tensor, "n_examples n_ctx"],
    labels: Int[Tensor, "n_examples *positions"],
    dtype: str = "float64",
    function: str = "softmax",
) -> tuple[Float[Tensor, " n_examples"], Bool[Tensor, " n_examples"] | Float[Tensor, " n_examples"]]:
    """Return the loss of each example, and whether its answer is right: whether the largest logit is the label's.

    An example with several targets has the mean loss over its targets, and the share of them that is right.
    `mean_over` weights examples by their targets.

    Args:
        model: The architecture.
        parameters: The parameters under TransformerLens names.
        inputs: The equations, evaluated in chunks to bound memory.
        labels: The answer of each equation, or the targets at its positions.
        dtype: The precision of the log-softmax, "float32" or "float64".
        function: "softmax" or "stablemax".
    """
    equations = model.equations(inputs) if isinstance(inputs, Tensor) else inputs
    losses, is_right = [], []
    n_at_once = EVALUATION_CHUNK if labels.ndim == 1 else max(EVALUATION_CHUNK // labels.shape[1], 1)
    for part, part_labels in zip(equations.parts(n_at_once), labels.split(n_at_once), strict=True):
        logits = model.logits(parameters, part)
        part_losses, part_is_right = (
            cross_entropy(logits, part_labels, dtype, function),
            logits.argmax(-1) == part_labels,
        )
        if labels.ndim == 2:
            has_target = part_labels != NO_TARGET
            n_targets = has_target.sum(1)
            sums = torch.zeros(len(n_targets), dtype=part_losses.dtype, device=logits.device)
            part_losses = sums.index_add(0, has_target.nonzero()[:, 0], part_losses) / n_targets
            part_is_right = (part_is_right & has_target).sum(1).double() / n_targets
        losses.append(part_losses)
        is_right.append(part_is_right)
    return torch.cat(losses), torch.cat(is_right)


def means_by_part(
    example_losses: Float[Tensor, " n_examples"],
    is_right: Float[Tensor, " n_examples"] | Bool[Tensor, " n_examples"],
    labels: Int[Tensor, "n_examples *positions"],
    parts: Mapping[str, Int[Tensor, " m"]],
) -> dict[str, float]:
    """Return the loss and the accuracy of each part of the examples, as PREFIXloss and PREFIXaccuracy.

    Args:
        example_losses: The loss of each example of the task, from `evaluate`.
        is_right: Whether its answer is right, from `evaluate`.
        labels: The labels of the task.
        parts: The examples of each part, by the prefix of its names.
    """
    quantities = {"loss": example_losses, "accuracy": is_right}
    return {
        f"{prefix}{name}": mean_over(values, labels, part)
        for name, values in quantities.items()
        for prefix, part in parts.items()
    }


def mean_over(
    values: Float[Tensor, " n_examples"] | Bool[Tensor, " n_examples"],
    labels: Int[Tensor, "n_examples *positions"],
    examples: Int[Tensor, " m"],
) -> float:
    """Return the mean over the targets of some examples of a quantity that `evaluate` returned; NaN without examples.

    Args:
        values: The quantity of each example of the task.
        labels: The labels of the task.
        examples: The examples to take the mean over.
    """
    return float(mean_over_targets(values[examples], labels[examples]))


def mean_over_targets(
    values: Float[Tensor, " n_examples"] | Bool[Tensor, " n_examples"], labels: Int[Tensor, "n_examples *positions"]
) -> Float[Tensor, ""]:
    """Return the mean over all targets of a quantity that `evaluate` returned, as a tensor that can be vmapped."""
    values = values.double() if values.dtype == torch.bool else values
    if labels.ndim == 1:
        return values.mean()
    n_targets = (labels != NO_TARGET).sum(1).double()
    return (values * n_targets).sum() / n_targets.sum()


def _log_stablemax_terms(x: Float[Tensor, "batch d_vocab_out"]) -> Float[Tensor, "batch d_vocab_out"]:
    """Return log s(x) for stablemax's s."""
    # Clamping keeps the NaN of the unselected branch out of the gradient, and clamp has the right slope, 1, at zero.
    return torch.where(x >= 0, x.clamp_min(0).log1p(), -(-x.clamp_max(0)).log1p())
