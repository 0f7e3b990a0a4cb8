"""Configs: what may be in one, and that everything wrong with one is said at once."""

import dataclasses
import hashlib
import json
import math
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
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
from grokscope.config.run_config import is_prime
from grokscope.errors import GrokscopeError

# What else another good value needs.
NEEDS: dict[str, dict[str, Any]] = {
    "task.table": {"task.name": "table", "task.train_fraction": 0.4},
    "optimizer.momentum": {"optimizer.name": "sgd"},
}

# What came after the first runs, which lie on disks without it.
ADDED = [
    *("task.group", "task.table", "task.outliers", "task.random_labels", "model.positions", "model.init"),
    *("optimizer.decay_centre", "optimizer.momentum", "optimizer.gradient_filter", "optimizer.filter_alpha"),
    *("optimizer.filter_lambda", "optimizer.filter_window", "optimizer.update_noise", "optimizer.weight_noise"),
    *("optimizer.sam_radius", "batch_share", "loss", "residual_dropout", "matrix_products"),
]

ODD = {
    "none": None,
    "a text": "x",
    "no text": "",
    "bytes": b"x",
    "true": True,
    "a fraction": 0.5,
    "below zero": -1,
    "not a number": math.nan,
    "infinity": math.inf,
    "beyond every float": 10**400,
    "a list": [],
    "a table": {"x": 1},
    "a set": {1},
    "complex": 1j,
    "an object": object(),
    "a type": int,
    "an array": np.arange(3.0),
    "a NumPy integer": np.int64(3),
}


def names(config_type: type = RunConfig, prefix: str = "") -> list[str]:
    """Return every field's name with the names of the tables it lies in."""
    found = []
    for item in dataclasses.fields(config_type):
        part = item.default_factory
        deeper = isinstance(part, type)
        found += names(part, f"{prefix}{item.name}.") if deeper else [prefix + item.name]
    return found


def faults_in(message: str) -> list[str]:
    """Return the faults of a message that names several, one a line."""
    heading, *lines = message.splitlines()
    assert heading.endswith(f"{len(lines)} settings cannot be used:"), message
    return [line.strip() for line in lines]


def test_the_table_above_has_every_field():
    assert list(FIELDS) == names()


def test_every_wrong_field_and_every_unknown_one_is_named_in_one_error_with_what_is_allowed(
    tmp_path: Path, toml: Any
):
    wrong = {name: value for name, (value, _, _) in FIELDS.items()}
    unknown = {f"{table}setting{i}": i for table in ("", "task.", "model.", "optimizer.") for i in range(9)}
    with pytest.raises(GrokscopeError) as from_python:
        from_dict(nested({**wrong, **unknown}))
    found = faults_in(str(from_python.value))
    assert len(found) == len(FIELDS) + len(unknown) >= 60
    for name, (_, allowed, _) in FIELDS.items():
        (fault,) = [line for line in found if line.startswith(f"{name}:")]
        assert allowed in fault and "allowed" in fault
    for name in unknown:
        assert any(f"{name!r}" in line and "allowed" in line for line in found)

    path = tmp_path / "wrong.toml"
    path.write_text(toml(nested({**wrong, **unknown})), encoding="utf-8")
    with pytest.raises(GrokscopeError) as from_toml:
        config_toml.read(path)
    assert str(from_toml.value).startswith(f"{path}: ")
    assert sorted(faults_in(str(from_toml.value))) == sorted(found)

    with pytest.raises(GrokscopeError) as constructed:
        construct({**wrong, "optimizer.betas": (0.9, 1.0)}).validate()
    assert set(faults_in(str(constructed.value))) < set(found)


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_construction_and_faults_never_raise_whatever_a_field_holds(odd: Any):
    escaped = {}
    for name in [*FIELDS, "task", "model", "optimizer"]:
        try:
            found = construct({name: odd}).faults()
            assert all(isinstance(fault, str) for fault in found)
        except Exception as error:
            escaped[name] = repr(error)
    assert not escaped


@pytest.mark.parametrize("name", ["task", "model", "optimizer"])
def test_a_table_that_is_none_is_one_fault(name: str):
    for call in (lambda: from_dict({name: 3}), lambda: construct({name: 3}).validate()):
        with pytest.raises(GrokscopeError, match=f"^One setting cannot be used: {name}: 3 is no "):
            call()


def test_an_unknown_setting_suggests_the_right_one():
    with pytest.raises(GrokscopeError, match=r"'model\.n_head'.*Did you mean 'model\.n_heads'\?"):
        from_dict({"model": {"n_head": 4}})


@pytest.mark.parametrize(
    ("changes", "said"),
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
def test_settings_that_contradict_each_other_are_one_fault(changes: dict[str, Any], said: str):
    (fault,) = construct(changes).faults()
    assert re.search(said, fault), fault


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
def test_settings_just_this_side_of_a_contradiction_are_allowed(changes: dict[str, Any]):
    assert construct(changes).faults() == []


def test_a_field_that_is_wrong_hides_only_the_contradictions_that_need_it():
    found = construct({"model.n_heads": 0, "n_steps": -1, "checkpoints": "window 9 3 1"}).faults()
    assert [fault.split(":")[0] for fault in found] == ["model.n_heads", "n_steps", "checkpoints"]
    found = construct({"optimizer.name": "adamm", "optimizer.decay_centre": "initialization", "task.p": 4}).faults()
    assert [fault.split(":")[0] for fault in found] == ["task.p", "optimizer.name"]
    found = construct({"task.name": "tabel", "task.table": "x", "optimizer.name": "adam"}).faults()
    assert [fault.split(":")[0] for fault in found] == ["task.name", "optimizer.weight_decay"]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"optimizer.momentum": 1.0, "optimizer.name": "adam"}, ["momentum", "weight_decay"]),
        ({"optimizer.decay_centre": "mean", "optimizer.name": "adam"}, ["decay_centre", "weight_decay"]),
        (
            {"optimizer.weight_decay": -1, "optimizer.name": "sgd", "optimizer.decay_centre": "initialization"},
            ["weight_decay", "decay_centre"],
        ),
    ],
)
def test_a_wrong_setting_of_the_optimizer_hides_no_contradiction_of_two_others(
    wrong: dict[str, Any], named: list[str]
):
    assert [fault.split(":")[0] for fault in construct(wrong).faults()] == [f"optimizer.{name}" for name in named]


def test_every_contradiction_is_named_at_once():
    wrong = {"optimizer.name": "adam", "optimizer.decay_centre": "initialization", "optimizer.momentum": 0.5}
    found = construct({**wrong, "task.table": "0 1; 1 0", "model.n_heads": 3}).faults()
    optimizer = {f"optimizer.{name}" for name in ("weight_decay", "decay_centre", "momentum")}
    assert len(found) == 5
    assert {fault.split(":")[0] for fault in found} == {"model.n_heads", "task.table"} | optimizer


@pytest.mark.parametrize("name", ["table", "addition", "tabel"])
def test_a_table_that_is_no_text_is_one_fault_whatever_the_task(name: str):
    for odd in (3, None, ["0 1", "1 0"], np.zeros((2, 2))):
        found = construct({"task.name": name, "task.table": odd}).faults()
        (fault,) = [one for one in found if one.startswith("task.table: ")]
        assert "allowed: rows of numbers" in fault


@pytest.mark.parametrize("group", ["S5", "A6", "D1001", "C2", "C3xC5"])
def test_a_group_s_name_is_allowed_whatever_the_task(group: str):
    for name in ("addition", "composition"):
        assert construct({"task.group": group, "task.name": name}).faults() == []
    for wrong in (f"{group}x", group.lower(), f" {group}"):
        (fault,) = construct({"task.group": wrong}).faults()
        assert fault.startswith(f"task.group: {wrong!r}; allowed: ")


@pytest.mark.parametrize(("checkpoints", "n_steps"), [("every 1", 10**9), ("log 999999999999999", 1000)])
def test_a_schedule_of_astronomical_length_is_judged_without_building_it(checkpoints: str, n_steps: int):
    program = (
        "from grokscope.config import RunConfig\n"
        f"print(RunConfig(checkpoints={checkpoints!r}, n_steps={n_steps}, max_checkpoints=100).faults())"
    )
    limit = 2 * 2**30
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert done.returncode == 0, done.stderr
    assert "up to max_checkpoints = 100" in done.stdout


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_survives_json_and_counts_in_the_digest_except_the_length(name: str):
    needed = NEEDS.get(name, {})
    base, other = construct(needed), from_dict(nested({**needed, name: FIELDS[name][2]}))
    assert other != base
    assert from_dict(json.loads(json.dumps(other.to_dict()))) == other
    assert (other.digest == base.digest) == (name == "n_steps")


def test_no_two_settings_have_one_digest():
    changed = [construct({**NEEDS.get(name, {}), name: other}) for name, (_, _, other) in FIELDS.items()]
    digests = {RunConfig().digest} | {config.digest for config in changed}
    # n_steps alone leaves it what it was.
    assert len(digests) == len(FIELDS)


def test_the_digest_of_a_first_run_is_the_one_it_was_written_with():
    """Computed by the version before any setting was added: runs that hold these digests lie on disks."""
    assert RunConfig().digest == "1d6a5dbb098e5f908e2bb94382bf76fdf795bd9ecefc0a58d710d209b563f3ee"
    assert presets.get("quick").digest == "2d134ad67879fa0086b62aea80a693b8b03f0bcb1cba73323f96668bea341692"
    assert presets.get("nanda2023").digest == "70cc7b4b53c0d833d7348d60694876d5ebe9757bad0bb33dec39d759c1253b10"
    changes = {"task.name": "division", "task.p": 97, "task.train_fraction": 0.5, "task.form": "a ∘ b ="}
    changes |= {"model.n_layers": 2, "model.normalization_type": "LN", "model.biases": "all", "optimizer.lr": 0.003}
    changes |= {"optimizer.betas": (0.5, 0.75), "batch_size": 64, "loss_dtype": "float32", "split_seed": 3}
    for length in (5, 77):
        config = construct({**changes, "n_steps": length})
        assert config.digest == "e7c4fa7251a149a6f045c8c3788bf76fcae02b8c1f0d6ae087dde3aa38aa563e"


def test_the_digest_is_that_of_the_first_settings_and_of_the_added_ones_that_are_used():
    values = construct({"task.p": 7, "task.outliers": 3, "optimizer.lr": 1, "optimizer.betas": (0, 0.5)}).to_dict()
    assert values["optimizer"]["lr"] == 1.0 and values["task"]["outliers"] == 3
    first: dict[str, Any] = {name: value for name, value in values.items() if not isinstance(value, dict)}
    for name in (*ADDED, "n_steps"):
        *table, key = name.split(".")
        if not table:
            del first[key]
    for table in ("task", "model", "optimizer"):
        added = {name.removeprefix(f"{table}.") for name in ADDED} - {"outliers"}
        first[table] = {name: value for name, value in values[table].items() if name not in added}
    expected = hashlib.sha256(json.dumps(first, sort_keys=True).encode()).hexdigest()
    assert from_dict(values).digest == expected
    assert "group" not in first["task"] and "loss" not in first and "loss_dtype" in first


def test_a_setting_that_a_later_version_adds_leaves_old_runs_what_they_were(monkeypatch: pytest.MonkeyPatch):
    @dataclasses.dataclass(frozen=True)
    class LaterTask(TaskConfig):
        flavour: str = validation.choice("plain", "plain", "sour")

    @dataclasses.dataclass(frozen=True)
    class Later(RunConfig):
        task: TaskConfig = dataclasses.field(default_factory=LaterTask)
        patience: int = validation.integer(5, 0)

    old, old_default = construct({"task.p": 7, "optimizer.lr": 0.5}), RunConfig()
    before = old.digest, old_default.digest
    monkeypatch.setattr(run_config, "RunConfig", Later)
    same = Later(task=LaterTask(p=7), optimizer=OptimizerConfig(lr=0.5)), Later()
    assert not {one.digest for one in same} & set(before), "the control: what is not said to be added counts"
    monkeypatch.setattr(run_config, "ADDED", (*run_config.ADDED, "task.flavour", "patience"))
    assert tuple(one.digest for one in same) == before
    used = {Later(patience=6).digest, Later(task=LaterTask(flavour="sour")).digest}
    assert len(used) == 2 and not used & set(before)


def test_every_setting_that_the_first_runs_lacked_is_said_to_be_added():
    assert list(run_config.ADDED) == ADDED
    assert set(ADDED) < set(names()) and len(names()) - len(ADDED) == 27


def test_a_whole_number_and_its_float_are_the_same_setting():
    whole = construct({"optimizer.lr": 1, "optimizer.betas": [0, 0.5]}).validate()
    fraction = construct({"optimizer.lr": 1.0, "optimizer.betas": (0.0, 0.5)}).validate()
    assert whole.digest == fraction.digest


def test_the_text_none_means_none_where_none_is_allowed():
    base = construct({"batch_size": 5, "model.normalization_type": "LN"})
    changed = from_dict({"batch_size": "none", "model": {"normalization_type": "none", "biases": "none"}}, base)
    assert changed.batch_size is None and changed.model.normalization_type is None
    assert changed.model.biases == "none"
    filtered = construct({"optimizer.gradient_filter": "orthogonal"})
    assert from_dict({"optimizer": {"gradient_filter": "none"}}, filtered) == RunConfig()
    for name in ("checkpoints", "device", "task.name", "task.group", "optimizer.decay_centre"):
        with pytest.raises(GrokscopeError, match=f"{name}: .*'none'"):
            from_dict(nested({name: "none"}))


def test_values_change_only_what_they_name_in_the_base():
    base = construct({"model.d_mlp": 99, "n_steps": 7})
    assert from_dict({"model": {"n_layers": 3}}, base) == construct(
        {"model.d_mlp": 99, "n_steps": 7, "model.n_layers": 3}
    )


def test_primes_agree_with_a_sieve():
    sieve = np.ones(2100, bool)
    sieve[:2] = False
    for n in range(2, 46):
        sieve[2 * n :: n] = False
    assert [n for n in range(-3, 2100) if is_prime(n)] == np.flatnonzero(sieve).tolist()
