"""Repeated subsequences of random tokens, which an induction head completes."""

import numpy as np
import torch

from grokscope.config import TaskConfig
from grokscope.tasks import NO_TARGET, Sampler, Task
from grokscope.tasks.drawn import draw
from grokscope.tasks.task import Examples


def induction(config: TaskConfig) -> Task:
    """Return random sequences in which a subsequence occurs twice; the model continues the second occurrence.

    A sequence is the sign "start" and `length` tokens. All of them differ, except that a subsequence of `n_repeated`
    tokens occurs a second time, at a random later place. The targets are the next tokens at the second occurrence, at
    all of its tokens but the last: there, what followed the same token before is the answer. A model that only knows
    positions, or only single tokens, cannot give it.

    References:
        Olsson et al. 2022 (induction heads); Nanda et al. 2023, appendix (repeated subsequences).
    """
    n_tokens, length, n_repeated = config.n_tokens, config.length, config.n_repeated
    n_distinct = length - n_repeated

    def examples(numbers: np.ndarray) -> Examples:
        rows = np.arange(len(numbers))[:, None]
        tokens = np.argsort(numbers[:, :n_tokens], 1, kind="stable")[:, :n_distinct]
        first, second = _starts(numbers[:, n_tokens], numbers[:, n_tokens + 1], n_distinct, n_repeated)
        # Before the repetition, a position has its own distinct token; after it, the one n_repeated earlier.
        positions = np.arange(length)
        is_repeated = (positions >= second[:, None]) & (positions < second[:, None] + n_repeated)
        sources = np.where(positions < second[:, None], positions, positions - n_repeated)
        sources = np.where(is_repeated, positions - second[:, None] + first[:, None], sources)
        sequence = tokens[rows, sources]
        inputs = np.concatenate([np.full((len(numbers), 1), n_tokens), sequence], 1)
        following = np.concatenate([inputs[:, 1:], np.full((len(numbers), 1), NO_TARGET)], 1)
        has_target = np.zeros(inputs.shape, bool)
        has_target[:, 1:] = is_repeated & (positions < second[:, None] + n_repeated - 1)
        return torch.from_numpy(inputs), torch.from_numpy(np.where(has_target, following, NO_TARGET))

    sampler = Sampler(n_tokens + 2, examples)
    inputs, labels = draw(sampler, config.n_examples, config.data_seed)
    return Task(
        name=config.name,
        formula=f"induction: {n_repeated} of {n_distinct} tokens repeated",
        inputs=inputs,
        labels=labels,
        n_elements=n_tokens,
        d_vocab=n_tokens + 1,
        d_vocab_out=n_tokens,
        sign_names=("start",),
        column_names=("start", *(str(i) for i in range(1, length + 1))),
        sampler=sampler,
    )


def _starts(
    first_numbers: np.ndarray, second_numbers: np.ndarray, n_distinct: int, n_repeated: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return where the subsequence starts, and where its repetition starts, not before the subsequence has ended."""
    first = (first_numbers % np.uint64(n_distinct - n_repeated + 1)).astype(np.int64)
    earliest = first + n_repeated
    n_places = (n_distinct - earliest + 1).astype(np.uint64)
    return first, earliest + (second_numbers % n_places).astype(np.int64)
