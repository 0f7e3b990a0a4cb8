"""The attention of each head from the answer's position."""

import torch
from einops import einsum, reduce
from jaxtyping import Float, Int
from torch import Tensor

from grokscope.measures._declaration import measure
from grokscope.measures._ranges import check_ranges
from grokscope.model.forward import Parameters
from grokscope.model.transformer import Model
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
    },
    stderr=("attention",),
)


@measure(n_checkpoints=120, by_checkpoint=True, variables=_VARIABLES)
def attention(trajectory: Trajectory, *, n_partners: int = 6, seed: int = 0) -> Series:
    """Compute the mean attention of each head from the answer's position, the last one, to each position.

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

        Constants: `first_operands` (elements), and `n_equations`, the number of drawn equations.

    Raises:
        GrokscopeError: `n_partners` is out of range.

    References:
        - Nanda et al. 2023, section 4.3: periodic attention.

    Invariances:
        - The order of neurons, a rotation of the residual stream, and a shift of all logits.
        - The order of heads only reorders the arrays.

    Cost:
        - One forward pass over the drawn equations per checkpoint, without the MLP of the last block.
    """
    check_ranges(("n_partners", n_partners, n_partners >= 1, "from 1"))
    task = trajectory.task
    task.require_single_answer()
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
        if name.endswith("hook_pattern"):
            patterns.append(value[:, :, -1])
        return value

    # The last MLP and the unembedding do not affect attention, and are most of the work: cut them to one unit.
    mlp = f"blocks.{model.config.n_layers - 1}.mlp."
    cut = {f"{mlp}W_in": (slice(None), slice(1)), f"{mlp}b_in": slice(1), f"{mlp}W_out": slice(1)}
    small = {name: parameters[name][part] for name, part in cut.items()}
    small |= {"unembed.W_U": parameters["unembed.W_U"][:, :1], "unembed.b_U": parameters["unembed.b_U"][:1]}
    model.logits({**parameters, **small}, inputs, hook=record)
    return patterns
