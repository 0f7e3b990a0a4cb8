"""The command `watch`."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grokscope.cli.arguments import RunOptions, UsageError, open_page, parse, print_damage, printable, require_run
from grokscope.disk.lock import is_locked
from grokscope.errors import GrokscopeError

if TYPE_CHECKING:
    from grokscope.watch import WatchedRun


def watch(arguments: list[str]) -> None:
    """Show a run while it trains, on a page that updates itself or in the terminal."""

    @dataclass(frozen=True)
    class Watch(RunOptions):
        """Show RUN while it trains, on a page that only this machine can open; its address is printed. Ctrl-C stops.

        RUN is only read: missing measures are computed in memory. RUN may be finished.
        """

        port: int = 0
        """The port on 127.0.0.1; by default any free port."""
        every: float = 5.0
        """The seconds between two reads of the run."""
        terminal: bool = False
        """Show the run in the terminal instead of on a page."""
        open: bool = False
        """Open the page in the browser."""
        until_end: bool = False
        """Stop when no process trains RUN."""

    options = parse(Watch, "watch", arguments)
    if not 0.1 <= options.every <= 3600:
        raise UsageError(f"--every {options.every:g}: allowed: from 0.1 to 3600 seconds.")
    if options.terminal and (options.open or options.port):
        raise UsageError("--terminal serves no page, so it excludes --open and --port.")
    require_run(options.folder)

    from grokscope.watch import WatchedRun

    try:
        run = WatchedRun(options.folder)
        print_damage(run.trajectory)
        if options.terminal:
            _in_terminal(run, options.every, options.until_end)
        else:
            _on_page(run, options.port, options.every, options.until_end, options.open)
    except KeyboardInterrupt:
        print(f"\nNo longer watching {printable(options.folder)}; watching does not affect the run.")


def _on_page(run: "WatchedRun", port: int, every: float, until_end: bool, is_opened: bool) -> None:
    from grokscope.watch import Server, View

    with Server(port) as server:
        view = View(run, every)
        server.publish(view.page, view.version, run.status)
        print(printable(f"{run.folder} is shown at {server.address}\n{run.status}"), flush=True)
        if is_opened:
            open_page(server.address)
        for is_new in _refreshes(run, every, until_end):
            if is_new:
                try:
                    view.update()
                except GrokscopeError as error:
                    run.record_fault(error)
            server.publish(view.page, view.version, run.status)
        # An open page must get the last status before the server stops.
        deadline = time.monotonic() + 3 * every + 5
        while server.has_outdated_reader(2 * every + 1) and time.monotonic() < deadline:
            time.sleep(0.1)
    print(printable(run.status), flush=True)


def _in_terminal(run: "WatchedRun", every: float, until_end: bool) -> None:
    from rich.console import Console
    from rich.live import Live

    from grokscope.training.run_progress import can_draw
    from grokscope.watch import Screen

    console, screen = Console(), Screen(run)
    if not can_draw(console):
        print(printable(screen.line), flush=True)
        last_status = run.status
        for is_new in _refreshes(run, every, until_end):
            if is_new or run.status != last_status:
                print(printable(screen.line), flush=True)
            last_status = run.status
        return
    with Live(screen, console=console, auto_refresh=False) as live:
        for _ in _refreshes(run, every, until_end):
            live.refresh()


def _refreshes(run: "WatchedRun", every: float, until_end: bool) -> Iterator[bool]:
    """Refresh a run repeatedly, and yield each time whether it has changed."""
    busy_seconds = 0.0
    while not (until_end and run.is_over):
        # Work at most half of the time, so that the training has the machine.
        due = time.monotonic() + max(every, busy_seconds)
        while (left := due - time.monotonic()) > 0 and not (until_end and not is_locked(run.folder)):
            time.sleep(min(left, 1.0))
        started = time.monotonic()
        yield run.refresh()
        busy_seconds = time.monotonic() - started
