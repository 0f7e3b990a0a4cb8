"""Train small transformers to grokking, keep dense checkpoints, and watch the circuit form.

This is the door. Everything behind it is imported when it is first asked for, so that `import grokscope`
loads neither torch nor TransformerLens.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grokscope import interventions as interventions
    from grokscope import landscape as landscape
    from grokscope import measures as measures
    from grokscope import phases as phases
    from grokscope import presets as presets
    from grokscope.config import ModelConfig as ModelConfig
    from grokscope.config import OptimizerConfig as OptimizerConfig
    from grokscope.config import RunConfig as RunConfig
    from grokscope.config import TaskConfig as TaskConfig
    from grokscope.errors import GrokscopeError as GrokscopeError
    from grokscope.exports import export as export
    from grokscope.forks import fork as fork
    from grokscope.series import Series as Series
    from grokscope.snapshot import Snapshot as Snapshot
    from grokscope.training import densify as densify
    from grokscope.training import resume as resume
    from grokscope.training import train as train
    from grokscope.trajectory import Trajectory as Trajectory

__version__ = "0.1.0"

_BEHIND = {
    "interventions": "grokscope.interventions",
    "landscape": "grokscope.landscape",
    "measures": "grokscope.measures",
    "phases": "grokscope.phases",
    "presets": "grokscope.presets",
    "ModelConfig": "grokscope.config",
    "OptimizerConfig": "grokscope.config",
    "RunConfig": "grokscope.config",
    "TaskConfig": "grokscope.config",
    "GrokscopeError": "grokscope.errors",
    "Series": "grokscope.series",
    "export": "grokscope.exports",
    "densify": "grokscope.training",
    "fork": "grokscope.forks",
    "resume": "grokscope.training",
    "train": "grokscope.training",
    "Snapshot": "grokscope.snapshot",
    "Trajectory": "grokscope.trajectory",
}
__all__ = [*_BEHIND, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _BEHIND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(_BEHIND[name])
    return module if module.__name__ == f"{__name__}.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
