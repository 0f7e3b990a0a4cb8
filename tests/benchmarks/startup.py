"""The waiting time for commands: help, lists, the first step of training, the report, and opening a long run.

Each command runs in its own process, timed from its start to its end, or to the first step of training. The median of
several runs is printed next to the target. The reported run is a `quick` of N_REPORTED_STEPS steps with stored
measures. Its first report draws the figures, and later reports reuse them.

How to run: python tests/benchmarks/startup.py
"""

import dataclasses
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from grokscope import Trajectory, environment, measures, tasks, train
from grokscope.config import ModelConfig, RunConfig, TaskConfig, presets
from grokscope.opened_run import data_digest
from grokscope.store.run_store import Record, RunStore, create

N_REPEATS, N_CHECKPOINTS, SEGMENT_SIZE, N_REPORTED_STEPS = 5, 30_000, 64, 200
COMMAND = "from grokscope.cli import main; import sys; main(sys.argv[1:])"


def program_seconds(program: str, *arguments: object) -> float:
    """Return the seconds that a Python program takes in a new process."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def first_step_seconds(folder: Path) -> float:
    """Return the seconds until the first step of `grokscope train nanda2023 --n-steps 1`."""
    program = (
        "import sys, time\n"
        "from grokscope import cli\n"
        "from grokscope.training import run_progress\n"
        "class Watch(run_progress.Progress):\n"
        "    def __call__(self, step, row):\n"
        "        print(time.time(), flush=True)\n"
        "run_progress.Progress = Watch\n"
        "cli.main(sys.argv[1:])\n"
    )
    name = f"first-{time.time_ns()}"
    command = [sys.executable, "-c", program, "train", "nanda2023", "--root", str(folder), "--run", name]
    started = time.time()
    process = subprocess.run([*command, "--n-steps", "1"], check=True, capture_output=True, text=True)
    step_times = [float(line) for line in process.stdout.splitlines() if line.replace(".", "").isdecimal()]
    return step_times[0] - started


def make_long_run(folder: Path) -> Path:
    """Write a run of N_CHECKPOINTS tiny checkpoints, and return its folder."""
    config = RunConfig(task=TaskConfig(p=3), model=ModelConfig(d_model=2, n_heads=1, d_mlp=1), n_steps=N_CHECKPOINTS)
    trained = train(dataclasses.replace(config, n_steps=1, checkpoints="every 1"), "tiny", folder)
    checkpoint = {name: tensor.numpy() for name, tensor in trained.first.parameters.items()}
    task, split = tasks.load(config.task, config.split_seed)
    record = Record(config, environment.describe("cpu"), data_digest(task, split))
    run = create(folder / "long", record)
    for start in range(0, N_CHECKPOINTS, SEGMENT_SIZE):
        steps = list(range(start, min(start + SEGMENT_SIZE, N_CHECKPOINTS)))
        run.commit(steps, [checkpoint] * len(steps), coverage=(start - 1, steps[-1]))
    return run.folder


def opening_seconds(folder: Path) -> float:
    """Return the seconds to open a run and list its steps, in this process."""
    started = time.perf_counter()
    steps = RunStore(folder).steps
    seconds = time.perf_counter() - started
    assert np.array_equal(steps, np.arange(N_CHECKPOINTS))
    return seconds


def show(description: str, target: float | None, measure: Callable[[], float], n_repeats: int = N_REPEATS) -> None:
    """Print the median of several times, and the target."""
    times = [measure() for _ in range(n_repeats)]
    spread = f"from {min(times):.2f} to {max(times):.2f}" if n_repeats > 1 else "once"
    comparison = f"; target: under {target} s" if target else ""
    print(f"{description:<40}{statistics.median(times):6.2f} s ({spread}){comparison}")


def main() -> None:
    """Print the time of each command."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        show("import grokscope (without torch)", None, lambda: program_seconds("import grokscope"))
        show("grokscope --help", 0.2, lambda: program_seconds(COMMAND, "--help"))
        show("grokscope train --help", None, lambda: program_seconds(COMMAND, "train", "--help"))
        show("grokscope list tasks", 0.5, lambda: program_seconds(COMMAND, "list", "tasks"))
        show("grokscope list presets", 0.5, lambda: program_seconds(COMMAND, "list", "presets"))
        show("train nanda2023, to the first step", 5, lambda: first_step_seconds(folder / "runs"))
        show("grokscope list runs", 0.5, lambda: program_seconds(COMMAND, "list", "runs", "--root", folder / "runs"))
        config = dataclasses.replace(presets.get("quick"), n_steps=N_REPORTED_STEPS)
        run = train(config, "reported", folder).path
        assert run is not None
        for name in ("embedding", "weight_norm", "sharpness"):
            measures.saved(name, Trajectory.open(run))
        show("report of a measured run, first", None, lambda: program_seconds(COMMAND, "report", run), 1)
        show("report of a measured run, later", 3, lambda: program_seconds(COMMAND, "report", run))
        long = make_long_run(folder)
        show(f"opening a run of {N_CHECKPOINTS:,} checkpoints", 0.5, lambda: opening_seconds(long))


if __name__ == "__main__":
    main()
