"""The completion scripts, run by the shell itself."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.shared import Command

from grokscope import cli

COMPLETE = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
_tyro_grokscope grokscope "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from grokscope.cli import completion

    path = tmp_path_factory.mktemp("completion") / "grokscope.bash"
    path.write_text(completion.script("bash"))
    return path


def completions(script: Path, *words: str) -> list[str]:
    """Return what bash offers for the last word."""
    command = ["bash", "-c", COMPLETE, "bash", str(script), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_bash_completes_commands_flags_and_choices(bash_script: Path):
    assert set(completions(bash_script, "grokscope", "")) >= set(cli.COMMANDS)
    assert completions(bash_script, "grokscope", "dens") == ["densify"]
    flags = completions(bash_script, "grokscope", "train", "--optimizer.weight")
    assert flags == ["--optimizer.weight-decay", "--optimizer.weight-noise"]
    assert "--no-root" not in completions(bash_script, "grokscope", "watch", "--")
    assert completions(bash_script, "grokscope", "figure", "losses", "first", "--width", "c") == ["column"]


@pytest.mark.parametrize(
    ("shell", "line"), [("zsh", "#compdef grokscope"), ("fish", "complete --no-files --command 'grokscope'")]
)
def test_other_shells_get_a_script_of_their_own(shell: str, line: str, grokscope: Command):
    status, script, _ = grokscope("completion", shell)
    assert status == 0 and line in script and all(f"'{name}'" in script for name in cli.COMMANDS)
    (specification,) = [line for line in script.split("\n") if line.startswith("COMPLETION_SPEC")]
    assert "weight_decay" in specification and not re.search(r"\\+[n ]", specification), "one line per description"


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
def test_fish_completes_flags_with_descriptions(tmp_path: Path):
    from grokscope.cli import completion

    (tmp_path / "grokscope.fish").write_text(completion.script("fish") + "\n")
    command = f"source {tmp_path}/grokscope.fish; complete -C 'grokscope train --optimizer.weight'"
    lines = subprocess.run(["fish", "--no-config", "-c", command], capture_output=True, text=True, check=True).stdout
    words = [line.partition("\t") for line in lines.splitlines()]
    assert [flag for flag, _, _ in words] == ["--optimizer.weight-decay", "--optimizer.weight-noise"]
    assert all("(default: " in description and "\\" not in description for _, _, description in words)


def test_unknown_shell_is_refused(grokscope: Command):
    status, _, errors = grokscope("completion", "tcsh")
    assert status == 2 and "bash" in errors
