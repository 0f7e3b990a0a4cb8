"""What the commands share: parsing, the RUN argument, and the error that a mistyped command line is."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from grokscope.errors import GrokscopeError

if TYPE_CHECKING:
    from grokscope.store import Store
    from grokscope.trajectory import Trajectory

_Opened = TypeVar("_Opened", "Trajectory", "Store")
ROOT = Path("checkpoints")


class Usage(GrokscopeError):
    """The command line itself cannot be understood."""


def parse(command: Any, name: str, arguments: list[str], **keywords: Any) -> Any:
    """Parse the arguments of a command into the dataclass that describes them."""
    return tyro.cli(
        command,
        prog=f"grokscope {name}",
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff,),
        **keywords,
    )


@dataclass(frozen=True, kw_only=True)
class OfRun:
    """The argument of every command about one run."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The run's folder, or its name under --root."""
    root: Path = ROOT
    """The folder that holds the runs."""

    @property
    def folder(self) -> Path:
        """The run's folder: what is a path is taken as it is, a bare name lies under the root."""
        path = Path(self.run)
        return path if len(path.parts) != 1 or path.is_absolute() or path.is_dir() else self.root / path


def warned(opened: _Opened) -> _Opened:
    """Return a trajectory or a store, having said on standard error what in it is damaged."""
    for sentence in opened.damaged:
        print(f"grokscope: {sentence}", file=sys.stderr)
    return opened
