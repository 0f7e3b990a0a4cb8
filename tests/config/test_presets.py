"""Presets, and TOML files that start from them."""

import dataclasses
import itertools
import math
import os
from pathlib import Path
from typing import Any

import pytest

from grokscope.config import RunConfig, TaskConfig, presets, toml
from grokscope.errors import GrokscopeError
from grokscope.training.loop import Setup

VARIANTS = [f"power2022-{name}" for name in ("full-batch", "minibatch", "update-noise", "weight-noise", "dropout")]
VARIANTS += [f"power2022-{name}" for name in ("decay", "decay-to-init", "lr-3e-4", "lr-3e-3")]


def settings(config: RunConfig) -> dict[str, Any]:
    """Return every setting's plain value by its dotted name."""
    found: dict[str, Any] = {}
    for name, value in config.to_dict().items():
        found |= {f"{name}.{key}": one for key, one in value.items()} if isinstance(value, dict) else {name: value}
    return found


def differing(name: str, base: str) -> dict[str, Any]:
    """Return the settings in which one preset differs from another, with its own values."""
    usual = settings(presets.get(base))
    return {key: value for key, value in settings(presets.get(name)).items() if value != usual[key]}


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


def test_power2022_is_what_the_paper_says():
    """Power et al. 2022, appendix A.1.2: AdamW, batches of 512 or half the training set if that is smaller."""
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
def test_power2022_trains_about_four_hundred_thousand_parameters_besides_the_embeddings(name: str):
    model = Setup(presets.get(name)).model
    embeddings = {"embed.W_E", "pos_embed.W_pos", "unembed.W_U"}
    assert embeddings <= set(model.shapes) and "pos_embed.W_pos" not in model.trained
    n_trained = sum(math.prod(model.shapes[one]) for one in model.trained if one not in embeddings)
    attention = 4 * 128 * 128  # Queries, keys, values and output, no biases.
    mlp = 2 * 128 * 512
    layer_norm = 2 * 128
    by_hand = 2 * (attention + mlp + 2 * layer_norm) + layer_norm
    assert n_trained == by_hand == 394_496
    assert 3.9e5 <= n_trained <= 4.0e5


def test_the_nine_variants_of_figure_2_are_there_and_no_two_are_alike():
    assert [name for name in presets.PRESETS if name.startswith("power2022-")] == VARIANTS
    assert len({presets.get(name).digest for name in presets.names()}) == len(presets.names()) == 12
    for one, other in itertools.combinations(VARIANTS, 2):
        assert differing(one, other), f"{one} is {other}"
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
def test_each_variant_differs_in_what_its_name_says_and_in_nothing_else(
    name: str, base: str, changes: dict[str, Any]
):
    assert differing(name, base) == changes


@pytest.mark.parametrize(
    ("name", "fraction", "n_train", "n_batch"),
    [
        ("power2022", 0.5, 4656, 512),
        ("power2022-minibatch", 0.5, 7200, 512),
        ("power2022-full-batch", 0.5, 7200, 7200),
        ("power2022-update-noise", 0.5, 7200, 7200),
        # Half of 720, and of 1,008 and of 1,065: below 512, 504 and, rounded up, 533, of which 512 are left.
        ("power2022-minibatch", 0.05, 720, 360),
        ("power2022-decay", 0.07, 1008, 504),
        ("power2022-decay", 0.074, 1065, 512),
        ("power2022-full-batch", 0.05, 720, 720),
    ],
)
def test_a_batch_is_512_or_half_of_the_training_set_or_all_of_it(
    name: str, fraction: float, n_train: int, n_batch: int
):
    config = presets.get(name)
    config = dataclasses.replace(config, task=dataclasses.replace(config.task, train_fraction=fraction))
    setup = Setup(config)
    inputs, labels = setup.batch(0)
    assert len(setup.split.train) == n_train and len(inputs) == len(labels) == n_batch


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_is_valid_and_can_be_trained(name: str):
    config = presets.get(name)
    assert config.faults() == []
    setup = Setup(config)
    share = len(setup.split.train) / len(setup.task.inputs)
    assert abs(share - config.task.train_fraction) < 1e-3
    state = setup.state()
    assert state.step == 0 and set(setup.model.trained) <= set(state.parameters)
    assert all(state.parameters[one].requires_grad for one in setup.model.trained)


def test_an_unknown_preset_names_those_there_are_and_the_one_probably_meant():
    with pytest.raises(GrokscopeError, match=r"'nanda2032'.*nanda2023.*quick.*Did you mean 'nanda2023'\?"):
        presets.get("nanda2032")


def test_a_file_starts_from_its_preset(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text('preset = "nanda2023"\nn_steps = 50\n[optimizer]\nbetas = [0.5, 0.75]\n')
    base = presets.get("nanda2023")
    expected = dataclasses.replace(base, n_steps=50, optimizer=dataclasses.replace(base.optimizer, betas=(0.5, 0.75)))
    assert toml.read(path) == expected


def test_a_file_without_preset_starts_from_the_defaults(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text("evaluate_every = 3\n")
    assert toml.read(path) == dataclasses.replace(RunConfig(), evaluate_every=3)


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
        toml.read(path)


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_what_is_no_file_is_refused_by_name(name: str, tmp_path: Path):
    with pytest.raises(GrokscopeError, match=f"^{tmp_path / name} cannot be read"):
        toml.read(tmp_path / name)


TABLE = "0 1 2\n1 2 0\n2 0 .\n"


def test_a_table_is_read_from_a_file_beside_the_toml_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "beside" / "deeper").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "beside" / "mine.toml"
    for name in ("rows.txt", "deeper/rows.txt", str(tmp_path / "beside" / "rows.txt"), "a b ∘.csv"):
        (tmp_path / "beside" / name).write_text(TABLE, encoding="utf-8")
        path.write_text(f'preset = "quick"\n[task]\nname = "table"\ntable = "@{name}"\n', encoding="utf-8")
        monkeypatch.chdir(tmp_path / "elsewhere")
        # Not what lies where one happens to be.
        (tmp_path / "elsewhere" / "rows.txt").write_text("0 0\n0 0\n")
        config = toml.read(path)
        quick = presets.get("quick")
        expected = dataclasses.replace(quick.task, name="table", table=TABLE.strip())
        assert config == dataclasses.replace(quick, task=expected)
        assert Setup(config).task.labels.tolist() == [0, 1, 2, 1, 2, 0, 2, 0]


def test_a_table_in_the_toml_file_itself_stands_as_it_is(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text(f'[task]\nname = "table"\ntable = """\n{TABLE}"""\n')
    assert toml.read(path) == RunConfig(task=TaskConfig(name="table", table=TABLE))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("@none.txt", r"none\.txt cannot be read: .*No such file"),
        ("@", r"cannot be read: .*directory"),
        ("@folder", r"folder cannot be read: .*directory"),
        ("@latin.txt", r"latin\.txt cannot be read: "),
        ("@zero\\u0000byte", r"cannot be read: "),
        ("@" + "x" * 5000, r"cannot be read: .*too long"),
        ("@wrong.txt", r"row 1 has '7'; allowed: 0 to 1, or '\.'"),
        ("@again.txt", r"1 rows; allowed: "),
        ("0 1; 1 7", r"row 1 has '7'; allowed: 0 to 1, or '\.'"),
    ],
    ids=lambda text: text[:12].replace("\\", ""),
)
def test_a_table_that_cannot_be_had_is_one_error_that_names_the_file(value: str, said: str, tmp_path: Path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "latin.txt").write_bytes(b"\xe9")
    (tmp_path / "wrong.txt").write_text("0 1\n1 7\n")
    (tmp_path / "again.txt").write_text("@wrong.txt")
    path = tmp_path / "mine.toml"
    path.write_text(f'[task]\nname = "table"\ntable = "{value}"\n')
    with pytest.raises(GrokscopeError, match=said) as refused:
        toml.read(path)
    message = str(refused.value)
    assert message.startswith(f"{path}: ") and "task.table: " in message and "\n" not in message


@pytest.mark.parametrize("name", ["zeros", "pipe"])
def test_a_file_without_an_end_is_not_read(name: str, tmp_path: Path):
    (tmp_path / "zeros").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / "mine.toml"
    path.write_text(f'[task]\nname = "table"\ntable = "@{name}"\n')
    with pytest.raises(GrokscopeError, match=rf"task\.table: .*{name} cannot be read: it is a directory or a device"):
        toml.read(path)
    with pytest.raises(GrokscopeError, match=f"{name} cannot be read: it is a directory or a device"):
        toml.read(tmp_path / name)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(toml, "LARGEST_TEXT", 60)
    path = tmp_path / "mine.toml"
    path.write_text('[task]\nname = "table"\ntable = "@rows.txt"\n')
    (tmp_path / "rows.txt").write_text(TABLE)
    assert toml.read(path).task.table == TABLE.strip()
    (tmp_path / "rows.txt").write_text(TABLE * 4)
    with pytest.raises(GrokscopeError, match=r"task\.table: .*rows\.txt cannot be read: it has more than 60 char"):
        toml.read(path)
    path.write_text(f"# {'x' * 60}")
    with pytest.raises(GrokscopeError, match=r"mine\.toml cannot be read: it has more than 60 characters"):
        toml.read(path)


def test_a_table_of_the_wrong_kind_is_one_error(tmp_path: Path):
    path = tmp_path / "mine.toml"
    for value in ("3", "[[0, 1], [1, 0]]", "true", "{x = 1}"):
        path.write_text(f'[task]\nname = "table"\ntable = {value}\n')
        with pytest.raises(GrokscopeError, match=r"mine\.toml: .*task\.table: .*allowed: rows of numbers"):
            toml.read(path)
