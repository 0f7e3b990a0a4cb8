"""What the page draws: a run's numbers as one JSON payload, thinned to what the eye can tell."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int

from grokscope import phases
from grokscope.report.encoding import packed, quantised
from grokscope.report.quantities import quantities
from grokscope.series import Series
from grokscope.thinning import spread_evenly
from grokscope.trajectory import Trajectory

_MOST_ROWS = 4_000
"""How many rows of the log the page keeps; of a longer one those with the extremes of each stretch."""
_CLOUD, _SPECTRUM, _GRID, _ATTENTION = 1_000_000, 400_000, 1_200_000, 400_000
"""How many numbers each kind of picture may take over all its steps, of one or two bytes each."""


def payload(trajectory: Trajectory, series: Mapping[str, Series], found: Sequence[Series]) -> dict[str, Any]:
    """Return everything that the page of a run draws, as JSON values.

    `series` holds the measures that have a picture of their own, by name, and `found` everything to choose from.
    """
    log, task = trajectory.log, trajectory.task
    embedding = series["embedding"]
    return {
        "steps": packed(trajectory.steps),
        "log": _log(log),
        "names": None if task.circle is not None or task.group is None else task.group.elements,
        "stages": [{"name": name, "first": first, "last": last} for name, first, last in phases.stages(log)],
        "phases": _phases(series),
        "gaps": log["gaps"].tolist(),
        "clouds": _clouds(trajectory, embedding),
        "spectra": _spectra(series),
        "attention": _attention(series.get("attention"), task.n_ctx, trajectory.config.task.form),
        "grid": _grid(trajectory, series.get("example_loss")),
        "quantities": [one.to_plain() for one in quantities(found)],
    }


def _log(log: Series) -> dict[str, Any]:
    kept = kept_rows(log)
    arrays = {name: packed(array[kept]) for name, array in log.arrays.items()}
    return {"steps": packed(log.steps[kept]), **arrays, "n_rows": len(log.steps)}


def kept_rows(log: Series, most: int = _MOST_ROWS) -> Int[np.ndarray, " rows"]:
    """Return the rows of a log that are drawn: all, or of each stretch its first and each column's extremes.

    So no spike is lost, and no row that is drawn is anything but a row of the log.
    """
    n = len(log.steps)
    if n <= most:
        return np.arange(n)
    columns = [array for name, array in log.arrays.items() if name.startswith(("train", "test"))]
    bounds = np.linspace(0, n, most // (1 + 2 * len(columns)) + 1).round().astype(int)
    kept = {0, n - 1}
    for first, last in zip(bounds, bounds[1:], strict=False):
        kept.add(int(first))
        for column in columns:
            kept |= {first + int(column[first:last].argmin()), first + int(column[first:last].argmax())}
    return np.array(sorted(kept))


def n_frames(n_numbers: int, budget: int, n_max: int = 600) -> int:
    """Return how many steps of `n_numbers` numbers each fit the budget: from 2 to `n_max`."""
    return int(np.clip(budget // max(n_numbers, 1), 2, n_max))


def _phases(series: Mapping[str, Series]) -> list[dict[str, Any]]:
    if "progress" not in series:
        return []
    return [
        {"name": name, "first": first, "last": last} for name, first, last in phases.nanda_stages(series["progress"])
    ]


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
    kept = spread_evenly(embedding.steps, n_frames(2 * len(tokens) * len(planes), _CLOUD))
    for plane in planes:
        points = plane["points"][kept]
        # A single component, of two tokens, is drawn on a line.
        points = np.pad(points, ((0, 0), (0, 0), (0, 2 - points.shape[2])))
        plane["limit"] = float(np.abs(points).max())
        plane["points"] = quantised(points)
    planes[0]["shares"] = packed(embedding["explained_variance_ratio"][kept][:, :2])
    group = None if task.circle is not None else task.group
    names = [str(i) for i in range(task.n_elements)] if group is None else group.elements
    return {
        "steps": packed(embedding.steps[kept]),
        "labels": [names[token] for token in tokens],
        "classes": None if group is None else group.conjugacy_classes[tokens].tolist(),
        "is_circle": task.circle is not None,
        "planes": planes,
    }


def _spectra(series: Mapping[str, Series]) -> list[dict[str, Any]]:
    """Return the Fourier spectra that were measured, strongest evidence of the circle first."""
    wanted = [
        ("embedding", "frequency_shares", "embedding W_E: share of its variance", "share"),
        ("fourier", "W_L_norms", "neurons to logits W_L: norm", "norm"),
        ("fourier", "W_U_norms", "unembedding W_U: norm", "norm"),
        ("progress", "logit_variance_shares", "logits: share of their variance", "share"),
    ]
    found = []
    for measure, name, title, unit in wanted:
        one = series.get(measure)
        if one is None or name not in one:
            continue
        kept = spread_evenly(one.steps, n_frames(one[name].shape[1], _SPECTRUM))
        found.append(
            {
                "title": title,
                "unit": unit,
                "steps": packed(one.steps[kept]),
                "frequencies": one["frequencies"].tolist(),
                "key": one["key_frequencies"].tolist(),
                "values": quantised(one[name][kept]),
            }
        )
    return found


def _attention(series: Series | None, n_ctx: int, form: str) -> dict[str, Any] | None:
    if series is None:
        return None
    kept = spread_evenly(series.steps, n_frames(series["attention_by_first"][0].size, _ATTENTION))
    signs = form.split()
    return {
        "steps": packed(series.steps[kept]),
        "positions": [{"a": "first operand a", "b": "second operand b"}.get(sign, f"“{sign}”") for sign in signs]
        if len(signs) == n_ctx
        else [f"position {i}" for i in range(n_ctx)],
        "operands": series["first_operands"].tolist(),
        "mean": packed(series["attention"][kept]),
        "error": packed(series["attention_stderr"][kept]),
        "by_first": quantised(series["attention_by_first"][kept], 8),
        "n_equations": int(series["n_equations"]),
    }


def _grid(trajectory: Trajectory, series: Series | None) -> dict[str, Any] | None:
    """Return each equation's loss at some steps, on a logarithmic scale of 255 levels, and whether it is right."""
    task = trajectory.task
    n_examples = len(task.inputs)
    if series is None or 2 * n_examples > _GRID:
        return None
    kept = spread_evenly(series.steps, n_frames(n_examples, _GRID, n_max=60))
    logs = np.log10(np.clip(series["example_loss"][kept], 1e-9, None))
    # Between two levels lies a factor of about 1.1.
    return {
        "steps": packed(series.steps[kept]),
        "n_elements": task.n_elements,
        "operands": packed(task.operands.numpy()),
        "answers": packed(task.labels.numpy()),
        "is_train": packed(_is_train(trajectory)),
        "log_loss": quantised(logs, 8),
        "right": packed(np.packbits(series["is_right"][kept], axis=1, bitorder="little")),
    }


def _is_train(trajectory: Trajectory) -> Bool[np.ndarray, " examples"]:
    is_train = torch.zeros(len(trajectory.task.inputs), dtype=torch.bool)
    is_train[trajectory.split.train] = True
    return is_train.numpy()
