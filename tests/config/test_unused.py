"""Settings without effect: refused where a user gave them, and never in the config of a saved run."""

from pathlib import Path
from typing import Any

import pytest
from support.configs import FIELDS, construct

from grokscope.config import RunConfig, from_dict, presets, toml
from grokscope.config.unused import changed_settings
from grokscope.errors import GrokscopeError
from grokscope.sweep.plan import read_sweep

ADDITION_MOD_7 = {"task.p": 7, "task.train_fraction": 0.5}
UNUSED: list[tuple[str, dict[str, Any], str]] = [
    ("optimizer.filter_alpha", {"optimizer.filter_alpha": 0.9}, "gradient_filter is none.*'grokfast_ema'"),
    ("optimizer.filter_lambda", {"optimizer.gradient_filter": "orthogonal"}, "gradient_filter is 'orthogonal'"),
    ("optimizer.filter_window", {"optimizer.gradient_filter": "grokfast_ema"}, "allowed: with 'grokfast_ma'"),
    ("optimizer.betas", {"optimizer.name": "sgd"}, "the optimizer is 'sgd'"),
    (
        "optimizer.decay_centre",
        {"optimizer.decay_centre": "initialization", "optimizer.weight_decay": 0.0},
        "weight_decay is 0",
    ),
    ("optimizer.warmup_steps", {"optimizer.warmup_steps": 60, "n_steps": 50}, "allowed: 0 to n_steps = 50"),
    (
        "optimizer.schedule",
        {"optimizer.schedule": "linear 90", "optimizer.warmup_steps": 50, "n_steps": 50},
        "above 50",
    ),
    ("optimizer.muon_momentum", {"optimizer.muon_momentum": 0.9}, "the optimizer is 'adamw'; allowed: with 'muon'"),
    ("stop", {"stop": "test_loss < 1 for 60", "n_steps": 50, "checkpoints": "every 5"}, "durations up to 50"),
    ("init_seed", {"initialization": "0" * 64, "init_seed": 3}, "initial parameters were read from a file"),
    ("task.split", {"task.p": 11, "task.train_set": "f" * 4 + "0" * 28, "task.split": "pairs"}, "names the training"),
    ("batch_share", {"batch_share": 0.5}, "batch_size is none"),
    ("batch_size", {**ADDITION_MOD_7, "batch_size": 25}, "the training set has 24 equations; allowed: up to 24"),
    ("task.group", {"task.group": "S5"}, "the task is 'addition'; allowed: with a task of a group"),
    ("task.p", {"task.name": "composition", "task.p": 12}, "the task is 'composition'; allowed: with a modular"),
    ("task.p", {"task.name": "table", "task.table": "0 1; 1 0"}, "the task is 'table'"),
]
USED: list[tuple[str, dict[str, Any]]] = [
    ("optimizer.filter_alpha", {"optimizer.gradient_filter": "grokfast_ema"}),
    ("optimizer.filter_lambda", {"optimizer.gradient_filter": "grokfast_ma"}),
    ("optimizer.filter_window", {"optimizer.gradient_filter": "grokfast_ma"}),
    ("optimizer.betas", {}),
    ("optimizer.muon_momentum", {"optimizer.name": "muon"}),
    ("optimizer.schedule", {"optimizer.schedule": "constant", "optimizer.warmup_steps": 50, "n_steps": 50}),
    (
        "optimizer.decay_centre",
        {
            "optimizer.decay_centre": "initialization",
            "optimizer.weight_decay": 0.0,
            "optimizer.decay_by_part": "mlp 1",
        },
    ),
    ("optimizer.warmup_steps", {"optimizer.warmup_steps": 50, "n_steps": 50, "checkpoints": "every 5"}),
    ("batch_share", {"batch_size": 16, "batch_share": 0.5}),
    ("batch_size", {**ADDITION_MOD_7, "batch_size": 24}),
    ("batch_size", {**ADDITION_MOD_7, "batch_size": 512, "batch_share": 0.5}),
    ("task.group", {"task.name": "aba"}),
    ("task.p", {}),
]


@pytest.mark.parametrize(("name", "changes", "message"), UNUSED)
def test_given_setting_without_effect_is_one_fault(name: str, changes: dict[str, Any], message: str):
    with pytest.raises(GrokscopeError, match=f"^One setting cannot be used: {name}: .* has no effect.*{message}"):
        construct(changes).validate({name})


@pytest.mark.parametrize(("name", "changes"), USED)
def test_given_setting_with_effect_is_valid(name: str, changes: dict[str, Any]):
    assert construct(changes).faults({name}) == []


def test_settings_that_were_not_given_may_have_no_effect():
    """The config of a saved run contains all settings, so it must open whatever the others are."""
    for _, changes, _ in UNUSED:
        config = construct({**changes, "task.p": changes.get("task.p", 113) if "task.name" not in changes else 113})
        assert from_dict(config.to_dict()) == config


@pytest.mark.parametrize("name", presets.names())
def test_presets_change_no_setting_without_effect(name: str):
    config = presets.get(name)
    assert config.faults(changed_settings(config)) == []


def test_changed_settings_are_those_off_their_defaults():
    assert changed_settings(RunConfig()) == set()
    assert changed_settings(construct({"task.p": 7, "batch_size": 5})) == {"task.p", "batch_size"}
    assert changed_settings(construct({name: value for name, (_, _, value) in FIELDS.items()})) == set(FIELDS)


def test_file_is_refused_for_a_change_without_effect(tmp_path: Path, toml: Any):
    path = tmp_path / "run.toml"
    path.write_text(toml(RunConfig().to_dict()), encoding="utf-8")
    assert _read(path) == RunConfig(), "a file may list every setting"
    path.write_text("[optimizer]\nfilter_alpha = 0.5\n", encoding="utf-8")
    with pytest.raises(GrokscopeError, match=r"run\.toml: One setting .*optimizer\.filter_alpha: 0\.5 has no effect"):
        _read(path)
    path.write_text('preset = "power2022"\nbatch_size = "none"\n', encoding="utf-8")
    assert _read(path).batch_share == 0.5, "the preset gave batch_share, not the file"


def test_sweep_is_refused_if_no_cell_uses_a_setting(tmp_path: Path):
    path = tmp_path / "sweep.toml"
    filters = '\n[sweep.grid]\noptimizer.gradient_filter = ["none", {}]\n'
    path.write_text("[optimizer]\nfilter_alpha = 0.5" + filters.format('"grokfast_ema"'), encoding="utf-8")
    assert len(read_sweep(path).cells) == 2
    path.write_text("[optimizer]\nfilter_alpha = 0.5" + filters.format('"grokfast_ma"'), encoding="utf-8")
    with pytest.raises(GrokscopeError, match=r"One fault .*\n  optimizer\.filter_alpha: 0\.5 has no effect"):
        read_sweep(path)


def _read(path: Path) -> RunConfig:
    return toml.read(path)
