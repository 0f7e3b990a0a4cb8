"""Which runs can train in one ensemble, and the messages for those that cannot."""

import dataclasses
import re
from typing import Any

import pytest
from support.shared import companions, make_tiny_config

from grokscope.config import OptimizerConfig, RunConfig
from grokscope.errors import GrokscopeError
from grokscope.training.ensemble_settings import require_compatible, shared_settings_digest

UNSUPPORTED = {
    "sgd": {"name": "sgd"},
    "muon": {"name": "muon"},
    "decay_centre": {"decay_centre": "initialization"},
    "gradient_filter": {"gradient_filter": "grokfast_ema"},
    "update_noise": {"update_noise": 1.0},
    "weight_noise": {"weight_noise": 1.0},
    "sam_radius": {"sam_radius": 0.1},
    "residual_dropout": {"residual_dropout": 0.1},
}


def config(**changes: Any) -> RunConfig:
    """Return the tiny config with changes, each applied to the part of the config that has the field."""
    tiny = make_tiny_config()
    parts = {"optimizer": OptimizerConfig(lr=2e-3), "model": tiny.model, "task": tiny.task}
    for part_name, part in parts.items():
        names = {field.name for field in dataclasses.fields(part)} & changes.keys()
        parts[part_name] = dataclasses.replace(part, **{name: changes.pop(name) for name in names})
    return dataclasses.replace(tiny, **parts, **changes)


def test_invalid_config_is_named_with_the_allowed_values():
    with pytest.raises(GrokscopeError, match="batch_size: 'all'; allowed: "):
        require_compatible([config(), config(batch_size="all")])


@pytest.mark.parametrize("setting", UNSUPPORTED)
def test_unsupported_setting_is_named_in_one_sentence(setting: str):
    with pytest.raises(GrokscopeError, match=setting) as raised:
        require_compatible([config(), config(**UNSUPPORTED[setting])])
    assert re.fullmatch(r"An ensemble cannot train with [^\n]+; train these runs one by one\.", str(raised.value))


def test_all_unsupported_settings_are_named_once():
    with pytest.raises(GrokscopeError, match=r"with optimizer\.name 'sgd' \(.*\), residual_dropout; train"):
        require_compatible([config(name="sgd"), config(name="sgd", residual_dropout=0.1)])


@pytest.mark.parametrize(
    "changes",
    [{"p": 5}, {"form": "a ∘ b ="}, {"d_model": 8}, {"warmup_steps": 3}, {"n_steps": 61}, {"batch_size": 8}],
    ids=str,
)
def test_runs_with_different_shared_settings_raise(changes: dict[str, Any]):
    assert shared_settings_digest(config()) != shared_settings_digest(config(**changes))
    message = "may differ only in seeds, learning rate, weight decay and train fraction"
    with pytest.raises(GrokscopeError, match=message):
        require_compatible([config(), config(**changes)])


def test_digest_ignores_what_runs_may_differ_in():
    assert len({shared_settings_digest(companion) for companion in companions(config())}) == 1
    require_compatible(companions(config()))
