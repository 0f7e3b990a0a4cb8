"""The outer guard of the commands: no error of a user ends in a traceback."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import COMMAND, run_in_shell, run_program
from support.shared import Command, quick, refuse

from grokscope import Trajectory

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_terminal_encoding_never_ends_in_a_traceback(encoding: str, tmp_path: Path):
    for arguments in (["--help"], ["log", tmp_path / "ü ∘"]):
        process = run_program(COMMAND, *arguments, PYTHONIOENCODING=encoding)
        assert "Traceback" not in process.stderr, process.stderr
        assert process.returncode == (0 if arguments == ["--help"] else 1)


def test_closed_output_is_not_an_error(tiny_run: Path):
    program = "from grokscope.cli import main\nimport sys\nmain(['log', sys.argv[1]])\n"
    reader, writer = os.pipe()
    os.close(reader)
    try:
        process = subprocess.run(
            [sys.executable, "-c", program, tiny_run], stdout=writer, stderr=subprocess.PIPE, text=True
        )
    finally:
        os.close(writer)
    assert (process.returncode, process.stderr) == (1, "")


@needs_full
@pytest.mark.parametrize("command", quick(["log", "list", "--help", "train"], ["log", "--help"]))
def test_output_that_cannot_be_written_is_one_sentence(command: str, tiny_run: Path, tiny_toml: Path, tmp_path: Path):
    arguments = {"log": [tiny_run], "list": ["tasks"], "train": [tiny_toml, "--root", tmp_path]}.get(command, [])
    process = run_in_shell(command, *arguments, redirection=f"> {FULL}")
    assert process.stderr == "grokscope: The output cannot be written: No space left on device.\n"
    assert process.returncode == 1 and not (tmp_path / "tiny").exists()
    assert run_in_shell(command, *arguments, redirection=f"> {FULL} 2>&1").returncode == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "redirection",
    [
        ">&- 2>&-",
        *(pytest.param(text, marks=needs_full) for text in (">&-", "2>&-", f"2> {FULL}")),
    ],
)
def test_training_continues_without_streams(redirection: str, tiny_toml: Path, tiny_run: Path, tmp_path: Path):
    process = run_in_shell("train", tiny_toml, "--root", tmp_path, redirection=redirection)
    assert (process.returncode, "grokscope: " in process.stderr, "Traceback" in process.stderr) == (0, False, False)
    assert Trajectory.open(tmp_path / "tiny").digest == Trajectory.open(tiny_run).digest
    assert len(Trajectory.open(tmp_path / "tiny")) == 7


@pytest.mark.parametrize(
    ("redirection", "n_lines"), [pytest.param("2>&1 | head -n 1", 1, marks=pytest.mark.slow), ("| true", 0)]
)
def test_training_continues_after_its_output_is_closed(
    redirection: str, n_lines: int, tiny_toml: Path, tmp_path: Path
):
    process = run_in_shell("train", tiny_toml, "--root", tmp_path, "--n-steps", 200, redirection=redirection)
    assert process.stdout.count("\n") == n_lines and "Traceback" not in process.stderr
    assert Trajectory.open(tmp_path / "tiny").steps[-1] == 200


@pytest.mark.parametrize("redirection", ["2>&-", pytest.param(f"2> {FULL}", marks=needs_full)])
def test_error_that_cannot_be_printed_keeps_its_status(redirection: str):
    assert run_in_shell("lst", redirection=redirection).returncode == 2


@pytest.mark.parametrize("command", ["verify", "log", "report", "measure", "export", "fork", "resume"])
def test_unreadable_run_is_permission_denied(
    command: str, run_copy: Path, grokscope: Command, monkeypatch: pytest.MonkeyPatch
):
    refuse(monkeypatch, run_copy)
    status, output, errors = grokscope(command, run_copy, *(["--step", 3] if command == "fork" else []))
    assert (status, output, errors.count("\n")) == (1, "", 1)
    assert re.fullmatch(rf"grokscope: {run_copy}/\S+ cannot be (read|reached): Permission denied\.\n", errors)


def test_unreadable_root_is_permission_denied(
    run_copy: Path, grokscope: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    refuse(monkeypatch, run_copy.parent)
    for arguments in (["list", "runs"], ["train", "quick"], ["verify", "copy"], ["fork", "copy", "--step", 3]):
        status, output, errors = grokscope(*arguments, "--root", run_copy.parent)
        assert (status, output) == (1, "")
        assert re.fullmatch(rf"grokscope: {run_copy.parent}\S* cannot be re\w+: Permission denied\.\n", errors)


@pytest.mark.parametrize("module", ["tyro", "grokscope.cli", "torch"])
def test_interrupt_during_import_ends_silently(module: str, tmp_path: Path):
    # The signal arrives while another module imports this one and may treat an exception as a missing module.
    program = (
        "import importlib.abc, runpy, signal, sys\n"
        "class Finder(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == {module!r}:\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv = ['grokscope', 'train', 'quick']\n"
        "runpy.run_module('grokscope', run_name='__main__', alter_sys=True)\n"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert (process.returncode, process.stdout, process.stderr) == (130, "", "")
