"""How early could one have known that the network was going to generalise?

Claim: Nanda et al. 2023 (section 5): hidden progress measures move long before the test accuracy does. Here a measure
knows from the first checkpoint at which it lies outside its control band and stays there: the mean ± 4 standard
deviations of the same measure with the tokens in random orders (`grokscope.phases.departure`). It is set against the
step at which the test accuracy passes 50%. To know by some of them takes the key frequencies of the last step: what
was there to see, had one known where to look.

How to run: python analyses/who_knew_first.py checkpoints/RUN, for any task with a circle
Found: analyses/README.md.
"""

from pathlib import Path

from matplotlib.figure import Figure

from grokscope.cli import analysis
from grokscope.gallery import builtin, registry
from grokscope.trajectory import Trajectory


def main(run: Path) -> Figure:
    """Print since when each measure has left its control, and return a figure of it."""
    asked = registry.FigureRequest(Trajectory.open(run))
    found, landmarks = builtin.find_departures(asked), builtin.accuracy_landmarks(asked)
    half = landmarks["test accuracy 50%"]
    for name, at in {**landmarks, **found}.items():
        ahead = f", {1 - at.step / half.step:.0%} before it" if at and half and name in found else ""
        print(f"{name:<33}{'never' if at is None else f'step {at}'}{ahead}")
    return registry.figure("departures", asked)


if __name__ == "__main__":
    analysis(main, "who_knew_first")
