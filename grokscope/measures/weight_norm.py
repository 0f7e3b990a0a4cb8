"""Weight norms: total, by parameter and by component, and the distance from initialization."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from grokscope.measures._chunks import evaluate_in_chunks
from grokscope.measures._declaration import Panel, measure
from grokscope.model.components import parameter_label
from grokscope.series import Series
from grokscope.trajectory import Trajectory
from grokscope.variable import Variable

_CHECKPOINTS_PER_CHUNK = 32


def row_norms(parameter: Float[Tensor, "steps *shape"]) -> Float[Tensor, " steps"]:
    """Return √(Σ w²) over all axes but the leading one, accumulated in float64."""
    return torch.linalg.vector_norm(parameter.flatten(1), dim=1, dtype=torch.float64)


_VARIABLES = {
    "weight_norm": Variable("‖w‖", "L2 norm"),
    "distance_from_initialization": Variable("‖w − w₀‖", "L2 norm"),
    "component_norms": Variable("‖w‖ of each component", "L2 norm", ("component",)),
    "component_distances": Variable("‖w − w₀‖ of each component", "L2 norm", ("component",)),
    "components": Variable("component", dims=("component",), role="coordinate"),
}
_PANELS = (
    Panel("norms", "total norm and distance", ("weight_norm", "distance_from_initialization")),
    Panel("matrices", "norm of each matrix", ("weight_norm.*.W_*",)),
    Panel("vectors", "norm of each bias and LayerNorm vector", ("weight_norm.*.b*", "weight_norm.*.w")),
)


@measure(version=2, by_checkpoint=True, variables=_VARIABLES, panels=_PANELS)
def weight_norm(trajectory: Trajectory) -> Series:
    """Compute the norm ‖w‖ = √(Σ w²) of the trained parameters, and the distance ‖w − w₀‖ from initialization.

    Weight decay lowers the norm during cleanup. `weight_norm.unembed.W_U` is the norm of the last layer, which
    slingshots drive up (`phases.slingshots`).

    Args:
        trajectory: The checkpoints to measure.

    Returns:
        Series with arrays over the steps. A component is a part of the transformer (`model.components.COMPONENTS`);
        the constant `components` names those that have trained parameters.

        - `weight_norm` (steps): the norm of all trained parameters.
        - `weight_norm.NAME` (steps), as in `weight_norm.embed.W_E`: the norm of one parameter.
        - `component_norms` (steps, components): the norm of each component's parameters.
        - `distance_from_initialization` (steps): ‖w − w₀‖; NaN if the run has no step 0.
        - `component_distances` (steps, components): the same for each component.

    References:
        - Liu et al. 2023, "Omnigrok": the weight norm and the time to generalise.
        - Nanda et al. 2023: the sum of squared weights, the square of this norm, as a measure of progress.

    Invariances:
        - The order of neurons and heads, and a rotation of the residual stream.
        - Not rescaled ReLU neurons, and not a shift of all logits.

    Cost:
        - One read of the checkpoints.
    """
    names, origin = trajectory.model.trained, trajectory.initialization
    components = trajectory.model.components(names)

    def norms_and_distances(chunk: Trajectory) -> dict[str, Float[Tensor, " steps"]]:
        norms = {}
        for name in names:
            parameter = chunk.parameter(name)
            norms[f"norm {name}"] = row_norms(parameter)
            norms[f"distance {name}"] = row_norms(parameter - (origin[name] if origin else torch.nan))
        return norms

    by_name = evaluate_in_chunks(trajectory, _CHECKPOINTS_PER_CHUNK, norms_and_distances)

    def by_component_of(quantity: str) -> Float[np.ndarray, "steps components"]:
        columns = [[by_name[f"{quantity} {name}"].numpy() for name in members] for members in components.values()]
        return np.stack([np.linalg.norm(column, axis=0) for column in columns], -1)

    component_norms, component_distances = by_component_of("norm"), by_component_of("distance")
    arrays = {
        "weight_norm": np.linalg.norm(component_norms, axis=-1),
        "distance_from_initialization": np.linalg.norm(component_distances, axis=-1),
        "component_norms": component_norms,
        "component_distances": component_distances,
        **{f"weight_norm.{name}": by_name[f"norm {name}"].numpy() for name in names},
    }
    return Series(
        "weight_norm",
        trajectory.steps,
        arrays,
        {"components": np.array(list(components), np.str_)},
        variables={f"weight_norm.{name}": Variable(parameter_label(name), "L2 norm") for name in names},
    )
