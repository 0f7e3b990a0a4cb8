"""GrokscopeError and its subclasses, and how a message quotes a value or a name."""

import difflib
from pathlib import Path


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


def unknown_name(kind: str, name: object, allowed: list[str]) -> str:
    """Return the message for a name that is not among the allowed ones, with the closest match as a suggestion."""
    close = difflib.get_close_matches(str(name), allowed, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"Unknown {kind} {str(name)!r}; allowed: {', '.join(allowed) or 'none'}.{hint}"
