"""The command that watches a run."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grokscope.cli.arguments import OfRun, UsageError, open_page, parse, shown, warned
from grokscope.disk.lock import is_locked
from grokscope.errors import GrokscopeError

if TYPE_CHECKING:
    from grokscope.watch import Watched


def watch(arguments: list[str]) -> None:
    """Show a run while it trains, on a page that renews itself or in the terminal."""

    @dataclass(frozen=True)
    class Watch(OfRun):
        """Show RUN while it trains, on a page for this machine alone whose address is printed. Ctrl-C ends it.

        RUN is only read: what the page needs and is not saved is measured in memory. A finished run is shown too.
        """

        port: int = 0
        """The port on 127.0.0.1; by default any that is free."""
        every: float = 5.0
        """The seconds from one look at the run to the next."""
        terminal: bool = False
        """Show it in the terminal, and serve no page."""
        open: bool = False
        """Open the page in the browser."""
        until_end: bool = False
        """End when nobody trains RUN any more."""

    asked = parse(Watch, "watch", arguments)
    if not 0.1 <= asked.every <= 3600:
        raise UsageError(f"--every {asked.every:g}: allowed: from 0.1 to 3600 seconds.")
    if asked.terminal and (asked.open or asked.port):
        raise UsageError("--terminal serves no page: it goes with neither --open nor --port.")

    from grokscope.watch import Watched

    try:
        run = Watched(asked.folder)
        warned(run.trajectory)
        if asked.terminal:
            _in_terminal(run, asked.every, asked.until_end)
        else:
            _on_page(run, asked.port, asked.every, asked.until_end, asked.open)
    except KeyboardInterrupt:
        print(f"\nNo longer watching {shown(asked.folder)}; the run goes its own way.")


def _on_page(run: "Watched", port: int, every: float, until_end: bool, is_opened: bool) -> None:
    from grokscope.watch import Server, View

    with Server(port) as server:
        view = View(run, every)
        server.show(view.page, view.version, run.sentence)
        print(shown(f"{run.folder} is shown at {server.address}\n{run.sentence}"), flush=True)
        if is_opened:
            open_page(server.address)
        for is_new in _looks(run, every, until_end):
            if is_new:
                try:
                    view.renew()
                except GrokscopeError as error:
                    run.fail(error)
            server.show(view.page, view.version, run.sentence)
        # A page that is open somewhere shows the end before nobody answers it any more.
        deadline = time.monotonic() + 3 * every + 5
        while server.is_behind(2 * every + 1) and time.monotonic() < deadline:
            time.sleep(0.1)
    print(shown(run.sentence), flush=True)


def _in_terminal(run: "Watched", every: float, until_end: bool) -> None:
    from rich.console import Console
    from rich.live import Live

    from grokscope.cli.progress_bar import can_draw
    from grokscope.watch import Screen

    console, screen = Console(), Screen(run)
    if not can_draw(console):
        print(shown(screen.line), flush=True)
        said = run.sentence
        for is_new in _looks(run, every, until_end):
            if is_new or run.sentence != said:
                print(shown(screen.line), flush=True)
            said = run.sentence
        return
    with Live(screen, console=console, auto_refresh=False) as live:
        for _ in _looks(run, every, until_end):
            live.refresh()


def _looks(run: "Watched", every: float, until_end: bool) -> Iterator[bool]:
    """Look at a run again and again, and yield each time whether it was read anew."""
    worked = 0.0
    while not (until_end and run.is_over):
        # At most half of the time is spent on what a commit brings, so that training has the machine.
        due = time.monotonic() + max(every, worked)
        while (left := due - time.monotonic()) > 0 and not (until_end and not is_locked(run.folder)):
            time.sleep(min(left, 1.0))
        started = time.monotonic()
        yield run.look()
        worked = time.monotonic() - started
