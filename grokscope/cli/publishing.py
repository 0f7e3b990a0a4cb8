"""The commands `push` and `pull`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from grokscope.cli.arguments import ROOT, RunOptions, announce, counted, parse, require_run


def push(arguments: list[str]) -> None:
    """Upload a run to the Hugging Face Hub, with its measures, page and a model card."""

    @dataclass(frozen=True)
    class Push(RunOptions):
        """Upload RUN to the model repository REPO: segments, config, measures, page, picture and model card.

        Repeat the command to continue an interrupted upload. Log in by `hf auth login` or HF_TOKEN. HF_ENDPOINT names
        another server.
        """

        repo: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ORG/NAME")]
        """The repository; it is made if it does not exist."""
        licence: str = "mit"
        """The licence in the model card, by its name on the Hub."""
        private: bool = False
        """Make a new repository private."""

    options = parse(Push, "push", arguments)
    require_run(options.folder)

    from grokscope.hub import repository as hub

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    address = hub.push(options.folder, options.repo, licence=options.licence, private=options.private, say=say)
    print(f"pushed and verified: {address}")


def pull(arguments: list[str]) -> None:
    """Download a run from the Hugging Face Hub, and verify it."""

    @dataclass(frozen=True)
    class Pull:
        """Download the run in the model repository REPO into a new folder. Repeat the command to continue."""

        repo: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="ORG/NAME")]
        """The repository."""
        run: str | None = None
        """The run's name; by default the repository's."""
        root: Path = ROOT
        """The folder that contains the runs."""

    options = parse(Pull, "pull", arguments)

    from grokscope.hub import repository as hub

    trajectory = hub.pull(options.repo, options.root, options.run)
    announce(f"{trajectory.path}: {counted(len(trajectory), 'checkpoint')}, all intact.")
