"""The time of a training step: grokscope, a plain HookedTransformer loop, a plain torch.nn loop, and the limits.

All loops make the same updates (AdamW, float64 log-softmax) of the same architecture on the same data. All evaluate
every equation every 100 steps, and their times include this. They take turns, so a drift of the machine's speed
affects all. Each ratio compares one turn. The median over the turns is printed with the range.

"at the ceiling" is the time of a step's products at the speed of a large matrix product, measured in the same run.

- torch's FlopCounterMode counts the matrix products. The sums of `embedding_bag.mix` are added: 2 operations per
  entry and column, once forward and twice backward.
- Other work (ReLU, softmax, copies, AdamW) costs memory bandwidth rather than arithmetic. In `nanda2023`, it is about
  12 passes over the neurons' 7.8 MB and 12 over the logits' 3.5 MB in float64. At the speed of a large copy this
  takes 4 ms, or less if the caches hold the data.

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

N_TURNS, N_STEPS = 5, 100
Loop = Callable[[Setup], Iterator[object]]


def grokscope_steps(setup: Setup) -> Iterator[object]:
    """Yield after each of grokscope's updates, without end; evaluate every 100 steps."""
    state = setup.learner.initial_state()
    for _ in optimize(setup, state):
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


def milliseconds(steps: Iterator[object], n: int = N_STEPS) -> float:
    """Return the mean time of n steps."""
    started = time.perf_counter()
    for _ in islice(steps, n):
        pass
    return 1000 * (time.perf_counter() - started) / n


def gigaflop(setup: Setup, loop: Loop) -> float:
    """Return the floating point operations of a step's products, in units of 10⁹."""
    steps = loop(setup)
    next(steps)
    with FlopCounterMode(display=False) as counter:
        next(steps)
    n_operations, c = counter.get_total_flops(), setup.config.model
    if loop is grokscope_steps and c.n_layers == 1 and not c.normalization_type:
        n_entries = len(setup.batch(0)[1]) * (setup.model.n_ctx - 1) * c.n_heads
        n_operations += 6 * n_entries * (c.d_mlp + setup.model.d_vocab_out)
    return n_operations / 1e9


def ceiling() -> float:
    """Return the speed of a large matrix product, in 10⁹ floating point operations per second."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - started)
    return 2 * 2048**3 / min(times) / 1e9


def rows(preset: str) -> Iterator[str]:
    """Yield the lines of the table for a preset."""
    setup = Setup(presets.get(preset))
    running = {name: loop(setup) for name, loop in LOOPS.items()}
    times: dict[str, list[float]] = {name: [] for name in running}
    fastest = 0.0
    for turn in range(N_TURNS + 1):
        fastest = max(fastest, ceiling())
        for name, steps in running.items():
            step_time = milliseconds(steps, N_STEPS if turn else 3)
            if turn:  # The first turn is a warm-up.
                times[name].append(step_time)
    yield f"{preset}, {torch.get_num_threads()} threads, ceiling {fastest:.0f} GFLOP/s"
    for name, loop_times in times.items():
        ratios = [theirs / ours for ours, theirs in zip(times["grokscope"], loop_times, strict=True)]
        n_gigaflop = gigaflop(setup, LOOPS[name])
        yield (
            f"  {name:<18}{statistics.median(loop_times):7.1f} ms per step, {statistics.median(ratios):5.2f} times "
            f"grokscope's (from {min(ratios):.2f} to {max(ratios):.2f}); {n_gigaflop:5.2f} GFLOP, "
            f"{1000 * n_gigaflop / fastest:5.1f} ms at the ceiling"
        )


def main() -> None:
    """Print a table for each preset of the command line."""
    for preset in sys.argv[1:] or ["nanda2023", "power2022"]:
        print("\n".join(rows(preset)), flush=True)


if __name__ == "__main__":
    main()
