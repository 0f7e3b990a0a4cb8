"""Which runs can train in one ensemble. No torch here."""

import hashlib
import json

from grokscope.config import RunConfig
from grokscope.config.task_config import has_sequences
from grokscope.errors import GrokscopeError

OPTIMIZERS = ("adamw", "adam")


def unsupported_settings(config: RunConfig) -> list[str]:
    """Return the settings that an ensemble cannot train with, one phrase each."""
    o = config.optimizer
    is_used = {
        f"optimizer.name {o.name!r} (allowed: {' or '.join(OPTIMIZERS)})": o.name not in OPTIMIZERS,
        "optimizer.decay_centre": o.decay_centre != "zero",
        "optimizer.gradient_filter": o.gradient_filter is not None,
        "optimizer.update_noise": o.update_noise,
        "optimizer.weight_noise": o.weight_noise,
        "optimizer.sam_radius": o.sam_radius,
        "residual_dropout": config.residual_dropout,
        "task.fresh": config.task.fresh,
        "task.name 'mixture'": config.task.name == "mixture",
        "answers at several positions": has_sequences(config.task),
        "initialization": config.initialization,
    }
    return [phrase for phrase, used in is_used.items() if used]


def shared_settings_digest(config: RunConfig) -> str:
    """Return the SHA-256 of the settings that the runs of an ensemble share.

    These are all settings except the seeds, the learning rate, the weight decay and the training set.
    """
    values = config.to_dict()
    for name in ("split_seed", "init_seed", "training_seed"):
        del values[name]
    for name in ("lr", "weight_decay"):
        del values["optimizer"][name]
    for name in ("train_fraction", "train_set"):
        del values["task"][name]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def require_compatible(configs: list[RunConfig]) -> None:
    """Raise GrokscopeError unless these runs can train in one ensemble.

    Raises:
        GrokscopeError: A config is invalid, uses a setting that an ensemble cannot train with, or differs from the
            others in a setting that all runs share.
    """
    for config in configs:
        config.validate()
    unsupported = sorted({setting for config in configs for setting in unsupported_settings(config)})
    if unsupported:
        raise GrokscopeError(f"An ensemble cannot train with {', '.join(unsupported)}; train these runs one by one.")
    if len({shared_settings_digest(config) for config in configs}) != 1:
        raise GrokscopeError(
            "The runs of an ensemble may differ only in seeds, learning rate, weight decay and train fraction."
        )
