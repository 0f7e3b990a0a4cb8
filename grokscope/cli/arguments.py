"""What the commands share: parsing, the RUN argument, and the error that a mistyped command line is."""

import os
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from grokscope.errors import GrokscopeError

if TYPE_CHECKING:
    from grokscope.store.run_store import RunStore
    from grokscope.sweep.plan import Sweep
    from grokscope.trajectory import Trajectory

_Opened = TypeVar("_Opened", "Trajectory", "RunStore")
ROOT = Path("checkpoints")


class UsageError(GrokscopeError):
    """The command line itself cannot be understood."""


def parse(command: Any, name: str, arguments: list[str], *, pairs: bool = False, **keywords: Any) -> Any:
    """Parse the arguments of a command into the dataclass that describes them; `pairs` adds a --no-x to each --x."""
    return tyro.cli(
        command,
        prog=f"grokscope {name}",
        args=arguments,
        config=() if pairs else (tyro.conf.FlagCreatePairsOff,),
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
        """The run's folder: what is a path to a folder is taken as it is, anything else lies under the root."""
        path = Path(self.run)
        # Unlike Path.is_dir, this finds no folder under a name that is too long, or has a null byte in it.
        is_under_root = len(path.parts) == 1 or os.path.isdir(self.root / path)
        return self.root / path if is_under_root and not os.path.isdir(path) else path


def shown(text: object) -> str:
    """Return a message that is safe for a terminal: what is not printed, such as an escape or a mark that turns the
    line round, stands there escaped. Names in it may be a stranger's."""
    return "".join(
        one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode() for one in str(text)
    )


def announce(sentence: str) -> None:
    """Print a sentence before work that goes on even if whoever read the output has enough of it."""
    with suppress(BrokenPipeError):
        print(sentence, flush=True)


def open_page(address: str) -> None:
    """Open an address in the browser, where there is a screen for one."""
    import webbrowser

    # Without a screen Python may start a text browser, which would wait for keys.
    if sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(address)


def warned(opened: _Opened) -> _Opened:
    """Return a trajectory or a store, having said on standard error what in it is damaged."""
    for sentence in opened.damaged:
        print(shown(f"grokscope: {sentence}"), file=sys.stderr)
    return opened


def states(plan: "Sweep", folder: Path) -> str:
    """Return how many cells are in which state."""
    from grokscope.sweep import sweep_folder

    counts = Counter(sweep_folder.state(cell, folder).status for cell in plan.cells)
    said = [f"{len(plan.cells):,} cell{'s' * (len(plan.cells) != 1)}"]
    return ", ".join(said + [f"{n:,} {status}" for status, n in counts.most_common()])
