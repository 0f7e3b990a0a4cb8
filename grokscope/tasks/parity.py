"""The parity of a few of many bits."""

import numpy as np
import torch

from grokscope import rng
from grokscope.config import TaskConfig
from grokscope.tasks import Sampler, Task
from grokscope.tasks.drawn import draw
from grokscope.tasks.task import Examples


def parity(config: TaskConfig) -> Task:
    """Return the parity of k of n bits: the tokens are the n bits and "=", and the answer is 0 or 1.

    Which bits count is a function of `data_seed`; a network does not know it and has to find them.

    References:
        Barak et al. 2022, "Hidden progress in deep learning"; Merrill et al. 2023, "A tale of two circuits".
    """
    n, k = config.n_bits, config.n_parity_bits
    subset = parity_bits(config)

    def examples(numbers: np.ndarray) -> Examples:
        bits = (numbers % np.uint64(2**n) >> np.arange(n, dtype=np.uint64) & np.uint64(1)).astype(np.int64)
        equals = np.full((len(bits), 1), 2)
        return torch.from_numpy(np.concatenate([bits, equals], 1)), torch.from_numpy(bits[:, subset].sum(1) % 2)

    sampler = Sampler(1, examples, 2**n)
    inputs, labels = draw(sampler, config.n_examples, config.data_seed)
    return Task(
        name=config.name,
        formula=f"parity of {k} of {n} bits",
        inputs=inputs,
        labels=labels,
        n_elements=2,
        d_vocab=3,
        d_vocab_out=2,
        sign_names=("=",),
        column_names=(*(f"bit {i}" for i in range(n)), "="),
        sampler=sampler,
    )


def parity_bits(config: TaskConfig) -> list[int]:
    """Return the positions of the bits whose parity is the answer, in increasing order."""
    order = rng.permutation("parity bits", config.data_seed, 0, config.n_bits)
    return sorted(order[: config.n_parity_bits].tolist())
