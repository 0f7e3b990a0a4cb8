"""Do the weights shrink as the network generalises?

Claim: the norm rises while the network memorizes. Weight decay lowers it in the cleanup that ends in generalisation
(Nanda et al. 2023, section 5.2; Liu et al. 2023, Omnigrok).

How to run: python analyses/weight_norms.py checkpoints/RUN
Findings: docs/results.md
"""

from pathlib import Path

from matplotlib.figure import Figure

from grokscope import figures, measures, phases
from grokscope.cli import analysis
from grokscope.trajectory import Trajectory


def main(run: Path) -> Figure:
    """Print norms and path length at the run's landmarks, including the largest norm; return the curves."""
    trajectory = Trajectory.open(run)
    norms, path = measures.saved("weight_norm", trajectory), measures.saved("path", trajectory)
    norm, distance = norms["weight_norm"], norms["distance_from_initialization"]
    components = norms.words("components")
    for landmark, row in phases.landmarks(trajectory.log, norms.steps, norm):
        sizes = zip(components, norms["component_norms"][row], strict=True)
        by_component = ", ".join(f"{component} {size:.2f}" for component, size in sizes)
        print(
            f"{landmark:<15}step {norms.steps[row]:>7,}  ‖w‖ {norm[row]:7.2f}  ‖w − w₀‖ {distance[row]:7.2f}  "
            f"path length {path['path_length'][row]:7.2f}  {by_component}"
        )
    return figures.figure_path(trajectory.log, norms, path)


if __name__ == "__main__":
    analysis(main, "weight_norms")
