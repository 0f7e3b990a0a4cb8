"""Weights & Biases: upload a run's log and chosen measures, during or after training.

The upload reads the run's files and never calls the trainer, so the network cannot stop or alter a training. The
package wandb is an extra, `pip install 'grokscope[wandb]'`, and is imported only for an upload.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from grokscope.errors import GrokscopeError
from grokscope.series import Series
from grokscope.trajectory import Trajectory

TIMEOUT = 60
"""Seconds to wait for the server."""


def log(
    trajectory: Trajectory,
    project: str,
    *,
    series: Iterable[Series] = (),
    name: str | None = None,
    entity: str | None = None,
    offline: bool = False,
) -> str:
    """Upload a run's log, its config and series of measures as a new run of a Weights & Biases project.

    Arrays with one number per step are logged at their steps, as `log/NAME` for the log and `MEASURE/NAME` for a
    series. Arrays with more axes are skipped. Constants that are single numbers are written to the summary.

    Args:
        trajectory: The trajectory of a run on disk.
        project: The project's name on the server.
        series: Series to upload with the log.
        name: The run's name on the server; by default its folder's name.
        entity: The user or team on the server; by default the one that is logged in.
        offline: Whether to write to RUN/wandb, for a later upload with `wandb sync`.

    Returns:
        The run's address; with `offline`, the folder that was written.

    Raises:
        GrokscopeError: The package wandb is missing, the trajectory has no folder, or the server cannot be reached or
            refuses.
    """
    uploaded = [trajectory.log, *series]
    with _errors(), start(trajectory, project, name=name, entity=entity, offline=offline) as run:
        for step, row in rows(uploaded):
            run.log(row, step=step)
        for measured in uploaded:
            run.summary.update(constants(measured))
        return str(run.settings.sync_dir if offline else run.url)


def start(
    trajectory: Trajectory, project: str, *, name: str | None = None, entity: str | None = None, offline: bool = False
) -> Any:
    """Start a run of Weights & Biases with the config of a trajectory, and return wandb's object.

    Args:
        trajectory: The trajectory of a run on disk.
        project: The project's name on the server.
        name: The run's name on the server; by default its folder's name.
        entity: The user or team on the server; by default the one that is logged in.
        offline: Whether to write to RUN/wandb. WANDB_MODE=offline has the same effect.

    Raises:
        GrokscopeError: The package wandb is missing, the trajectory has no folder, or the server refuses.
    """
    try:
        wandb = import_module("wandb")
    except ImportError as error:
        raise GrokscopeError("Uploading needs the package wandb: pip install 'grokscope[wandb]'.") from error
    if trajectory.path is None:
        raise GrokscopeError("A trajectory in memory has no folder, so there is no run to upload.")
    settings = wandb.Settings(
        # Do not collect the terminal's output, the machine's load or the surrounding repository.
        console="off", silent=True, x_disable_stats=True, x_disable_meta=True, disable_git=True, save_code=False,
        init_timeout=TIMEOUT,
    )  # fmt: skip
    with _errors():
        return wandb.init(
            project=project,
            entity=entity,
            name=name or trajectory.path.name,
            config={**trajectory.config.to_dict(), "digest": trajectory.digest},
            dir=trajectory.path,
            mode="offline" if offline else os.environ.get("WANDB_MODE", "online"),
            settings=settings,
        )


@contextmanager
def _errors() -> Iterator[None]:
    """Turn errors of wandb and of the network into a GrokscopeError."""
    try:
        yield
    except (getattr(sys.modules.get("wandb"), "Error", OSError), OSError, TimeoutError) as error:
        raise GrokscopeError(f"wandb: {error} The run is unchanged; --offline needs no server.") from error


def rows(series: Iterable[Series]) -> list[tuple[int, dict[str, float]]]:
    """Return (step, numbers under `MEASURE/NAME`) for several series, in increasing order of steps."""
    by_step: dict[int, dict[str, float]] = {}
    for measured in series:
        for name, array in measured.arrays.items():
            if array.ndim == 1:
                for step, value in zip(measured.steps.tolist(), array.tolist(), strict=True):
                    by_step.setdefault(step, {})[f"{measured.measure}/{name}"] = value
    return sorted(by_step.items())


def constants(series: Series) -> dict[str, Any]:
    """Return the constants of a series that are single numbers, under `MEASURE/NAME`."""
    return {f"{series.measure}/{name}": value.item() for name, value in series.constants.items() if value.ndim == 0}
