"""Arguments that the commands share: RUN, --root and mistyped flags."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support.shared import Command

LONG = "x" * 300


def test_run_is_a_name_under_the_root_or_a_path(run_copy: Path, grokscope: Command):
    for arguments in (["copy", "--root", run_copy.parent], [run_copy], ["../copy"]):
        assert grokscope("log", *arguments)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["train", "quick", "--n-setps", "5"], "--n-steps"),
        (["train", "quick", "--optimizer.weight-deacy", "5"], "--optimizer.weight-decay"),
        (["resume", "x", "--alow-drift"], "--allow-drift"),
        (["train", "quick", "--n-steps", "many"], "--n-steps"),
        (["train"], "PRESET"),
        (["log"], "RUN"),
        (["densify", "x"], "--start"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistyped_flag_suggests_the_right_one(arguments: list[str], hint: str, grokscope: Command):
    status, _, errors = grokscope(*arguments)
    assert status == 2 and hint in errors


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "quick", "--root", LONG],
        ["list", "runs", "--root", LONG],
        ["sweep", "../sweep.toml", "--root", LONG],
        ["report", LONG],
        ["watch", LONG, "--until-end"],
        ["fork", LONG, "--step", "3"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_name_that_is_too_long_is_one_sentence(
    arguments: list[str], grokscope: Command, toml: Callable, tmp_path: Path
):
    (tmp_path / "sweep.toml").write_text(toml({"preset": "quick", "sweep": {"seeds": [0]}}))
    status, output, errors = grokscope(*arguments)
    assert (status, output) == (1, "") and errors.count("\n") == 1
    assert "xxxxxxxx" in errors and re.search("File name too long|folder does not exist", errors)
