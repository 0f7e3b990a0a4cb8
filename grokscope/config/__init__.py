"""The definition of a run: frozen dataclasses, the same for Python, TOML, the command line and ``config.json``."""

from grokscope.config.model_config import MlpConfig, ModelConfig
from grokscope.config.optimizer_config import OptimizerConfig
from grokscope.config.run_config import RunConfig, from_dict
from grokscope.config.task_config import TaskConfig

__all__ = ["MlpConfig", "ModelConfig", "OptimizerConfig", "RunConfig", "TaskConfig", "from_dict"]
