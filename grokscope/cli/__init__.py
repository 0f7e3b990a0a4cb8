"""The command line, and the only package that prints. `main` runs a command, `analysis` a script of analyses/."""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from grokscope.cli.guard import UsageError, run_guarded
from grokscope.errors import unknown_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Commands are imported when they run, so that `grokscope --help` does not import the parser.
COMMANDS = {
    "train": "training:train",
    "resume": "training:resume",
    "fork": "forks:fork",
    "densify": "training:densify",
    "import": "importing:import_",
    "sweep": "sweeping:sweep",
    "sweep-table": "sweeping:sweep_table",
    "measure": "measuring:measure",
    "report": "measuring:report",
    "watch": "watching:watch",
    "figure": "exporting:figure",
    "export": "exporting:export",
    "track": "tracking:track",
    "wandb": "exporting:wandb",
    "push": "publishing:push",
    "pull": "publishing:pull",
    "verify": "inspecting:verify",
    "log": "inspecting:log",
    "list": "inspecting:list_",
    "doctor": "diagnosis:doctor",
    "completion": "completion:completion",
}
"""The module of grokscope.cli and the function of each command."""


def command(name: str) -> Callable[[list[str]], None]:
    """Return the function of a command."""
    module, _, function = COMMANDS[name].partition(":")
    return getattr(import_module(f"grokscope.cli.{module}"), function)


def main(arguments: list[str] | None = None) -> None:
    """Run one command. An error exits with a message and status 1 or 2, a signal N with status 128 + N."""
    run_guarded(_dispatch, sys.argv[1:] if arguments is None else arguments)


def _dispatch(arguments: list[str]) -> None:
    if not arguments:
        from grokscope.cli import overview

        print(overview.INTRODUCTION)
        return
    name, *rest = arguments
    if name in ("-h", "--help", "help"):
        from grokscope.cli import overview

        print(overview.command_list(COMMANDS))
    elif name == "--version":
        from grokscope._version import __version__

        print(f"grokscope {__version__}")
    elif name in COMMANDS:
        command(name)(rest)
    else:
        raise UsageError(unknown_name("command", name, list(COMMANDS)))


def analysis(main: "Callable[[Path], Figure]", name: str) -> None:
    """Run a script of analyses/ on the RUN of the command line, and save its figure in RUN/figures.

    Args:
        main: The function that makes the figure from the run's folder.
        name: The name of the script and of the figure's file.
    """

    def run(arguments: list[str]) -> None:
        from dataclasses import dataclass

        from grokscope.cli.arguments import RunOptions, parse

        @dataclass(frozen=True)
        class Analysis(RunOptions):
            """Answer one question about RUN and save the figure in RUN/figures."""

        options = parse(Analysis, name, arguments)

        from grokscope import figures

        for path in figures.save(main(options.folder), options.folder / "figures" / f"{name}.png"):
            print(f"saved {path}")

    run_guarded(run, sys.argv[1:])
