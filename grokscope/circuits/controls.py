"""The two controls of the circuit measures: random orders of the elements, and the untrained model."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from grokscope.errors import GrokscopeError


def random_orders(n: int, n_shuffles: int, seed: int | torch.Generator) -> Int[Tensor, "n_shuffles n"]:
    """Return independent, uniformly random permutations of 0 … n − 1.

    A measure that reads structure off the order of the elements gives the control by reading it off these orders.

    Args:
        n: The number of elements to permute.
        n_shuffles: The number of permutations, at least 2, because the control has a standard error.
        seed: A seed, or a generator whose stream the permutations continue. Equal seeds give equal permutations.

    Returns:
        One permutation per row.

    Raises:
        GrokscopeError: `n_shuffles` is below 2.
    """
    if n_shuffles < 2:
        raise GrokscopeError(f"n_shuffles: {n_shuffles}. Allowed: from 2, because the control has a standard error.")
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(n, generator=generator) for _ in range(n_shuffles)])


def shuffled_control(samples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of each quantity over random orders, and the standard error of this mean.

    Args:
        samples: For each random order, the quantities by name. All samples have the same names and shapes.

    Returns:
        For each name, `name_shuffled` (the mean) and `name_shuffled_stderr` (the sample standard deviation over the
        orders, divided by √n_orders), in the shape of the quantity. Empty if there are no samples.
    """
    control: dict[str, Tensor] = {}
    for name in samples[0] if samples else ():
        values = torch.stack([sample[name] for sample in samples])
        control[f"{name}_shuffled"] = values.mean(0)
        control[f"{name}_shuffled_stderr"] = values.std(0) / len(values) ** 0.5
    return control


def untrained_control(quantities: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the quantities of the untrained model under the names of its control, `name_initialization`.

    Shuffled controls among the quantities are left out: a control of a control has no use.
    """
    return {f"{name}_initialization": value for name, value in quantities.items() if "_shuffled" not in name}
