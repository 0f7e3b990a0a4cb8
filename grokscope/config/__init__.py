"""The definition of a run: frozen dataclasses, the same for Python, TOML, the command line and ``config.json``."""

from grokscope.config.run_config import ModelConfig, OptimizerConfig, RunConfig, TaskConfig, from_dict

__all__ = ["ModelConfig", "OptimizerConfig", "RunConfig", "TaskConfig", "from_dict"]
