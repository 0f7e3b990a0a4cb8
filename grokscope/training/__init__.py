"""Training: the loop, its parts, and the functions that write a run's folder.

The functions are imported when they are first used, so that importing the package does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grokscope.training.densification import densify as densify
    from grokscope.training.run import resume as resume
    from grokscope.training.run import train as train

_MODULES = {
    "densify": "grokscope.training.densification",
    "resume": "grokscope.training.run",
    "train": "grokscope.training.run",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
