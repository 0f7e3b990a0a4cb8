"""GrokscopeError and its subclasses, and how a message quotes a value or a name."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

UNKNOWN_TRAIN_SET = (
    "The training set of this run is unknown. Import its files again with --train-indices FILE or "
    "--split random-shuffle:SEED."
)
"""The message for a run without a known training set, where train and test equations differ."""
MOST_LISTED = 30
"""The most allowed names that a message lists beside a suggestion."""


class GrokscopeError(Exception):
    """An error that a user can cause: a wrong value, a damaged file, a full disk.

    The message states what is wrong, the value, what is allowed, and what to do. The command line prints it without a
    traceback. Any other exception is a bug in grokscope.
    """


class DamagedError(GrokscopeError):
    """Stored numbers do not match their checksum; the rest of the file is readable.

    The fields state the facts that the message is made of; `grokscope.store.verify` composes the advice.

    Attributes:
        path: The damaged file.
        step: The step of the damaged checkpoint, where the damage is in a checkpoint.
        parameter: The name of the damaged parameter.
    """

    def __init__(self, message: str, path: Path | None = None, step: int | None = None, parameter: str = ""):
        super().__init__(message)
        self.path, self.step, self.parameter = path, step, parameter


class MissingArrayError(GrokscopeError):
    """A series lacks an array that the caller names.

    Attributes:
        array: The name of the array.
    """

    def __init__(self, message: str, array: str):
        super().__init__(message)
        self.array = array


class UnreadableError(GrokscopeError):
    """The system refuses to read a file; its content need not be damaged."""


class BusyError(GrokscopeError):
    """The run is locked by another process, or its name is taken."""


def quoted_value(value: object) -> str:
    """Return a value as a message quotes it, in at most 80 characters."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print an integer of more than 4,300 digits.
        text = "a number of thousands of digits"
    except RecursionError:
        text = "endlessly nested tables"
    return text if len(text) <= 80 else text[:77] + "…"


def quoted_name(name: object) -> str:
    """Return a name as a message shows it: unchanged, or quoted and escaped if it is long or not printable."""
    return name if isinstance(name, str) and name.isprintable() and 0 < len(name) <= 300 else quoted_value(name)


def unknown_name(kind: str, name: object, allowed: Sequence[str], elsewhere: Iterable[str] = ()) -> str:
    """Return the message for a name that is not among the allowed ones, with the closest match as a suggestion.

    Args:
        kind: The noun for the name, such as "setting".
        name: The unknown name.
        allowed: The names that the message lists, unless they are many and one of them is close.
        elsewhere: Further names to suggest, which the message does not list.
    """
    close = _closest_name(str(name), [*allowed, *elsewhere])
    names = "" if close and len(allowed) > MOST_LISTED else f"; allowed: {', '.join(allowed) or 'none'}"
    hint = f" Did you mean {close!r}?" if close else ""
    return f"Unknown {kind} {str(name)!r}{names}.{hint}"


def _closest_name(name: str, names: list[str]) -> str:
    """Return the name that is closest to another, or "" if none is close; case and tables are ignored."""
    by_lower_case = {candidate.lower(): candidate for candidate in reversed(names)}
    # "lr" is closest to "optimizer.lr", the same setting without its table.
    by_leaf = {candidate.rpartition(".")[2]: candidate for candidate in reversed(by_lower_case)}
    lower_case = name.lower()
    leaf = lower_case.rpartition(".")[2]
    if lower_case not in by_lower_case and leaf in by_leaf:
        return by_lower_case[by_leaf[leaf]]
    close = difflib.get_close_matches(lower_case, list(by_lower_case), n=1)
    return by_lower_case[close[0]] if close else ""
