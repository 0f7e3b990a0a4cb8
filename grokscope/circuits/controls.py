"""Controls: what a measure gives where the structure that it looks for has been shuffled away."""

from jaxtyping import Float
from torch import Tensor


def shuffled(name: str, drawn: Float[Tensor, "n_shuffles ..."]) -> dict[str, Tensor]:
    """Return the mean of a quantity over random orders as `name`_shuffled, and its standard error beside it."""
    return {f"{name}_shuffled": drawn.mean(0), f"{name}_shuffled_stderr": drawn.std(0) / len(drawn) ** 0.5}
