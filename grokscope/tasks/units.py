"""The units modulo n: their inverses, and the circles that their characters define."""

import math

import torch
from jaxtyping import Int
from torch import Tensor


def units(n: int) -> Int[Tensor, " n_units"]:
    """Return the numbers from 0 to n − 1 without a common divisor with n, in increasing order."""
    return torch.tensor([i for i in range(n) if math.gcd(i, n) == 1])


def inverses(n: int) -> Int[Tensor, " n"]:
    """Return the inverse of each unit modulo n, and 0 for each other number."""
    return torch.tensor([pow(i, -1, n) if math.gcd(i, n) == 1 else 0 for i in range(n)])


def powers(n: int) -> Int[Tensor, " n_units"]:
    """Return g⁰, g¹, … modulo n for the smallest primitive root g of n.

    These are the units, sorted by discrete logarithm. In this order, the product of two units is at the sum of their
    positions, so multiplication is addition on a circle of φ(n) points.

    Args:
        n: 4, a power of an odd prime, or twice such a power.

    Raises:
        ValueError: n has no primitive root above 1.
    """
    n_units = len(units(n))
    for g in (g for g in range(2, n) if math.gcd(g, n) == 1):
        residues = _residues(g, n)
        if len(residues) == n_units:
            return torch.tensor(residues)
    raise ValueError(f"n: {n} has no primitive root above 1.")


def unit_torus(n: int) -> Int[Tensor, "..."]:
    """Return the units modulo n on a product of circles, so that multiplication adds positions on each circle.

    A character modulo n is a product of characters modulo the prime powers q that divide n exactly. The circles are
    therefore those of the prime powers: one of φ(q) points for an odd q and for 4, and two for q = 2ᵉ with e ≥ 3,
    namely the powers of −1 (2 points) and of 5 (q/4 points). A circle of one point is left out. If a single circle
    remains, its order is `powers(n)`.

    Args:
        n: A modulus from 2.

    Returns:
        The unit at each position; an axis for each circle. Without a circle (n = 2), the one unit.

    References:
        Ireland and Rosen 1990, chapter 4, theorems 2 and 2'.
    """
    cycles: list[list[int]] = []
    for q in _prime_powers(n):
        if q % 2 == 0 and q >= 8:
            generators = [q - 1, 5]
        elif q > 2:
            generators = [int(powers(q)[1])]
        else:
            generators = []
        # By the Chinese remainder theorem, this number is g modulo q and 1 modulo n / q.
        rest = n // q
        lifts = [(g + q * ((1 - g) * pow(q, -1, rest) % rest)) % n if rest > 1 else g for g in generators]
        cycles += [_residues(g, n) for g in lifts]
    if len(cycles) == 1:
        return powers(n)
    torus = torch.ones(1, dtype=torch.int64)
    for cycle in cycles:
        torus = torus[..., None] * torch.tensor(cycle) % n
    return torus[0] if cycles else torus


def _residues(g: int, n: int) -> list[int]:
    """Return the distinct powers g⁰, g¹, … of a unit modulo n."""
    residues, power = [1], g % n
    while power != 1:
        residues.append(power)
        power = power * g % n
    return residues


def _prime_powers(n: int) -> list[int]:
    """Return the prime powers that divide n exactly, in the order of their primes."""
    prime_powers, divisor = [], 2
    while n > 1:
        q = 1
        while n % divisor == 0:
            n, q = n // divisor, q * divisor
        if q > 1:
            prime_powers.append(q)
        divisor += 1
    return prime_powers
