"""The time of a training step on one core: grokscope, its matrix products alone, and plain loops.

All loops make the same updates (AdamW, float64 log-softmax) of the same architecture on the same data. All evaluate
every equation every 100 steps, and their times include this. They take turns, so a drift of the machine's speed
affects all. Each ratio compares one turn. The median over the turns is printed with the range.

"products" is the floor of a step: the matrix products that grokscope's own step makes, with the same shapes and
strides, repeated in the same process and in the same turns.

How to run: python tests/benchmarks/training.py [PRESET …] [--seconds S] [--json FILE], by default nanda2023 and
power2022, about S = 100 seconds for each
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from grokscope.config import presets
from grokscope.model.losses import cross_entropy
from grokscope.training.loop import Setup, optimize
from grokscope.training.run import MOST_UNCHECKED

N_TURNS = 7
Loop = Callable[[Setup], Iterator[object]]


def grokscope_steps(setup: Setup) -> Iterator[object]:
    """Yield after each update, made as `grokscope train` does, without end; evaluate every 100 steps."""
    state = setup.learner.initial_state()
    for _ in optimize(setup, state, look_every=MOST_UNCHECKED):
        if state.step % 100 == 0:
            setup.evaluator.evaluate(state)
        yield state.parameters


def plain_steps(setup: Setup, model: nn.Module, trained: list[nn.Parameter]) -> Iterator[object]:
    """Yield after each of the same updates, with the forward pass of a module; its last position is the answer."""
    config = setup.config.optimizer
    optimizer = torch.optim.AdamW(trained, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)
    step = 0
    while True:
        batch, labels = setup.batch(step)
        optimizer.param_groups[0]["lr"] = config.lr * min(step / config.warmup_steps, 1)
        cross_entropy(model(batch.tokens)[:, -1], labels).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if step % 100 == 0:
            with torch.no_grad():
                cross_entropy(model(setup.dataset.inputs)[:, -1], setup.dataset.labels).mean().item()
        yield model


def hooked_steps(setup: Setup) -> Iterator[object]:
    """Return the plain loop over a HookedTransformer, as in its grokking demo."""
    hooked = setup.model.hooked_transformer(setup.model.initialize(setup.config.init_seed))
    for name, parameter in hooked.named_parameters():
        parameter.requires_grad_(name in setup.model.trained)
    return plain_steps(setup, hooked, [parameter for parameter in hooked.parameters() if parameter.requires_grad])


def module_steps(setup: Setup) -> Iterator[object]:
    """Return the plain loop over a simple torch.nn module."""
    module = PlainTransformer(setup)
    return plain_steps(setup, module, list(module.parameters()))


class PlainTransformer(nn.Module):
    """The same architecture, built from the modules of torch.nn."""

    def __init__(self, setup: Setup):
        super().__init__()
        c, model = setup.config.model, setup.model
        self.embed = nn.Embedding(model.d_vocab, c.d_model)
        self.positions = nn.Parameter(torch.randn(model.n_ctx, c.d_model) / c.d_model**0.5)

        def norm() -> nn.Module:
            return nn.LayerNorm(c.d_model) if c.normalization_type else nn.Identity()

        self.attention = nn.ModuleList(
            nn.MultiheadAttention(c.d_model, c.n_heads, bias=False, batch_first=True) for _ in range(c.n_layers)
        )
        self.mlps = nn.ModuleList(
            nn.Sequential(norm(), nn.Linear(c.d_model, c.d_mlp), nn.ReLU(), nn.Linear(c.d_mlp, c.d_model))
            for _ in range(c.n_layers)
        )
        self.norms = nn.ModuleList(norm() for _ in range(c.n_layers))
        self.unembed = nn.Sequential(norm(), nn.Linear(c.d_model, model.d_vocab_out, bias=False))
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(model.n_ctx))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the logits at every position."""
        x = self.embed(tokens) + self.positions
        for norm, attention, mlp in zip(self.norms, self.attention, self.mlps, strict=True):
            y = norm(x)
            x = x + attention(y, y, y, attn_mask=self.mask, need_weights=False)[0]
            x = x + mlp(x)
        return self.unembed(x)


LOOPS: dict[str, Loop] = {
    "grokscope": grokscope_steps,
    "HookedTransformer": hooked_steps,
    "torch.nn": module_steps,
}


class ProductRecorder(TorchDispatchMode):
    """Records the factors of every matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.factors: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        """Record the last two matrices of a product; they are the factors."""
        if function.overloadpacket.__name__ in ("mm", "addmm", "addmm_", "bmm", "baddbmm"):
            a, b = [argument for argument in arguments if isinstance(argument, torch.Tensor)][-2:]
            self.factors.append((random_like(a), random_like(b)))
        return function(*arguments, **(keywords or {}))


def random_like(tensor: torch.Tensor) -> torch.Tensor:
    """Return random numbers with a tensor's shape, strides and dtype."""
    size = 1 + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return torch.randn(size, dtype=tensor.dtype).as_strided(tensor.shape, tensor.stride())


def product_steps(setup: Setup) -> Iterator[object]:
    """Yield after the matrix products of a step of grokscope, without end, in buffers that are reused."""
    steps = grokscope_steps(setup)
    next(steps)
    with ProductRecorder() as recorder:
        next(steps)
    products = [(a, b, a.new_empty(*a.shape[:-1], b.shape[-1])) for a, b in recorder.factors]
    while True:
        for a, b, result in products:
            torch.matmul(a, b, out=result)
        yield products


def gigaflop(setup: Setup, loop: Loop) -> float:
    """Return the floating point operations of a step's products, in units of 10⁹.

    The sums of looked-up rows in grokscope's merged form are included: 2 operations per entry and column, once
    forward and twice backward.
    """
    steps = loop(setup)
    next(steps)
    with FlopCounterMode(display=False) as counter:
        next(steps)
    n_operations, c = counter.get_total_flops(), setup.config.model
    if loop is grokscope_steps and c.n_layers == 1 and not c.normalization_type:
        n_entries = len(setup.batch(0)[1]) * (setup.model.n_ctx - 1) * c.n_heads
        n_operations += 6 * n_entries * (c.d_mlp + setup.model.d_vocab_out)
    return n_operations / 1e9


def milliseconds(steps: Iterator[object], seconds: float) -> float:
    """Return the mean time of the steps that fit in some seconds, at least three."""
    started, n = time.perf_counter(), 0
    while n < 3 or time.perf_counter() - started < seconds:
        next(steps)
        n += 1
    return 1000 * (time.perf_counter() - started) / n


def measure(preset: str, seconds: float) -> dict[str, Any]:
    """Return the median time of each loop, and the ratios of each turn, after a turn of warm-up."""
    setup = Setup(presets.get(preset))
    running = {name: loop(setup) for name, loop in (LOOPS | {"products": product_steps}).items()}
    times: dict[str, list[float]] = {name: [] for name in running}
    for turn in range(N_TURNS + 1):
        for name, steps in running.items():
            step_time = milliseconds(steps, seconds / (N_TURNS + 1) / len(running))
            if turn:
                times[name].append(step_time)
    ours = times["grokscope"]
    ratios = {
        "step / products": [a / b for a, b in zip(ours, times["products"], strict=True)],
        "HookedTransformer / step": [b / a for a, b in zip(ours, times["HookedTransformer"], strict=True)],
        "torch.nn / step": [b / a for a, b in zip(ours, times["torch.nn"], strict=True)],
    }
    return {"preset": preset, "threads": setup.threads.n, "milliseconds": times, "ratios": ratios}


def machine() -> dict[str, Any]:
    """Return the machine and its present load."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model n" in line
        ),
        platform.processor(),
    )
    return {"cpu": cpu, "cores": os.cpu_count(), "load": os.getloadavg()[0], "torch": torch.__version__}


def main() -> None:
    """Print the medians and ranges of each preset, and write all turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", default=["nanda2023", "power2022"])
    parser.add_argument("--seconds", type=float, default=100.0, help="the time for each preset")
    parser.add_argument("--json", type=Path, help="the file for all turns")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {"machine": machine(), "turns": N_TURNS, "results": []}
    print(results["machine"])
    for preset in options.presets:
        result = measure(preset, options.seconds)
        results["results"].append(result)
        setup = Setup(presets.get(preset))
        operations = ", ".join(f"{name} {gigaflop(setup, loop):.2f}" for name, loop in LOOPS.items())
        print(f"{preset}, one core; GFLOP per step: {operations}")
        for name, values in result["milliseconds"].items():
            print(f"  {name:<26}{statistics.median(values):8.1f} ms   ({min(values):.1f} to {max(values):.1f})")
        for name, values in result["ratios"].items():
            print(f"  {name:<26}{statistics.median(values):8.2f} times ({min(values):.2f} to {max(values):.2f})")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    # One core, whatever the machine has: the threads are then one.
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
