"""The figures of a run by name, and how each one is drawn from a run."""

import warnings
from typing import Any

from grokscope.gallery.registry import (
    FigureRequest,
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
    "FigureRequest",
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


def __getattr__(name: str) -> Any:
    if name == "Asked":
        warnings.warn("grokscope.gallery.Asked is now FigureRequest", DeprecationWarning, stacklevel=2)
        return FigureRequest
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
