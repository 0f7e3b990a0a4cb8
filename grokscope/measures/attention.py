"""Where each head looks from the answer's position."""

import torch
from einops import einsum, reduce
from jaxtyping import Float, Int
from torch import Tensor

from grokscope.errors import GrokscopeError
from grokscope.model.forward import Parameters
from grokscope.model.transformer import Model
from grokscope.series import Series, by_checkpoint
from grokscope.tasks import Task
from grokscope.trajectory import Trajectory


@by_checkpoint
def attention(trajectory: Trajectory, *, n_partners: int = 6, seed: int = 0) -> Series:
    """Measure the attention of each head from the answer's position, the "=", to each position of the equation.

    Arrays over steps, each a mean of softmax weights, which sum to 1 over the positions:

    - `attention` (layers, heads, positions), over all the equations looked at, with `attention_stderr`;
    - `attention_by_first` (layers, heads, elements, positions), over those of them with one first operand. In
      networks that add by a clock it is periodic in the operand (Nanda et al. 2023, section 4.3).

    Looked at are `n_partners` equations of each first operand, drawn at random once for all steps, or all where there
    are no more; `attention_stderr` is the error of taking these for all. Constants: `first_operands` (elements), and
    `n_equations`, how many they are. Raise GrokscopeError for n_partners below 1. Costs one forward pass over them,
    without the last block's MLP.
    """
    if n_partners < 1:
        raise GrokscopeError(f"n_partners: {n_partners}, allowed: from 1.")
    task = trajectory.task
    chosen = _chosen(task, n_partners, seed)
    inputs, n_examples = task.inputs[chosen], len(task.inputs)
    elements, groups = task.operands[chosen, 0].unique(return_inverse=True)
    members = torch.zeros(len(elements), len(chosen), dtype=torch.float64)
    members[groups, torch.arange(len(chosen))] = 1
    members /= members.sum(1, keepdim=True)
    rows: list[dict[str, Tensor]] = []
    for snapshot in trajectory:
        patterns = torch.stack(_patterns(trajectory.model, snapshot.parameters, inputs)).double()
        rows.append(
            {
                "attention": reduce(patterns, "layer n head position -> layer head position", "mean"),
                "attention_stderr": patterns.std(1, correction=0) * ((1 / len(chosen) - 1 / n_examples) ** 0.5),
                "attention_by_first": einsum(
                    members, patterns, "element n, layer n head position -> layer head element position"
                ),
            }
        )
    return Series(
        "attention",
        trajectory.steps,
        {name: torch.stack([row[name] for row in rows]).numpy() for name in rows[0]},
        {"first_operands": elements.numpy(), "n_equations": torch.tensor(len(chosen)).numpy()},
    )


def _chosen(task: Task, n_partners: int, seed: int) -> Int[Tensor, " n_chosen"]:
    """Return the indices of up to `n_partners` equations of each first operand, increasing.

    Of every first operand they are the same ones of its equations, by number: then what differs from one operand to
    the next is the operand's doing, and not the draw's.
    """
    first = task.operands[:, 0]
    by_first = first.argsort(stable=True)
    place = torch.empty_like(by_first)
    place[by_first] = torch.arange(len(first)) - torch.searchsorted(first[by_first], first[by_first])
    drawn = torch.randperm(int(place.max()) + 1, generator=torch.Generator().manual_seed(seed))[:n_partners]
    return torch.isin(place, drawn).nonzero()[:, 0]


@torch.no_grad()
def _patterns(
    model: Model, parameters: Parameters, inputs: Int[Tensor, "n n_ctx"]
) -> list[Float[Tensor, "n head position"]]:
    """Return each block's attention from the last position."""
    found = []

    def keep(name: str, value: Tensor) -> Tensor:
        if name.endswith("hook_pattern"):
            found.append(value[:, :, -1])
        return value

    # What comes after the last attention has no part in it, and is most of the work.
    mlp = f"blocks.{model.config.n_layers - 1}.mlp."
    cut = {f"{mlp}W_in": (slice(None), slice(1)), f"{mlp}b_in": slice(1), f"{mlp}W_out": slice(1)}
    less = {name: parameters[name][part] for name, part in cut.items()}
    less |= {"unembed.W_U": parameters["unembed.W_U"][:, :1], "unembed.b_U": parameters["unembed.b_U"][:1]}
    model.logits({**parameters, **less}, inputs, hook=keep)
    return found
