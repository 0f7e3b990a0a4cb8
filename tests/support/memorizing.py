"""Weights that have memorized after a few steps of plain Adam, and rescaled weights of the same function."""

import torch
import torch.nn.functional as F

from grokscope import Trajectory


def memorized(start: Trajectory, n_steps: int) -> dict[str, torch.Tensor]:
    """Return float32 parameters after plain Adam on the train set."""
    task, train = start.task, start.split.train
    parameters = {name: tensor.clone() for name, tensor in start.first.parameters.items()}
    optimizer = torch.optim.Adam([parameters[name].requires_grad_() for name in start.model.trained], lr=0.02)
    for _ in range(n_steps):
        optimizer.zero_grad()
        F.cross_entropy(start.model.logits(parameters, task.inputs[train]), task.labels[train]).backward()
        optimizer.step()
    return {name: tensor.detach() for name, tensor in parameters.items()}


def rescaled(weights: dict[str, torch.Tensor], kind: str) -> dict[str, torch.Tensor]:
    """Multiply the inputs of each neuron or head by its own factor, and divide its outputs by it."""
    block = "blocks.0."
    if kind == "neurons":
        c = torch.linspace(0.5, 2, 8).double()
        into, bias, out = (f"{block}mlp.{name}" for name in ("W_in", "b_in", "W_out"))
        return weights | {into: weights[into] * c, bias: weights[bias] * c, out: weights[out] / c[:, None]}
    c = torch.tensor([0.5, 3.0]).double()[:, None, None]
    source, target = (f"{block}attn.W_{name}" for name in kind)
    return weights | {source: weights[source] * c, target: weights[target] / c}
