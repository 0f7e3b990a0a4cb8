"""Weights & Biases: upload a run's log and chosen measures, after the fact or while it trains.

It reads the run and never touches the trainer, so no network can stop or alter a training. An extra: `pip install
'grokscope[wandb]'`; the package is imported when something is uploaded, and by nothing else.
"""

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from grokscope.errors import GrokscopeError
from grokscope.series import Series
from grokscope.trajectory import Trajectory

TIMEOUT = 60
"""The seconds to wait for the server before giving up."""


def log(
    trajectory: Trajectory,
    project: str,
    *,
    series: Iterable[Series] = (),
    name: str | None = None,
    entity: str | None = None,
    offline: bool = False,
) -> str:
    """Upload a run's log, its config and the given series as a new run of a project; return its address.

    Each number that a step has is logged at that step: the log's as `log/NAME`, a series' as `MEASURE/NAME`. Arrays
    with more axes are left out; constants that are single numbers go into the summary. `offline` writes into
    RUN/wandb, from where `wandb sync` uploads, and returns that folder. Raise GrokscopeError without the package
    wandb, and where the server cannot be reached or refuses.
    """
    try:
        wandb = import_module("wandb")
    except ImportError as error:
        raise GrokscopeError("Uploading needs the package wandb: pip install 'grokscope[wandb]'.") from error
    if trajectory.path is None:
        raise GrokscopeError("A trajectory in memory has no folder, so there is no run to upload.")
    uploaded = [trajectory.log, *series]
    settings = wandb.Settings(
        # What it would collect besides: the terminal's output, the machine's load, the repository around.
        console="off", silent=True, x_disable_stats=True, x_disable_meta=True, disable_git=True, save_code=False,
        init_timeout=TIMEOUT,
    )  # fmt: skip
    try:
        with wandb.init(
            project=project,
            entity=entity,
            name=name or trajectory.path.name,
            config={**trajectory.config.to_dict(), "digest": trajectory.digest},
            dir=trajectory.path,
            mode="offline" if offline else "online",
            settings=settings,
        ) as run:
            for step, row in rows(uploaded):
                run.log(row, step=step)
            for one in uploaded:
                run.summary.update(_constants(one))
            return str(run.settings.sync_dir if offline else run.url)
    except (wandb.Error, OSError, TimeoutError) as error:
        raise GrokscopeError(f"wandb: {error} The run itself is as it was; --offline needs no server.") from error


def rows(series: Iterable[Series]) -> list[tuple[int, dict[str, float]]]:
    """Return the numbers of several series by step, in increasing order, under `MEASURE/NAME`."""
    found: dict[int, dict[str, float]] = {}
    for one in series:
        for name, array in one.arrays.items():
            if array.ndim == 1:
                for step, value in zip(one.steps.tolist(), array.tolist(), strict=True):
                    found.setdefault(step, {})[f"{one.measure}/{name}"] = value
    return sorted(found.items())


def _constants(series: Series) -> dict[str, Any]:
    return {f"{series.measure}/{name}": one.item() for name, one in series.constants.items() if one.ndim == 0}
