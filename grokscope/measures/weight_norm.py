"""Weight norms: total, by parameter, by component, and the distance from initialization."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from grokscope.model.components import by_component
from grokscope.series import Series, by_checkpoint, spelled
from grokscope.trajectory import Trajectory

_LOADED_AT_ONCE = 32


def row_norms(parameter: Float[Tensor, "steps *shape"]) -> Float[Tensor, " steps"]:
    """Return √(Σ w²) over everything but the leading step axis, accumulated in float64."""
    return torch.linalg.vector_norm(parameter.flatten(1), dim=1, dtype=torch.float64)


@by_checkpoint
def weight_norm(trajectory: Trajectory) -> Series:
    """Measure the L2 norm ‖w‖ = √(Σ w²) of all trained parameters, of each parameter, and ‖w − w₀‖.

    Arrays over steps: `weight_norm`; `weight_norm.embed.W_E` and so on for each parameter in TransformerLens'
    names; `component_norms` (components): of all parameters of each component in the constant `components`
    (`grokscope.components`; one that training does not move is left out); `distance_from_initialization` and
    `component_distances` (components), which are not a number where the trajectory has no step 0. Liu et al.
    2023 (Omnigrok) and Nanda et al. 2023 (sum of squared weights, the square of this) read it as a measure of
    progress: weight decay lowers it in the cleanup. `weight_norm.unembed.W_U` is the last layer's norm, which
    slingshots drive up (`phases.slingshots`). Costs one read of the checkpoints.
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
    moved = {name: torch.cat(parts).numpy() for name, parts in distances.items()}
    components = by_component(names)

    def together(values: dict[str, np.ndarray]) -> Float[np.ndarray, "steps components"]:
        return np.stack([np.linalg.norm([values[name] for name in some], axis=0) for some in components.values()], -1)

    component_norms, component_distances = together(by_name), together(moved)
    arrays = {
        "weight_norm": np.linalg.norm(component_norms, axis=-1),
        "distance_from_initialization": np.linalg.norm(component_distances, axis=-1),
        "component_norms": component_norms,
        "component_distances": component_distances,
        **{f"weight_norm.{name}": one for name, one in by_name.items()},
    }
    return Series("weight_norm", trajectory.steps, arrays, {"components": spelled(list(components))})
