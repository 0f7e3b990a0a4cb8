"""Small hand-made results for the figures: a log, norms, sharpness, an embedding, and losses over named axes."""

import numpy as np

from grokscope.series import LabelledArrays, Series

STEPS = np.array([0, 10, 100, 1000, 4000])
N_TOKENS, FREQUENCIES = 11, (3, 5)
NO_GAPS = np.empty((0, 2), np.int64)


def log(gaps: list[tuple[int, int]] | None = None, steps: np.ndarray = STEPS) -> Series:
    """Return a log that memorizes at step 100 and generalises at step 1000."""
    n = len(steps)
    return Series(
        "log",
        steps,
        {
            "train_loss": np.geomspace(4, 1e-7, n),
            "test_loss": np.geomspace(4, 1e-3, n),
            "train_accuracy": np.array([0.1, 0.5, 1.0, 1.0, 1.0])[:n],
            "test_accuracy": np.array([0.1, 0.1, 0.2, 0.99, 1.0])[:n],
        },
        {"gaps": np.array(gaps or [], np.int64).reshape(-1, 2)},
    )


def norms(steps: np.ndarray = STEPS) -> Series:
    """Return the measure `weight_norm` with a bias and two layers."""
    names = ["embed.W_E", "blocks.0.attn.W_Q", "blocks.0.mlp.b_in", "blocks.1.attn.W_Q", "unembed.W_U"]
    arrays = {f"weight_norm.{name}": np.linspace(1 + i, 5, len(steps)) for i, name in enumerate(names)}
    arrays |= {"weight_norm": np.linspace(9, 12, len(steps)), "distance_from_initialization": np.sqrt(steps)}
    return Series("weight_norm", steps, arrays, {"gaps": NO_GAPS})


def sharpness(last_trace: float = 2.0) -> Series:
    """Return the measure `sharpness`, whose last values are negative if the last trace is."""
    trace = np.array([30.0, 50.0, 20.0, 5.0, last_trace])
    arrays = {"sharpness": trace / 10, "hessian_trace": trace, "hessian_trace_stderr": np.abs(trace) / 20}
    return Series("sharpness", STEPS, arrays)


def embedding(circular: bool = True, steps: np.ndarray = STEPS, growth: float = 1.0) -> Series:
    """Return the measure `embedding` with two circles that grow, the larger one of frequency 3."""
    n = len(steps)
    size = growth * (1 + np.arange(n))[:, None, None]
    planes = [size * _wave_plane(frequency, 1 / (1 + i)) for i, frequency in enumerate(FREQUENCIES)]
    arrays = {
        "principal_components": np.concatenate(planes, -1),
        "explained_variance_ratio": np.tile([0.4, 0.4, 0.1, 0.1], (n, 1)),
    }
    constants = {"tokens": np.arange(N_TOKENS), "gaps": NO_GAPS}
    if circular:
        shares = {"circularity": 0.9, "circularity_shuffled": 0.3, "key_frequency_share": 0.8}
        shares["key_frequency_share_shuffled"] = 0.2
        arrays |= {name: np.linspace(value / 2, value, n) for name, value in shares.items()}
        arrays["component_frequency"] = np.tile([3, 3, 5, 5], (n, 1))
        arrays["frequency_planes"] = np.stack(planes, 1)
        constants |= {
            "plane_frequencies": np.array(FREQUENCIES),
            "circularity_initialization": np.array(0.25),
            "key_frequency_share_initialization": np.array(0.15),
        }
    return Series("embedding", steps, arrays, constants)


def different_losses(axes: dict[str, np.ndarray]) -> LabelledArrays:
    """Return train and test losses over some axes, all different."""
    shape = tuple(len(axis) for axis in axes.values())
    values = np.arange(1.0, 1 + np.prod(shape)).reshape(shape)
    return LabelledArrays(axes, {"train_loss": values / 1e3, "test_loss": values})


def _wave_plane(frequency: int, radius: float) -> np.ndarray:
    angle = 2 * np.pi * frequency * np.arange(N_TOKENS) / N_TOKENS
    return radius * np.stack([np.cos(angle), np.sin(angle)], -1)
