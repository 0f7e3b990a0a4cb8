"""Named RunConfigs, and the TOML files that start from them."""

import dataclasses
import errno
import stat
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from grokscope import plugins
from grokscope.config import ModelConfig, OptimizerConfig, RunConfig, TaskConfig, from_dict
from grokscope.errors import GrokscopeError

LARGEST_TEXT = 2**25
"""In characters, of a table or a TOML file: a table of the largest order needs 18 million."""

# Power et al. 2022, section 2 and appendix A.1: the architecture as near as HookedTransformer comes to it (LayerNorm
# stands before each sublayer and once more at the end, where theirs follows each addition), and the optimizer.
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
    """Return one of the nine ways to train S5's product (Power et al. 2022, figure 2 left)."""
    return dataclasses.replace(
        _POWER,
        task=TaskConfig(name="composition", group="S5", train_fraction=0.5, form="a ∘ b ="),
        optimizer=dataclasses.replace(_POWER.optimizer, **{"name": "adam", "weight_decay": 0.0} | optimizer),
        batch_size=batch_size,
        batch_share=1.0 if batch_size is None else 0.5,
        residual_dropout=residual_dropout,
    )


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
    "power2022": _POWER,
    # Figure 2 left, in the order of its legend as field and paper name them.
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
    """Return the presets' names, sorted."""
    return sorted(PRESETS)


def get(name: str) -> RunConfig:
    """Return the preset of that name; change it with `dataclasses.replace`. Raise GrokscopeError if there is none."""
    if not isinstance(name, str) or name not in PRESETS:
        raise GrokscopeError(plugins.unknown("preset", name, names()))
    return PRESETS[name]


def read(path: Path, without: Collection[str] = ()) -> RunConfig:
    """Read a RunConfig from a TOML file; its top-level key ``preset`` names what it starts from.

    ``task.table = "@FILE"`` stands for the text of a file beside it. The settings `without`, by dotted name, are left
    as if the file did not have them. Raise one GrokscopeError that names the TOML file and every fault in it.
    """
    values = _lacking(read_toml(path), without)
    if "sweep" in values:
        raise GrokscopeError(f"{path} is a sweep, not a run; `grokscope sweep {path}` trains it.")
    try:
        base = get(values.pop("preset")) if "preset" in values else RunConfig()
        return from_dict(with_table(values, path.parent), base)
    except GrokscopeError as error:
        raise GrokscopeError(f"{path}: {error}") from error


def _lacking(values: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return nested values without those of some dotted names."""
    deeper = {key: [name.removeprefix(f"{key}.") for name in names if name.startswith(f"{key}.")] for key in values}
    return {
        key: _lacking(value, deeper[key]) if isinstance(value, dict) else value
        for key, value in values.items()
        if key not in names
    }


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a TOML file holds; raise GrokscopeError that names it if it cannot be read or is none."""
    try:
        return tomllib.loads(_text(path, "utf-8"))
    except OSError as error:
        raise GrokscopeError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:  # Also for no UTF-8, and for a number of too many digits.
        raise GrokscopeError(f"{path} is no TOML file: {error}.") from error


def with_table(values: Any, folder: Path) -> Any:
    """Return a RunConfig, or the nested values of one, with the file's text where ``task.table`` is "@FILE"."""
    is_config = isinstance(values, RunConfig)
    task = values.task if is_config else values.get("task")
    name = task.table if is_config else task.get("table") if isinstance(task, dict) else None
    if not isinstance(name, str) or not name.startswith("@"):
        return values
    path = folder / name.removeprefix("@")
    try:
        text = _text(path, "utf-8-sig").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise GrokscopeError(f"task.table: {path} cannot be read: {reason}.") from error
    if is_config:
        return dataclasses.replace(values, task=dataclasses.replace(values.task, table=text))
    return {**values, "task": {**values["task"], "table": text}}


def _text(path: Path, encoding: str) -> str:
    """Return a file's text; raise OSError if it is no regular file, which may have no end, or larger than allowed."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is a directory or a device, and no file")
    with open(path, encoding=encoding) as file:
        text = file.read(LARGEST_TEXT + 1)
    if len(text) > LARGEST_TEXT:
        raise OSError(errno.EFBIG, f"it has more than {LARGEST_TEXT:,} characters, which is the most that is read")
    return text
