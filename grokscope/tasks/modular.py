"""Arithmetic modulo a prime p: the nine operations of Power et al. 2022 (appendix A.1.1) and multiplication."""

import torch
from jaxtyping import Int
from torch import Tensor

from grokscope import tasks
from grokscope.algebra import groups
from grokscope.config import TaskConfig
from grokscope.tasks import Task


def addition(config: TaskConfig) -> Task:
    """Return a + b mod p over all p² pairs. The circle is 0, 1, …, p − 1; the group is C_p."""
    a, b = _pairs(config.p)
    return _on_residues(config, "a + b", a, b, a + b)


def subtraction(config: TaskConfig) -> Task:
    """Return a − b mod p over all p² pairs. The circle is 0, 1, …, p − 1; the group is C_p."""
    a, b = _pairs(config.p)
    return _on_residues(config, "a - b", a, b, a - b, circle_sign=-1)


def multiplication(config: TaskConfig) -> Task:
    """Return a · b mod p over all p² pairs. The circle is `powers(p)`, without zero."""
    a, b = _pairs(config.p)
    return _modular(config, "a * b", a, b, a * b, circle=powers(config.p))


def division(config: TaskConfig) -> Task:
    """Return a / b mod p, the c with c · b ≡ a, for all a and 0 < b < p. The circle is `powers(p)`, without zero."""
    a, b = _pairs(config.p, first_b=1)
    answers = a * _inverses(config.p)[b]
    return _modular(config, "a / b", a, b, answers, circle=powers(config.p), circle_sign=-1)


def division_or_subtraction(config: TaskConfig) -> Task:
    """Return a / b mod p if b is odd, else a − b mod p, over all p² pairs."""
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

    These are the numbers 1 … p − 1, sorted by discrete logarithm. In this order, the product of two numbers is at
    the sum of their positions, so multiplication mod p is addition on a circle of n = p − 1 points.

    Args:
        p: An odd prime.

    Raises:
        ValueError: p is not an odd prime.
    """
    for g in range(2, p):
        residues = [1]
        while (residue := residues[-1] * g % p) not in (0, 1, residues[-1]):
            residues.append(residue)
        if len(residues) == p - 1:
            return torch.tensor(residues)
    raise ValueError(f"p: {p} is not an odd prime, so it has no primitive root above 1.")


def _pairs(p: int, *, first_b: int = 0) -> tuple[Int[Tensor, " n_examples"], Int[Tensor, " n_examples"]]:
    """Return a and b of all pairs with 0 ≤ a < p and first_b ≤ b < p."""
    pairs = torch.cartesian_prod(torch.arange(p), torch.arange(first_b, p))
    return pairs[:, 0], pairs[:, 1]


def _inverses(p: int) -> Int[Tensor, " p"]:
    """Return the inverse mod p of each number, and 0 for 0."""
    circle = powers(p)
    # The inverse of gʲ is g^(n − j) with n = p − 1.
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
    """Return a task whose circle is 0, 1, …, p − 1 and whose group is C_p."""
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
    """Return a task with the given answers mod p, without a group."""
    formula = f"{operation} mod {config.p}"
    return tasks.equations(
        config, formula, a, b, answers % config.p, config.p, circle=circle, circle_sign=circle_sign
    )
