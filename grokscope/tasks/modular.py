"""Arithmetic modulo n: the nine operations of Power et al. 2022 (appendix A.1.1), products, and longer sums."""

import torch
from jaxtyping import Int
from torch import Tensor

from grokscope import tasks
from grokscope.algebra import groups
from grokscope.config import TaskConfig
from grokscope.tasks import Task
from grokscope.tasks.units import inverses, unit_torus, units
from grokscope.tasks.units import powers as powers


def addition(config: TaskConfig) -> Task:
    """Return a + b mod p, or a longer sum, over all operands. The circle is 0, 1, …, p − 1; the group is C_p."""
    operands = torch.cartesian_prod(*[torch.arange(config.p)] * config.n_operands)
    return _on_residues(config, " + ".join("abcdef"[: config.n_operands]), operands, operands.sum(1))


def subtraction(config: TaskConfig) -> Task:
    """Return a − b mod p over all p² pairs. The circle is 0, 1, …, p − 1; the group is C_p."""
    a, b = _pairs(config.p)
    return _on_residues(config, "a - b", torch.stack([a, b], 1), a - b, circle_sign=-1)


def multiplication(config: TaskConfig) -> Task:
    """Return a · b mod p, or a longer product. The circles are those of the units modulo p, as in `unit_torus`."""
    factors = torch.arange(config.p) if config.zero_divisors else units(config.p)
    operands = torch.cartesian_prod(*[factors] * config.n_operands)
    answers = operands[:, 0]
    for factor in operands.unbind(1)[1:]:
        answers = answers * factor % config.p
    return _on_units(config, " * ".join("abcdef"[: config.n_operands]), operands, answers)


def division(config: TaskConfig) -> Task:
    """Return a / b mod p, the c with c · b ≡ a, for all units b. The circles are those of the units modulo p."""
    first = torch.arange(config.p) if config.zero_divisors else units(config.p)
    operands = torch.cartesian_prod(first, units(config.p))
    return _on_units(config, "a / b", operands, operands[:, 0] * inverses(config.p)[operands[:, 1]], circle_sign=-1)


def division_or_subtraction(config: TaskConfig) -> Task:
    """Return a / b mod p if b is odd, else a − b mod p, over all p² pairs."""
    a, b = _pairs(config.p)
    answers = torch.where(b % 2 == 1, a * inverses(config.p)[b], a - b)
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


def _pairs(p: int) -> tuple[Int[Tensor, " n_examples"], Int[Tensor, " n_examples"]]:
    """Return a and b of all pairs with 0 ≤ a, b < p."""
    pairs = torch.cartesian_prod(torch.arange(p), torch.arange(p))
    return pairs[:, 0], pairs[:, 1]


def _on_residues(
    config: TaskConfig,
    operation: str,
    operands: Int[Tensor, "n_examples k"],
    answers: Int[Tensor, " n_examples"],
    circle_sign: int = 1,
) -> Task:
    """Return a task whose circle is 0, 1, …, p − 1 and whose group is C_p."""
    return tasks.operand_equations(
        config,
        f"{operation} mod {config.p}",
        operands,
        answers % config.p,
        config.p,
        circle=torch.arange(config.p),
        circle_sign=circle_sign,
        group=groups.group(f"C{config.p}"),
    )


def _on_units(
    config: TaskConfig,
    operation: str,
    operands: Int[Tensor, "n_examples k"],
    answers: Int[Tensor, " n_examples"],
    circle_sign: int = 1,
) -> Task:
    """Return a task whose circle or torus contains the units modulo p."""
    torus = unit_torus(config.p)
    return tasks.operand_equations(
        config,
        f"{operation} mod {config.p}",
        operands,
        answers % config.p,
        config.p,
        circle=torus if torus.ndim == 1 else None,
        torus=torus if torus.ndim > 1 else None,
        circle_sign=circle_sign,
    )


def _modular(
    config: TaskConfig,
    operation: str,
    a: Int[Tensor, " n_examples"],
    b: Int[Tensor, " n_examples"],
    answers: Int[Tensor, " n_examples"],
) -> Task:
    """Return a task with the given answers mod p, without a circle and without a group."""
    return tasks.equations(config, f"{operation} mod {config.p}", a, b, answers % config.p, config.p)
