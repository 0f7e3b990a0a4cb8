"""The figures of a run by name, and how each one is drawn from a run."""

from grokscope.gallery.registry import (
    Asked,
    Measured,
    Picture,
    check,
    figure,
    formats,
    get,
    log,
    moving,
    names,
    of_steps,
    step,
    steps,
)

__all__ = [
    "Asked",
    "Measured",
    "Picture",
    "check",
    "figure",
    "formats",
    "get",
    "log",
    "moving",
    "names",
    "of_steps",
    "step",
    "steps",
]
