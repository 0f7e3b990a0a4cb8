"""The train loss of a checkpoint as a function of the weights, by grokscope and by HookedTransformer."""

import torch
import torch.nn.functional as F

from grokscope import Trajectory
from grokscope.landscape.objective import Objective, objectives


def objective_at(trajectory: Trajectory, step: int, dtype: str = "float64") -> Objective:
    """Return the train loss as a function of the weights, at one checkpoint."""
    ((_, objective),) = objectives(trajectory.select([step]), dtype=dtype)
    return objective


def hooked_loss(trajectory: Trajectory, objective: Objective, x: torch.Tensor) -> float:
    """Return the train loss at weights x, computed by HookedTransformer's own forward pass."""
    hooked = trajectory.model.hooked_transformer({**objective.parameters, **objective.to_tensors(x)})
    train = trajectory.split.train
    logits = hooked(trajectory.task.inputs[train])[:, -1]
    return F.cross_entropy(logits, trajectory.task.labels[train]).item()
