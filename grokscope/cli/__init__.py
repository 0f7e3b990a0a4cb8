"""The command line, and the only package that prints. `main` runs a command, `analysis` a script of analyses/."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from grokscope.cli.arguments import RunOptions, UsageError, parse
from grokscope.cli.exporting import export, figure, wandb
from grokscope.cli.forks import fork
from grokscope.cli.guard import run_guarded
from grokscope.cli.importing import import_
from grokscope.cli.inspecting import list_, log, verify
from grokscope.cli.measuring import measure, report
from grokscope.cli.sweeping import sweep
from grokscope.cli.training import densify, resume, train
from grokscope.cli.watching import watch
from grokscope.errors import unknown_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": train,
    "resume": resume,
    "fork": fork,
    "densify": densify,
    "import": import_,
    "sweep": sweep,
    "measure": measure,
    "report": report,
    "watch": watch,
    "figure": figure,
    "export": export,
    "wandb": wandb,
    "verify": verify,
    "log": log,
    "list": list_,
}


def main(arguments: list[str] | None = None) -> None:
    """Run one command. An error exits with a message and status 1 or 2, a signal N with status 128 + N."""
    run_guarded(_dispatch, sys.argv[1:] if arguments is None else arguments)


def _dispatch(arguments: list[str]) -> None:
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help", "help"):
        print(_overview())
    elif name == "--version":
        from grokscope._version import __version__

        print(f"grokscope {__version__}")
    elif name in COMMANDS:
        COMMANDS[name](rest)
    else:
        raise UsageError(unknown_name("command", name, list(COMMANDS)))


def analysis(main: "Callable[[Path], Figure]", name: str) -> None:
    """Run a script of analyses/ on the RUN of the command line, and save its figure in RUN/figures.

    Args:
        main: The function that makes the figure from the run's folder.
        name: The name of the script and of the figure's file.
    """

    def run(arguments: list[str]) -> None:
        @dataclass(frozen=True)
        class Analysis(RunOptions):
            """Answer one question about RUN and save the figure in RUN/figures."""

        options = parse(Analysis, name, arguments)

        from grokscope import figures

        for path in figures.save(main(options.folder), options.folder / "figures" / f"{name}.png"):
            print(f"saved {path}")

    run_guarded(run, sys.argv[1:])


def _overview() -> str:
    lines = [f"  {name:<9}{(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: grokscope COMMAND …",
            "",
            "Train small transformers to grokking, keep dense checkpoints, and watch the circuit form.",
            "",
            *lines,
            "",
            "`grokscope COMMAND --help` explains a command. RUN is a folder, or its name under --root (checkpoints).",
        ]
    )
