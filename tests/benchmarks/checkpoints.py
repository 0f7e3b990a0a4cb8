"""What dense checkpoints cost: the Nanda setup with a checkpoint every 10 steps, and at every step, against none.

All three make the same updates (float32, full batch), two of them with a recorder, as `train` has it. Blocks of
steps alternate, so that a drift of the machine's speed hits all. Each block commits one segment: it is handed over
in the middle and on the disk at the end. So 4 checkpoints carry the resume state that 64 share in a run, and the
shares at one in 10 are upper bounds. Two shares are printed:

- "in the recorder": the part of a block's time that training spends there, copying or waiting. What else the
  machine does hardly blurs it.
- "over none": a block with checkpoints over the one without beside it. It holds all that there is, such as the
  writer's part of the cores and the caches, and is only as steady as the machine.

The last lines are the disk's: a segment of 64 checkpoints as a run commits it, against a plain write and fsync of
the same bytes to a new file.

How to run: python tests/benchmarks/checkpoints.py [a folder on the disk in question, by default the present one]
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
from grokscope.training.checkpointer import SEGMENT_CHECKPOINTS, Recorder, as_arrays
from grokscope.training.loop import Setup, optimize
from grokscope.trajectory import data_digest

TURNS, BLOCK = 12, 40
N_WRITES = 9
SCHEDULES = {"none": None, "every 10 steps": "every 10", "every step": "every 1"}


def new_run(setup: Setup, folder: Path) -> RunStore:
    """Return the store of a new run without any segment."""
    here = environment.present(setup.config.device)
    return create(folder, Record(setup.config, here, data_digest(setup.task, setup.split)))


def blocks(schedule: str | None, folder: Path) -> Iterator[tuple[float, float]]:
    """Train for ever and yield, for each block, the milliseconds a step in all and of these in the recorder."""
    config = presets.get("nanda2023")
    # No evaluations: what they take is no cost of checkpoints.
    config = dataclasses.replace(config, evaluate_every=config.n_steps, max_checkpoints=10**6)
    setup = Setup(dataclasses.replace(config, checkpoints=schedule or config.checkpoints))
    state = setup.state()
    recorder = Recorder(setup, new_run(setup, folder), state, None)
    steps = optimize(setup, state)
    while True:
        started, recording = time.perf_counter(), 0.0
        for i in range(BLOCK):
            next(steps)
            if schedule:
                began = time.perf_counter()
                recorder.observe(state)
                if i == BLOCK // 2:
                    recorder.commit(state)
                if i == BLOCK - 1:
                    recorder.__exit__()  # Wait.
                recording += time.perf_counter() - began
        yield 1000 * (time.perf_counter() - started) / BLOCK, 1000 * recording / BLOCK


def block_times(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Return what the loops yield, turn by turn."""
    running = {name: blocks(schedule, folder / name) for name, schedule in SCHEDULES.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in running}
    for turn in range(TURNS + 1):
        for name, loop in running.items():
            taken = next(loop)
            if turn:  # The first turn warms up.
                times[name].append(taken)
    return times


def write_rates(folder: Path) -> dict[str, list[float]]:
    """Return the megabytes a second of committing a segment of every step, and of writing its bytes plainly."""
    setup = Setup(presets.get("nanda2023"))
    run, parameters = new_run(setup, folder), setup.state().parameters
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

    ways: dict[str, Callable[[int], None]] = {"committed": commit, "plain write and fsync": write}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(N_WRITES + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way(turn)
            taken = time.perf_counter() - started
            data = data or next(segments_folder(folder).iterdir()).read_bytes()
            if turn:
                rates[name].append(len(data) / 1e6 / taken)
    return rates


def rows(folder: Path) -> list[tuple[str, list[float], str]]:
    """Return a row for each figure: its name, its values turn by turn, and the format that it is printed in."""
    times, rates = block_times(folder), write_rates(folder / "segments")
    none = [total for total, _ in times["none"]]
    found = [("none", none, "8.1f ms a step")]
    for name in list(times)[1:]:
        totals, recording = zip(*times[name], strict=True)
        found += [
            (name, list(totals), "8.1f ms a step"),
            ("  in the recorder", [part / total for part, total in zip(recording, totals, strict=True)], "8.2%"),
            ("  over none", [total / other - 1 for total, other in zip(totals, none, strict=True)], "8.2%"),
        ]
    found += [(name, rate, "8.0f MB/s") for name, rate in rates.items()]
    ratios = [ours / plain for ours, plain in zip(*rates.values(), strict=True)]
    return [*found, ("  ratio", ratios, "8.2f")]


def main() -> None:
    """Print each figure's median over the turns, and the range of the middle half."""
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else ".") as name:
        for figure, values, form in rows(Path(name)):
            form, _, unit = form.partition(" ")
            low, middle, high = (f"{one:{form}}" for one in statistics.quantiles(values, n=4))
            print(f"{figure:<22}{middle} {unit} (middle half {low.strip()} to {high.strip()})")


if __name__ == "__main__":
    main()
