"""Training beside busy processes: grokscope as a user starts it, against the plain HookedTransformer loop.

The loads are zero, one and two processes that compute in Python, and a process that trains with torch on two threads.
Each turn runs both loops under the same load, so each ratio compares one turn. grokscope uses the threads that it
chooses itself. The plain loop uses as many threads as the process has cores, torch's default.

How to run: python tests/benchmarks/busy.py [PRESET …] [--seconds S] [--json FILE], by default nanda2023, with about
S = 180 seconds for each
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from training import grokscope_steps, hooked_steps, machine, milliseconds

from grokscope.config import presets
from grokscope.threads import available_cores
from grokscope.training.loop import Setup

N_TURNS = 5
SPIN = "while True: sum(range(10_000))"
TRAIN = """
import torch
torch.set_num_threads(2)
model = torch.nn.Sequential(torch.nn.Linear(128, 512), torch.nn.ReLU(), torch.nn.Linear(512, 128))
optimizer = torch.optim.AdamW(model.parameters())
x = torch.randn(4096, 128)
while True:
    optimizer.zero_grad()
    (model(x) - x).square().mean().backward()
    optimizer.step()
"""
LOADS = {
    "idle": [],
    "one busy process": [SPIN],
    "two busy processes": [SPIN, SPIN],
    "one that trains on two threads": [TRAIN],
}


@contextmanager
def busy(programs: list[str]) -> Iterator[None]:
    """Run Python programs inside the block, each in a process of its own."""
    processes = [subprocess.Popen([sys.executable, "-c", program]) for program in programs]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(preset: str, seconds: float) -> dict[str, Any]:
    """Return the times of both loops under each load, in milliseconds per step, turn by turn."""
    setup = Setup(presets.get(preset))
    ours, plain = grokscope_steps(setup), hooked_steps(setup)
    times: dict[str, dict[str, list[float]]] = {load: {"grokscope": [], "HookedTransformer": []} for load in LOADS}
    share = seconds / (N_TURNS * len(LOADS) * 2)
    for steps in (ours, plain):
        milliseconds(steps, 1.0)
    for _ in range(N_TURNS):
        for load, programs in LOADS.items():
            with busy(programs):
                if programs:
                    # The other process needs a few seconds to import torch.
                    milliseconds(plain, 3.0 if programs == [TRAIN] else 0.5)
                torch.set_num_threads(available_cores())
                times[load]["grokscope"].append(milliseconds(ours, share))
                times[load]["HookedTransformer"].append(milliseconds(plain, share))
    return {"preset": preset, "threads": setup.threads.n, "milliseconds": times}


def main() -> None:
    """Print the medians and ranges under each load, and write all turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", default=["nanda2023"])
    parser.add_argument("--seconds", type=float, default=180.0, help="the time for each preset")
    parser.add_argument("--json", type=Path, help="the file for all turns")
    options = parser.parse_args()
    results: dict[str, Any] = {"machine": machine(), "turns": N_TURNS, "results": []}
    print(results["machine"])
    for preset in options.presets:
        result = measure(preset, options.seconds)
        results["results"].append(result)
        print(f"{preset}, threads that grokscope chose: {result['threads']}")
        for load, times in result["milliseconds"].items():
            ratios = [b / a for a, b in zip(times["grokscope"], times["HookedTransformer"], strict=True)]
            medians = " ".join(f"{name} {statistics.median(values):.1f} ms" for name, values in times.items())
            print(
                f"  {load:<32}{medians}, {statistics.median(ratios):.2f} times as fast "
                f"({min(ratios):.2f} to {max(ratios):.2f})",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
