"""Pages of synthetic runs of any length, with every panel: they need no training and no measuring."""

from pathlib import Path

import numpy as np

from grokscope.config import RunConfig, TaskConfig
from grokscope.report import page
from grokscope.series import Series
from grokscope.store.record import Record
from grokscope.store.source import Memory
from grokscope.trajectory import Trajectory

TASKS = {
    "cyclic": TaskConfig("addition", p=113),
    "division": TaskConfig("division", p=97),
    "S5": TaskConfig("composition", group="S5"),
}


class SyntheticTrajectory(Trajectory):
    """A trajectory without parameters, with only the properties that a page reads."""

    @property
    def path(self) -> Path:
        return Path("made_up")

    @property
    def digest(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return "made up"

    @property
    def log(self) -> Series:  # pyright: ignore[reportIncompatibleVariableOverride]
        share = self.steps / self.steps[-1]
        arrays = {
            "train_loss": np.exp(-12 * share),
            "test_loss": 5 * np.exp(-12 * share**4),
            "train_accuracy": np.minimum(1, 5 * share),
            "test_accuracy": share**4,
        }
        return Series("log", self.steps, arrays, {"gaps": np.empty((0, 2), np.int64)})


def synthetic_page(task: TaskConfig, n_checkpoints: int) -> bytes:
    """Return the page of a synthetic run. Sharpness and the pictures are thinner than the checkpoints."""
    config = RunConfig(task=task, n_steps=10 * n_checkpoints, checkpoints="every 10")
    steps = np.arange(n_checkpoints) * 10
    trajectory = SyntheticTrajectory(config, Memory({}), steps)
    random = np.random.default_rng(0)
    series = _series(trajectory, random)
    return page.render_run(trajectory, series, list(series.values()), Record(config, {}, ""))


def _series(trajectory: Trajectory, random: np.random.Generator) -> dict[str, Series]:
    task, steps = trajectory.task, trajectory.steps
    n = len(steps)
    names = [f"weight_norm.blocks.0.attn.W_{name}" for name in "QKVO"]
    norms = {name: random.uniform(size=n) for name in ("weight_norm", "distance_from_initialization", *names)}
    few = steps[:: max(1, n // 24)]
    hessian = {"sharpness": random.uniform(size=len(few)), "sharpness_residual": random.uniform(size=len(few)) / 99}
    pictured = steps[:: max(1, n // 60)]
    losses = random.exponential(size=(len(pictured), len(task.inputs)))
    attention = {
        "attention": random.uniform(size=(len(pictured), 1, 4, 3)),
        "attention_stderr": random.uniform(size=(len(pictured), 1, 4, 3)),
        "attention_by_first": random.uniform(size=(len(pictured), 1, 4, task.n_elements, 3)),
    }
    operands = {"first_operands": np.arange(task.n_elements), "n_equations": np.array(9)}
    return {
        "embedding": _embedding(trajectory, random),
        "weight_norm": Series("weight_norm", steps, norms),
        "sharpness": Series("sharpness", few, hessian),
        "example_loss": Series("example_loss", pictured, {"example_loss": losses, "is_right": losses < 1}),
        "attention": Series("attention", pictured, attention, operands),
    }


def _embedding(trajectory: Trajectory, random: np.random.Generator) -> Series:
    task, n = trajectory.task, len(trajectory)
    tokens = np.arange(task.n_elements) if task.circle is None else task.circle.numpy()
    n_tokens = len(tokens)
    arrays = {
        "principal_components": random.normal(size=(n, n_tokens, 4)),
        "explained_variance_ratio": random.uniform(size=(n, 4)),
    }
    constants = {"tokens": tokens}
    if task.circle is not None:
        frequencies = np.array([3, 7, 11, 19, 23, 31])
        arrays |= {
            "frequency_shares": random.uniform(size=(n, n_tokens // 2)),
            "frequency_planes": random.normal(size=(n, len(frequencies), n_tokens, 2)),
            "component_frequency": np.full((n, 4), 3),
        }
        constants |= {"key_frequencies": frequencies, "plane_frequencies": frequencies}
        constants |= {"frequencies": np.arange(1, n_tokens // 2 + 1)}
        for name in ("circularity", "key_frequency_share"):
            arrays |= {name: random.uniform(size=n), f"{name}_shuffled": random.uniform(size=n)}
            constants[f"{name}_initialization"] = np.array(0.1)
    return Series("embedding", trajectory.steps, arrays, constants)
