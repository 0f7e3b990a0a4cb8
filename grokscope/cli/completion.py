"""The command `completion`."""

import io
import re
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from typing import Annotated, Literal, Union

import tyro

from grokscope.cli.arguments import options_of, parse


def completion(arguments: list[str]) -> None:
    """Print a script that completes commands and flags in bash, zsh or fish."""

    @dataclass(frozen=True)
    class Completion:
        """Print a script that completes grokscope's commands and flags in a shell.

        bash: grokscope completion bash > ~/.local/share/bash-completion/completions/grokscope
        zsh: grokscope completion zsh > DIR/_grokscope, where DIR is a folder in $fpath
        fish: grokscope completion fish > ~/.config/fish/completions/grokscope.fish
        """

        shell: tyro.conf.Positional[Literal["bash", "zsh", "fish"]]
        """The shell."""

    options = parse(Completion, "completion", arguments)
    print(script(options.shell))


def script(shell: str) -> str:
    """Return the script that tyro writes for a shell."""
    text = io.StringIO()
    with redirect_stdout(text), suppress(SystemExit):
        tyro.cli(_all_commands(), prog="grokscope", args=["--tyro-write-completion", shell, "-"])
    lines = text.getvalue().rstrip().split("\n")
    # tyro prints each completion with its description on a line, so a description must not have several lines. The
    # script of fish has one more backslash than the others.
    return "\n".join(re.sub(r"\\+n", " ", line) if line.startswith("COMPLETION_SPEC") else line for line in lines)


def _all_commands() -> type:
    """Return the union of all commands' options, each a subcommand of its name."""
    from grokscope import cli

    members = []
    for name in cli.COMMANDS:
        options, keywords = options_of(cli.command(name))
        summary = (cli.command(name).__doc__ or "").partition("\n")[0]
        default = {"default": keywords["default"]} if "default" in keywords else {}
        subcommand = tyro.conf.subcommand(name, description=summary, **default)
        members.append(Annotated[(options, *keywords["config"], subcommand)])  # pyright: ignore
    return Union[tuple(members)]  # pyright: ignore  # noqa: UP007
