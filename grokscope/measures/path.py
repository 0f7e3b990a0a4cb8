"""The path of the weights: how far they move from checkpoint to checkpoint, and whether they keep their direction."""

import numpy as np
import torch

from grokscope.model.components import by_component, cosine, vectors
from grokscope.series import Series, spelled
from grokscope.trajectory import Trajectory


def path(trajectory: Trajectory) -> Series:
    """Measure the updates Δ_i = w_i − w_{i−1} between successive checkpoints i − 1 and i of the trained parameters.

    Training goes through steps that no checkpoint shows, and a gap is crossed in a straight line: every length here
    is a lower bound of the path's, nearer the denser the checkpoints are. Arrays over steps, not a number where
    there is no checkpoint before (the first; for `update_cosine` the second too):

    - `update_size` ‖Δ_i‖, and `update_size_per_step`, divided by the optimizer updates between the two checkpoints;
      `component_update_sizes` (components): the same of each component in the constant `components`;
    - `update_weight_cosine`: of Δ_i and w_{i−1}. 1: the weights are scaled up and turn nowhere, as naive loss
      minimization does (Prieto et al. 2025); −1: they shrink, as weight decay does; 0: they turn, as if on a sphere.
      `component_update_weight_cosines` (components): of each component's own. A random update is near 0, ±1/√n;
    - `update_cosine`: of Δ_i and Δ_{i−1}. 1: straight on; below 0: back and forth;
    - `path_length` Σ‖Δ‖ and `displacement` ‖w_i − w_0‖ from the trajectory's first checkpoint, both 0 there; their
      ratio `straightness` is 1 on a straight line, near 0 where the weights come back.

    What has no length has cosine 0. Costs one read of the checkpoints, in float64.
    """
    components = by_component(trajectory.model.trained)
    origin = vectors(trajectory.first.parameters, components)
    start, sizes = torch.cat(origin), [len(one) for one in origin]
    # What is not a number makes everything so that is made of it, which is what a missing checkpoint should do.
    before = update = torch.full_like(start, torch.nan)
    length, rows = start.new_zeros(()), []
    n_updates = np.diff(trajectory.steps, prepend=trajectory.steps[0])
    for snapshot, n in zip(trajectory, n_updates.tolist(), strict=True):
        here = torch.cat(vectors(snapshot.parameters, components))
        last, update = update, here - before
        size, displacement = update.norm(), (here - start).norm()
        length = length + size if n else length
        by_part = list(zip(update.split(sizes), before.split(sizes), strict=True))
        row = {
            "update_size": size,
            "update_size_per_step": size / n,
            "update_weight_cosine": cosine(update, before),
            "update_cosine": cosine(update, last),
            "path_length": length,
            "displacement": displacement,
            "straightness": displacement / length,
            "component_update_sizes": torch.stack([moved.norm() for moved, _ in by_part]),
            "component_update_weight_cosines": torch.stack([cosine(*pair) for pair in by_part]),
        }
        rows.append(row)
        before = here
    return Series.of_rows("path", trajectory.steps, rows, {"components": spelled(list(components))})
