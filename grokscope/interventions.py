"""Interventions: losses of models that training never made, of parts of two, of less of one.

Every function returns a Scan of `train_loss test_loss train_accuracy test_accuracy`, the config's `loss` in its
`loss_dtype` on the trajectory's own task and split. Parameters stay in the precision of the checkpoints, so that
where nothing is changed the loss is the checkpoint's own to the bit. Each point costs one forward pass over all
equations.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokscope.errors import GrokscopeError
from grokscope.fourier import cyclic
from grokscope.landscape.objective import loss_scan
from grokscope.model.components import COMPONENTS, component_of
from grokscope.model.forward import Parameters
from grokscope.series import LabelledArrays
from grokscope.tasks.circle import Circle, on_circle
from grokscope.trajectory import Trajectory


def transplant(
    trajectory: Trajectory,
    sources: Sequence[int],
    hosts: Sequence[int],
    *,
    components: Sequence[str] = tuple(COMPONENTS),
    other: Trajectory | None = None,
) -> LabelledArrays:
    """Return losses of the model of each host step with one component of each source step.

    Axes: `component`, `source`, `host`; where source and host are one step, nothing is changed. Sources are steps of
    `other` if it is given, which must have the same architecture. Raise GrokscopeError for an unknown component.
    """
    unknown = [name for name in components if name not in COMPONENTS]
    if unknown or not components:
        raise GrokscopeError(f"components: {', '.join(unknown) or 'none'}; allowed: {', '.join(COMPONENTS)}.")
    donors = trajectory if other is None else other
    if donors.model != trajectory.model:
        raise GrokscopeError("The two runs have other architectures, so a component of one does not fit the other.")
    given = {step: donors.at(step).parameters for step in sources}
    taking = {step: trajectory.at(step).parameters for step in hosts}
    models = (transplanted(taking[h], given[s], [name]) for name in components for s in sources for h in hosts)
    axes = {"component": np.array(components), "source": np.array(sources), "host": np.array(hosts)}
    return loss_scan(trajectory, axes, models)


def transplanted(host: Parameters, source: Parameters, components: Iterable[str]) -> dict[str, Tensor]:
    """Return the host's parameters with those of the named components taken from the source."""
    return {name: source[name] if component_of(name) in components else one for name, one in host.items()}


def without_frequencies(trajectory: Trajectory, *, frequencies: Sequence[int] | None = None) -> LabelledArrays:
    """Return losses at every step with one frequency removed from W_E at a time, over the axes `step`, `frequency`.

    Frequencies are those of the task's circle, by default the key frequencies of W_E at the last step; removed are
    the embedding's components along its cosine and its sine. A frequency that the model adds by raises the loss
    when it is gone. Raise GrokscopeError for a task without a circle, or a frequency that it lacks.
    """
    circle = on_circle(trajectory.task)
    chosen = _frequencies(trajectory, circle, frequencies)
    everything = cyclic.frequencies(len(circle))
    models = (
        {**one.parameters, "embed.W_E": embedding_of(one.parameters, circle, everything[everything != k])}
        for one in trajectory
        for k in chosen.tolist()
    )
    return loss_scan(trajectory, {"step": trajectory.steps, "frequency": chosen.numpy()}, models)


def only_frequencies(trajectory: Trajectory, *, frequencies: Sequence[int] | None = None) -> LabelledArrays:
    """Return losses at every step with only the given frequencies, and the mean, left in W_E, over the axis `step`.

    By default the key frequencies of the last step; with none the tokens on the circle are all alike. Raise
    GrokscopeError as `without_frequencies` does.
    """
    circle = on_circle(trajectory.task)
    chosen = _frequencies(trajectory, circle, frequencies)
    models = ({**one.parameters, "embed.W_E": embedding_of(one.parameters, circle, chosen)} for one in trajectory)
    return loss_scan(trajectory, {"step": trajectory.steps}, models)


def embedding_of(
    parameters: Parameters, circle: Circle, kept: Int[Tensor, " n_kept"]
) -> Float[Tensor, "d_vocab d_model"]:
    """Return W_E with the mean and the `kept` frequencies of the tokens on the circle, other tokens as is."""
    W_E = parameters["embed.W_E"].clone()
    W_E[circle.tokens] = cyclic.keep_frequencies(W_E[circle.tokens].double(), kept).to(W_E)
    return W_E


def _frequencies(
    trajectory: Trajectory, circle: Circle, frequencies: Sequence[int] | None
) -> Int[Tensor, " n_frequencies"]:
    allowed = cyclic.frequencies(len(circle))
    if frequencies is None:
        last = trajectory.last.parameters["embed.W_E"][circle.tokens].double()
        return allowed[cyclic.key_frequencies(cyclic.fourier_norms(last))]
    if any(k not in allowed for k in frequencies):
        raise GrokscopeError(f"frequencies: {list(frequencies)}; allowed: 1 to {len(allowed)}.")
    return torch.tensor(frequencies, dtype=torch.int64)
