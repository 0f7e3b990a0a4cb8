"""The definition of a run: one frozen dataclass, the same for Python, TOML, the command line and ``config.json``.

Construction never raises. `RunConfig.faults` collects the faults of the whole tree. `RunConfig.validate` raises one
GrokscopeError that names every fault and the allowed values.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Literal

from grokscope.config import (
    checkpoint_schedule,
    model_config,
    optimizer_config,
    stop_rule,
    task_config,
    unused,
    validation,
)
from grokscope.config.model_config import ModelConfig
from grokscope.config.optimizer_config import OptimizerConfig
from grokscope.config.task_config import TaskConfig
from grokscope.config.validation import checked, choice, integer, share
from grokscope.errors import GrokscopeError

ADDED_SETTINGS = (
    *("task.group", "task.table", "task.outliers", "task.random_labels", "model.positions", "model.init"),
    *("optimizer.decay_centre", "optimizer.momentum", "optimizer.gradient_filter", "optimizer.filter_alpha"),
    *("optimizer.filter_lambda", "optimizer.filter_window", "optimizer.update_noise", "optimizer.weight_noise"),
    *("optimizer.sam_radius", "batch_share", "loss", "residual_dropout", "matrix_products"),
    *("task.split", "model.d_vocab_out", "threads"),
    *("task.n_operands", "task.zero_divisors", "task.expression", "task.sizes", "task.n_digits", "task.base"),
    *("task.n_bits", "task.n_parity_bits", "task.n_tokens", "task.length", "task.n_repeated", "task.n_examples"),
    *("task.data_seed", "task.fresh", "task.mixture", "task.data"),
    *("optimizer.decay_by_part", "optimizer.muon_momentum", "optimizer.schedule"),
    *("optimizer.gradient_clip", "optimizer.norm_clamp", "stop"),
    *("task.train_set", "initialization"),
    *("model.family", "model.d_head", "model.attn_only", "model.attention_dir"),
    *("model.attention_alpha", "model.use_attn_scale", "model.gated_mlp", "model.parallel_attn_mlp", "model.options"),
    *("model.mlp.operands", "model.mlp.combination", "model.mlp.d_embed", "model.mlp.n_layers"),
    *("model.mlp.d_hidden", "model.mlp.act_fn", "model.mlp.biases"),
)
"""The settings that the first saved runs lack. Every new setting must be listed here; see `RunConfig.digest`."""


def _device_advice(value: object) -> str:
    """Return why Apple's GPU is not a device, or "" for another value."""
    if isinstance(value, str) and value.partition(":")[0] == "mps":
        return (
            "mps has no float64, in which losses and small gradients are computed, so an Apple GPU is not supported"
        )
    return ""


@dataclass(frozen=True)
class RunConfig:
    """Every setting of a run. The same RunConfig in the same environment gives the same bits."""

    task: TaskConfig = field(default_factory=TaskConfig)
    """The task to learn."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The network that learns the task."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """The optimizer that trains the network."""
    checkpoints: str = checked("every 100", "terms joined by '+'", None, str)
    """The checkpoint schedule, such as "every 100 + log 200 + pythia 1000 + window 2000 4000 5 + adaptive 0.1"."""
    max_checkpoints: int = integer(10_000, 2, 10_000_000)
    """The largest number of checkpoints. A longer fixed schedule is invalid; an adaptive schedule stops there."""
    n_steps: int = integer(40_000, 1, 10**9)
    """The number of optimizer updates."""
    stop: str = checked("", stop_rule.FORMS, stop_rule.is_stop_rule, str)
    """The rule that ends the run earlier, such as "test_accuracy >= 0.99 for 2000 or test_loss < 1e-5"; "": none.
    The evaluations check it. `grokscope resume RUN --n-steps N` continues a stopped run."""
    batch_size: int | None = integer(None, 1, none="the full training set")
    """The number of examples in a batch, at most the whole training set. None means the whole training set."""
    batch_share: float = share(1.0, upper="of the training set")
    """The largest share of the training set in a batch of `batch_size`, rounded up (0.5 in Power et al. 2022)."""
    evaluate_every: int = integer(10, 1)
    """The number of steps between two rows of the log: train and test loss and accuracy."""
    loss: str = choice("softmax", "softmax", "stablemax", "mse")
    """The loss: the cross-entropy of "softmax" or "stablemax" (Prieto et al. 2025), or "mse", the mean squared
    difference between the logits and the one-hot answer (Gromov 2023)."""
    loss_dtype: str = choice("float64", "float32", "float64")
    """The precision of the log-softmax. With float32 the gradient vanishes after memorization."""
    matrix_products: str = choice("float32", "float32", "tf32", "bfloat16")
    """The precision of matrix products in training, where the device supports it.
    "tf32" rounds each factor to 11 bits, "bfloat16" to 8 bits; both sum in float32.
    Evaluation and measures always use float32."""
    residual_dropout: float = share(0.0)
    """The probability of dropping an element of an attention or MLP output during training."""
    device: str = checked(
        "cpu",
        "'cpu', 'cuda' or 'cuda:N'",
        lambda value: isinstance(value, str) and re.fullmatch(r"cpu|cuda(:(0|[1-9][0-9]?))?", value) is not None,
        str,
        _device_advice,
    )
    """The device that training uses: "cpu", "cuda" or "cuda:N"."""
    threads: int | Literal["auto"] = checked(
        "auto",
        "'auto' or a whole number from 1 to 1024",
        lambda value: (type(value) is str and value == "auto") or (type(value) is int and 1 <= value <= 1024),
        lambda value: value,
    )
    """The number of CPU threads. "auto" decides by the size of a step: one thread unless a second makes the step a
    third faster, and never more than the cores of this process."""
    split_seed: int = integer(0, 0)
    """The seed of the train/test split, the outliers and the random labels."""
    init_seed: int = integer(0, 0)
    """The seed of the initial weights."""
    initialization: str = checked(
        "",
        "the SHA-256 of initial parameters, as --init-from writes it, or ''",
        lambda value: isinstance(value, str) and re.fullmatch(r"([0-9a-f]{64})?", value) is not None,
        str,
    )
    """The SHA-256 of the initial parameters, if they were given and not drawn. `--init-from FILE` writes it."""
    training_seed: int = integer(0, 0)
    """The seed of batches, noise and dropout."""

    def faults(self, given: Collection[str] = ()) -> list[str]:
        """Return every fault of the config tree: one sentence each, with the allowed values.

        Args:
            given: The dotted names of the settings that the user gave. A given setting without effect is a fault.
        """
        messages = list(validation.faults(self))
        invalid = {message.partition(":")[0] for message in messages}
        if "model" not in invalid:
            messages += model_config.contradictions(self.model, invalid)
        if "task" not in invalid:
            messages += task_config.contradictions(self.task, invalid)
            if invalid.isdisjoint({"task.fresh", "batch_size"}) and self.task.fresh and self.batch_size is None:
                messages.append("task.fresh: True, but batch_size is none; allowed: with a batch_size")
        if "optimizer" not in invalid:
            messages += optimizer_config.contradictions(self.optimizer, invalid)
        messages += self._checkpoint_faults(invalid)
        unused_faults = unused.unused_settings(self, given, {message.partition(":")[0] for message in messages})
        # The value of an unused setting does not matter, so its other faults do not either.
        return [text for text in messages if text.partition(":")[0] not in unused_faults] + [*unused_faults.values()]

    def validate(self, given: Collection[str] = ()) -> "RunConfig":
        """Return the config itself; raise one GrokscopeError that names every fault.

        Args:
            given: As in `faults`.
        """
        return _raise_faults(self.faults(given), self)

    def to_dict(self) -> dict[str, Any]:
        """Return the config as plain JSON values, in the order of the fields."""
        return validation.to_plain(self)

    @property
    def digest(self) -> str:
        """The SHA-256 of the settings that are constant over a run: all but `n_steps`.

        A setting in `ADDED_SETTINGS` counts only if it differs from its default, so new settings keep old digests.
        """
        values, defaults = self.to_dict(), RunConfig().to_dict()
        del values["n_steps"]
        for name in ADDED_SETTINGS:
            *tables, key = name.split(".")
            table, default = (reduce(lambda tree, part: tree[part], tables, tree) for tree in (values, defaults))
            if table[key] == default[key]:
                del table[key]
        if not values["model"]["mlp"]:
            del values["model"]["mlp"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def _checkpoint_faults(self, invalid: set[str]) -> list[str]:
        """Return the faults of the schedule; without any, a fault if it takes more than `max_checkpoints`."""
        n_steps = None if "n_steps" in invalid else self.n_steps
        messages = [f"checkpoints: {fault}" for fault in checkpoint_schedule.faults(self.checkpoints, n_steps)]
        if messages or n_steps is None or "max_checkpoints" in invalid:
            return messages
        schedule = checkpoint_schedule.parse(self.checkpoints)
        # A term may have more steps than fit in memory, so count them before building them.
        n_fixed = schedule.largest_term(n_steps)
        if n_fixed <= self.max_checkpoints:
            n_fixed = len(schedule.fixed_steps(n_steps))
        if n_fixed <= self.max_checkpoints:
            return []
        return [
            f"checkpoints: {self.checkpoints!r} takes {n_fixed:,} checkpoints in {n_steps:,} steps; "
            f"allowed: up to max_checkpoints = {self.max_checkpoints:,}"
        ]


def from_dict(values: Mapping[str, Any], base: RunConfig | None = None) -> RunConfig:
    """Build a valid RunConfig from nested plain values.

    Args:
        values: The settings to change, nested as in TOML. The text "none" means None where None is allowed, because
            TOML has no null.
        base: The config that provides all other settings. By default `RunConfig()`.

    Raises:
        GrokscopeError: A setting is unknown or invalid. One error names every fault.
    """
    config, unknown = validation.from_plain(base or RunConfig(), values)
    return _raise_faults(unknown + config.faults(), config)


def _raise_faults(messages: list[str], config: RunConfig) -> RunConfig:
    """Return the config, or raise one GrokscopeError if there are faults."""
    if not messages:
        return config
    if len(messages) == 1:
        end = "" if messages[0].endswith("?") else "."
        raise GrokscopeError(f"One setting cannot be used: {messages[0]}{end}")
    raise GrokscopeError(f"{len(messages)} settings cannot be used:\n" + "\n".join(f"  {text}" for text in messages))
