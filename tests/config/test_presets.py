"""Presets against the papers that they reproduce, and against each other."""

import dataclasses
import itertools
import math
from typing import Any

import pytest

from grokscope.config import RunConfig, presets
from grokscope.errors import GrokscopeError
from grokscope.training.loop import Setup

VARIANTS = [f"power2022-{name}" for name in ("full-batch", "minibatch", "update-noise", "weight-noise", "dropout")]
VARIANTS += [f"power2022-{name}" for name in ("decay", "decay-to-init", "lr-3e-4", "lr-3e-3")]


def settings(config: RunConfig) -> dict[str, Any]:
    """Return the plain value of every setting by its dotted name."""
    values: dict[str, Any] = {}
    for name, value in config.to_dict().items():
        if isinstance(value, dict):
            values |= {f"{name}.{key}": leaf for key, leaf in value.items()}
        else:
            values[name] = value
    return values


def changed_settings(name: str, base: str) -> dict[str, Any]:
    """Return the settings of a preset that differ from those of `base`, with the preset's values."""
    base_settings = settings(presets.get(base))
    return {key: value for key, value in settings(presets.get(name)).items() if value != base_settings[key]}


def test_nanda2023_has_the_settings_of_the_paper():
    config = presets.get("nanda2023")
    assert (config.task.name, config.task.p, config.task.train_fraction) == ("addition", 113, 0.3)
    assert config.task.form == "a b ="
    model, optimizer = config.model, config.optimizer
    assert (model.n_layers, model.d_model, model.n_heads, model.d_mlp) == (1, 128, 4, 512)
    assert (model.act_fn, model.normalization_type, model.biases, model.init_scale) == ("relu", None, "mlp", 1.0)
    assert (optimizer.name, optimizer.lr, optimizer.weight_decay) == ("adamw", 1e-3, 1.0)
    assert (optimizer.betas, optimizer.warmup_steps) == ((0.9, 0.98), 10)
    assert (config.n_steps, config.batch_size, config.loss_dtype) == (40_000, None, "float64")
    assert "every 100" in config.checkpoints


def test_quick_is_addition_mod_59():
    config = presets.get("quick")
    assert (config.task.name, config.task.p) == ("addition", 59)
    assert 0.4 <= config.task.train_fraction <= 0.5
    assert (config.optimizer.name, config.optimizer.lr, config.optimizer.weight_decay) == ("adamw", 1e-3, 1.0)


def test_power2022_has_the_settings_of_the_paper():
    """See Power et al. 2022, appendix A.1.2: AdamW, batches of 512 or half the training set, whichever is smaller."""
    config = presets.get("power2022")
    assert (config.task.name, config.task.p, config.task.form) == ("division", 97, "a ∘ b =")
    model, optimizer = config.model, config.optimizer
    assert (model.n_layers, model.d_model, model.n_heads, model.d_mlp) == (2, 128, 4, 512)
    assert (model.normalization_type, model.biases, model.init) == ("LN", "none", "torch")
    assert model.positions == "sinusoidal"
    assert (optimizer.name, optimizer.lr, optimizer.weight_decay) == ("adamw", 1e-3, 1.0)
    assert (optimizer.betas, optimizer.warmup_steps, optimizer.decay_centre) == ((0.9, 0.98), 10, "zero")
    assert (config.n_steps, config.batch_size, config.batch_share) == (100_000, 512, 0.5)
    assert (config.residual_dropout, config.loss, config.task.outliers) == (0.0, "softmax", 0)


@pytest.mark.parametrize("name", ["power2022", *VARIANTS])
def test_power2022_trains_394496_non_embedding_parameters(name: str):
    model = Setup(presets.get(name)).model
    embeddings = {"embed.W_E", "pos_embed.W_pos", "unembed.W_U"}
    assert embeddings <= set(model.shapes) and "pos_embed.W_pos" not in model.trained
    n_trained = sum(math.prod(model.shapes[parameter]) for parameter in model.trained if parameter not in embeddings)
    attention = 4 * 128 * 128  # Queries, keys, values and output, without biases.
    mlp = 2 * 128 * 512
    layer_norm = 2 * 128
    expected = 2 * (attention + mlp + 2 * layer_norm) + layer_norm
    assert n_trained == expected == 394_496
    assert 3.9e5 <= n_trained <= 4.0e5


def test_nine_variants_of_figure_2_are_distinct():
    assert [name for name in presets.PRESETS if name.startswith("power2022-")] == VARIANTS
    assert len({presets.get(name).digest for name in presets.names()}) == len(presets.names()) == 13
    for first, second in itertools.combinations(VARIANTS, 2):
        assert changed_settings(first, second), f"{first} equals {second}"
    for name in VARIANTS:
        config = presets.get(name)
        assert (config.task.name, config.task.group, config.task.form) == ("composition", "S5", "a ∘ b =")
        assert (config.n_steps, config.optimizer.betas, config.optimizer.warmup_steps) == (100_000, (0.9, 0.98), 10)
        assert config.model == presets.get("power2022").model


@pytest.mark.parametrize(
    ("name", "base", "changes"),
    [
        (
            "power2022-minibatch",
            "power2022",
            {
                "task.name": "composition",
                "task.p": 113,
                "optimizer.name": "adam",
                "optimizer.weight_decay": 0.0,
            },
        ),
        ("power2022-full-batch", "power2022-minibatch", {"batch_size": None, "batch_share": 1.0}),
        ("power2022-update-noise", "power2022-full-batch", {"optimizer.update_noise": 1.0}),
        ("power2022-weight-noise", "power2022-minibatch", {"optimizer.weight_noise": 0.01}),
        ("power2022-dropout", "power2022-minibatch", {"residual_dropout": 0.1}),
        ("power2022-decay", "power2022-minibatch", {"optimizer.name": "adamw", "optimizer.weight_decay": 1.0}),
        ("power2022-decay-to-init", "power2022-decay", {"optimizer.decay_centre": "initialization"}),
        ("power2022-lr-3e-4", "power2022-minibatch", {"optimizer.lr": 3e-4}),
        ("power2022-lr-3e-3", "power2022-minibatch", {"optimizer.lr": 3e-3}),
    ],
)
def test_variant_changes_only_the_settings_in_its_name(name: str, base: str, changes: dict[str, Any]):
    assert changed_settings(name, base) == changes


@pytest.mark.parametrize(
    ("name", "fraction", "n_train", "n_batch"),
    [
        ("power2022", 0.5, 4656, 512),
        ("power2022-minibatch", 0.5, 7200, 512),
        ("power2022-full-batch", 0.5, 7200, 7200),
        ("power2022-update-noise", 0.5, 7200, 7200),
        # Half of 720 is 360, half of 1,008 is 504, and half of 1,065 rounds up to 533, above the limit of 512.
        ("power2022-minibatch", 0.05, 720, 360),
        ("power2022-decay", 0.07, 1008, 504),
        ("power2022-decay", 0.074, 1065, 512),
        ("power2022-full-batch", 0.05, 720, 720),
    ],
)
def test_batch_size_follows_power2022(name: str, fraction: float, n_train: int, n_batch: int):
    config = presets.get(name)
    config = dataclasses.replace(config, task=dataclasses.replace(config.task, train_fraction=fraction))
    setup = Setup(config)
    inputs, labels = setup.batch(0)
    assert len(setup.dataset.split.train) == n_train and len(inputs) == len(labels) == n_batch


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_is_valid_and_trainable(name: str):
    config = presets.get(name)
    assert config.faults() == []
    setup = Setup(config)
    share = len(setup.dataset.split.train) / len(setup.dataset.inputs)
    assert abs(share - config.task.train_fraction) < 1e-3
    state = setup.learner.initial_state()
    assert state.step == 0 and set(setup.model.trained) <= set(state.parameters)
    assert all(state.parameters[parameter].requires_grad for parameter in setup.model.trained)


def test_unknown_preset_lists_presets_and_suggests_the_closest():
    with pytest.raises(GrokscopeError, match=r"'nanda2032'.*nanda2023.*quick.*Did you mean 'nanda2023'\?"):
        presets.get("nanda2032")
