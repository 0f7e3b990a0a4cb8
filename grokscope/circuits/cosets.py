"""Cosets of a group as clusters of points, one point per element (Stander et al. 2024)."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokscope.algebra import subgroups
from grokscope.algebra.groups import Group
from grokscope.circuits import controls
from grokscope.circuits.geometry import silhouettes
from grokscope.errors import GrokscopeError

_MOST_ELEMENTS = 120
"""The most elements of a group whose subgroups are enumerated."""


class CosetClusters:
    """The cosets of every class of conjugate subgroups, except the trivial subgroup and the whole group.

    `classes` is empty for a group with more than 120 elements, with more than 200 classes, or without such a
    subgroup.
    """

    def __init__(self, group: Group):
        self.group = group
        self.classes = _subgroup_classes(group)
        self.cosets = {
            side: [torch.from_numpy(np.stack([cosets_of(K) for K in conjugates])) for conjugates in self.classes]
            for side, cosets_of in (("left", group.left_cosets), ("right", group.right_cosets))
        }
        """For each side and class, the coset of each element, one conjugate subgroup per row."""

    def constants(self) -> dict[str, np.ndarray]:
        """Return the constants of a series that describe the classes; empty without classes.

        Returns:
            subgroups (classes): One subgroup of each class, by its generators.
            subgroup_orders (classes): Its number of elements.
            n_conjugates (classes): The number of its conjugates.
            subgroup_elements (classes, elements): Whether it contains each element.
        """
        if not self.classes:
            return {}
        first = [conjugates[0] for conjugates in self.classes]
        return {
            "subgroups": np.array([subgroups.format_generators(self.group, K) for K in first], np.str_),
            "subgroup_orders": np.array([len(K) for K in first]),
            "n_conjugates": np.array([len(conjugates) for conjugates in self.classes]),
            "subgroup_elements": np.stack([np.isin(np.arange(len(self.group)), K) for K in first]),
        }

    def silhouettes(
        self, name: str, points: Float[Tensor, "steps n d"], orders: Int[Tensor, "n_orders n"]
    ) -> dict[str, Float[Tensor, "steps classes"]]:
        """Return the silhouette of the best conjugate's cosets for each class, with its shuffled control.

        Args:
            name: The prefix of the names, such as "embedding".
            points: One point per element.
            orders: Random orders of the elements for the control.

        Returns:
            name_left_silhouette, name_right_silhouette: The mean silhouette, from −1 to 1, the largest over the
                conjugates; with their controls. Empty without classes.
        """
        if not self.classes:
            return {}
        distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
        arrays = {}
        for side, classes in self.cosets.items():
            key = f"{name}_{side}_silhouette"
            arrays[key] = _largest_silhouettes(distances, classes)
            samples = [
                {key: _largest_silhouettes(distances, [cosets[:, order] for cosets in classes])} for order in orders
            ]
            arrays |= controls.shuffled_control(samples)
        return arrays


def _largest_silhouettes(
    distances: Float[Tensor, "steps n n"], classes: list[Int[Tensor, "_ n"]]
) -> Float[Tensor, "steps classes"]:
    """Return the largest silhouette over the conjugates of each class."""
    return torch.stack([silhouettes(distances, cosets).amax(-1) for cosets in classes], -1)


def _subgroup_classes(group: Group) -> list[list[Int[np.ndarray, " m"]]]:
    """Return the classes of conjugate subgroups between the trivial one and the whole; none if they are too many."""
    if len(group) > _MOST_ELEMENTS:
        return []
    try:
        return subgroups.conjugacy_classes(group)[1:-1]
    except GrokscopeError:
        return []
