"""The command line: the only place that prints. `main` runs a command, `analysis` a script of analyses/."""

import io
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from grokscope import plugins
from grokscope.cli.base import OfRun, Usage, parse, shown
from grokscope.cli.forks import fork
from grokscope.cli.importing import import_
from grokscope.cli.outlets import export, figure, wandb
from grokscope.cli.reading import list_, log, measure, report, verify
from grokscope.cli.training import densify, resume, sweep, train
from grokscope.cli.watching import watch
from grokscope.errors import GrokscopeError

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
    """Run one command; a mistake ends in one message and exit status 1 or 2, a signal in 128 + its number."""
    _guarded(_dispatch, sys.argv[1:] if arguments is None else arguments)


def _dispatch(arguments: list[str]) -> None:
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help", "help"):
        print(_overview())
    elif name == "--version":
        from grokscope import __version__

        print(f"grokscope {__version__}")
    elif name in COMMANDS:
        COMMANDS[name](rest)
    else:
        raise Usage(plugins.unknown("command", name, list(COMMANDS)))


def _guarded(command: Callable[[list[str]], None], arguments: list[str]) -> None:
    """Run a command so that nothing a user can cause ends in a traceback."""
    warnings.formatwarning = lambda message, *_, **__: shown(f"grokscope: {message}\n")
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a sign gets a question mark in its place.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        command(arguments)
        sys.stdout.flush()
    except GrokscopeError as error:
        print(shown(f"grokscope: {error}"), file=sys.stderr)
        sys.exit(2 if isinstance(error, Usage) else 1)
    except BrokenPipeError:
        # Whoever read the output has enough, as in `grokscope log RUN | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt as interrupt:
        number = getattr(interrupt, "signal_number", 2)
        again = getattr(interrupt, "again", None)
        if again is not None:
            print(shown(f"\n{interrupt} Go on with it by:\n  {again}"), file=sys.stderr)
        sys.exit(128 + number)


def analysis(main: "Callable[[Path], Figure]", name: str) -> None:
    """Run one of the scripts in analyses/ on the RUN of the command line; save its figure in RUN/figures."""

    def run(arguments: list[str]) -> None:
        @dataclass(frozen=True)
        class Analysis(OfRun):
            """Answer one question about a run and save the figure in RUN/figures."""

        asked = parse(Analysis, name, arguments)

        from grokscope import figures

        for path in figures.save(main(asked.folder), asked.folder / "figures" / f"{name}.png"):
            print(f"saved {path}")

    _guarded(run, sys.argv[1:])


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
            "`grokscope COMMAND --help` tells more. A RUN is a folder, or its name under --root (checkpoints).",
        ]
    )
