"""Addition of numbers with several digits, written digit by digit."""

import numpy as np
import torch

from grokscope.config import TaskConfig
from grokscope.tasks import NO_TARGET, Sampler, Task
from grokscope.tasks.drawn import draw
from grokscope.tasks.task import Examples


def digit_addition(config: TaskConfig) -> Task:
    """Return sums of two numbers of n digits: the digits of a, "+", the digits of b, "=", and those of a + b.

    The most significant digit comes first, and the sum has n + 1 digits. The model answers each digit of the sum from
    the digits before it: its targets are at "=" and at every digit of the sum except the last. The elements are the
    digits, and the signs are "=" and "+".

    References:
        Nanda et al. 2023, appendix (5-digit addition).
    """
    n, base = config.n_digits, config.base
    place_values = base ** np.arange(n, -1, -1, dtype=np.int64)
    equals, plus = base, base + 1

    def examples(numbers: np.ndarray) -> Examples:
        indices = numbers[:, 0] % np.uint64(base ** (2 * n))
        a, b = (part.astype(np.int64) for part in np.divmod(indices, np.uint64(base**n)))
        digits = [values[:, None] // place_values % base for values in (a, b, a + b)]
        sign = np.ones((len(numbers), 1), np.int64)
        columns = [digits[0][:, 1:], plus * sign, digits[1][:, 1:], equals * sign, digits[2][:, :-1]]
        inputs = torch.from_numpy(np.concatenate(columns, 1))
        labels = torch.full_like(inputs, NO_TARGET)
        labels[:, -n - 1 :] = torch.from_numpy(digits[2])
        return inputs, labels

    sampler = Sampler(1, examples, base ** (2 * n))
    inputs, labels = draw(sampler, config.n_examples, config.data_seed)
    names = [f"{letter}{i}" for letter in "abc" for i in range(1, n + 1)]
    return Task(
        name=config.name,
        formula=f"{n}-digit addition" + (f" in base {base}" if base != 10 else ""),
        inputs=inputs,
        labels=labels,
        n_elements=base,
        d_vocab=base + 2,
        d_vocab_out=base,
        is_commutative=True,
        sign_names=("=", "+"),
        column_names=(*names[:n], "+", *names[n : 2 * n], "=", *names[2 * n :]),
        sampler=sampler,
    )
