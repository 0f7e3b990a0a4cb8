"""The path of the weights: how far they move between checkpoints, and whether they keep their direction."""

import numpy as np
import torch

from grokscope.measures._declaration import measure
from grokscope.model.components import component_vectors, cosine
from grokscope.series import Series
from grokscope.trajectory import Trajectory
from grokscope.variable import Variable

_VARIABLES = {
    "update_size": Variable("‖Δ‖", "L2 norm", is_logarithmic=True),
    "update_size_per_step": Variable("‖Δ‖ per update", "L2 norm", is_logarithmic=True),
    "component_update_sizes": Variable("‖Δ‖ of each component", "L2 norm", ("component",), is_logarithmic=True),
    "update_weight_cosine": Variable("cosine of Δ and w"),
    "component_update_weight_cosines": Variable("cosine of Δ and w of each component", dims=("component",)),
    "update_cosine": Variable("cosine of successive updates"),
    "path_length": Variable("length of the path", "L2 norm"),
    "displacement": Variable("‖w − w₀‖ from the first checkpoint", "L2 norm"),
    "straightness": Variable("displacement over path length"),
    "components": Variable("component", dims=("component",), role="coordinate"),
}


@measure(variables=_VARIABLES)
def path(trajectory: Trajectory) -> Series:
    """Compute the sizes and directions of the updates Δ_i = w_i − w_{i−1} between successive checkpoints i − 1 and i.

    w_i are the trained parameters at checkpoint i. The path between two checkpoints is not observed, and a gap is
    crossed in a straight line. So every length is a lower bound, and denser checkpoints make it tighter.

    Args:
        trajectory: The checkpoints to measure.

    Returns:
        Series with arrays over the steps. NaN at the first checkpoint, which has no update; `update_cosine` is NaN at
        the second too. A vector of length 0 has cosine 0. The constant `components` names the components.

        - `update_size` (steps): ‖Δ_i‖.
        - `update_size_per_step` (steps): ‖Δ_i‖ over the number of optimizer updates between the two checkpoints.
        - `component_update_sizes` (steps, components): ‖Δ_i‖ of each component's parameters.
        - `update_weight_cosine` (steps): the cosine of Δ_i and w_{i−1}. At 1 the weights are scaled up without
          turning, as in naive loss minimization. At −1 they shrink, as under weight decay. At 0 they turn at constant
          norm.
        - `component_update_weight_cosines` (steps, components): the same for each component's parameters.
        - `update_cosine` (steps): the cosine of Δ_i and Δ_{i−1}. 1 is a straight line; below 0 the weights turn back.
        - `path_length` (steps): Σ ‖Δ‖ up to this checkpoint; 0 at the first.
        - `displacement` (steps): ‖w_i − w_0‖ from the trajectory's first checkpoint; 0 there.
        - `straightness` (steps): displacement over path length. 1 is a straight line; 0 is a return to the start.

    References:
        - Prieto et al. 2025, section 4: naive loss minimization.

    Invariances:
        - The order of neurons and heads, and a rotation of the residual stream.
        - Not rescaled ReLU neurons. A shift of all logits that stays the same changes only the cosines with w.

    Controls:
        - A random update of n parameters has a cosine of about ±1/√n with anything.

    Cost:
        - One read of the checkpoints, in float64.
    """
    components = trajectory.model.components(trajectory.model.trained)
    origin = component_vectors(trajectory.first.parameters, components)
    start, sizes = torch.cat(origin), [len(vector) for vector in origin]
    # NaN spreads to every quantity that needs a checkpoint before the first.
    previous_weights = update = torch.full_like(start, torch.nan)
    path_length, rows = start.new_zeros(()), []
    n_updates = np.diff(trajectory.steps, prepend=trajectory.steps[0])
    for snapshot, n in zip(trajectory, n_updates.tolist(), strict=True):
        weights = torch.cat(component_vectors(snapshot.parameters, components))
        previous_update, update = update, weights - previous_weights
        update_size, displacement = update.norm(), (weights - start).norm()
        path_length = path_length + update_size if n else path_length
        by_part = list(zip(update.split(sizes), previous_weights.split(sizes), strict=True))
        row = {
            "update_size": update_size,
            "update_size_per_step": update_size / n,
            "update_weight_cosine": cosine(update, previous_weights),
            "update_cosine": cosine(update, previous_update),
            "path_length": path_length,
            "displacement": displacement,
            "straightness": displacement / path_length,
            "component_update_sizes": torch.stack([part.norm() for part, _ in by_part]),
            "component_update_weight_cosines": torch.stack([cosine(*pair) for pair in by_part]),
        }
        rows.append(row)
        previous_weights = weights
    return Series.of_rows("path", trajectory.steps, rows, {"components": np.array(list(components), np.str_)})
