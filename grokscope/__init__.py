"""Train small transformers to grokking, keep dense checkpoints, and watch the circuit form.

The public entry point. Every public name is imported when it is first used, so that `import grokscope` loads
neither torch nor TransformerLens.
"""

import sys
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from grokscope._version import __version__

if sys.platform == "win32":
    _UNSUPPORTED = (
        "grokscope runs on Linux and macOS, because its locks and durable writes are POSIX calls. On Windows, run "
        "`wsl --install` once, and install grokscope inside WSL."
    )
    if sys.argv[0].rpartition("\\")[2].startswith(("grokscope", "__main__")):
        sys.exit(_UNSUPPORTED)
    raise ImportError(_UNSUPPORTED)

if TYPE_CHECKING:
    from grokscope import algebra as algebra
    from grokscope import config as config
    from grokscope import figures as figures
    from grokscope import fourier as fourier
    from grokscope import gallery as gallery
    from grokscope import interventions as interventions
    from grokscope import landscape as landscape
    from grokscope import measures as measures
    from grokscope import phases as phases
    from grokscope import report as report
    from grokscope import tasks as tasks
    from grokscope import training as training
    from grokscope.config import ModelConfig as ModelConfig
    from grokscope.config import OptimizerConfig as OptimizerConfig
    from grokscope.config import RunConfig as RunConfig
    from grokscope.config import TaskConfig as TaskConfig
    from grokscope.config import presets as presets
    from grokscope.errors import GrokscopeError as GrokscopeError
    from grokscope.hub.repository import pull as pull
    from grokscope.hub.repository import push as push
    from grokscope.interop import wandb as wandb
    from grokscope.interop.export import export as export
    from grokscope.interop.import_run import import_checkpoints as import_checkpoints
    from grokscope.series import Series as Series
    from grokscope.snapshot import Snapshot as Snapshot
    from grokscope.training.densification import densify as densify
    from grokscope.training.fork import fork as fork
    from grokscope.training.run import resume as resume
    from grokscope.training.run import train as train
    from grokscope.trajectory import Trajectory as Trajectory

_PLACES = {
    "algebra": "grokscope.algebra",
    "config": "grokscope.config",
    "figures": "grokscope.figures",
    "fourier": "grokscope.fourier",
    "gallery": "grokscope.gallery",
    "interventions": "grokscope.interventions",
    "landscape": "grokscope.landscape",
    "measures": "grokscope.measures",
    "phases": "grokscope.phases",
    "presets": "grokscope.config.presets",
    "report": "grokscope.report",
    "tasks": "grokscope.tasks",
    "training": "grokscope.training",
    "wandb": "grokscope.interop.wandb",
    "ModelConfig": "grokscope.config:ModelConfig",
    "OptimizerConfig": "grokscope.config:OptimizerConfig",
    "RunConfig": "grokscope.config:RunConfig",
    "TaskConfig": "grokscope.config:TaskConfig",
    "GrokscopeError": "grokscope.errors:GrokscopeError",
    "Series": "grokscope.series:Series",
    "export": "grokscope.interop.export:export",
    "import_checkpoints": "grokscope.interop.import_run:import_checkpoints",
    "pull": "grokscope.hub.repository:pull",
    "push": "grokscope.hub.repository:push",
    "densify": "grokscope.training.densification:densify",
    "fork": "grokscope.training.fork:fork",
    "resume": "grokscope.training.run:resume",
    "train": "grokscope.training.run:train",
    "Snapshot": "grokscope.snapshot:Snapshot",
    "Trajectory": "grokscope.trajectory:Trajectory",
}
_RENAMED = {"stability": "grokscope.landscape.edge_of_stability"}
"""Names of version 0.1 that still work, with a warning."""
__all__ = [*_PLACES, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        warnings.warn(f"grokscope.{name} is now {_RENAMED[name]}", DeprecationWarning, stacklevel=2)
        return import_module(_RENAMED[name])
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    return getattr(import_module(module), attribute) if attribute else import_module(module)


def __dir__() -> list[str]:
    return sorted(__all__)
