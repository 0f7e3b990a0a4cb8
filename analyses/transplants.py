"""Which part of the network carries the circuit?

Question: what one component alone (embedding, positions, attention, MLP, unembedding), taken from one step, does in
the model of another step, and whether a straight line leads from the memorizing to the generalising weights. A part
that helps an early model when it comes from a late step knows by itself; where all only work together, none does.

How to run: python analyses/transplants.py checkpoints/RUN
Found: analyses/README.md.
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from grokscope import figures, interventions, landscape, phases
from grokscope.cli import analysis
from grokscope.trajectory import Trajectory

N_STEPS = 8


def main(run: Path) -> Figure:
    """Print the test loss of late parts in the memorizing model; return it over steps of part and model."""
    trajectory = Trajectory.open(run)
    steps = figures.representative_steps(trajectory.log, trajectory.steps, N_STEPS)
    scan = interventions.transplant(trajectory, steps, steps)
    memorized = phases.memorization_step(trajectory.log)
    host = int(np.abs(scan["host"] - (memorized.step if memorized else 0)).argmin())
    own = scan["test_loss"][0, host, host]
    print(f"the model of step {steps[host]:,}: test loss {own:.3g} nats; with one part of step {steps[-1]:,}:")
    for i, component in enumerate(scan["component"]):
        print(f"  {component:<12} {scan['test_loss'][i, -1, host]:.3g}")
    line = landscape.interpolate(trajectory, steps[host], steps[-1])
    top = int(line["train_loss"].argmax())
    loss, t = line["train_loss"], line["t"][top]
    print(f"on the line between the two the train loss is highest at t = {t:.2f}: {loss[top]:.3g} nats,")
    print(f"at the ends {loss[0]:.2g} and {loss[-1]:.2g}")
    return figures.figure_transplant(scan)


if __name__ == "__main__":
    analysis(main, "transplants")
