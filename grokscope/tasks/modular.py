"""Arithmetic modulo a prime p: a + b, a − b, a · b and a / b (Power et al. 2022, appendix A.1)."""

import torch
from jaxtyping import Int
from torch import Tensor

from grokscope.config import TaskConfig
from grokscope.tasks import Task


def addition(config: TaskConfig) -> Task:
    """Return a + b mod p over all p² pairs; the circle is 0, 1, …, p − 1."""
    a, b = _pairs(config.p, first_b=0)
    return _task(config, f"a + b mod {config.p}", a, b, (a + b) % config.p, torch.arange(config.p))


def subtraction(config: TaskConfig) -> Task:
    """Return a − b mod p over all p² pairs; the circle is 0, 1, …, p − 1."""
    a, b = _pairs(config.p, first_b=0)
    return _task(config, f"a - b mod {config.p}", a, b, (a - b) % config.p, torch.arange(config.p))


def multiplication(config: TaskConfig) -> Task:
    """Return a · b mod p over all p² pairs; the circle is that of `powers`, and 0 is on none."""
    a, b = _pairs(config.p, first_b=0)
    return _task(config, f"a * b mod {config.p}", a, b, a * b % config.p, powers(config.p))


def division(config: TaskConfig) -> Task:
    """Return a / b mod p for 0 ≤ a < p and 0 < b < p: the c with c · b ≡ a; the circle is that of `powers`."""
    a, b = _pairs(config.p, first_b=1)
    circle = powers(config.p)
    # 1 / gʲ = g^(n − j) with n = p − 1: the powers read backwards are the inverses of the powers.
    inverse = torch.zeros(config.p, dtype=torch.int64)
    inverse[circle] = torch.cat([circle[:1], circle[1:].flip(0)])
    return _task(config, f"a / b mod {config.p}", a, b, a * inverse[b] % config.p, circle)


def powers(p: int) -> Int[Tensor, " n"]:
    """Return g⁰, g¹, …, g^(p−2) mod p for the smallest primitive root g of the prime p.

    They are all numbers from 1 to p − 1 in the order of their discrete logarithms, in which a product of
    numbers is a sum of positions: multiplication mod p is addition on a circle of n = p − 1 points.
    """
    for g in range(2, p):
        found = [1]
        while (following := found[-1] * g % p) not in (0, 1, found[-1]):
            found.append(following)
        if len(found) == p - 1:
            return torch.tensor(found)
    raise ValueError(f"{p} has no primitive root: it is no odd prime")


def _pairs(p: int, *, first_b: int) -> tuple[Int[Tensor, " n_examples"], Int[Tensor, " n_examples"]]:
    pairs = torch.cartesian_prod(torch.arange(p), torch.arange(first_b, p))
    return pairs[:, 0], pairs[:, 1]


def _task(
    config: TaskConfig,
    formula: str,
    a: Int[Tensor, " n_examples"],
    b: Int[Tensor, " n_examples"],
    labels: Int[Tensor, " n_examples"],
    circle: Int[Tensor, " n"],
) -> Task:
    equals, operation = torch.full_like(a, config.p), torch.full_like(a, config.p + 1)
    columns = [a, operation, b, equals] if config.form == "a ∘ b =" else [a, b, equals]
    return Task(
        name=config.name,
        formula=formula,
        inputs=torch.stack(columns, 1),
        labels=labels,
        n_elements=config.p,
        d_vocab=config.p + len(columns) - 2,
        d_vocab_out=config.p,
        circle=circle,
    )
