"""Code that the commands share: parsing, the RUN argument, and text for the terminal."""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from grokscope import plugins
from grokscope.cli.guard import UsageError as UsageError
from grokscope.cli.guard import printable as printable
from grokscope.errors import BusyError, GrokscopeError, unknown_name

if TYPE_CHECKING:
    from grokscope.series import Series
    from grokscope.store.run_store import RunStore
    from grokscope.sweep.plan import Sweep
    from grokscope.trajectory import Trajectory

_Opened = TypeVar("_Opened", "Trajectory", "RunStore")
ROOT = Path("checkpoints")


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn errors inside the block into UsageError, except for missing packages, unreadable files and taken names."""
    try:
        yield
    except GrokscopeError as error:
        if isinstance(error, UsageError | BusyError) or isinstance(error.__cause__, OSError | ImportError):
            raise
        raise UsageError(str(error)) from error


class _OptionsReadError(Exception):
    """Ends a command at `parse`, and carries the type of its options and the keywords of the parser."""

    def __init__(self, options: Any, keywords: dict[str, Any]):
        super().__init__()
        self.options, self.keywords = options, keywords


_reads_options: ContextVar[bool] = ContextVar("reads options", default=False)


def options_of(command: Callable[[list[str]], None]) -> tuple[Any, dict[str, Any]]:
    """Return the dataclass of a command's options and the keywords for `tyro.cli`, without running the command."""
    token = _reads_options.set(True)
    try:
        command([])
    except _OptionsReadError as read:
        return read.options, read.keywords
    finally:
        _reads_options.reset(token)
    raise TypeError(f"{command} does not parse its arguments")


def parse(command: Any, name: str, arguments: list[str], *, pairs: bool = False, **keywords: Any) -> Any:
    """Parse arguments into the dataclass that describes the command's options; `pairs` adds --no-x to each --x."""
    keywords["config"] = () if pairs else (tyro.conf.FlagCreatePairsOff,)
    if _reads_options.get():
        raise _OptionsReadError(command, keywords)
    return tyro.cli(command, prog=f"grokscope {name}", args=arguments, **keywords)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of every command on one run."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The run's folder, or its name under --root."""
    root: Path = ROOT
    """The folder that contains the runs."""

    @property
    def folder(self) -> Path:
        """The run's folder: RUN if it is a path to a folder, else RUN under the root."""
        path = Path(self.run)
        # Unlike Path.is_dir, os.path.isdir is False for a name that is too long or contains a null byte.
        is_under_root = len(path.parts) == 1 or os.path.isdir(self.root / path)
        return self.root / path if is_under_root and not os.path.isdir(path) else path


def counted(n: int, noun: str) -> str:
    """Return a number with its noun, such as "1 cell" or "1,200 cells"."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def announce(sentence: str) -> None:
    """Print a message; ignore a closed pipe, because the work must continue."""
    with suppress(BrokenPipeError):
        print(sentence, flush=True)


def open_page(address: str) -> None:
    """Open an address in the browser if the machine has a screen."""
    import webbrowser

    # Without a screen Python may start a text browser, which waits for keys.
    if sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(address)


def require_names(kind: str, names: Sequence[str]) -> None:
    """Raise UsageError for a name that no plug-in of a kind has, such as "measures"."""
    for name in names:
        if name not in plugins.names(kind):
            raise UsageError(unknown_name(kind.removesuffix("s"), name, plugins.names(kind)))


def require_run(folder: Path) -> Path:
    """Return a run's folder; raise GrokscopeError if it is not a run. Unlike opening the run, it imports no torch."""
    from grokscope.store.record import Record

    Record.read(folder)
    return folder


def print_damage(opened: _Opened) -> _Opened:
    """Print the damage of a trajectory or store to standard error, and return the trajectory or store."""
    for sentence in opened.damaged:
        print(printable(f"grokscope: {sentence}"), file=sys.stderr)
    return opened


def state_counts(plan: "Sweep", folder: Path) -> str:
    """Return the number of cells in each state, in words."""
    from grokscope.sweep import sweep_folder

    counts = Counter(sweep_folder.cell_state(cell, folder).condition for cell in plan.cells)
    return ", ".join([counted(len(plan.cells), "cell"), *(f"{n:,} {status}" for status, n in counts.most_common())])


def measured_line(series: "Series", trajectory: "Trajectory", seconds: float) -> str:
    """Return the number of checkpoints that a measure has, and the time that it took."""
    return f"{len(series):>6,} of {counted(len(trajectory), 'checkpoint')} {seconds:6.1f} s"
