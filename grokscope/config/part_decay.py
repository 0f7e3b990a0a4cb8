"""The weight decay of parts of a model, as one string of terms joined by ``+``, such as ``embed 0 + biases 0.1``.

A part is a word of a parameter's name between dots, such as "embed", "attn", "mlp", "unembed", "W_E" or "ln1". Two
more parts exist: "biases", every bias, and "layer_norms", every LayerNorm's scale and shift. Of several terms that
apply to a parameter, the last counts.
"""

import re
from collections.abc import Iterable

from grokscope.errors import GrokscopeError, quoted_value

FORMS = "terms 'PART DECAY' joined by '+', such as 'embed 0 + biases 0.1', with decays from 0 to 1000"
_TERM = re.compile(r"(\w+) (\d+(?:\.\d*)?(?:e-?\d+)?)", re.ASCII)
_LARGEST = 1000


def is_part_decay(text: object) -> bool:
    """Return whether a value is empty, or consists of terms that `decays` understands."""
    if not isinstance(text, str):
        return False
    matches = [_TERM.fullmatch(term.strip()) for term in text.split("+")] if text else []
    return all(match is not None and float(match[2]) <= _LARGEST for match in matches)


def largest_decay(text: str) -> float:
    """Return the largest decay in the terms; 0 without a term."""
    return max((decay for _, decay in _terms(text)), default=0.0)


def decays(text: str, weight_decay: float, names: Iterable[str]) -> dict[str, float]:
    """Return the weight decay of each parameter.

    Args:
        text: The terms.
        weight_decay: The decay of a parameter that no term names.
        names: The names of the trained parameters.

    Raises:
        GrokscopeError: A term applies to no parameter.
    """
    names = list(names)
    result = dict.fromkeys(names, weight_decay)
    for part, decay in _terms(text):
        members = [name for name in names if part in parts_of(name)]
        if not members:
            known = sorted({word for name in names for word in parts_of(name) if not word.isdecimal()})
            raise GrokscopeError(
                f"optimizer.decay_by_part: {quoted_value(part)} is not a part of any trained parameter. "
                f"Allowed for this model: {', '.join(known)}."
            )
        result |= dict.fromkeys(members, decay)
    return result


def parts_of(name: str) -> set[str]:
    """Return the words of a parameter's name, with "biases" or "layer_norms" where they apply."""
    words = name.split(".")
    parts = set(words)
    if any(re.fullmatch(r"ln\w*", word) for word in words[:-1]):
        parts.add("layer_norms")
    elif words[-1].startswith("b_") or words[-1] in ("b", "bias"):
        parts.add("biases")
    return parts


def _terms(text: str) -> list[tuple[str, float]]:
    terms = [term.split() for term in text.split("+")] if text else []
    return [(part, float(decay)) for part, decay in terms]
