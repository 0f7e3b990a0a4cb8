"""Milliseconds a training step: grokscope, a plain HookedTransformer loop, a plain torch.nn loop, and the limits.

All make the same updates (AdamW, float64 log-softmax) of the same architecture on the same data, and evaluate all
equations every 100 steps, which is in their times. Turns alternate, so that a drift of the machine's speed hits all;
each ratio is of one turn, the median of the turns is printed with their range.

"at the ceiling" is what a step's products would take at the speed of a large matrix product measured in the same run.
Products are counted by torch's FlopCounterMode, and the sums of `grokscope.mix` by hand: 2 floating point operations
for each entry and column, forward and twice backward. What is not a product (ReLU, softmax, copies, AdamW) costs no
arithmetic worth counting but passes over memory: for `nanda2023` some 12 over the neurons' 7.8 MB and some 12 over
the logits' 3.5 MB in float64, 4 ms at the speed of a large copy, less as far as the caches hold them.

How to run: python tests/benchmarks/training.py [PRESET …], by default nanda2023 and power2022
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from grokscope.config import presets
from grokscope.model.losses import cross_entropy
from grokscope.training.loop import Setup, optimize

TURNS, STEPS = 5, 100
Loop = Callable[[Setup], Iterator[object]]


def grokscope_steps(setup: Setup) -> Iterator[object]:
    """Make grokscope's updates for ever, evaluating every 100 steps."""
    state = setup.state()
    for _ in optimize(setup, state):
        if state.step % 100 == 0:
            setup.evaluate(state)
        yield state.parameters


def plain_steps(setup: Setup, model: nn.Module, trained: list[nn.Parameter]) -> Iterator[object]:
    """Make the same updates with a module's own forward pass, whose logits at the last position count."""
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
                cross_entropy(model(setup.inputs)[:, -1], setup.labels).mean().item()
        yield model


def hooked_steps(setup: Setup) -> Iterator[object]:
    """Return the plain loop over a HookedTransformer, as its grokking demonstration has it."""
    hooked = setup.model.hooked(setup.model.initialize(setup.config.init_seed))
    for name, parameter in hooked.named_parameters():
        parameter.requires_grad_(name in setup.model.trained)
    return plain_steps(setup, hooked, [one for one in hooked.parameters() if one.requires_grad])


def module_steps(setup: Setup) -> Iterator[object]:
    """Return the plain loop over a module as a student would write it."""
    module = Student(setup)
    return plain_steps(setup, module, list(module.parameters()))


class Student(nn.Module):
    """The same architecture of torch.nn's own parts."""

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


def milliseconds(steps: Iterator[object], n: int = STEPS) -> float:
    """Return the time of one step, over n of them."""
    started = time.perf_counter()
    for _ in islice(steps, n):
        pass
    return 1000 * (time.perf_counter() - started) / n


def gigaflop(setup: Setup, loop: Loop) -> float:
    """Return the floating point operations of a step's products, in 10⁹."""
    steps = loop(setup)
    next(steps)
    with FlopCounterMode(display=False) as counter:
        next(steps)
    c, is_merged = setup.config.model, setup.config.model.n_layers == 1 and not setup.config.model.normalization_type
    n_sums = len(setup.batch(0)[1]) * (setup.model.n_ctx - 1) * c.n_heads * (c.d_mlp + setup.model.d_vocab_out)
    return (counter.get_total_flops() + 6 * n_sums * (is_merged and loop is grokscope_steps)) / 1e9


def ceiling() -> float:
    """Return the speed of a large matrix product here, in 10⁹ floating point operations a second."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - started)
    return 2 * 2048**3 / min(times) / 1e9


def rows(preset: str) -> Iterator[str]:
    """Yield the table's lines for one preset."""
    setup = Setup(presets.get(preset))
    running = {name: loop(setup) for name, loop in LOOPS.items()}
    times: dict[str, list[float]] = {name: [] for name in running}
    fastest = 0.0
    for turn in range(TURNS + 1):
        fastest = max(fastest, ceiling())
        for name, steps in running.items():
            taken = milliseconds(steps, STEPS if turn else 3)
            if turn:  # The first turn warms up.
                times[name].append(taken)
    yield f"{preset}, {torch.get_num_threads()} threads, ceiling {fastest:.0f} GFLOP/s"
    for name, taken in times.items():
        ratios = [theirs / ours for ours, theirs in zip(times["grokscope"], taken, strict=True)]
        work = gigaflop(setup, LOOPS[name])
        yield (
            f"  {name:<18}{statistics.median(taken):7.1f} ms a step, {statistics.median(ratios):5.2f} times "
            f"grokscope's (from {min(ratios):.2f} to {max(ratios):.2f}); {work:5.2f} GFLOP, "
            f"{1000 * work / fastest:5.1f} ms at the ceiling"
        )


def main() -> None:
    """Print a table for each preset that is named."""
    for preset in sys.argv[1:] or ["nanda2023", "power2022"]:
        print("\n".join(rows(preset)), flush=True)


if __name__ == "__main__":
    main()
