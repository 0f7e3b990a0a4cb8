"""TOML files: presets, defaults, table files, and every way in which a file can be invalid."""

import dataclasses
import os
from pathlib import Path

import pytest

from grokscope import tasks
from grokscope.config import RunConfig, TaskConfig, presets, toml
from grokscope.errors import GrokscopeError


def test_file_starts_from_its_preset(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text('preset = "nanda2023"\nn_steps = 50\n[optimizer]\nbetas = [0.5, 0.75]\n')
    base = presets.get("nanda2023")
    expected = dataclasses.replace(base, n_steps=50, optimizer=dataclasses.replace(base.optimizer, betas=(0.5, 0.75)))
    assert toml.read(path) == expected


def test_file_without_preset_starts_from_defaults(tmp_path: Path):
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
def test_invalid_file_is_named_in_the_error(text: bytes, tmp_path: Path):
    path = tmp_path / "wrong.toml"
    path.write_bytes(text)
    with pytest.raises(GrokscopeError, match=r"wrong\.toml"):
        toml.read(path)


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_missing_file_and_folder_are_named_in_the_error(name: str, tmp_path: Path):
    with pytest.raises(GrokscopeError, match=f"^{tmp_path / name} cannot be read"):
        toml.read(tmp_path / name)


TABLE = "0 1 2\n1 2 0\n2 0 .\n"


def test_table_file_is_relative_to_the_toml_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "configs" / "deeper").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "configs" / "mine.toml"
    for name in ("rows.txt", "deeper/rows.txt", str(tmp_path / "configs" / "rows.txt"), "a b ∘.csv"):
        (tmp_path / "configs" / name).write_text(TABLE, encoding="utf-8")
        path.write_text(f'preset = "quick"\n[task]\nname = "table"\ntable = "@{name}"\n', encoding="utf-8")
        monkeypatch.chdir(tmp_path / "elsewhere")
        # A file of the same name in the working directory must not be read.
        (tmp_path / "elsewhere" / "rows.txt").write_text("0 0\n0 0\n")
        config = toml.read(path)
        quick = presets.get("quick")
        expected = dataclasses.replace(quick.task, name="table", table=TABLE.strip())
        assert config == dataclasses.replace(quick, task=expected)
        assert tasks.build(config.task).labels.tolist() == [0, 1, 2, 1, 2, 0, 2, 0]


def test_table_inside_the_toml_file_is_kept_verbatim(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text(f'[task]\nname = "table"\ntable = """\n{TABLE}"""\n')
    assert toml.read(path) == RunConfig(task=TaskConfig(name="table", table=TABLE))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("@none.txt", r"none\.txt cannot be read: .*No such file"),
        ("@", r"cannot be read: .*directory"),
        ("@folder", r"folder cannot be read: .*directory"),
        ("@latin.txt", r"latin\.txt cannot be read: "),
        ("@zero\\u0000byte", r"cannot be read: "),
        ("@" + "x" * 5000, r"cannot be read: .*too long"),
        ("@wrong.txt", r"row 1 has '7'; allowed: 0 to 1, or '\.'"),
        ("@nested.txt", r"1 rows; allowed: "),
        ("0 1; 1 7", r"row 1 has '7'; allowed: 0 to 1, or '\.'"),
    ],
    ids=lambda text: text[:12].replace("\\", ""),
)
def test_unreadable_table_is_one_error_with_both_names(value: str, message: str, tmp_path: Path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "latin.txt").write_bytes(b"\xe9")
    (tmp_path / "wrong.txt").write_text("0 1\n1 7\n")
    (tmp_path / "nested.txt").write_text("@wrong.txt")
    path = tmp_path / "mine.toml"
    path.write_text(f'[task]\nname = "table"\ntable = "{value}"\n')
    with pytest.raises(GrokscopeError, match=message) as refused:
        toml.read(path)
    text = str(refused.value)
    assert text.startswith(f"{path}: ") and "task.table: " in text and "\n" not in text


@pytest.mark.parametrize("name", ["zeros", "pipe"])
def test_endless_file_is_not_read(name: str, tmp_path: Path):
    (tmp_path / "zeros").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / "mine.toml"
    path.write_text(f'[task]\nname = "table"\ntable = "@{name}"\n')
    with pytest.raises(GrokscopeError, match=rf"task\.table: .*{name} cannot be read: it is a directory or a device"):
        toml.read(path)
    with pytest.raises(GrokscopeError, match=f"{name} cannot be read: it is a directory or a device"):
        toml.read(tmp_path / name)


def test_too_large_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
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


def test_table_of_wrong_type_is_one_error(tmp_path: Path):
    path = tmp_path / "mine.toml"
    for value in ("3", "[[0, 1], [1, 0]]", "true", "{x = 1}"):
        path.write_text(f'[task]\nname = "table"\ntable = {value}\n')
        with pytest.raises(GrokscopeError, match=r"mine\.toml: .*task\.table: .*allowed: rows of numbers"):
            toml.read(path)
