"""The cost of dense checkpoints in the Nanda setup: one every 10 steps, and one at every step, against none.

All three loops make the same updates (float32, full batch); two of them have a checkpointer, as in `train`. Blocks of
steps take turns, so a drift of the machine's speed affects all. Each block commits one segment, which is handed over
in the middle of the block and is on the disk at its end. At one checkpoint in 10 steps, 4 checkpoints therefore share
a resume state that 64 share in a real run, and the printed shares are upper bounds. There are two shares:

- "in the checkpointer": the share of a block's time that training spends there, copying or waiting. Other processes
  hardly affect it.
- "over none": the time of a block relative to a neighbouring block without checkpoints. It contains every cost, such
  as the writer's use of cores and caches, but is only as stable as the machine.

The last lines compare two ways to write a segment of 64 checkpoints: the commit of a run, and a plain write and fsync
of the same bytes to a new file.

How to run: python tests/benchmarks/checkpoints.py [FOLDER], a folder on the disk to test, by default the present one
"""

import dataclasses
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from grokscope import environment
from grokscope.config import presets
from grokscope.store.run_store import Record, RunStore, create, segments_folder
from grokscope.training.checkpointer import SEGMENT_CHECKPOINTS, Checkpointer, as_arrays
from grokscope.training.loop import Setup, optimize

N_TURNS, BLOCK_STEPS = 12, 40
N_WRITES = 9
SCHEDULES = {"none": None, "every 10 steps": "every 10", "every step": "every 1"}


def new_run(setup: Setup, folder: Path) -> RunStore:
    """Return the store of a new run without segments."""
    run_environment = environment.describe(setup.config.device)
    return create(folder, Record(setup.config, run_environment, setup.dataset.digest))


def blocks(schedule: str | None, folder: Path) -> Iterator[tuple[float, float]]:
    """Train without end; yield for each block the milliseconds per step, in total and in the checkpointer."""
    config = presets.get("nanda2023")
    # Evaluations are not a cost of checkpoints.
    config = dataclasses.replace(config, evaluate_every=config.n_steps, max_checkpoints=10**6)
    setup = Setup(dataclasses.replace(config, checkpoints=schedule or config.checkpoints))
    state = setup.learner.initial_state()
    checkpointer = Checkpointer(new_run(setup, folder), setup.evaluator.evaluate, state)
    steps = optimize(setup, state)
    while True:
        started, checkpointing = time.perf_counter(), 0.0
        for i in range(BLOCK_STEPS):
            next(steps)
            if schedule:
                call_started = time.perf_counter()
                checkpointer.take_and_commit(state)
                if i == BLOCK_STEPS // 2:
                    checkpointer.commit(state)
                if i == BLOCK_STEPS - 1:
                    checkpointer.__exit__()  # Waits for the writer.
                checkpointing += time.perf_counter() - call_started
        yield 1000 * (time.perf_counter() - started) / BLOCK_STEPS, 1000 * checkpointing / BLOCK_STEPS


def block_times(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Return the times of each loop's blocks, turn by turn."""
    running = {name: blocks(schedule, folder / name) for name, schedule in SCHEDULES.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in running}
    for turn in range(N_TURNS + 1):
        for name, loop in running.items():
            block_time = next(loop)
            if turn:  # The first turn is a warm-up.
                times[name].append(block_time)
    return times


def write_rates(folder: Path) -> dict[str, list[float]]:
    """Return the megabytes per second of committing a segment of 64 steps, and of a plain write of its bytes."""
    setup = Setup(presets.get("nanda2023"))
    run, parameters = new_run(setup, folder), setup.learner.initial_state().parameters
    checkpoints = [as_arrays(parameters) for _ in range(SEGMENT_CHECKPOINTS)]
    data = b""

    def commit(turn: int) -> None:
        first = turn * SEGMENT_CHECKPOINTS
        steps = list(range(first, first + SEGMENT_CHECKPOINTS))
        run.commit(steps, list(checkpoints), coverage=(first - 1, steps[-1]))

    def write(turn: int) -> None:
        with open(folder / f"plain {turn}", "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    writers: dict[str, Callable[[int], None]] = {"committed": commit, "plain write and fsync": write}
    rates: dict[str, list[float]] = {name: [] for name in writers}
    for turn in range(N_WRITES + 1):
        for name, writer in writers.items():
            started = time.perf_counter()
            writer(turn)
            seconds = time.perf_counter() - started
            data = data or next(segments_folder(folder).iterdir()).read_bytes()
            if turn:
                rates[name].append(len(data) / 1e6 / seconds)
    return rates


def rows(folder: Path) -> list[tuple[str, list[float], str]]:
    """Return a row for each printed quantity: its name, its values turn by turn, and its format."""
    times, rates = block_times(folder), write_rates(folder / "segments")
    none = [total for total, _ in times["none"]]
    table = [("none", none, "8.1f ms per step")]
    for name in list(times)[1:]:
        totals, checkpointing = zip(*times[name], strict=True)
        table += [
            (name, list(totals), "8.1f ms per step"),
            (
                "  in the checkpointer",
                [part / total for part, total in zip(checkpointing, totals, strict=True)],
                "8.2%",
            ),
            ("  over none", [total / baseline - 1 for total, baseline in zip(totals, none, strict=True)], "8.2%"),
        ]
    table += [(name, rate, "8.0f MB/s") for name, rate in rates.items()]
    ratios = [ours / plain for ours, plain in zip(*rates.values(), strict=True)]
    return [*table, ("  ratio", ratios, "8.2f")]


def main() -> None:
    """Print the median of each quantity over the turns, and the range of the middle half."""
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else ".") as name:
        for quantity, values, form in rows(Path(name)):
            form, _, unit = form.partition(" ")
            low, middle, high = (f"{value:{form}}" for value in statistics.quantiles(values, n=4))
            print(f"{quantity:<22}{middle} {unit} (middle half {low.strip()} to {high.strip()})")


if __name__ == "__main__":
    main()
