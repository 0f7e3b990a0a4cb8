"""The task `table` on the command line: its file, its text and its faults."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support.shared import Command

from grokscope import Trajectory
from grokscope.config import RunConfig, presets

ROWS = "0 1 2\n1 2 0\n2 0 .\n"


@pytest.mark.parametrize(
    "text", ["@rows.txt", "@../rows.txt", "@{}/rows.txt", ROWS, "0 1 2; 1 2 0; 2 0 ."], ids=range(5)
)
def test_table_flag_is_a_file_or_the_table_itself(text: str, request_training: Callable, tmp_path: Path):
    for folder in (tmp_path, tmp_path / "here"):
        (folder / "rows.txt").write_text(ROWS)
    flags = ("--task.name", "table", "--task.table", text.format(tmp_path))
    for source in (["quick", *flags], [*flags, "quick"]):
        config = request_training(*source)[0]
        table = ROWS.strip() if text.startswith("@") else text
        quick = presets.get("quick")
        assert config == dataclasses.replace(quick, task=dataclasses.replace(quick.task, name="table", table=table))


def test_table_path_is_relative_to_file_or_current_folder(request_training: Callable, toml: Callable, tmp_path: Path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "rows.txt").write_text(ROWS)
    (tmp_path / "here" / "rows.txt").write_text("1 0; 0 1")
    path = tmp_path / "deep" / "mine.toml"
    path.write_text(toml({"task": {"name": "table", "table": "@rows.txt"}}))
    assert request_training(path)[0].task.table == request_training("../deep/mine.toml")[0].task.table == ROWS.strip()
    # A path on the command line is relative to the current folder.
    assert request_training(path, "--task.table", "@rows.txt")[0].task.table == "1 0; 0 1"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("@none.txt", r"task\.table: none\.txt cannot be read: .*No such file"),
        ("@", r"task\.table: .*cannot be read: .*directory"),
        ("@latin.txt", r"task\.table: latin\.txt cannot be read: "),
        ("@wrong.txt", r"task\.table: row 1 has '7'; allowed: 0 to 1, or '\.'"),
        ("0 1; 1", r"task\.table: row 1 has 1 entries; allowed: 2"),
        ("rows.txt", r"task\.table: 1 rows; allowed: rows of numbers"),
        (". .; . .", r"task\."),
    ],
)
def test_unusable_table_is_one_sentence(table: str, message: str, grokscope: Command, tmp_path: Path):
    here = tmp_path / "here"
    (here / "latin.txt").write_bytes(b"\xe9")
    (here / "wrong.txt").write_text("0 1\n1 7\n")
    files = sorted(tmp_path.rglob("*"))
    status, output, errors = grokscope("train", "quick", "--task.name", "table", "--task.table", table)
    assert (status, output) == (1 if re.search("No such file|directory", errors) else 2, "")
    assert errors.startswith("grokscope: ") and errors.count("\n") == 1
    assert re.search(message, errors), errors
    assert sorted(tmp_path.rglob("*")) == files


def test_table_for_another_task_is_one_sentence(grokscope: Command, tmp_path: Path):
    (tmp_path / "here" / "rows.txt").write_text(ROWS)
    status, _, errors = grokscope("train", "quick", "--task.table", "@rows.txt")
    assert status == 2 and errors.count("\n") == 1 and "allowed: with the task 'table' only" in errors


def test_run_of_a_table_does_not_need_its_file(
    grokscope: Command, tiny_config: RunConfig, toml: Callable, tmp_path: Path
):
    rows = tmp_path / "rows.txt"
    rows.write_text("\n".join(" ".join(str(a ^ b) for b in range(8)) for a in range(8)))
    values = tiny_config.to_dict()
    values["task"] |= {"name": "table", "table": "@rows.txt"}
    del values["task"]["p"]
    path = tmp_path / "xor.toml"
    path.write_text(toml(values), encoding="utf-8")
    status, output, errors = grokscope("train", path, "--root", tmp_path, "--n-steps", 20)
    assert status == 0, errors
    assert "a table of 8" in output and "38 of 64 equations" in output
    rows.unlink()
    assert grokscope("resume", tmp_path / "xor", "--n-steps", 40)[0] == 0
    trajectory = Trajectory.open(tmp_path / "xor")
    assert trajectory.task.labels.tolist() == [a ^ b for a in range(8) for b in range(8)]
    assert trajectory.steps[-1] == 40
    assert re.search(r"^xor +table, 40 of 40 steps", grokscope("list", "runs", "--root", tmp_path)[1], re.MULTILINE)
