"""The attention of each head from the answer's position."""

import numpy as np
import torch
from einops import einsum, reduce
from jaxtyping import Float, Int
from torch import Tensor

from grokscope.circuits.controls import untrained_control
from grokscope.measures._declaration import measure
from grokscope.measures._head_scores import matching_positions, prefix_matching, previous_token
from grokscope.measures._ranges import check_ranges
from grokscope.model.families import Model
from grokscope.model.forward import Parameters
from grokscope.series import Series
from grokscope.tasks import Task
from grokscope.trajectory import Trajectory
from grokscope.variable import Variable, with_companions

_VARIABLES = with_companions(
    {
        "attention": Variable("attention to each position", dims=("layer", "head", "position")),
        "attention_by_first": Variable(
            "attention by the first operand", dims=("layer", "head", "first_operand", "position")
        ),
        "first_operands": Variable("first operand", dims=("first_operand",), role="coordinate"),
        "n_equations": Variable("number of drawn equations"),
        "previous_token": Variable("attention to the token before", dims=("any_head",)),
        "prefix_matching": Variable("attention to what followed the same token before", dims=("any_head",)),
        "heads": Variable("head", dims=("any_head",), role="coordinate"),
        "best_prefix_matching": Variable("largest prefix matching of a head"),
    },
    stderr=("attention",),
    initialization=("previous_token", "prefix_matching"),
)
_SEQUENCES_PER_PARTNER = 32


@measure(n_checkpoints=120, by_checkpoint=True, variables=_VARIABLES)
def attention(trajectory: Trajectory, *, n_partners: int = 6, seed: int = 0) -> Series:
    """Compute the mean attention of each head from the answer's position, the last one, to each position.

    In a task of sequences, attention is read at every position, and summarised by what induction heads look at.

    The weights are a softmax, so they sum to 1 over the positions. In networks that add by a clock, the attention to
    the first operand is periodic in that operand.

    Args:
        trajectory: The checkpoints to measure.
        n_partners: The number of equations per first operand, from 1. If an operand has fewer, all of them are used.
            The same partners, by their rank among an operand's equations, are used for every first operand and step.
        seed: The seed of the draw of partners.

    Returns:
        Series with arrays over the steps.

        - `attention` (steps, layers, heads, positions): the mean over the drawn equations.
        - `attention_stderr` (steps, layers, heads, positions): the error of taking the drawn equations for all; 0 if
          all are drawn.
        - `attention_by_first` (steps, layers, heads, elements, positions): the mean over the drawn equations with one
          first operand.

        A task of sequences has other arrays, means over `32 · n_partners` drawn sequences:

        - `previous_token` (steps, heads of all layers): the attention to the position before, over all but the
          first position.
        - `prefix_matching` (steps, heads): the attention of the positions with a target to what followed the
          same token before. A head with a large value is an induction head. Absent if no token occurs twice.
        - `best_prefix_matching` (steps): the largest value of a head. `grokscope.phases.first_crossing` finds the
          step at which it exceeds a threshold.

        Constants: `first_operands` (elements) or `heads`, and `n_equations`, the number of drawn equations.

    Raises:
        GrokscopeError: `n_partners` is out of range.

    References:
        - Nanda et al. 2023, section 4.3: periodic attention.
        - Olsson et al. 2022: induction heads, prefix matching and previous-token heads.

    Controls:
        - `previous_token_initialization`, `prefix_matching_initialization`: the untrained model.

    Invariances:
        - The order of neurons, a rotation of the residual stream, and a shift of all logits.
        - The order of heads only reorders the arrays.

    Cost:
        - One forward pass over the drawn equations per checkpoint, without the MLP of the last block.
    """
    check_ranges(("n_partners", n_partners, n_partners >= 1, "from 1"))
    task = trajectory.task
    if task.is_sequence:
        return _sequence_attention(trajectory, _SEQUENCES_PER_PARTNER * n_partners, seed)
    examples = _drawn_examples(task, n_partners, seed)
    inputs, n_examples = task.inputs[examples], len(task.inputs)
    elements, groups = task.operands[examples, 0].unique(return_inverse=True)
    members = torch.zeros(len(elements), len(examples), dtype=torch.float64)
    members[groups, torch.arange(len(examples))] = 1
    members /= members.sum(1, keepdim=True)
    rows = []
    for snapshot in trajectory:
        patterns = torch.stack(_patterns(trajectory.model, snapshot.parameters, inputs)).double()
        row = {
            "attention": reduce(patterns, "layer n head position -> layer head position", "mean"),
            "attention_stderr": patterns.std(1, correction=0) * ((1 / len(examples) - 1 / n_examples) ** 0.5),
            "attention_by_first": einsum(
                members, patterns, "element n, layer n head position -> layer head element position"
            ),
        }
        rows.append(row)
    constants = {"first_operands": elements, "n_equations": torch.tensor(len(examples))}
    return Series.of_rows("attention", trajectory.steps, rows, constants)


def _sequence_attention(trajectory: Trajectory, n_examples: int, seed: int) -> Series:
    """Return the scores of each head in drawn sequences; see `attention`."""
    task, model = trajectory.task, trajectory.model
    order = torch.randperm(len(task.inputs), generator=torch.Generator().manual_seed(seed))
    model.require("attention", model.attention)
    drawn = order[:n_examples].sort().values
    inputs = task.inputs[drawn]
    matching = matching_positions(inputs, task.labels[drawn])

    def row_of(parameters: Parameters) -> dict[str, Tensor]:
        patterns: list[Tensor] = []

        def record(name: str, value: Tensor) -> Tensor:
            if name in model.attention:
                patterns.append(value.double())
            return value

        with torch.no_grad():
            model.logits(parameters, inputs, hook=record)
        row = {"previous_token": torch.cat([previous_token(pattern) for pattern in patterns])}
        if matching.any():
            row["prefix_matching"] = torch.cat([prefix_matching(pattern, matching) for pattern in patterns])
        return row

    rows = [row_of(snapshot.parameters) for snapshot in trajectory]
    for row in rows:
        if "prefix_matching" in row:
            row["best_prefix_matching"] = row["prefix_matching"].max()
    n_layers = len(model.attention)
    n_heads = len(rows[0]["previous_token"]) // n_layers
    names = [f"layer {layer} head {head}" for layer in range(n_layers) for head in range(n_heads)]
    constants = {
        "heads": np.array(names),
        "n_equations": torch.tensor(len(drawn)),
        **untrained_control(row_of(trajectory.untrained)),
    }
    return Series.of_rows("attention", trajectory.steps, rows, constants)


def _drawn_examples(task: Task, n_partners: int, seed: int) -> Int[Tensor, " n_drawn"]:
    """Return the increasing indices of up to `n_partners` examples of each first operand.

    Every first operand gets the same ranks among its examples, so differences between operands are not the draw's.
    """
    first = task.operands[:, 0]
    by_first = first.argsort(stable=True)
    ranks = torch.empty_like(by_first)
    ranks[by_first] = torch.arange(len(first)) - torch.searchsorted(first[by_first], first[by_first])
    drawn = torch.randperm(int(ranks.max()) + 1, generator=torch.Generator().manual_seed(seed))[:n_partners]
    return torch.isin(ranks, drawn).nonzero()[:, 0]


@torch.no_grad()
def _patterns(
    model: Model, parameters: Parameters, inputs: Int[Tensor, "n n_ctx"]
) -> list[Float[Tensor, "n head position"]]:
    """Return each block's attention from the last position."""
    patterns = []

    def record(name: str, value: Tensor) -> Tensor:
        if name in model.attention:
            patterns.append(value[:, :, -1])
        return value

    model.require("attention", model.attention)
    small: dict[str, Tensor] = {}
    if model.config.has_fast_forms:
        # The last MLP and the unembedding do not affect attention, and are most of the work: cut them to one unit.
        mlp = f"blocks.{model.config.n_layers - 1}.mlp."
        cut = {f"{mlp}W_in": (slice(None), slice(1)), f"{mlp}b_in": slice(1), f"{mlp}W_out": slice(1)}
        small = {name: parameters[name][part] for name, part in cut.items()}
        small |= {"unembed.W_U": parameters["unembed.W_U"][:, :1], "unembed.b_U": parameters["unembed.b_U"][:1]}
    model.logits({**parameters, **small}, inputs, hook=record)
    return patterns
