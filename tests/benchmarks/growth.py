"""How time and memory grow: with the modulus, the width, the number of checkpoints, and the size of an ensemble.

Each point is a process of its own, so that its peak memory is its own. Time is what a step takes (for checkpoints:
what opening the run, its weight norms and its embedding take); memory is the process's peak less that of a process
that only imports. The exponent is the slope of the logarithms between a point and the one before: 1 is linear.

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
from grokscope.trajectory import data_digest

POINTS = {
    "p": (59, 113, 199, 401),
    "d_model": (128, 256, 512),
    "checkpoints": (100, 1_000, 10_000),
    "ensemble": (1, 4, 16, 64),
}
WARM_UP, STEPS = 2, 5


def steps_of(config: RunConfig) -> float:
    """Return the seconds of a training step."""
    setup = Setup(config)
    steps = optimize(setup, setup.state())
    for _ in islice(steps, WARM_UP):
        pass
    started = time.perf_counter()
    for _ in islice(steps, STEPS):
        pass
    return (time.perf_counter() - started) / STEPS


def with_p(p: int) -> float:
    """Return the seconds of a step of `nanda2023` with another modulus."""
    config = presets.get("nanda2023")
    return steps_of(dataclasses.replace(config, task=TaskConfig(p=p, train_fraction=config.task.train_fraction)))


def with_d_model(d_model: int) -> float:
    """Return the seconds of a step of `nanda2023` with another width, and neurons in proportion."""
    config = presets.get("nanda2023")
    model = dataclasses.replace(config.model, d_model=d_model, d_mlp=4 * d_model)
    return steps_of(dataclasses.replace(config, model=model))


def with_checkpoints(n: int) -> float:
    """Return the seconds of opening a run of n checkpoints and of its weight norms and embedding."""
    config = RunConfig(
        task=TaskConfig(p=59), model=ModelConfig(d_model=32, d_mlp=64), n_steps=n, max_checkpoints=n + 1
    )
    setup = Setup(config)
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        record = Record(config, environment.present("cpu"), data_digest(setup.task, setup.split))
        run = create(Path(folder), record)
        for first in range(0, n, 64):
            steps = list(range(first, min(first + 64, n)))
            drawn: list[Mapping[str, np.ndarray]] = [
                {name: generator.standard_normal(shape, np.float32) for name, shape in setup.model.shapes.items()}
                for _ in steps
            ]
            run.commit(steps, drawn, coverage=(first - 1, steps[-1]))
        started = time.perf_counter()
        trajectory = Trajectory.open(folder)
        for name in ("weight_norm", "embedding"):
            measures.evaluate(name, trajectory)
        return time.perf_counter() - started


def with_ensemble(n: int) -> float:
    """Return the seconds of a step of n small models (p = 31, width 32) at once."""
    base = RunConfig(task=TaskConfig(p=31, train_fraction=0.5), model=ModelConfig(d_model=32, d_mlp=64))
    ensemble = Ensemble([dataclasses.replace(base, init_seed=i) for i in range(n)])
    for _ in range(WARM_UP):
        ensemble.advance()
    started = time.perf_counter()
    for _ in range(STEPS):
        ensemble.advance()
    return (time.perf_counter() - started) / STEPS


WORK: dict[str, Callable[[int], float]] = {
    "p": with_p,
    "d_model": with_d_model,
    "checkpoints": with_checkpoints,
    "ensemble": with_ensemble,
}


def point(axis: str, value: int) -> tuple[float, float]:
    """Return seconds, and megabytes of memory above those of the imports, of one point, in a process of its own."""
    command = [sys.executable, __file__, "--point", axis, str(value)]
    seconds, megabytes = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return seconds, megabytes


def megabytes() -> float:
    """Return this process's peak memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "linux" else 1024) / 1024


def main() -> None:
    """Print a table for each axis, with the exponent between neighbours."""
    if sys.argv[1:2] == ["--point"]:
        imported = megabytes()
        seconds = WORK[sys.argv[2]](int(sys.argv[3]))
        print(json.dumps([seconds, megabytes() - imported]))
        return
    for axis in sys.argv[1:] or POINTS:
        print(f"{axis:>12}        time  exponent     memory  exponent")
        before: tuple[int, float, float] | None = None
        for value in POINTS[axis]:
            seconds, memory = point(axis, value)
            slopes = ["", ""]
            if before:
                ratio = math.log(value / before[0])
                slopes = [
                    f"{math.log(now / then) / ratio:.2f}" for now, then in ((seconds, before[1]), (memory, before[2]))
                ]
            print(
                f"{value:>12,}{seconds * 1000:>9,.1f} ms{slopes[0]:>9}{memory:>8,.0f} MB{slopes[1]:>10}", flush=True
            )
            before = (value, seconds, memory)


if __name__ == "__main__":
    main()
