"""Settings of ModelConfig by dotted name, such as "mlp.act_fn"."""

import dataclasses
from collections.abc import Mapping
from functools import reduce
from typing import Any

from grokscope.config import ModelConfig


def changed(model: ModelConfig, settings: Mapping[str, Any]) -> ModelConfig:
    """Return a config with some settings changed.

    Args:
        model: The config.
        settings: The values by dotted name.
    """
    own = {name: value for name, value in settings.items() if "." not in name}
    of_mlp = {name.removeprefix("mlp."): value for name, value in settings.items() if "." in name}
    return dataclasses.replace(model, **own, mlp=dataclasses.replace(model.mlp, **of_mlp))


def value(model: ModelConfig, name: str) -> Any:
    """Return a setting by its dotted name."""
    return reduce(getattr, name.split("."), model)
