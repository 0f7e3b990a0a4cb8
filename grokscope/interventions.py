"""Interventions: losses of models that training did not produce, with parts of another model or without a part.

Each function returns losses and accuracies over named axes (`LabelledArrays`): `train_loss`, `test_loss`,
`train_accuracy` and `test_accuracy`. The losses are those of the config in its `loss_dtype`, on the trajectory's own
task and split. Parameters keep the precision of the checkpoints, so an unchanged model has exactly the checkpoint's
own loss. The cost is one forward pass over all equations for each model.
"""

import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokscope.circuits.key_frequencies import restricted_embedding, with_restricted_embedding
from grokscope.errors import GrokscopeError
from grokscope.fourier import cyclic
from grokscope.landscape.objective import loss_scan
from grokscope.model.components import COMPONENTS, component_of
from grokscope.model.families import Model
from grokscope.model.forward import Parameters
from grokscope.series import LabelledArrays
from grokscope.tasks.circle import Circle, on_circle
from grokscope.trajectory import Trajectory


def transplant(
    trajectory: Trajectory,
    sources: Sequence[int],
    hosts: Sequence[int],
    *,
    components: Sequence[str] | None = None,
    other: Trajectory | None = None,
) -> LabelledArrays:
    """Return losses of the model of each host step with one component from each source step.

    Control: if source and host are the same step of one run, the model is unchanged.

    Args:
        trajectory: The run of the hosts. Its task and split evaluate all models.
        sources: The steps that give a component.
        hosts: The steps that receive it.
        components: The components to transplant, one at a time; by default each that the network has.
        other: The run of the sources, with the same architecture; by default the run of the hosts.

    Returns:
        Losses and accuracies over the axes `component`, `source` and `host`.

    Raises:
        GrokscopeError: A component is not known, a step has no checkpoint, or the architectures differ.
    """
    own = trajectory.model.components(trajectory.model.shapes)
    components = [name for name in COMPONENTS if name in own] if components is None else components
    unknown = [name for name in components if name not in own]
    if unknown or not components:
        raise GrokscopeError(f"components: {', '.join(unknown) or 'none'}. Allowed: {', '.join(own)}.")
    donor_run = trajectory if other is None else other
    if donor_run.model != trajectory.model:
        raise GrokscopeError(
            "other: the architectures of the two runs differ, so a component of one does not fit the other. Allowed: "
            "a run with the same architecture."
        )
    donors = {step: donor_run.at(step).parameters for step in sources}
    recipients = {step: trajectory.at(step).parameters for step in hosts}
    models = (
        transplanted(recipients[host], donors[source], [name])
        for name in components
        for source in sources
        for host in hosts
    )
    axes = {"component": np.array(components), "source": np.array(sources), "host": np.array(hosts)}
    return loss_scan(trajectory, axes, models)


def transplanted(host: Parameters, source: Parameters, components: Iterable[str]) -> dict[str, Tensor]:
    """Return the host's parameters, except for those of the named components, which are the source's.

    Args:
        host: The parameters of the model that receives the components.
        source: The parameters of the model that gives them.
        components: The names of the components, from `model.components.COMPONENTS`.
    """
    return {name: source[name] if component_of(name) in components else tensor for name, tensor in host.items()}


def without_frequencies(trajectory: Trajectory, *, frequencies: Sequence[int] | None = None) -> LabelledArrays:
    """Return losses at every step with one frequency at a time removed from W_E.

    The removal subtracts the components of W_E along the cosine and the sine of the frequency. It raises the loss if
    the model uses the frequency.

    Args:
        trajectory: A run of a circular task.
        frequencies: The frequencies to remove, from 1 to n // 2; by default the key frequencies of W_E at the last
            step.

    Returns:
        Losses and accuracies over the axes `step` and `frequency`.

    Raises:
        GrokscopeError: The task has no circle, or the circle does not have one of the frequencies.
    """
    circle = on_circle(trajectory.task)
    removed = _checked_frequencies(trajectory, circle, frequencies)
    all_frequencies = cyclic.frequencies(len(circle))
    models = (
        _with_frequencies(trajectory.model, snapshot.parameters, circle, all_frequencies[all_frequencies != k])
        for snapshot in trajectory
        for k in removed.tolist()
    )
    return loss_scan(trajectory, {"step": trajectory.steps, "frequency": removed.numpy()}, models)


def only_frequencies(trajectory: Trajectory, *, frequencies: Sequence[int] | None = None) -> LabelledArrays:
    """Return losses at every step with all frequencies but the given ones removed from W_E.

    The mean over the tokens on the circle remains. Without any frequency these tokens are all alike.

    Args:
        trajectory: A run of a circular task.
        frequencies: The frequencies to keep, from 1 to n // 2; by default the key frequencies of W_E at the last
            step.

    Returns:
        Losses and accuracies over the axis `step`.

    Raises:
        GrokscopeError: The task has no circle, or the circle does not have one of the frequencies.
    """
    circle = on_circle(trajectory.task)
    remaining = _checked_frequencies(trajectory, circle, frequencies)
    models = (_with_frequencies(trajectory.model, snapshot.parameters, circle, remaining) for snapshot in trajectory)
    return loss_scan(trajectory, {"step": trajectory.steps}, models)


def embedding_of(
    parameters: Parameters, circle: Circle, kept: Int[Tensor, " n_kept"]
) -> Float[Tensor, "d_vocab d_model"]:
    """Return `circuits.key_frequencies.restricted_embedding` of W_E; a deprecated name of that function."""
    message = "interventions.embedding_of is now circuits.key_frequencies.restricted_embedding"
    warnings.warn(message, DeprecationWarning, stacklevel=2)
    return restricted_embedding(parameters["embed.W_E"], circle, kept)


def _with_frequencies(
    model: Model, parameters: Parameters, circle: Circle, frequencies: Int[Tensor, " n_frequencies"]
) -> dict[str, Tensor]:
    """Return the parameters with only these frequencies, and the mean, in the rows of W_E on the circle."""
    return dict(with_restricted_embedding(model, parameters, circle, frequencies))


def _checked_frequencies(
    trajectory: Trajectory, circle: Circle, frequencies: Sequence[int] | None
) -> Int[Tensor, " n_frequencies"]:
    """Return the given frequencies, or the key frequencies of W_E at the last step."""
    allowed = cyclic.frequencies(len(circle))
    if frequencies is None:
        W_E = trajectory[-1:].matrix("embedding")[0, circle.tokens].double()
        return allowed[cyclic.key_frequencies(cyclic.fourier_norms(W_E))]
    if any(k not in allowed for k in frequencies):
        raise GrokscopeError(f"frequencies: {list(frequencies)}. Allowed: 1 to {len(allowed)}.")
    return torch.tensor(frequencies, dtype=torch.int64)
