"""Named RunConfigs, and the TOML files that start from them."""

import tomllib
from pathlib import Path

from grokscope import plugins
from grokscope.config import ModelConfig, OptimizerConfig, RunConfig, TaskConfig, from_dict
from grokscope.errors import GrokscopeError

PRESETS = {
    # A grokking run that a laptop finishes in about a minute. Fraction, width of the MLP and seeds are chosen so
    # that it does, with memorization and generalisation far apart; other seeds generalise sooner or later.
    "quick": RunConfig(
        task=TaskConfig(name="addition", p=59, train_fraction=0.5),
        model=ModelConfig(d_mlp=256),
        n_steps=3_500,
        checkpoints="every 20 + log 60",
        evaluate_every=10,
    ),
    # Nanda et al. 2023, section 3 and appendix: one layer, no LayerNorm, biases in the MLP only, full batch.
    "nanda2023": RunConfig(
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
    ),
}


def names() -> list[str]:
    """Return the presets' names, sorted."""
    return sorted(PRESETS)


def get(name: str) -> RunConfig:
    """Return the preset of that name; change it with `dataclasses.replace`. Raise GrokscopeError if there is none."""
    if not isinstance(name, str) or name not in PRESETS:
        raise GrokscopeError(plugins.unknown("preset", name, names()))
    return PRESETS[name]


def read(path: Path) -> RunConfig:
    """Read a RunConfig from a TOML file; its top-level key ``preset`` names what it starts from.

    Raise one GrokscopeError that names the file and every fault in it.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        base = get(values.pop("preset")) if "preset" in values else RunConfig()
        return from_dict(values, base)
    except OSError as error:
        raise GrokscopeError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:  # Also for no UTF-8, and for a number of too many digits.
        raise GrokscopeError(f"{path} is no TOML file: {error}.") from error
    except GrokscopeError as error:
        raise GrokscopeError(f"{path}: {error}") from error
