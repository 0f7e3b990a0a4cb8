"""What a product with the Hessian costs in gradients, on the train loss of nanda2023.

Promised: at most 2.5, over a Lanczos run that keeps the gradient's graph. A gradient is what an update of training
takes, forward and backward. The run is PRODUCTS products on random vectors with the orthogonalisation that Lanczos
does against those before, the building of the graph included. Turns alternate; each ratio is of one turn.

How to run: python tests/benchmarks/curvature.py [PRESET …], by default nanda2023 and power2022
"""

import statistics
import sys
import time
from contextlib import suppress

import torch

from grokscope import curvature
from grokscope.config import presets
from grokscope.errors import GrokscopeError
from grokscope.model import losses
from grokscope.training.loop import Setup, loss_and_gradients

PROMISED, TURNS, GRADIENTS, PRODUCTS = 2.5, 5, 10, 20


def gradient_seconds(setup: Setup) -> float:
    """Return the seconds of a gradient of the training loss."""
    state = setup.state()
    started = time.perf_counter()
    for _ in range(GRADIENTS):
        loss_and_gradients(setup, state)
    return (time.perf_counter() - started) / GRADIENTS


def product_seconds(setup: Setup) -> float:
    """Return the seconds of one of a Lanczos run's products: those of the run, divided by their number."""
    state = setup.state()
    inputs, labels = setup.batch(0)
    started = time.perf_counter()
    loss = losses.mean_loss(setup.model, state.parameters, inputs, labels, setup.config)
    product, n = curvature.hvp(loss, [state.parameters[name] for name in setup.model.trained])
    # A tolerance that is never met: all products are taken.
    counted = 0

    def counting(vector: torch.Tensor) -> torch.Tensor:
        nonlocal counted
        counted += 1
        return product(vector)

    with suppress(GrokscopeError):
        curvature.lanczos(counting, n, tolerance=1e-300, max_products=PRODUCTS)
    return (time.perf_counter() - started) / counted


def main() -> None:
    """Print a line for each preset that is named."""
    for preset in sys.argv[1:] or ["nanda2023", "power2022"]:
        setup = Setup(presets.get(preset))
        # The first turn warms up.
        turns = [(gradient_seconds(setup), product_seconds(setup)) for _ in range(TURNS + 1)][1:]
        ratios = [product / gradient for gradient, product in turns]
        gradient, product = (1000 * statistics.median(one) for one in zip(*turns, strict=True))
        print(
            f"{preset}, {torch.get_num_threads()} threads: gradient {gradient:.1f} ms, product {product:.1f} ms, "
            f"{statistics.median(ratios):.2f} gradients (from {min(ratios):.2f} to {max(ratios):.2f}); "
            f"promised: at most {PROMISED}"
        )


if __name__ == "__main__":
    main()
