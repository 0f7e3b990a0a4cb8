"""Weight norms: total, by parameter, and the distance from initialization."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from grokscope.series import Series, by_checkpoint
from grokscope.trajectory import Trajectory

_LOADED_AT_ONCE = 32


def row_norms(parameter: Float[Tensor, "steps *shape"]) -> Float[Tensor, " steps"]:
    """Return √(Σ w²) over everything but the leading step axis, accumulated in float64."""
    return torch.linalg.vector_norm(parameter.flatten(1), dim=1, dtype=torch.float64)


@by_checkpoint
def weight_norm(trajectory: Trajectory) -> Series:
    """Measure the L2 norm ‖w‖ = √(Σ w²) of all trained parameters, of each parameter, and ‖w − w₀‖.

    Arrays over steps: `weight_norm`; `weight_norm.embed.W_E` and so on for each parameter in TransformerLens'
    names; `distance_from_initialization`, which is not a number where the trajectory has no step 0. Liu et al.
    2023 (Omnigrok) and Nanda et al. 2023 (sum of squared weights, the square of this) read it as a measure of
    progress: weight decay lowers it in the cleanup. Costs one read of the checkpoints.
    """
    names, origin = trajectory.model.trained, trajectory.initialization
    norms = {name: [] for name in names}
    distances = {name: [] for name in names}
    for start in range(0, len(trajectory), _LOADED_AT_ONCE):
        part = trajectory[start : start + _LOADED_AT_ONCE]
        for name in names:
            parameter = part.parameter(name)
            norms[name].append(row_norms(parameter))
            distances[name].append(row_norms(parameter - (origin[name] if origin else torch.nan)))
    by_name = {name: torch.cat(parts).numpy() for name, parts in norms.items()}
    squared_distance = sum(torch.cat(parts).square() for parts in distances.values())
    arrays = {
        "weight_norm": np.sqrt(sum(np.square(one) for one in by_name.values())),
        "distance_from_initialization": torch.as_tensor(squared_distance).sqrt().numpy(),
        **{f"weight_norm.{name}": one for name, one in by_name.items()},
    }
    return Series("weight_norm", trajectory.steps, arrays)
