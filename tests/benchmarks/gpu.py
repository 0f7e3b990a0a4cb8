"""Every measurement on a GPU: single runs, ensembles, a whole run, and the cost of Power et al.'s Figure 2.

- For each preset, precision and ensemble size: the steps per second (of each model, and of all together), the
  floating point operations of the products, and the share of the device's peak. The peak is the speed of a large
  matrix product.
- The time of a whole run of `nanda2023` with 400 checkpoints in its folder.
- The cost of Figure 2, right (`analyses/power2022/operations.toml`): its cells, its operations, and its hours at the
  measured speed in each precision.

How to run: python tests/benchmarks/gpu.py [--device cuda] [--seconds 20]. To test this script on a CPU, use
`--device cpu --small`, which shrinks the models.
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
from grokscope.training.train_ensemble import train_ensemble

ENSEMBLE_SIZES = (1, 16, 64, 256)
PRECISIONS = ("float32", "tf32", "bfloat16")
FIGURE = Path(__file__).parents[2] / "analyses/power2022/operations.toml"
N_WARM_UP = 5


def with_seeds(config: RunConfig, n: int) -> list[RunConfig]:
    """Return n configs with different seeds."""
    return [dataclasses.replace(config, split_seed=i, init_seed=i, training_seed=i) for i in range(n)]


def wait(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak(device: torch.device, precision: str, n: int) -> float:
    """Return the speed of an n × n matrix product in 10¹² floating point operations per second."""
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
    """Return the floating point operations of one model's step, in the form that runs on the device."""
    setup = Setup(config)
    steps = optimize(setup, setup.learner.initial_state())
    next(steps)
    with FlopCounterMode(display=False) as counter:
        next(steps)
    return float(counter.get_total_flops())


def steps_per_second(config: RunConfig, n: int, seconds: float) -> float:
    """Return the steps per second of an ensemble of n models, measured for `seconds`."""
    ensemble = Ensemble(with_seeds(config, n))
    device = torch.device(config.device)
    for _ in range(N_WARM_UP):
        ensemble.advance()
    wait(device)
    n_steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for _ in range(N_WARM_UP):
            ensemble.advance()
        n_steps += N_WARM_UP
        wait(device)
    if any(failed >= 0 for failed in ensemble.failed_updates()):
        raise RuntimeError("A loss, gradient or weight is not finite.")
    return n_steps / (time.perf_counter() - started)


def single_loop(config: RunConfig, seconds: float) -> float:
    """Return the steps per second of the training loop of `grokscope train`."""
    setup = Setup(config)
    steps, n_steps = optimize(setup, setup.learner.initial_state()), 0
    next(steps)
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        n_steps += sum(1 for _ in islice(steps, N_WARM_UP))
    wait(setup.device)
    return n_steps / (time.perf_counter() - started)


def whole_run(config: RunConfig) -> float:
    """Return the seconds of a whole run, including its checkpoints on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        train_ensemble([config], [Path(folder) / "run"])
        return time.perf_counter() - started


def rows(device: str, seconds: float, small: bool) -> Iterator[str]:
    """Yield the lines of the report."""
    name = torch.cuda.get_device_name(device) if device != "cpu" else "CPU"
    peaks = {precision: peak(torch.device(device), precision, 256 if small else 8192) for precision in PRECISIONS}
    yield f"{name}, torch {torch.__version__}; peak " + ", ".join(f"{p} {v:.1f} TFLOP/s" for p, v in peaks.items())
    fastest: dict[tuple[str, str], float] = {}
    for preset in ("nanda2023", "power2022"):
        config = dataclasses.replace(presets.get(preset), device=device)
        if small:
            tiny = dataclasses.replace(config.model, d_model=16, n_heads=2, d_mlp=24)
            config = dataclasses.replace(config, model=tiny, task=dataclasses.replace(config.task, p=7))
        yield f"{preset}: the loop of `grokscope train` {single_loop(config, seconds):,.1f} steps per second"
        n_operations = operations(config)
        for precision in PRECISIONS:
            precise_config = dataclasses.replace(config, matrix_products=precision)
            for n in ENSEMBLE_SIZES[:2] if small else ENSEMBLE_SIZES:
                speed = steps_per_second(precise_config, n, seconds)
                fastest[preset, precision] = max(fastest.get((preset, precision), 0.0), n * speed)
                share = n * speed * n_operations / 1e12 / peaks[precision]
                yield (
                    f"{preset}, {precision}, {n:>3} models: {speed:9,.1f} steps per second each, "
                    f"{n * speed:11,.0f} together; {n_operations / 1e9:.2f} GFLOP per step, {share:.1%} of the peak"
                )
    run = dataclasses.replace(presets.get("nanda2023"), device=device, checkpoints="every 100", evaluate_every=100)
    if small:
        tiny = ModelConfig(d_model=16, n_heads=2, d_mlp=24)
        run = dataclasses.replace(run, n_steps=200, model=tiny, task=dataclasses.replace(run.task, p=7))
    yield f"nanda2023, {run.n_steps:,} steps, {run.n_steps // 100 + 1} checkpoints: {whole_run(run):.1f} s"
    plan = read_sweep(FIGURE)
    n_steps = sum(cell.config.n_steps for cell in plan.cells)
    total_operations = operations(dataclasses.replace(plan.cells[0].config, device="cpu")) * n_steps
    hours = ", ".join(f"{n_steps / fastest['power2022', p] / 3600:.2f} h in {p}" for p in PRECISIONS)
    yield (
        f"{plan.about} {len(plan.cells)} cells, {n_steps:.2e} steps, about {total_operations:.2e} operations: "
        f"{hours}, at the highest speed above, without evaluations"
    )


def main(arguments: list[str] | None = None) -> None:
    """Print each line as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=20.0, help="the duration of each measurement")
    parser.add_argument("--small", action="store_true", help="tiny models, to test this script")
    options = parser.parse_args(arguments)
    for row in rows(options.device, options.seconds, options.small):
        print(row, flush=True)


if __name__ == "__main__":
    main()
