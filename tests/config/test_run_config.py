"""RunConfigs: allowed values, one error for all faults, and digests that stay constant between versions."""

import dataclasses
import hashlib
import json
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.configs import FIELDS, construct, nested

from grokscope.config import (
    OptimizerConfig,
    RunConfig,
    TaskConfig,
    from_dict,
    presets,
    run_config,
    validation,
)
from grokscope.config import toml as config_toml
from grokscope.errors import GrokscopeError

# The settings that the valid value of a field in FIELDS needs.
NEEDS: dict[str, dict[str, Any]] = {
    "task.table": {"task.name": "table", "task.train_fraction": 0.4},
    "task.train_set": {"task.p": 11},
    "optimizer.momentum": {"optimizer.name": "sgd"},
    "task.fresh": {"batch_size": 16},
}

# The settings that the first saved runs lack.
ADDED = [
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
]


def names(config_type: type = RunConfig, prefix: str = "") -> list[str]:
    """Return the dotted name of every setting."""
    dotted = []
    for item in dataclasses.fields(config_type):
        part = item.default_factory
        dotted += names(part, f"{prefix}{item.name}.") if isinstance(part, type) else [prefix + item.name]
    return dotted


def faults_in(message: str) -> list[str]:
    """Return the faults in a message with several, one per line."""
    heading, *lines = message.splitlines()
    assert heading.endswith(f"{len(lines)} settings cannot be used:"), message
    return [line.strip() for line in lines]


def invalid_settings(changes: dict[str, Any]) -> list[str]:
    """Return the setting that each fault names."""
    return [fault.split(":")[0] for fault in construct(changes).faults()]


def test_fields_under_test_are_all_fields():
    assert list(FIELDS) == names()


def test_one_error_names_every_invalid_and_unknown_setting(tmp_path: Path, toml: Any):
    wrong = {name: value for name, (value, _, _) in FIELDS.items()}
    unknown = {f"{table}setting{i}": i for table in ("", "task.", "model.", "optimizer.") for i in range(9)}
    with pytest.raises(GrokscopeError) as from_python:
        from_dict(nested({**wrong, **unknown}))
    faults = faults_in(str(from_python.value))
    assert len(faults) == len(FIELDS) + len(unknown) >= 60
    for name, (_, allowed, _) in FIELDS.items():
        (fault,) = [line for line in faults if line.startswith(f"{name}:")]
        assert allowed in fault and "allowed" in fault
    for name in unknown:
        assert any(f"{name!r}" in line and "allowed" in line for line in faults)

    path = tmp_path / "wrong.toml"
    path.write_text(toml(nested({**wrong, **unknown})), encoding="utf-8")
    with pytest.raises(GrokscopeError) as from_toml:
        config_toml.read(path)
    assert str(from_toml.value).startswith(f"{path}: ")
    assert sorted(faults_in(str(from_toml.value))) == sorted(faults)

    with pytest.raises(GrokscopeError) as constructed:
        construct({**wrong, "optimizer.betas": (0.9, 1.0)}).validate()
    assert set(faults_in(str(constructed.value))) < set(faults)


@pytest.mark.parametrize("name", ["task", "model", "optimizer"])
def test_number_in_place_of_a_table_is_one_fault(name: str):
    for call in (lambda: from_dict({name: 3}), lambda: construct({name: 3}).validate()):
        with pytest.raises(GrokscopeError, match=f"^One setting cannot be used: {name}: 3 is not a "):
            call()


def test_unknown_setting_suggests_the_closest():
    with pytest.raises(GrokscopeError, match=r"'model\.n_head'.*Did you mean 'model\.n_heads'\?$"):
        from_dict({"model": {"n_head": 4}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.d_model": 128, "model.n_heads": 3}, r"^model\.n_heads: 3 does not divide.* 1, 2, 4, 8, 16, 32, 64$"),
        ({"checkpoints": "window 10 200 5", "n_steps": 100}, r"^checkpoints: 'window 10 200 5'.* 100$"),
        ({"checkpoints": "every 1", "n_steps": 100, "max_checkpoints": 100}, r"^checkpoints: .*101 .*up to .*100$"),
        ({"optimizer.name": "adam"}, r"^optimizer\.weight_decay: 1\.0 with 'adam', .*allowed: 0, or 'adamw'$"),
        (
            {"optimizer.name": "sgd", "optimizer.decay_centre": "initialization"},
            r"^optimizer\.decay_centre: 'initialization' with 'sgd'; allowed: with 'adamw' only$",
        ),
        (
            {"optimizer.name": "adam", "optimizer.weight_decay": 0, "optimizer.decay_centre": "initialization"},
            r"^optimizer\.decay_centre: 'initialization' with 'adam'; allowed",
        ),
        (
            {"optimizer.momentum": 0.9},
            r"^optimizer\.momentum: 0\.9 with 'adamw', which has betas; allowed: 0, or 'sgd'$",
        ),
        (
            {"optimizer.name": "adam", "optimizer.weight_decay": 0, "optimizer.momentum": 0.5},
            r"^optimizer\.momentum: 0\.5 with 'adam', which",
        ),
        ({"task.table": "0 1; 1 0"}, r"^task\.table: .*'addition'; allowed: with the task 'table' only$"),
        ({"task.table": "x", "task.name": "aba"}, r"^task\.table: .*'aba'; allowed: with the task 'table' only$"),
        ({"task.name": "table"}, r"^task\.table: 0 rows; allowed: rows of numbers.*'\.' for no equation$"),
        ({"task.name": "table", "task.table": "0 1; 1 7"}, r"^task\.table: row 1 has '7'; allowed: 0 to 1, or '\.'$"),
        ({"task.name": "table", "task.table": "@rows.txt"}, r"^task\.table: 1 rows; allowed: rows of numbers"),
    ],
)
def test_contradictory_settings_are_one_fault(changes: dict[str, Any], message: str):
    (fault,) = construct(changes).faults()
    assert re.search(message, fault), fault


@pytest.mark.parametrize(
    "changes",
    [
        {"model.d_model": 128, "model.n_heads": 64},
        {"checkpoints": "window 10 100 5", "n_steps": 100},
        {"checkpoints": "every 1", "n_steps": 99, "max_checkpoints": 100},
        {"checkpoints": "every 1 + log 50 + window 0 99 1", "n_steps": 99, "max_checkpoints": 100},
        {"optimizer.name": "adam", "optimizer.weight_decay": 0.0},
        {"optimizer.name": "adam", "optimizer.weight_decay": 0, "optimizer.decay_centre": "zero"},
        {"optimizer.name": "sgd", "optimizer.weight_decay": 1.0, "optimizer.momentum": 0.9},
        {"optimizer.name": "adamw", "optimizer.weight_decay": 0.0, "optimizer.decay_centre": "initialization"},
        {"task.name": "table", "task.table": "0 1\n1 .", "task.train_fraction": 0.34},
        {"task.name": "composition", "task.table": ""},
        {"batch_share": 1, "residual_dropout": 0, "optimizer.sam_radius": 1000, "optimizer.filter_window": 1},
    ],
)
def test_settings_close_to_a_contradiction_are_allowed(changes: dict[str, Any]):
    assert construct(changes).faults() == []


def test_invalid_setting_hides_only_its_own_contradictions():
    wrong: dict[str, Any] = {"model.n_heads": 0, "n_steps": -1, "checkpoints": "window 9 3 1"}
    assert invalid_settings(wrong) == ["model.n_heads", "n_steps", "checkpoints"]
    wrong = {"optimizer.name": "adamm", "optimizer.decay_centre": "initialization", "task.p": 1}
    assert invalid_settings(wrong) == ["task.p", "optimizer.name"]
    wrong = {"task.name": "tabel", "task.table": "x", "optimizer.name": "adam"}
    assert invalid_settings(wrong) == ["task.name", "optimizer.weight_decay"]


def test_all_contradictions_are_reported_together():
    wrong = {"optimizer.name": "adam", "optimizer.decay_centre": "initialization", "optimizer.momentum": 0.5}
    settings = invalid_settings({**wrong, "task.table": "0 1; 1 0", "model.n_heads": 3})
    optimizer = {f"optimizer.{name}" for name in ("weight_decay", "decay_centre", "momentum")}
    assert len(settings) == 5
    assert set(settings) == {"model.n_heads", "task.table"} | optimizer


@pytest.mark.parametrize(("checkpoints", "n_steps"), [("every 1", 10**9), ("log 999999999999999", 1000)])
def test_huge_schedule_is_checked_without_building_it(checkpoints: str, n_steps: int):
    program = (
        "from grokscope.config import RunConfig\n"
        f"print(RunConfig(checkpoints={checkpoints!r}, n_steps={n_steps}, max_checkpoints=100).faults())"
    )
    limit = 2 * 2**30
    process = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert process.returncode == 0, process.stderr
    assert "up to max_checkpoints = 100" in process.stdout


@pytest.mark.parametrize("name", FIELDS)
def test_setting_survives_json_and_counts_in_digest(name: str):
    """The number of steps is the only setting that does not count."""
    needed = NEEDS.get(name, {})
    base, changed = construct(needed), from_dict(nested({**needed, name: FIELDS[name][2]}))
    assert changed != base
    assert from_dict(json.loads(json.dumps(changed.to_dict()))) == changed
    assert (changed.digest == base.digest) == (name == "n_steps")


def test_settings_have_distinct_digests():
    changed = [construct({**NEEDS.get(name, {}), name: value}) for name, (_, _, value) in FIELDS.items()]
    digests = {RunConfig().digest} | {config.digest for config in changed}
    # n_steps does not count, so its config shares the digest of the default.
    assert len(digests) == len(FIELDS)


def test_digests_of_first_runs_never_change():
    """The version without any added setting computed these digests. Saved runs contain them."""
    assert RunConfig().digest == "1d6a5dbb098e5f908e2bb94382bf76fdf795bd9ecefc0a58d710d209b563f3ee"
    assert presets.get("quick").digest == "2d134ad67879fa0086b62aea80a693b8b03f0bcb1cba73323f96668bea341692"
    assert presets.get("nanda2023").digest == "70cc7b4b53c0d833d7348d60694876d5ebe9757bad0bb33dec39d759c1253b10"
    changes = {"task.name": "division", "task.p": 97, "task.train_fraction": 0.5, "task.form": "a ∘ b ="}
    changes |= {"model.n_layers": 2, "model.normalization_type": "LN", "model.biases": "all", "optimizer.lr": 0.003}
    changes |= {"optimizer.betas": (0.5, 0.75), "batch_size": 64, "loss_dtype": "float32", "split_seed": 3}
    for length in (5, 77):
        config = construct({**changes, "n_steps": length})
        assert config.digest == "e7c4fa7251a149a6f045c8c3788bf76fcae02b8c1f0d6ae087dde3aa38aa563e"


def test_digest_covers_first_settings_and_changed_later_ones():
    values = construct({"task.p": 7, "task.outliers": 3, "optimizer.lr": 1, "optimizer.betas": (0, 0.5)}).to_dict()
    assert values["optimizer"]["lr"] == 1.0 and values["task"]["outliers"] == 3
    first: dict[str, Any] = {name: value for name, value in values.items() if not isinstance(value, dict)}
    for name in (*ADDED, "n_steps"):
        *table, key = name.split(".")
        if not table:
            del first[key]
    for table in ("task", "model", "optimizer"):
        # A table of added settings is added as a whole.
        added = {name.removeprefix(f"{table}.").partition(".")[0] for name in ADDED} - {"outliers"}
        first[table] = {name: value for name, value in values[table].items() if name not in added}
    expected = hashlib.sha256(json.dumps(first, sort_keys=True).encode()).hexdigest()
    assert from_dict(values).digest == expected
    assert "group" not in first["task"] and "loss" not in first and "loss_dtype" in first


def test_setting_of_a_later_version_keeps_old_digests(monkeypatch: pytest.MonkeyPatch):
    @dataclasses.dataclass(frozen=True)
    class LaterTask(TaskConfig):
        flavour: str = validation.choice("plain", "plain", "sour")

    @dataclasses.dataclass(frozen=True)
    class Later(RunConfig):
        task: TaskConfig = dataclasses.field(default_factory=LaterTask)
        patience: int = validation.integer(5, 0)

    digests = construct({"task.p": 7, "optimizer.lr": 0.5}).digest, RunConfig().digest
    monkeypatch.setattr(run_config, "RunConfig", Later)
    configs = Later(task=LaterTask(p=7), optimizer=OptimizerConfig(lr=0.5)), Later()
    assert not {config.digest for config in configs} & set(digests), "control: an unlisted setting must count"
    monkeypatch.setattr(run_config, "ADDED_SETTINGS", (*run_config.ADDED_SETTINGS, "task.flavour", "patience"))
    assert tuple(config.digest for config in configs) == digests
    changed = {Later(patience=6).digest, Later(task=LaterTask(flavour="sour")).digest}
    assert len(changed) == 2 and not changed & set(digests)


def test_added_settings_are_those_the_first_runs_lack():
    assert list(run_config.ADDED_SETTINGS) == ADDED
    assert set(ADDED) < set(names()) and len(names()) - len(ADDED) == 27


def test_whole_number_and_its_float_have_one_digest():
    whole = construct({"optimizer.lr": 1, "optimizer.betas": [0, 0.5]}).validate()
    fraction = construct({"optimizer.lr": 1.0, "optimizer.betas": (0.0, 0.5)}).validate()
    assert whole.digest == fraction.digest
