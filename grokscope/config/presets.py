"""The named RunConfigs: `quick`, and the settings of two papers."""

import dataclasses
from typing import Any

from grokscope.config.run_config import ModelConfig, OptimizerConfig, RunConfig, TaskConfig
from grokscope.errors import GrokscopeError, unknown_name

# Nanda et al. 2023, section 3 and appendix: one layer, without LayerNorm, biases in the MLP only, full batch.
_NANDA = RunConfig(
    task=TaskConfig(name="addition", p=113, train_fraction=0.3, form="a b ="),
    model=ModelConfig(
        n_layers=1,
        d_model=128,
        n_heads=4,
        d_mlp=512,
        act_fn="relu",
        normalization_type=None,
        biases="mlp",
    ),
    optimizer=OptimizerConfig(name="adamw", lr=1e-3, weight_decay=1.0, betas=(0.9, 0.98), warmup_steps=10),
    n_steps=40_000,
    batch_size=None,
    checkpoints="every 100",
    evaluate_every=20,
    loss_dtype="float64",
)

# Power et al. 2022, section 2 and appendix A.1. Their LayerNorm follows each residual addition. HookedTransformer
# applies it before each sublayer and before the unembedding, which is the closest available architecture.
_POWER = RunConfig(
    task=TaskConfig(name="division", p=97, train_fraction=0.5, form="a ∘ b ="),
    model=ModelConfig(
        n_layers=2,
        d_model=128,
        n_heads=4,
        d_mlp=512,
        act_fn="relu",
        normalization_type="LN",
        positions="sinusoidal",
        biases="none",
        init="torch",
    ),
    optimizer=OptimizerConfig(name="adamw", lr=1e-3, weight_decay=1.0, betas=(0.9, 0.98), warmup_steps=10),
    n_steps=100_000,
    batch_size=512,
    batch_share=0.5,
    checkpoints="every 1000 + log 100",
    evaluate_every=100,
)


def _variant(*, batch_size: int | None = 512, residual_dropout: float = 0.0, **optimizer: Any) -> RunConfig:
    """Return one of the nine ways to train the product in S5 (Power et al. 2022, figure 2 left)."""
    return dataclasses.replace(
        _POWER,
        task=TaskConfig(name="composition", group="S5", train_fraction=0.5, form="a ∘ b ="),
        optimizer=dataclasses.replace(_POWER.optimizer, **{"name": "adam", "weight_decay": 0.0} | optimizer),
        batch_size=batch_size,
        batch_share=1.0 if batch_size is None else 0.5,
        residual_dropout=residual_dropout,
    )


PRESETS = {
    # A laptop trains this run in about a minute. The training fraction, the MLP width and the seeds are chosen to
    # separate memorization from generalisation clearly. Other seeds generalise earlier or later.
    "quick": RunConfig(
        task=TaskConfig(name="addition", p=59, train_fraction=0.5),
        model=ModelConfig(d_mlp=256),
        n_steps=3_500,
        checkpoints="every 20 + log 60",
        evaluate_every=10,
    ),
    "nanda2023": _NANDA,
    # The mainline run of Nanda et al. 2023: their own draw of weights and split, and their 114 output columns.
    "nanda2023-mainline": dataclasses.replace(
        _NANDA,
        task=dataclasses.replace(_NANDA.task, split="nanda2023"),
        model=dataclasses.replace(_NANDA.model, init="nanda2023", d_vocab_out=114),
    ),
    "power2022": _POWER,
    # Power et al. 2022, figure 2 left, in the order of its legend.
    "power2022-full-batch": _variant(batch_size=None),
    "power2022-minibatch": _variant(),
    "power2022-update-noise": _variant(batch_size=None, update_noise=1.0),
    "power2022-weight-noise": _variant(weight_noise=0.01),
    "power2022-dropout": _variant(residual_dropout=0.1),
    "power2022-decay": _variant(name="adamw", weight_decay=1.0),
    "power2022-decay-to-init": _variant(name="adamw", weight_decay=1.0, decay_centre="initialization"),
    "power2022-lr-3e-4": _variant(lr=3e-4),
    "power2022-lr-3e-3": _variant(lr=3e-3),
}


def names() -> list[str]:
    """Return the names of all presets, sorted."""
    return sorted(PRESETS)


def get(name: str) -> RunConfig:
    """Return the preset of that name. `dataclasses.replace` makes a changed copy.

    Raises:
        GrokscopeError: The name is unknown. The error lists the presets.
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise GrokscopeError(unknown_name("preset", name, names()))
    return PRESETS[name]
