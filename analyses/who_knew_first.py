"""How early do hidden progress measures reveal that the network will generalise?

Claim: progress measures change long before the test accuracy does (Nanda et al. 2023, section 5). A measure knows
from the first checkpoint at which it leaves its control for good. The control is the same measure with the tokens in
random orders, mean ± 4 standard deviations (`grokscope.phases.departure`). The reference is the step at which the
test accuracy reaches 50%. Some measures use the key frequencies of the last step, which nobody knows in advance.

How to run: python analyses/who_knew_first.py checkpoints/RUN, for any task with a circle
Findings: docs/results.md
"""

from pathlib import Path

from matplotlib.figure import Figure

from grokscope.cli import analysis
from grokscope.gallery import builtin, registry
from grokscope.trajectory import Trajectory


def main(run: Path) -> Figure:
    """Print when each measure leaves its control for good; return the figure of it."""
    request = registry.FigureRequest(Trajectory.open(run))
    landmarks, departures = builtin.accuracy_landmarks(request), builtin.find_departures(request)
    half = landmarks["test accuracy 50%"]
    for label, crossing in landmarks.items():
        print(f"{label:<41}{'never' if crossing is None else f'step {crossing}'}")
    for label, crossing in departures.items():
        lead = 1 - crossing.step / half.step if crossing and half else 0.0
        timing = f", {abs(lead):.0%} {'before' if lead > 0 else 'after'} the 50%" if lead else ""
        print(f"{label:<41}{'never' if crossing is None else f'step {crossing}'}{timing}")
    return registry.figure("departures", request)


if __name__ == "__main__":
    analysis(main, "who_knew_first")
