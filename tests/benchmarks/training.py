"""Steps per second on the Nanda setup: grokscope against the plain HookedTransformer loop, in one run.

Both make the same updates (full batch, AdamW, float64 log-softmax) from the same initialization on the same
data, and evaluate all pairs every 100 steps. Turns alternate, so that a drift of the machine's speed hits both.

How to run: python tests/benchmarks/training.py
"""

import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice

import torch

from grokscope import presets
from grokscope.losses import cross_entropy
from grokscope.optimize import Setup, optimize

TURNS, STEPS = 5, 100


def grokscope_steps(setup: Setup) -> Iterator[object]:
    """Make grokscope's updates for ever, evaluating every 100 steps."""
    state = setup.state()
    for _ in optimize(setup, state):
        if state.step % 100 == 0:
            setup.evaluate(state)
        yield state.parameters


def hooked_steps(setup: Setup) -> Iterator[object]:
    """Make the same updates with HookedTransformer's own forward pass, as its grokking demonstration does."""
    config = setup.config.optimizer
    hooked = setup.model.hooked(setup.model.initialize(setup.config.init_seed))
    for name, parameter in hooked.named_parameters():
        parameter.requires_grad_(name in setup.model.trained)
    trained = [parameter for parameter in hooked.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)
    inputs, labels = setup.inputs[setup.split.train], setup.labels[setup.split.train]
    step = 0
    while True:
        optimizer.param_groups[0]["lr"] = config.lr * min(step / config.warmup_steps, 1)
        cross_entropy(hooked(inputs)[:, -1], labels).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if step % 100 == 0:
            with torch.no_grad():
                cross_entropy(hooked(setup.inputs)[:, -1], setup.labels).mean().item()
        yield hooked


def milliseconds(steps: Iterator[object]) -> float:
    """Return the time of one step, over STEPS of them."""
    started = time.perf_counter()
    for _ in islice(steps, STEPS):
        pass
    return 1000 * (time.perf_counter() - started) / STEPS


def main() -> None:
    """Print both speeds and their ratio, each the median over the turns."""
    setup = Setup(presets.get("nanda2023"))
    loops: dict[str, Callable[[Setup], Iterator[object]]] = {
        "grokscope": grokscope_steps,
        "HookedTransformer": hooked_steps,
    }
    running = {name: loop(setup) for name, loop in loops.items()}
    times: dict[str, list[float]] = {name: [] for name in running}
    for turn in range(TURNS + 1):
        for name, steps in running.items():
            taken = milliseconds(steps)
            if turn:  # The first turn warms up.
                times[name].append(taken)
    ratios = [theirs / ours for ours, theirs in zip(*times.values(), strict=True)]
    for name, taken in times.items():
        print(f"{name:<18}{statistics.median(taken):7.1f} ms a step")
    print(f"ratio             {statistics.median(ratios):7.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
