"""Arithmetic modulo n: the nine operations of Power et al. 2022 (appendix A.1.1), products, and longer sums."""

from typing import Any

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
    operation = " + ".join("abcdef"[: config.n_operands])
    return _modular(config, operation, operands, operands.sum(1), **_residues(config.p))


def subtraction(config: TaskConfig) -> Task:
    """Return a − b mod p over all p² pairs. The circle is 0, 1, …, p − 1; the group is C_p."""
    pairs = _pairs(config.p)
    a, b = pairs.T
    return _modular(config, "a - b", pairs, a - b, circle_sign=-1, **_residues(config.p))


def multiplication(config: TaskConfig) -> Task:
    """Return a · b mod p, or a longer product. The circles are those of the units modulo p, as in `unit_torus`."""
    factors = torch.arange(config.p) if config.zero_divisors else units(config.p)
    operands = torch.cartesian_prod(*[factors] * config.n_operands)
    answers = operands[:, 0]
    for factor in operands.unbind(1)[1:]:
        answers = answers * factor % config.p
    return _modular(config, " * ".join("abcdef"[: config.n_operands]), operands, answers, **_units(config.p))


def division(config: TaskConfig) -> Task:
    """Return a / b mod p, the c with c · b ≡ a, for all units b. The circles are those of the units modulo p."""
    first = torch.arange(config.p) if config.zero_divisors else units(config.p)
    operands = torch.cartesian_prod(first, units(config.p))
    answers = operands[:, 0] * inverses(config.p)[operands[:, 1]]
    return _modular(config, "a / b", operands, answers, circle_sign=-1, **_units(config.p))


def division_or_subtraction(config: TaskConfig) -> Task:
    """Return a / b mod p if b is odd, else a − b mod p, over all p² pairs."""
    pairs = _pairs(config.p)
    a, b = pairs.T
    answers = torch.where(b % 2 == 1, a * inverses(config.p)[b], a - b)
    return _modular(config, "a / b if b is odd, else a - b,", pairs, answers)


def a2_b2(config: TaskConfig) -> Task:
    """Return a² + b² mod p over all p² pairs."""
    pairs = _pairs(config.p)
    a, b = pairs.T
    return _modular(config, "a² + b²", pairs, a**2 + b**2)


def a2_ab_b2(config: TaskConfig) -> Task:
    """Return a² + ab + b² mod p over all p² pairs."""
    pairs = _pairs(config.p)
    a, b = pairs.T
    return _modular(config, "a² + ab + b²", pairs, a**2 + a * b + b**2)


def a2_ab_b2_a(config: TaskConfig) -> Task:
    """Return a² + ab + b² + a mod p over all p² pairs."""
    pairs = _pairs(config.p)
    a, b = pairs.T
    return _modular(config, "a² + ab + b² + a", pairs, a**2 + a * b + b**2 + a)


def a3_ab(config: TaskConfig) -> Task:
    """Return a³ + ab mod p over all p² pairs."""
    pairs = _pairs(config.p)
    a, b = pairs.T
    return _modular(config, "a³ + ab", pairs, a**3 + a * b)


def a3_ab2_b(config: TaskConfig) -> Task:
    """Return a³ + ab² + b mod p over all p² pairs."""
    pairs = _pairs(config.p)
    a, b = pairs.T
    return _modular(config, "a³ + ab² + b", pairs, a**3 + a * b**2 + b)


def _pairs(p: int) -> Int[Tensor, "n_examples 2"]:
    """Return all pairs (a, b) with 0 ≤ a, b < p."""
    return torch.cartesian_prod(torch.arange(p), torch.arange(p))


def _residues(p: int) -> dict[str, Any]:
    """Return the structure of sums: the circle 0, 1, …, p − 1 and the group C_p."""
    return {"circle": torch.arange(p), "group": groups.group(f"C{p}")}


def _units(p: int) -> dict[str, Any]:
    """Return the structure of products: the circle or torus of the units modulo p."""
    torus = unit_torus(p)
    return {"circle" if torus.ndim == 1 else "torus": torus}


def _modular(
    config: TaskConfig,
    operation: str,
    operands: Int[Tensor, "n_examples k"],
    answers: Int[Tensor, " n_examples"],
    **structure: Any,
) -> Task:
    """Return a task with the given answers mod p, and the structure that `tasks.operand_equations` takes."""
    formula = f"{operation} mod {config.p}"
    return tasks.operand_equations(config, formula, operands, answers % config.p, config.p, **structure)
