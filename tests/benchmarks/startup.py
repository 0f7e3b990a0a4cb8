"""How long one waits for a command: help, lists, the first step of training, the report, opening a long run.

Each command is a process of its own, timed from its start to its end, or to the first step of training; the median of
several, with what is promised beside it. The run that is reported is a `quick` of REPORTED_STEPS steps, measured
before; its first report draws the figures, and each later one finds them drawn.

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
from grokscope.store.run_store import Record, RunStore, create
from grokscope.trajectory import data_digest

TIMES, CHECKPOINTS, IN_A_SEGMENT, REPORTED_STEPS = 5, 30_000, 64, 200
COMMAND = "from grokscope.cli import main; import sys; main(sys.argv[1:])"


def seconds(program: str, *arguments: object) -> float:
    """Return how long a Python program takes in a process of its own."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def first_step(folder: Path) -> float:
    """Return how long `grokscope train nanda2023` takes to its first step, which it is told to make its last one."""
    watched = (
        "import sys, time\n"
        "from grokscope import cli\n"
        "from grokscope.cli import progress_bar\n"
        "class Watch(progress_bar.Progress):\n"
        "    def __call__(self, step, row):\n"
        "        print(time.time(), flush=True)\n"
        "progress_bar.Progress = Watch\n"
        "cli.main(sys.argv[1:])\n"
    )
    name = f"first-{time.time_ns()}"
    command = [sys.executable, "-c", watched, "train", "nanda2023", "--root", str(folder), "--run", name]
    started = time.time()
    done = subprocess.run([*command, "--n-steps", "1"], check=True, capture_output=True, text=True)
    ends = [float(line) for line in done.stdout.splitlines() if line.replace(".", "").isdecimal()]
    return ends[0] - started


def make_long_run(folder: Path) -> Path:
    """Write a run of CHECKPOINTS tiny checkpoints and return its folder."""
    config = RunConfig(task=TaskConfig(p=3), model=ModelConfig(d_model=2, n_heads=1, d_mlp=1), n_steps=CHECKPOINTS)
    trained = train(dataclasses.replace(config, n_steps=1, checkpoints="every 1"), "tiny", folder)
    checkpoint = {name: one.numpy() for name, one in trained.first.parameters.items()}
    task, split = tasks.load(config.task, config.split_seed)
    record = Record(config, environment.present("cpu"), data_digest(task, split))
    run = create(folder / "long", record)
    # What this run holds does not matter, and the disk need not be waited for at each of its files.
    for start in range(0, CHECKPOINTS, IN_A_SEGMENT):
        steps = list(range(start, min(start + IN_A_SEGMENT, CHECKPOINTS)))
        run.commit(steps, [checkpoint] * len(steps), coverage=(start - 1, steps[-1]))
    return run.folder


def opened(folder: Path) -> float:
    """Return how long a run takes to open and list its steps, in this process."""
    started = time.perf_counter()
    steps = RunStore(folder).steps
    taken = time.perf_counter() - started
    assert np.array_equal(steps, np.arange(CHECKPOINTS))
    return taken


def show(what: str, promised: float | None, measure: Callable[[], float], times: int = TIMES) -> None:
    """Print the median of several times, and what is promised."""
    taken = [measure() for _ in range(times)]
    spread = f"from {min(taken):.2f} to {max(taken):.2f}" if times > 1 else "once"
    print(
        f"{what:<40}{statistics.median(taken):6.2f} s ({spread})"
        + (f"; promised: under {promised} s" if promised else "")
    )


def main() -> None:
    """Print what each thing takes."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        show("import grokscope (without torch)", None, lambda: seconds("import grokscope"))
        show("grokscope --help", 0.3, lambda: seconds(COMMAND, "--help"))
        show("grokscope list tasks", 0.5, lambda: seconds(COMMAND, "list", "tasks"))
        show("grokscope list presets", 0.5, lambda: seconds(COMMAND, "list", "presets"))
        show("train nanda2023, to the first step", 5, lambda: first_step(folder / "runs"))
        show("grokscope list runs", 0.5, lambda: seconds(COMMAND, "list", "runs", "--root", folder / "runs"))
        config = dataclasses.replace(presets.get("quick"), n_steps=REPORTED_STEPS)
        run = train(config, "reported", folder).path
        assert run is not None
        for name in ("embedding", "weight_norm", "sharpness"):
            measures.saved(name, Trajectory.open(run))
        show("report of a measured run, the first", None, lambda: seconds(COMMAND, "report", run), 1)
        show("report of a measured run, again", 3, lambda: seconds(COMMAND, "report", run))
        long = make_long_run(folder)
        show(f"opening a run of {CHECKPOINTS:,} checkpoints", 0.5, lambda: opened(long))


if __name__ == "__main__":
    main()
