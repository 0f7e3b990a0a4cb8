"""The subgroups of a finite group up to conjugacy."""

import numpy as np
from jaxtyping import Int

from grokscope.algebra.groups import Group
from grokscope.errors import GrokscopeError

LARGEST_ORDER = 720
MOST_CLASSES = 200


def conjugacy_classes(group: Group) -> list[list[Int[np.ndarray, " m"]]]:
    """Return all conjugacy classes of subgroups, including the trivial subgroup and the whole group.

    The search starts with the trivial subgroup. It extends one subgroup of each class by every cyclic subgroup of
    prime-power order. Elements of prime-power order generate every subgroup, and extensions of conjugate subgroups
    are conjugate, so the search is complete. S4 has 11 classes, A5 9, S5 19, A6 22 and S6 56.

    Cost: S5 takes a tenth of a second, S6 two seconds.

    Returns:
        The classes, smaller subgroups first. A class is the list of its subgroups. A subgroup is an increasing array
        of element numbers.

    Raises:
        GrokscopeError: The group has more than `LARGEST_ORDER` elements or more than `MOST_CLASSES` classes.
    """
    if len(group) > LARGEST_ORDER:
        raise GrokscopeError(
            f"{group.name} has {len(group):,} elements; allowed for subgroups: up to {LARGEST_ORDER}."
        )
    generators = _cyclic_generators(group)
    classes: list[list[Int[np.ndarray, " m"]]] = []
    visited: set[bytes] = set()

    def add_class(subgroup: Int[np.ndarray, " m"]) -> None:
        if subgroup.tobytes() in visited:
            return
        classes.append(group.conjugate_subgroups(subgroup))
        visited.update(conjugate.tobytes() for conjugate in classes[-1])
        if len(classes) > MOST_CLASSES:
            raise GrokscopeError(
                f"{group.name} has more than {MOST_CLASSES} classes of subgroups, the largest number."
            )

    add_class(np.array([group.identity]))
    for conjugates in classes:
        subgroup = conjugates[0]
        tried: set[int] = set()
        for g in generators:
            if g not in subgroup and g not in tried:
                # Every h·g with h in the subgroup generates the same extension.
                tried.update(group.table[subgroup, g].tolist())
                add_class(_extend(group, subgroup, g))
    return sorted(classes, key=lambda conjugates: len(conjugates[0]))


def format_generators(group: Group, subgroup: Int[np.ndarray, " m"]) -> str:
    """Return the notation of a subgroup by a few of its generators, such as "⟨(0 1), (0 2 4)⟩".

    The choice is greedy: each generator is the first element that extends the earlier ones to the largest subgroup.
    """
    generators: list[int] = []
    generated = np.array([group.identity])
    while len(generated) < len(subgroup):
        extensions = [(_extend(group, generated, g), g) for g in np.setdiff1d(subgroup, generated).tolist()]
        generated, g = max(extensions, key=lambda extension: len(extension[0]))
        generators.append(g)
    return f"⟨{', '.join(group.elements[g] for g in generators)}⟩"


def _cyclic_generators(group: Group) -> list[int]:
    """Return a generator of each cyclic subgroup of prime-power order above 1."""
    generators: dict[bytes, int] = {}
    for g in range(len(group)):
        subgroup = group.subgroup([g])
        if _is_prime_power(len(subgroup)):
            generators.setdefault(subgroup.tobytes(), g)
    return list(generators.values())


def _is_prime_power(n: int) -> bool:
    """Return whether n is a power of a prime, 1 excluded."""
    smallest = next((divisor for divisor in range(2, n + 1) if n % divisor == 0), 0)
    while smallest and n % smallest == 0:
        n //= smallest
    return bool(smallest) and n == 1


def _extend(group: Group, subgroup: Int[np.ndarray, " m"], g: int) -> Int[np.ndarray, " k"]:
    """Return the subgroup that a subgroup H and an element g generate, by adding whole right cosets of H."""
    is_inside = np.zeros(len(group), bool)
    is_inside[subgroup] = True
    queue = [group.identity]
    for x in queue:
        # Right multiplication by h·g, with h in H, maps the coset H·x to the coset H·x·h·g.
        for y in np.unique(group.table[group.table[x, subgroup], g]).tolist():
            if not is_inside[y]:
                is_inside[group.table[subgroup, y]] = True
                queue.append(y)
    return np.flatnonzero(is_inside)
