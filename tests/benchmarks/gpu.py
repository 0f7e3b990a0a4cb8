"""Everything there is to measure on a GPU, in one go: single runs, ensembles, a whole run, and Figure 2's cost.

For each preset and number of models at once it prints steps a second (of each model, and of all together), the
products' floating point operations, and the share of the device's peak that they reach; the peak is a large matrix
product's, measured here. Then a whole run of `nanda2023` with 400 checkpoints in its folder, from the command's
start, and the cost of Power et al.'s Figure 2, right (`analyses/power2022/operations.toml`): its cells, its
operations, and its hours at the measured speed, in float32 and in a named lower precision.

How to run: python tests/benchmarks/gpu.py [--device cuda] [--seconds 20]; on a processor `--device cpu --small`,
which shrinks the models and is there to test this script.
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from grokscope import environment
from grokscope.config import ModelConfig, RunConfig, presets
from grokscope.sweep.plan import read_sweep
from grokscope.training.ensemble import Ensemble
from grokscope.training.loop import Setup, optimize
from grokscope.training.train_ensemble import train_together

AT_ONCE = (1, 16, 64, 256)
PRECISIONS = ("float32", "tf32", "bfloat16")
FIGURE = Path(__file__).parents[2] / "analyses/power2022/operations.toml"
WARM_UP = 5


def seeded(config: RunConfig, n: int) -> list[RunConfig]:
    """Return n configs that differ in their seeds."""
    return [dataclasses.replace(config, split_seed=i, init_seed=i, training_seed=i) for i in range(n)]


def wait(device: torch.device) -> None:
    """Wait for everything that the device has been told to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak(device: torch.device, precision: str, n: int) -> float:
    """Return the speed of an n × n matrix product in 10¹² floating point operations a second."""
    a, b = torch.randn(2, n, n, device=device)
    times = []
    with environment.matrix_products(precision):
        for _ in range(10):
            wait(device)
            started = time.perf_counter()
            torch.mm(a, b)
            wait(device)
            times.append(time.perf_counter() - started)
    return 2 * n**3 / min(times) / 1e12


def operations(config: RunConfig) -> float:
    """Return the floating point operations of one model's step, counted on the device's own form of it."""
    setup = Setup(config)
    steps = optimize(setup, setup.state())
    next(steps)
    with FlopCounterMode(display=False) as counter:
        next(steps)
    return float(counter.get_total_flops())


def steps_per_second(config: RunConfig, n: int, seconds: float) -> float:
    """Return the steps a second of an ensemble of n models, over some seconds."""
    ensemble = Ensemble(seeded(config, n))
    device = torch.device(config.device)
    for _ in range(WARM_UP):
        ensemble.advance()
    wait(device)
    n_steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for _ in range(WARM_UP):
            ensemble.advance()
        n_steps += WARM_UP
        wait(device)
    if any(failed >= 0 for failed in ensemble.failures()):
        raise RuntimeError("a model's numbers are not finite")
    return n_steps / (time.perf_counter() - started)


def single_loop(config: RunConfig, seconds: float) -> float:
    """Return the steps a second of `grokscope train`, step by step."""
    setup = Setup(config)
    steps, n_steps = optimize(setup, setup.state()), 0
    next(steps)
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        n_steps += sum(1 for _ in islice(steps, WARM_UP))
    wait(setup.device)
    return n_steps / (time.perf_counter() - started)


def whole_run(config: RunConfig) -> float:
    """Return the seconds of a run from its first byte to its last, with its checkpoints on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        train_together([config], [Path(folder) / "run"])
        return time.perf_counter() - started


def rows(device: str, seconds: float, small: bool) -> Iterator[str]:
    """Yield the lines of the report."""
    name = torch.cuda.get_device_name(device) if device != "cpu" else "a processor"
    peaks = {precision: peak(torch.device(device), precision, 256 if small else 8192) for precision in PRECISIONS}
    yield f"{name}, torch {torch.__version__}; peak " + ", ".join(f"{p} {v:.1f} TFLOP/s" for p, v in peaks.items())
    best: dict[tuple[str, str], float] = {}
    for preset in ("nanda2023", "power2022"):
        config = dataclasses.replace(presets.get(preset), device=device)
        if small:
            tiny = dataclasses.replace(config.model, d_model=16, n_heads=2, d_mlp=24)
            config = dataclasses.replace(config, model=tiny, task=dataclasses.replace(config.task, p=7))
        yield f"{preset}: the loop of `grokscope train` {single_loop(config, seconds):,.1f} steps a second"
        work = operations(config)
        for precision in PRECISIONS:
            there = dataclasses.replace(config, matrix_products=precision)
            for n in AT_ONCE[:2] if small else AT_ONCE:
                speed = steps_per_second(there, n, seconds)
                best[preset, precision] = max(best.get((preset, precision), 0.0), n * speed)
                share = n * speed * work / 1e12 / peaks[precision]
                yield (
                    f"{preset}, {precision}, {n:>3} at once: {speed:9,.1f} steps a second of each, "
                    f"{n * speed:11,.0f} of all; {work / 1e9:.2f} GFLOP a step, {share:.1%} of the peak"
                )
    run = dataclasses.replace(presets.get("nanda2023"), device=device, checkpoints="every 100", evaluate_every=100)
    if small:
        tiny = ModelConfig(d_model=16, n_heads=2, d_mlp=24)
        run = dataclasses.replace(run, n_steps=200, model=tiny, task=dataclasses.replace(run.task, p=7))
    yield f"nanda2023, {run.n_steps:,} steps, {run.n_steps // 100 + 1} checkpoints: {whole_run(run):.1f} s"
    plan = read_sweep(FIGURE)
    n_steps = sum(cell.config.n_steps for cell in plan.cells)
    total = operations(dataclasses.replace(plan.cells[0].config, device="cpu")) * n_steps
    hours = ", ".join(f"{n_steps / best['power2022', p] / 3600:.2f} h in {p}" for p in PRECISIONS)
    yield (
        f"{plan.about} {len(plan.cells)} cells, {n_steps:.2e} steps, about {total:.2e} operations: {hours}, "
        f"at the best speed above, without evaluations"
    )


def main(arguments: list[str] | None = None) -> None:
    """Print the report, line by line as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each speed")
    parser.add_argument("--small", action="store_true", help="tiny models, to test this script")
    asked = parser.parse_args(arguments)
    for row in rows(asked.device, asked.seconds, asked.small):
        print(row, flush=True)


if __name__ == "__main__":
    main()
