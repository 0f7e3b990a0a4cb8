"""Which steps get a checkpoint, and which of the checkpoints get a costly measure.

A schedule is one string of terms joined by ``+``:

====================  ==========================================================================
``every K``           every K-th step
``log N``             N steps spaced logarithmically between 1 and the last
``pythia K``          1, 2, 4, 8, … below K, then every K-th step (Biderman et al. 2023 use K = 1000)
``window A B K``      A, A + K, … up to B
``adaptive X``        an evaluated step whose test loss has moved by |ln ratio| >= X since the last checkpoint
====================  ==========================================================================

Step 0 and the last step are always checkpoints. All terms but ``adaptive`` are *fixed*: known before training.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from grokscope.errors import GrokscopeError

_FORMS = {
    "every": ("every K", "K a whole number from 1"),
    "log": ("log N", "N a whole number from 1"),
    "pythia": ("pythia K", "K a whole number from 1"),
    "window": ("window A B K", "whole numbers with 0 <= A <= B and K from 1"),
    "adaptive": ("adaptive X", "X a number above 0"),
}


@dataclass(frozen=True)
class Schedule:
    """A parsed schedule: the fixed terms, and the amount of the adaptive one or None."""

    fixed: tuple[tuple[str, tuple[int, ...]], ...]
    adaptive: float | None

    def largest_term(self, n_steps: int) -> int:
        """Return the most steps that a fixed term gives by itself, without building any."""
        sizes = [2]
        for kind, numbers in self.fixed:
            if kind == "log":
                sizes.append(numbers[0])
            else:
                first, last = numbers[:2] if kind == "window" else (0, n_steps)
                sizes.append((last - first) // numbers[-1] + 1)
        return max(sizes)

    def fixed_steps(self, n_steps: int) -> Int[np.ndarray, " n_checkpoints"]:
        """Return the fixed checkpoints' steps from 0 to `n_steps`, both included, increasing, without repeats."""
        parts = [np.array([0, n_steps])]
        for kind, numbers in self.fixed:
            if kind == "every":
                parts.append(np.arange(0, n_steps + 1, numbers[0]))
            elif kind == "log":
                parts.append(np.round(np.geomspace(1, n_steps, numbers[0])))
            elif kind == "pythia":
                powers = 2 ** np.arange(math.ceil(math.log2(numbers[0])) if numbers[0] > 1 else 0)
                parts += [powers, np.arange(0, n_steps + 1, numbers[0])]
            else:
                first, last, spacing = numbers
                parts.append(np.arange(first, last + 1, spacing))
        steps = np.unique(np.concatenate(parts).astype(np.int64))
        return steps[steps <= n_steps]


def faults(text: object, n_steps: object = None) -> list[str]:
    """Say what is wrong with a schedule, one sentence a fault; an empty list means that `parse` accepts it.

    With `n_steps`, a window that reaches beyond the last step is a fault too.
    """
    if not isinstance(text, str):
        return [f"{text!r} is no text; allowed: terms joined by '+', such as 'every 100 + log 200'"]
    found = []
    for term in text.split("+"):
        kind, *words = term.split() or [""]
        if kind not in _FORMS:
            allowed = ", ".join(form for form, _ in _FORMS.values())
            found.append(f"unknown term {term.strip()!r}; allowed: {allowed}, joined by '+'")
            continue
        form, meaning = _FORMS[kind]
        wrong = f"{term.strip()!r} is not of the form {form!r}, {meaning}"
        if len(words) != len(form.split()) - 1:
            found.append(wrong)
        elif kind == "adaptive":
            if not _is_positive_number(words[0]):
                found.append(wrong)
        elif not _are_counts(words) or (kind == "window" and int(words[0]) > int(words[1])):
            found.append(wrong)
        elif kind == "window" and isinstance(n_steps, int) and int(words[1]) > n_steps:
            found.append(f"{term.strip()!r} reaches beyond the last step; allowed: up to n_steps = {n_steps}")
    if sum(term.split()[:1] == ["adaptive"] for term in text.split("+")) > 1:
        found.append("more than one 'adaptive' term; allowed: at most one")
    return found


def parse(text: str) -> Schedule:
    """Parse a schedule; raise GrokscopeError that names every fault."""
    if found := faults(text):
        raise GrokscopeError(f"The checkpoint schedule {text!r} cannot be read: " + "; ".join(found) + ".")
    terms = [term.split() for term in text.split("+")]
    fixed = tuple((kind, tuple(map(int, words))) for kind, *words in terms if kind != "adaptive")
    adaptive = [float(words[0]) for kind, *words in terms if kind == "adaptive"]
    return Schedule(fixed, adaptive[0] if adaptive else None)


def _are_counts(words: list[str]) -> bool:
    """Whether all are whole numbers, the last, a spacing or a count, from 1."""
    return all(word.isdecimal() and word.isascii() and len(word) < 16 for word in words) and int(words[-1]) >= 1


def _is_positive_number(word: str) -> bool:
    try:
        return 0 < float(word) < math.inf
    except ValueError:
        return False
