"""The landscape: losses where training never was, around a checkpoint, in the plane of a path, on spheres.

Plain functions that return a Scan, or a few. Every loss is the config's own in its `loss_dtype`, on the trajectory's
own task and split; `dtype` says in which precision parameters and logits are.
"""

from grokscope.landscape.directions import FILTERS, direction, filter_norms, random_direction
from grokscope.landscape.path_plane import PathPlane, path_plane
from grokscope.landscape.shells import Lowest, lowest_on_sphere, rays, shells
from grokscope.landscape.slices import interpolate, slices, surface

__all__ = [
    "FILTERS",
    "Lowest",
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
