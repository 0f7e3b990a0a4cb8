"""The cost of a product with the Hessian of the train loss, in gradients.

The target is at most TARGET_RATIO gradients. A gradient is one forward and one backward pass, as in an update of
training. The products belong to a Lanczos run of N_PRODUCTS steps. Its time includes the orthogonalisation and the
construction of the gradient's graph. Gradients and products take turns, and each ratio compares one turn of both.

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

TARGET_RATIO, N_TURNS, N_GRADIENTS, N_PRODUCTS = 2.5, 5, 10, 20


def gradient_seconds(setup: Setup) -> float:
    """Return the seconds per gradient of the train loss."""
    state = setup.learner.initial_state()
    started = time.perf_counter()
    for _ in range(N_GRADIENTS):
        loss_and_gradients(setup, state)
    return (time.perf_counter() - started) / N_GRADIENTS


def product_seconds(setup: Setup) -> float:
    """Return the seconds per product of a Lanczos run."""
    state = setup.learner.initial_state()
    inputs, labels = setup.batch(0)
    started = time.perf_counter()
    loss = losses.mean_loss(setup.model, state.parameters, inputs, labels, setup.config)
    product, n = curvature.hvp(loss, [state.parameters[name] for name in setup.model.trained])
    n_calls = 0

    def counted_product(vector: torch.Tensor) -> torch.Tensor:
        nonlocal n_calls
        n_calls += 1
        return product(vector)

    # The tolerance is never met, so the run makes all its products and then raises.
    with suppress(GrokscopeError):
        curvature.lanczos(counted_product, n, tolerance=1e-300, max_products=N_PRODUCTS)
    return (time.perf_counter() - started) / n_calls


def main() -> None:
    """Print a line for each preset of the command line."""
    for preset in sys.argv[1:] or ["nanda2023", "power2022"]:
        setup = Setup(presets.get(preset))
        # The first turn is a warm-up.
        turns = [(gradient_seconds(setup), product_seconds(setup)) for _ in range(N_TURNS + 1)][1:]
        ratios = [product / gradient for gradient, product in turns]
        gradient, product = (1000 * statistics.median(times) for times in zip(*turns, strict=True))
        print(
            f"{preset}, {torch.get_num_threads()} threads: gradient {gradient:.1f} ms, product {product:.1f} ms, "
            f"{statistics.median(ratios):.2f} gradients (from {min(ratios):.2f} to {max(ratios):.2f}); "
            f"target: at most {TARGET_RATIO}"
        )


if __name__ == "__main__":
    main()
