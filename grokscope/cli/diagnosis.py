"""The command `doctor`."""

from dataclasses import dataclass
from pathlib import Path

from grokscope.cli.arguments import ROOT, parse, printable


def doctor(arguments: list[str]) -> None:
    """Examine this machine: versions, cores, speed, memory, GPU, disk and browser, with advice."""

    @dataclass(frozen=True)
    class Doctor:
        """Examine this machine for some seconds, and print what is slow or missing and what to do about it."""

        root: Path = ROOT
        """The folder for runs; its disk is tested."""

    options = parse(Doctor, "doctor", arguments)

    from grokscope.cli import machine

    n_advised = 0
    for finding in machine.examine(options.root):
        print(printable(f"{finding.name:<10}{finding.fact}"), flush=True)
        if finding.advice:
            n_advised += 1
            print(printable(f"{'':<10}→ {finding.advice}"), flush=True)
    print("Nothing to improve." if not n_advised else f"Advice is marked by → ({n_advised}).")
