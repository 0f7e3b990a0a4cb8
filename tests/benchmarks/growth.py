"""The growth of time and memory with the modulus, the width, the number of checkpoints and the size of an ensemble.

Each point runs in its own process, so that its peak memory can be measured.

- Time is the time of a training step. For checkpoints, it is the time to open a run and to compute its weight norms
  and embedding.
- Memory is the peak of the process minus that of a process that only imports grokscope.
- The exponent is the slope of the logarithms between a point and the previous one; linear growth has exponent 1.

How to run: python tests/benchmarks/growth.py [p] [d_model] [checkpoints] [ensemble]
"""

import dataclasses
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path

import numpy as np

from grokscope import Trajectory, environment, measures
from grokscope.config import ModelConfig, RunConfig, TaskConfig, presets
from grokscope.store.run_store import Record, create
from grokscope.training.ensemble import Ensemble
from grokscope.training.loop import Setup, optimize

POINTS = {
    "p": (59, 113, 199, 401),
    "d_model": (128, 256, 512),
    "checkpoints": (100, 1_000, 10_000),
    "ensemble": (1, 4, 16, 64),
}
N_WARM_UP, N_STEPS = 2, 5


def step_seconds(config: RunConfig) -> float:
    """Return the seconds per training step."""
    setup = Setup(config)
    steps = optimize(setup, setup.learner.initial_state())
    for _ in islice(steps, N_WARM_UP):
        pass
    started = time.perf_counter()
    for _ in islice(steps, N_STEPS):
        pass
    return (time.perf_counter() - started) / N_STEPS


def with_p(p: int) -> float:
    """Return the seconds per step of `nanda2023` with modulus p."""
    config = presets.get("nanda2023")
    return step_seconds(dataclasses.replace(config, task=TaskConfig(p=p, train_fraction=config.task.train_fraction)))


def with_d_model(d_model: int) -> float:
    """Return the seconds per step of `nanda2023` with another width and 4 · d_model neurons."""
    config = presets.get("nanda2023")
    model = dataclasses.replace(config.model, d_model=d_model, d_mlp=4 * d_model)
    return step_seconds(dataclasses.replace(config, model=model))


def with_checkpoints(n: int) -> float:
    """Return the seconds to open a run of n checkpoints and to compute its weight norms and embedding."""
    config = RunConfig(
        task=TaskConfig(p=59), model=ModelConfig(d_model=32, d_mlp=64), n_steps=n, max_checkpoints=n + 1
    )
    setup = Setup(config)
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        record = Record(config, environment.describe("cpu"), setup.dataset.digest)
        run = create(Path(folder), record)
        for first in range(0, n, 64):
            steps = list(range(first, min(first + 64, n)))
            checkpoints: list[Mapping[str, np.ndarray]] = [
                {name: generator.standard_normal(shape, np.float32) for name, shape in setup.model.shapes.items()}
                for _ in steps
            ]
            run.commit(steps, checkpoints, coverage=(first - 1, steps[-1]))
        started = time.perf_counter()
        trajectory = Trajectory.open(folder)
        for name in ("weight_norm", "embedding"):
            measures.evaluate(name, trajectory)
        return time.perf_counter() - started


def with_ensemble(n: int) -> float:
    """Return the seconds per step of an ensemble of n small models (p = 31, width 32)."""
    base = RunConfig(task=TaskConfig(p=31, train_fraction=0.5), model=ModelConfig(d_model=32, d_mlp=64))
    ensemble = Ensemble([dataclasses.replace(base, init_seed=i) for i in range(n)])
    for _ in range(N_WARM_UP):
        ensemble.advance()
    started = time.perf_counter()
    for _ in range(N_STEPS):
        ensemble.advance()
    return (time.perf_counter() - started) / N_STEPS


BENCHMARKS: dict[str, Callable[[int], float]] = {
    "p": with_p,
    "d_model": with_d_model,
    "checkpoints": with_checkpoints,
    "ensemble": with_ensemble,
}


def measure_point(axis: str, value: int) -> tuple[float, float]:
    """Return the seconds of a point, and its megabytes of memory above the imports, from a new process."""
    command = [sys.executable, __file__, "--point", axis, str(value)]
    seconds, megabytes = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return seconds, megabytes


def peak_megabytes() -> float:
    """Return the peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "linux" else 1024) / 1024


def main() -> None:
    """Print a table for each axis, with the exponents between neighbouring points."""
    if sys.argv[1:2] == ["--point"]:
        import_megabytes = peak_megabytes()
        seconds = BENCHMARKS[sys.argv[2]](int(sys.argv[3]))
        print(json.dumps([seconds, peak_megabytes() - import_megabytes]))
        return
    for axis in sys.argv[1:] or POINTS:
        print(f"{axis:>12}        time  exponent     memory  exponent")
        previous: tuple[int, float, float] | None = None
        for value in POINTS[axis]:
            seconds, memory = measure_point(axis, value)
            exponents = ["", ""]
            if previous:
                previous_value, *previous_costs = previous
                growth = math.log(value / previous_value)
                costs = zip((seconds, memory), previous_costs, strict=True)
                exponents = [f"{math.log(cost / previous_cost) / growth:.2f}" for cost, previous_cost in costs]
            print(
                f"{value:>12,}{seconds * 1000:>9,.1f} ms{exponents[0]:>9}{memory:>8,.0f} MB{exponents[1]:>10}",
                flush=True,
            )
            previous = (value, seconds, memory)


if __name__ == "__main__":
    main()
