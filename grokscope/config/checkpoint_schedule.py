"""The schedule of checkpoints: which steps of a run are saved.

A schedule is a string of terms joined by ``+``:

====================  ==========================================================================
``every K``           every K-th step
``log N``             N steps from 1 to the last step, spaced logarithmically
``pythia K``          1, 2, 4, 8, … below K, then every K-th step (K = 1000 in Biderman et al. 2023)
``window A B K``      A, A + K, … up to B
``adaptive X``        each evaluated step with |ln(test loss / test loss at the last checkpoint)| ≥ X
====================  ==========================================================================

Step 0 and the last step are always checkpoints. Every term except ``adaptive`` is *fixed*: its steps are known before
training.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grokscope.errors import GrokscopeError

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Int

_FORMS = {
    "every": ("every K", "K a whole number from 1"),
    "log": ("log N", "N a whole number from 1"),
    "pythia": ("pythia K", "K a whole number from 1"),
    "window": ("window A B K", "whole numbers with 0 <= A <= B and K from 1"),
    "adaptive": ("adaptive X", "X a number above 0"),
}


@dataclass(frozen=True)
class Schedule:
    """A parsed schedule. `parse` creates it."""

    fixed: tuple[tuple[str, tuple[int, ...]], ...]
    """The fixed terms: the keyword and the numbers of each."""
    adaptive: float | None
    """The X of the adaptive term, or None without such a term."""

    def largest_term(self, n_steps: int) -> int:
        """Return the number of steps in the longest fixed term, without building its steps."""
        sizes = [2]
        for kind, numbers in self.fixed:
            if kind == "log":
                sizes.append(numbers[0])
            else:
                first, last = numbers[:2] if kind == "window" else (0, n_steps)
                sizes.append((last - first) // numbers[-1] + 1)
        return max(sizes)

    def fixed_steps(self, n_steps: int) -> "Int[np.ndarray, ' n_checkpoints']":
        """Return the steps of the fixed checkpoints: increasing, without repeats, from 0 to `n_steps` inclusive."""
        import numpy as np  # Only training needs it; `grokscope train --help` does not.

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
    """Return the faults of a schedule, one sentence each; `parse` accepts a schedule without faults.

    Args:
        text: The schedule, of any type: the user's value is not yet checked.
        n_steps: The last step. If it is a number, a window beyond it is a fault too.
    """
    if not isinstance(text, str):
        return [f"{text!r} is not text; allowed: terms joined by '+', such as 'every 100 + log 200'"]
    messages = []
    for term in text.split("+"):
        kind, *words = term.split() or [""]
        if kind not in _FORMS:
            allowed = ", ".join(form for form, _ in _FORMS.values())
            messages.append(f"unknown term {term.strip()!r}; allowed: {allowed}, joined by '+'")
            continue
        form, meaning = _FORMS[kind]
        if not _has_form(kind, words):
            messages.append(f"{term.strip()!r} is not of the form {form!r}, {meaning}")
        elif kind == "window" and isinstance(n_steps, int) and int(words[1]) > n_steps:
            messages.append(f"{term.strip()!r} reaches beyond the last step; allowed: up to n_steps = {n_steps}")
    if sum(term.split()[:1] == ["adaptive"] for term in text.split("+")) > 1:
        messages.append("more than one 'adaptive' term; allowed: at most one")
    return messages


def parse(text: str) -> Schedule:
    """Return the parsed schedule; raise one GrokscopeError that names every fault."""
    if messages := faults(text):
        raise GrokscopeError(f"The checkpoint schedule {text!r} is invalid: " + "; ".join(messages) + ".")
    terms = [term.split() for term in text.split("+")]
    fixed = tuple((kind, tuple(map(int, words))) for kind, *words in terms if kind != "adaptive")
    adaptive = [float(words[0]) for kind, *words in terms if kind == "adaptive"]
    return Schedule(fixed, adaptive[0] if adaptive else None)


def _has_form(kind: str, words: list[str]) -> bool:
    """Return whether the words after the keyword match its form in number and type."""
    form, _ = _FORMS[kind]
    if len(words) != len(form.split()) - 1:
        return False
    if kind == "adaptive":
        return _is_positive_number(words[0])
    are_whole = all(word.isdecimal() and word.isascii() and len(word) < 16 for word in words)
    # The last number of a fixed term is a spacing or a count.
    return are_whole and int(words[-1]) >= 1 and (kind != "window" or int(words[0]) <= int(words[1]))


def _is_positive_number(word: str) -> bool:
    try:
        return 0 < float(word) < math.inf
    except ValueError:
        return False
