"""Hostile names of runs, cells, tasks and measures: refused in one sentence, or harmless, with no file outside."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.shared import Command, command_line, make_tiny_config

from grokscope import Trajectory, cli, measures, training
from grokscope.config import from_dict, presets
from grokscope.errors import GrokscopeError
from grokscope.interop import import_run
from grokscope.store.run_names import IS_NAME, checked_name
from grokscope.sweep import sweep_folder
from grokscope.sweep.plan import read_sweep
from grokscope.training.fork import fork

NAMES = {
    "nothing": "",
    "here": ".",
    "above": "..",
    "climbing": "../x",
    "climbing from within": "a/../../x",
    "from the root": "/grokscope-hostile",
    "a folder": "a/b",
    "of Windows": "C:\\x",
    "climbing on Windows": "..\\x",
    "of a device": "CON:",
    "hidden": ".x",
    "null": "a\0b",
    "two lines": "a\nb",
    "a line's end": "a\n",
    "a return": "a\rb",
    "an escape": "\x1b[2J\x1b[31mx",
    "turned round": "a\u202egpj.x",
    "invisible": "a\u200bb",
    "a home": "~root",
    "a variable": "$HOME",
    "a command": "$(touch x)",
    "a quote": "a'b\"c",
    "a page": "<script>alert(1)</script>",
    "a dash": "-rf",
    "a flag": "--root=/",
    "a star": "*",
    "a space": "a b",
    "half a character": "a\udcffb",
    "another alphabet": "раге",
    "very long": "x" * 100_000,
    "too long": "x" * 101,
}
HARMLESS = {
    "of a device without a colon": "CON",
    "with dots": "a..b",
    "a dash inside": "a-b",
    "numbers": "0",
    "looks like a setting": "lr=0.1+p=97",
}


def check_message(message: str) -> None:
    assert len(message) < 2500 and "Traceback" not in message
    assert all(character.isprintable() or character == "\n" for character in message)


@pytest.mark.parametrize("kind", NAMES)
def test_hostile_name_makes_no_run(kind: str, tiny_run: Path, tmp_path: Path):
    name, config, root = NAMES[kind], make_tiny_config(), tmp_path / "deep" / "runs"
    file = tmp_path / "60.pt"
    file.write_bytes(b"")
    files = sorted(tmp_path.rglob("*"))
    makers: list[Callable[[], Any]] = [
        lambda: training.train(config, name, root),
        lambda: fork(tiny_run, 60, config, name, root),
        lambda: import_run.import_checkpoints([file], config, name, root),
    ]
    for make in makers[:1] + makers[2:]:
        with pytest.raises(GrokscopeError, match=r"is not a valid name for a run\. Allowed: ") as refusal:
            make()
        check_message(str(refusal.value))
    with pytest.raises(GrokscopeError):
        makers[1]()
    assert sorted(tmp_path.rglob("*")) == files


@pytest.mark.parametrize("kind", HARMLESS)
def test_odd_but_valid_name_is_a_folder_in_the_root(kind: str):
    assert checked_name(HARMLESS[kind]) == HARMLESS[kind] and IS_NAME.fullmatch(HARMLESS[kind])
    assert Path("root", HARMLESS[kind]).parent == Path("root")


@pytest.mark.parametrize(
    "kind", ["nothing", "climbing", "null", "two lines", "an escape", "turned round", "a flag", "very long"]
)
def test_hostile_name_on_the_command_line_is_harmless(
    kind: str, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    grokscope: Command = command_line(capsys, monkeypatch, tmp_path / "here")
    name, files = NAMES[kind], sorted(tmp_path.rglob("*"))
    commands = [
        ["log", name],
        *([["measure", tiny_run, name]] if not name.startswith("--") else []),
        ["train", "quick", "--run", name, "--n-steps", 1],
        ["list", name],
        [name],
    ]
    for arguments in commands:
        status, output, errors = grokscope(*arguments)
        assert status in (0, 1, 2), arguments
        # An empty argument, or a flag, may print the help.
        assert status == 0 or errors, arguments
        assert not any(text in output + errors for text in ("\x1b[2J", "\u202e", "\u200b", "\0")), arguments
    for read in (
        lambda: measures.evaluate(name, Trajectory.open(tiny_run)),
        lambda: presets.get(name),
        lambda: from_dict({"task": {"name": name}}),
        lambda: from_dict({name: 1}),
        lambda: Trajectory.open(tiny_run).parameter(name),
    ):
        with pytest.raises(GrokscopeError):
            read()
    assert sorted(tmp_path.rglob("*")) == files


def test_cells_with_hostile_settings_have_valid_names(tmp_path: Path):
    rows = "\n".join(" ".join(str((a + b) % 3) for b in range(3)) for a in range(3))
    tables = json.dumps([rows, rows.replace("\n", "; "), rows.replace(" ", ",")])
    path = tmp_path / "s.toml"
    path.write_text(f'[task]\nname = "table"\ntrain_fraction = 0.5\n[sweep.grid]\ntask.table = {tables}\n')
    plan = read_sweep(path)
    assert len({cell.name for cell in plan.cells}) == 3
    assert all(IS_NAME.fullmatch(cell.name) for cell in plan.cells)


@pytest.mark.parametrize("kind", NAMES)
def test_sweep_record_with_a_hostile_cell_is_refused(kind: str, tmp_path: Path):
    import hashlib

    cells = [{"name": NAMES[kind], "settings": {}, "config": make_tiny_config().to_dict()}]
    values = {"format": 1, "about": "", "cells": cells}
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    (tmp_path / "sweep.json").write_text(json.dumps({**values, "digest": digest}))
    with pytest.raises(GrokscopeError, match=str(tmp_path / "sweep.json")):
        sweep_folder.load(tmp_path)


def test_folders_with_hostile_names_are_listed_escaped(
    run_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    grokscope: Command = command_line(capsys, monkeypatch, tmp_path / "here")
    for name in ("\x1b[2Jx", "a\nb", "\u202ex", "-rf"):
        run_copy.rename(run_copy.with_name(name))
        run_copy = run_copy.with_name(name)
        status, output, errors = grokscope("list", "runs", "--root", tmp_path)
        assert status == 0 and len(output.splitlines()) == 1 and "60 of 60 steps" in output
        assert not set("\x1b\u202e") & set(output + errors)
        segment = run_copy / "segments" / "000002.safetensors"
        segment.write_bytes(segment.read_bytes()[:100])
        status, output, errors = grokscope("verify", tmp_path / name)
        assert status == 1 and not set("\x1b\u202e") & set(output + errors)
    assert list(cli.COMMANDS)
