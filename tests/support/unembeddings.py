"""Planted unembeddings: points on a circle, and clusters by cosets of a group."""

import math

import numpy as np
import torch

from grokscope import Trajectory, measures
from grokscope.algebra import groups
from grokscope.config import ModelConfig, RunConfig, TaskConfig
from grokscope.model import transformer
from grokscope.series import Series

WIDTH = 16


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def circle_points(n: int, frequency: int, radius: float = 2.0) -> torch.Tensor:
    """Return n points on a circle of that frequency in a random plane, off the origin."""
    angle = 2 * math.pi * torch.arange(n, dtype=torch.float64) * frequency / n + 0.3
    plane = torch.linalg.qr(noise(WIDTH, 2)).Q.T
    return radius * torch.stack([angle.cos(), angle.sin()], 1) @ plane + 1.7


def planted_W_U(values: torch.Tensor, tokens: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    """Return W_U with the rows of `values` in the columns of the given tokens, and noise in the others."""
    tokens = torch.arange(len(values)) if tokens is None else tokens
    W_U = 5 * noise(WIDTH, int(tokens.max()) + 1, seed=99)
    W_U[:, tokens] = values.T
    return {"unembed.W_U": W_U}


def of_group(name: str, values: torch.Tensor, steps: tuple[int, ...] = (0,)) -> Trajectory:
    """Return a trajectory of a group's composition with the same planted unembedding at each step."""
    config = RunConfig(
        task=TaskConfig(name="composition", group=name, train_fraction=0.5),
        model=ModelConfig(d_model=WIDTH, n_heads=2, d_mlp=24),
    )
    n = len(groups.group(name))
    start = transformer.Transformer(config.model, n + 1, n, 3).initialize(0)
    return Trajectory.from_state_dicts(config, {step: {**start, **planted_W_U(values)} for step in steps})


def clusters(labels: np.ndarray, spread: float = 0.1) -> torch.Tensor:
    """Return a point for each label: the position of its class plus a little noise."""
    return noise(int(labels.max()) + 1, WIDTH, seed=3)[torch.from_numpy(labels)] + spread * noise(len(labels), WIDTH)


def left_coset_series() -> Series:
    """Return the measure `unembedding` of S5 with the left cosets of the paper's subgroup planted as clusters.

    The planted subgroup is the fourth conjugate, at steps 0 and 10.
    """
    group = groups.group("S5")
    subgroup = group.subgroup([group.index(name) for name in ("(0 3)(1 4)", "(1 2)(3 4)")])
    planted = group.conjugate_subgroups(subgroup)[3]
    trajectory = of_group("S5", clusters(group.left_cosets(planted)), steps=(0, 10))
    return measures.evaluate("unembedding", trajectory)
