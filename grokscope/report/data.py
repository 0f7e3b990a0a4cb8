"""The payload of a run's page: everything that its script draws, as JSON, thinned to what a screen can show."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int

from grokscope import phases
from grokscope.report.encoding import pack, quantise
from grokscope.report.log_quantities import further_log
from grokscope.report.quantities import quantities
from grokscope.series import Series
from grokscope.tasks import Task
from grokscope.tasks.pair_table import has_pair_table
from grokscope.thinning import spread_evenly
from grokscope.trajectory import Trajectory

_MAX_LOG_ROWS = 4_000
_CLOUD, _SPECTRUM, _GRID, _ATTENTION = 1_000_000, 400_000, 1_200_000, 400_000
"""The budget of each kind of picture: how many numbers, of one or two bytes each, it may take over all its steps."""
_MAX_GRID_FRAMES = 60
_LEAST_LOSS = 1e-9


def run_payload(trajectory: Trajectory, series: Mapping[str, Series], all_series: Sequence[Series]) -> dict[str, Any]:
    """Return everything that the page of a run draws, as JSON values.

    Args:
        trajectory: The run.
        series: The measures that have a panel of their own, by name; the embedding is required.
        all_series: Everything that the reader can choose to plot.
    """
    log, task = trajectory.log, trajectory.task
    return {
        "steps": pack(trajectory.steps),
        "log": _log(log),
        "loss": trajectory.config.loss,
        "names": _names(task),
        "stages": _stages(phases.stages(log)),
        "phases": _stages(phases.nanda_stages(series["progress"])) if "progress" in series else [],
        "gaps": log["gaps"].tolist(),
        "clouds": _clouds(trajectory, series["embedding"]),
        "spectra": _spectra(series),
        "attention": _attention(series.get("attention"), task),
        "grid": _grid(trajectory, series.get("example_loss")),
        "quantities": [quantity.to_plain() for quantity in quantities([*further_log(log, task), *all_series])],
    }


def _names(task: Task) -> Sequence[str] | None:
    """Return the names of the elements; None if they are numbers."""
    if task.element_names:
        return task.element_names
    return None if task.circle is not None or task.group is None else task.group.elements


def thinned_rows(log: Series, n_max: int = _MAX_LOG_ROWS) -> Int[np.ndarray, " rows"]:
    """Return the rows of a log to draw, so that no spike is lost.

    A long log is cut into equal stretches. Of each stretch, the first row and the extremes of every column remain.

    Args:
        log: The log.
        n_max: The largest number of rows, about twice the pixels of a wide chart by default.
    """
    n_rows = len(log.steps)
    if n_rows <= n_max:
        return np.arange(n_rows)
    columns = [array for name, array in log.arrays.items() if name.startswith(("train", "test"))]
    bounds = np.linspace(0, n_rows, n_max // (1 + 2 * len(columns)) + 1).round().astype(int)
    rows = {0, n_rows - 1}
    for first, last in zip(bounds, bounds[1:], strict=False):
        rows.add(int(first))
        for column in columns:
            rows |= {first + int(column[first:last].argmin()), first + int(column[first:last].argmax())}
    return np.array(sorted(rows))


def n_frames(n_numbers: int, budget: int, n_max: int = 600) -> int:
    """Return how many steps of `n_numbers` numbers each fit the budget: from 2 to `n_max`."""
    return int(np.clip(budget // max(n_numbers, 1), 2, n_max))


def _log(log: Series) -> dict[str, Any]:
    rows = thinned_rows(log)
    return {"steps": pack(log.steps[rows]), **{name: pack(array[rows]) for name, array in log.arrays.items()}}


def _stages(stages: Sequence[tuple[str, int, int]]) -> list[dict[str, Any]]:
    return [{"name": name, "first": first, "last": last} for name, first, last in stages]


def _clouds(trajectory: Trajectory, embedding: Series) -> dict[str, Any]:
    """Return the embedding in its principal plane and in the planes of the key frequencies, at some steps."""
    tokens, task = embedding["tokens"], trajectory.task
    planes = [{"title": "principal plane", "kind": "principal", "points": embedding["principal_components"][..., :2]}]
    if "frequency_planes" in embedding:
        shares = embedding["frequency_shares"][-1]
        for i, frequency in enumerate(embedding["plane_frequencies"].tolist()):
            plane = {"title": f"frequency {frequency}", "kind": "frequency", "frequency": frequency}
            plane |= {"share": float(shares[frequency - 1]), "points": embedding["frequency_planes"][:, i]}
            planes.append(plane)
        planes[0]["frequency"] = int(embedding["component_frequency"][-1, 0])
    rows = spread_evenly(embedding.steps, n_frames(2 * len(tokens) * len(planes), _CLOUD))
    for plane in planes:
        points = plane["points"][rows]
        # Two tokens have a single component, so their points lie on a line.
        points = np.pad(points, ((0, 0), (0, 0), (0, 2 - points.shape[2])))
        plane["limit"] = float(np.abs(points).max())
        plane["points"] = quantise(points)
    planes[0]["shares"] = pack(embedding["explained_variance_ratio"][rows][:, :2])
    group = None if task.circle is not None else task.group
    names = list(map(str, range(task.n_elements))) if task.circle is not None else task.names
    return {
        "steps": pack(embedding.steps[rows]),
        "labels": [names[token] for token in tokens],
        "classes": None if group is None else group.conjugacy_classes[tokens].tolist(),
        "planes": planes,
    }


def _spectra(series: Mapping[str, Series]) -> list[dict[str, Any]]:
    """Return the Fourier spectra that were measured: that of the embedding first, then those closer to the logits."""
    spectra = []
    for measure, name, title, unit in (
        ("embedding", "frequency_shares", "embedding W_E: share of variance", "share"),
        ("fourier", "W_L_norms", "neuron-to-logit map W_L: norm", "norm"),
        ("fourier", "W_U_norms", "unembedding W_U: norm", "norm"),
        ("progress", "logit_variance_shares", "logits: share of variance", "share"),
    ):
        spectrum = series.get(measure)
        if spectrum is None or name not in spectrum:
            continue
        rows = spread_evenly(spectrum.steps, n_frames(spectrum[name].shape[1], _SPECTRUM))
        spectra.append(
            {
                "title": title,
                "unit": unit,
                "steps": pack(spectrum.steps[rows]),
                "frequencies": spectrum["frequencies"].tolist(),
                "key": spectrum["key_frequencies"].tolist(),
                "values": quantise(spectrum[name][rows]),
            }
        )
    return spectra


def _attention(series: Series | None, task: Task) -> dict[str, Any] | None:
    if series is None or "attention_by_first" not in series:
        return None
    rows = spread_evenly(series.steps, n_frames(series["attention_by_first"][0].size, _ATTENTION))
    positions = [
        f"operand {name}" if position in task.operand_positions else f"“{name}”"
        for position, name in enumerate(task.position_names)
    ]
    return {
        "steps": pack(series.steps[rows]),
        "positions": positions,
        "operands": series["first_operands"].tolist(),
        "mean": pack(series["attention"][rows]),
        "error": pack(series["attention_stderr"][rows]),
        "by_first": quantise(series["attention_by_first"][rows], 8),
        "n_equations": int(series["n_equations"]),
    }


def _grid(trajectory: Trajectory, series: Series | None) -> dict[str, Any] | None:
    """Return log10 of each equation's loss at some steps, and which answers are right.

    The result is None for a large task, and for a task whose equations do not fill one cell (a, b) each.
    """
    task = trajectory.task
    n_examples = len(task.inputs)
    if series is None or 2 * n_examples > _GRID or not has_pair_table(task):
        return None
    rows = spread_evenly(series.steps, n_frames(n_examples, _GRID, _MAX_GRID_FRAMES))
    log_loss = np.log10(np.clip(series["example_loss"][rows], _LEAST_LOSS, None))
    return {
        "steps": pack(series.steps[rows]),
        "n_elements": task.n_elements,
        "operands": pack(task.operands.numpy()),
        "answers": pack(task.labels.numpy()),
        "is_train": pack(_is_train(trajectory)) if trajectory.has_split else None,
        # Neighbouring levels differ by a factor of about 1.1, less than a colour shows.
        "log_loss": quantise(log_loss, 8),
        "right": pack(np.packbits(series["is_right"][rows], axis=1, bitorder="little")),
    }


def _is_train(trajectory: Trajectory) -> Bool[np.ndarray, " examples"]:
    is_train = torch.zeros(len(trajectory.task.inputs), dtype=torch.bool)
    is_train[trajectory.split.train] = True
    return is_train.numpy()
