"""Do the weights shrink as the network generalises?

Claim: the norm rises while the training set is memorized and falls, under weight decay, in the cleanup that
ends in generalisation (Nanda et al. 2023, section 5.2; Liu et al. 2023, Omnigrok).

How to run: python analyses/weight_norms.py checkpoints/RUN
Found: README.md, "What we measured".
"""

from pathlib import Path

from matplotlib.figure import Figure

from grokscope import figures, measures, phases
from grokscope.cli import analysis
from grokscope.trajectory import Trajectory


def main(run: Path) -> Figure:
    """Print norms and the way gone at the run's landmarks, its norm's highest among them; return the curves."""
    trajectory = Trajectory.open(run)
    series, path = measures.saved("weight_norm", trajectory), measures.saved("path", trajectory)
    norm, distance = series["weight_norm"], series["distance_from_initialization"]
    components = series.words("components")
    for name, row in phases.landmarks(trajectory.log, series.steps, norm):
        parts = zip(components, series["component_norms"][row], strict=True)
        print(
            f"{name:<15}step {series.steps[row]:>7,}  ‖w‖ {norm[row]:7.2f}  ‖w − w₀‖ {distance[row]:7.2f}  "
            f"path {path['path_length'][row]:7.2f}  {', '.join(f'{part} {size:.2f}' for part, size in parts)}"
        )
    return figures.figure_path(trajectory.log, series, path)


if __name__ == "__main__":
    analysis(main, "weight_norms")
