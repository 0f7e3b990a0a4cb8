"""The ranges of a measure's options."""

from grokscope.errors import GrokscopeError


def check_ranges(*options: tuple[str, object, bool, str]) -> None:
    """Raise GrokscopeError that names every option out of range, its value and the allowed range.

    Args:
        *options: For each option its name, its value, whether the value is in range, and the range in words.

    Raises:
        GrokscopeError: A value is out of range.
    """
    faults = [
        f"{name}: {value}. Allowed: {allowed}." for name, value, is_in_range, allowed in options if not is_in_range
    ]
    if faults:
        raise GrokscopeError(" ".join(faults))
