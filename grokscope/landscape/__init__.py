"""The loss landscape: losses near a checkpoint, between two checkpoints, in the plane of a path, and on spheres.

Each function returns arrays over named axes (`LabelledArrays`) or a few of them. The losses are those of the config
in its `loss_dtype`, on the trajectory's own task and split. The option `dtype` sets the precision of the parameters
and the logits.
"""

import warnings
from typing import Any

from grokscope.landscape.directions import FILTERS, direction, filter_norms, random_direction
from grokscope.landscape.path_plane import PathPlane, path_plane
from grokscope.landscape.shells import LowestPoint, lowest_on_sphere, rays, shells
from grokscope.landscape.slices import interpolate, slices, surface

__all__ = [
    "FILTERS",
    "LowestPoint",
    "PathPlane",
    "direction",
    "filter_norms",
    "interpolate",
    "lowest_on_sphere",
    "path_plane",
    "random_direction",
    "rays",
    "shells",
    "slices",
    "surface",
]


def __getattr__(name: str) -> Any:
    if name == "Lowest":
        warnings.warn("grokscope.landscape.Lowest is now LowestPoint", DeprecationWarning, stacklevel=2)
        return LowestPoint
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
