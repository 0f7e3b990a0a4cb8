"""Which part of the network carries the circuit?

Question: what does one component (embedding, positions, attention, MLP or unembedding) of one step do in the model of
another step? And does a straight line connect the memorizing and the generalising weights? A late component that
helps an early model works alone. If no component helps, only all of them together work.

How to run: python analyses/transplants.py checkpoints/RUN
Findings: docs/results.md
"""

from pathlib import Path

from matplotlib.figure import Figure

from grokscope import figures, interventions, landscape, phases
from grokscope.cli import analysis
from grokscope.thinning import nearest_row
from grokscope.trajectory import Trajectory

N_STEPS = 8


def main(run: Path) -> Figure:
    """Print the test loss of the memorizing model with each late component; return it for all pairs of steps."""
    trajectory = Trajectory.open(run)
    steps = figures.representative_steps(trajectory.log, trajectory.steps, N_STEPS)
    scan = interventions.transplant(trajectory, steps, steps)
    memorized = phases.memorization_step(trajectory.log)
    host = nearest_row(scan["host"], memorized.step if memorized else 0)
    own_loss = scan["test_loss"][0, host, host]
    print(f"model of step {steps[host]:,}: {scan.loss} test loss {own_loss:.3g} nats.")
    print(f"With one component of step {steps[-1]:,}:")
    for i, component in enumerate(scan["component"]):
        print(f"  {component:<12} {scan['test_loss'][i, -1, host]:.3g}")
    line = landscape.interpolate(trajectory, steps[host], steps[-1])
    losses = line["train_loss"]
    top = int(losses.argmax())
    print(f"highest {line.loss} train loss between the two: {losses[top]:.3g} nats at t = {line['t'][top]:.2f}")
    print(f"{line.loss} train loss at its ends: {losses[0]:.2g} and {losses[-1]:.2g} nats")
    return figures.figure_transplant(scan)


if __name__ == "__main__":
    analysis(main, "transplants")
