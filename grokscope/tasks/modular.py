"""Arithmetic modulo a prime p: the nine operations of Power et al. 2022 (appendix A.1.1), and the product."""

import torch
from jaxtyping import Int
from torch import Tensor

from grokscope import tasks
from grokscope.algebra import groups
from grokscope.config import TaskConfig
from grokscope.tasks import Task


def addition(config: TaskConfig) -> Task:
    """Return a + b mod p over all p² pairs; the circle is 0, 1, …, p − 1, the group that of the residues."""
    a, b = _pairs(config.p)
    return _on_residues(config, "a + b", a, b, a + b)


def subtraction(config: TaskConfig) -> Task:
    """Return a − b mod p over all p² pairs; the circle is 0, 1, …, p − 1, the group that of the residues."""
    a, b = _pairs(config.p)
    return _on_residues(config, "a - b", a, b, a - b, circle_sign=-1)


def multiplication(config: TaskConfig) -> Task:
    """Return a · b mod p over all p² pairs; the circle is that of `powers`, and 0 is on none."""
    a, b = _pairs(config.p)
    return _modular(config, "a * b", a, b, a * b, circle=powers(config.p))


def division(config: TaskConfig) -> Task:
    """Return a / b mod p for 0 ≤ a < p and 0 < b < p: the c with c · b ≡ a; the circle is that of `powers`."""
    a, b = _pairs(config.p, first_b=1)
    answers = a * _inverses(config.p)[b]
    return _modular(config, "a / b", a, b, answers, circle=powers(config.p), circle_sign=-1)


def division_or_subtraction(config: TaskConfig) -> Task:
    """Return a / b mod p where b is odd, else a − b mod p, over all p² pairs."""
    a, b = _pairs(config.p)
    answers = torch.where(b % 2 == 1, a * _inverses(config.p)[b], a - b)
    return _modular(config, "a / b if b is odd, else a - b,", a, b, answers)


def a2_b2(config: TaskConfig) -> Task:
    """Return a² + b² mod p over all p² pairs."""
    a, b = _pairs(config.p)
    return _modular(config, "a² + b²", a, b, a**2 + b**2)


def a2_ab_b2(config: TaskConfig) -> Task:
    """Return a² + ab + b² mod p over all p² pairs."""
    a, b = _pairs(config.p)
    return _modular(config, "a² + ab + b²", a, b, a**2 + a * b + b**2)


def a2_ab_b2_a(config: TaskConfig) -> Task:
    """Return a² + ab + b² + a mod p over all p² pairs."""
    a, b = _pairs(config.p)
    return _modular(config, "a² + ab + b² + a", a, b, a**2 + a * b + b**2 + a)


def a3_ab(config: TaskConfig) -> Task:
    """Return a³ + ab mod p over all p² pairs."""
    a, b = _pairs(config.p)
    return _modular(config, "a³ + ab", a, b, a**3 + a * b)


def a3_ab2_b(config: TaskConfig) -> Task:
    """Return a³ + ab² + b mod p over all p² pairs."""
    a, b = _pairs(config.p)
    return _modular(config, "a³ + ab² + b", a, b, a**3 + a * b**2 + b)


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


def _pairs(p: int, *, first_b: int = 0) -> tuple[Int[Tensor, " n_examples"], Int[Tensor, " n_examples"]]:
    pairs = torch.cartesian_prod(torch.arange(p), torch.arange(first_b, p))
    return pairs[:, 0], pairs[:, 1]


def _inverses(p: int) -> Int[Tensor, " p"]:
    """Return each number's inverse mod p, and 0 for 0, which has none."""
    circle = powers(p)
    # 1 / gʲ = g^(n − j) with n = p − 1: the powers read backwards are the inverses of the powers.
    inverses = torch.zeros(p, dtype=torch.int64)
    inverses[circle] = torch.cat([circle[:1], circle[1:].flip(0)])
    return inverses


def _on_residues(
    config: TaskConfig,
    operation: str,
    a: Int[Tensor, " n_examples"],
    b: Int[Tensor, " n_examples"],
    answers: Int[Tensor, " n_examples"],
    circle_sign: int = 1,
) -> Task:
    group = groups.group(f"C{config.p}")
    return tasks.equations(
        config,
        f"{operation} mod {config.p}",
        a,
        b,
        answers % config.p,
        config.p,
        circle=torch.arange(config.p),
        circle_sign=circle_sign,
        group=group,
    )


def _modular(
    config: TaskConfig,
    operation: str,
    a: Int[Tensor, " n_examples"],
    b: Int[Tensor, " n_examples"],
    answers: Int[Tensor, " n_examples"],
    circle: Int[Tensor, " n"] | None = None,
    circle_sign: int = 1,
) -> Task:
    formula = f"{operation} mod {config.p}"
    return tasks.equations(
        config, formula, a, b, answers % config.p, config.p, circle=circle, circle_sign=circle_sign
    )
