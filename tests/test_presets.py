"""Presets, and TOML files that start from them."""

import dataclasses
from pathlib import Path

import pytest

from grokscope import presets
from grokscope.config import RunConfig
from grokscope.errors import GrokscopeError


def test_nanda2023_is_what_the_paper_says():
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


def test_quick_is_addition_mod_59_within_a_short_run():
    config = presets.get("quick")
    assert (config.task.name, config.task.p) == ("addition", 59)
    assert 0.4 <= config.task.train_fraction <= 0.5
    assert (config.optimizer.name, config.optimizer.lr, config.optimizer.weight_decay) == ("adamw", 1e-3, 1.0)


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_is_valid(name: str):
    assert presets.get(name).faults() == []


def test_an_unknown_preset_names_those_there_are_and_the_one_probably_meant():
    with pytest.raises(GrokscopeError, match=r"'nanda2032'.*nanda2023.*quick.*Did you mean 'nanda2023'\?"):
        presets.get("nanda2032")


def test_a_file_starts_from_its_preset(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text('preset = "nanda2023"\nn_steps = 50\n[optimizer]\nbetas = [0.5, 0.75]\n')
    base = presets.get("nanda2023")
    expected = dataclasses.replace(base, n_steps=50, optimizer=dataclasses.replace(base.optimizer, betas=(0.5, 0.75)))
    assert presets.read(path) == expected


def test_a_file_without_preset_starts_from_the_defaults(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text("evaluate_every = 3\n")
    assert presets.read(path) == dataclasses.replace(RunConfig(), evaluate_every=3)


@pytest.mark.parametrize(
    "text",
    [
        b"n_steps = ",
        b"\xff\xfe",
        b"n_steps = 5\nn_steps = 6",
        b"x = " + b"[" * 5000,
        b"n_steps = " + b"9" * 5000,
        b"[optimizer]\nlr = 1" + b"0" * 400,
        b'preset = "quik"',
        b'preset = ["quick"]',
        b"preset = 5",
        b'task = "addition"',
        b"model.n_heads = 3",
    ],
    ids=lambda text: text[:20].decode("latin1"),
)
def test_a_file_that_is_no_config_is_refused_by_name(text: bytes, tmp_path: Path):
    path = tmp_path / "wrong.toml"
    path.write_bytes(text)
    with pytest.raises(GrokscopeError, match=r"wrong\.toml"):
        presets.read(path)


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_what_is_no_file_is_refused_by_name(name: str, tmp_path: Path):
    with pytest.raises(GrokscopeError, match=f"^{tmp_path / name} cannot be read"):
        presets.read(tmp_path / name)
