"""The edge of every command: what goes wrong in it ends in a sentence and an exit status, and not in a traceback."""

import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from grokscope.cli.arguments import UsageError, shown
from grokscope.errors import DamagedError, GrokscopeError, quoted_name


def guarded(command: Callable[[list[str]], None], arguments: list[str]) -> None:
    """Run a command so that nothing a user can cause ends in a traceback."""
    warnings.formatwarning = lambda message, *_, **__: shown(f"grokscope: {message}\n")
    with _streams():
        try:
            try:
                command(arguments)
            except SystemExit:  # As after --help.
                sys.stdout.flush()
                raise
            sys.stdout.flush()
        except GrokscopeError as error:
            print(shown(f"grokscope: {_message(error)}"), file=sys.stderr)
            sys.exit(2 if isinstance(error, UsageError) else 1)
        except BrokenPipeError:
            # Whoever read the output has enough, as in `grokscope log RUN | head`.
            sys.exit(1)
        except OSError as error:
            reason = error.strerror or str(error)
            what = "The system" if error.filename is None else quoted_name(os.fsdecode(error.filename))
            print(shown(f"grokscope: {what} cannot be reached: {reason}."), file=sys.stderr)
            sys.exit(1)
        except KeyboardInterrupt as interrupt:
            number = getattr(interrupt, "signal_number", 2)
            again = getattr(interrupt, "again", None)
            if again is not None:
                print(shown(f"\n{interrupt} Go on with it by:\n  {again}"), file=sys.stderr)
            sys.exit(128 + number)


def _message(error: GrokscopeError) -> str:
    """Return an error's message, with the advice for a damaged checkpoint."""
    if not isinstance(error, DamagedError):
        return str(error)
    from grokscope.store import verify

    return verify.explained(error)


class _Stream:
    """A standard stream that says in words that it cannot be written, or that `forgives` and goes on without it."""

    def __init__(self, stream: TextIO, forgives: bool):
        self._stream, self._forgives = stream, forgives

    def write(self, text: str) -> int:
        """Write a text."""
        with self._told():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write what waits to be written."""
        with self._told():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if self._forgives:
                return
            if isinstance(error, BrokenPipeError):
                raise
            raise GrokscopeError(f"The output cannot be written: {error.strerror}.") from error


@contextmanager
def _streams() -> Iterator[None]:
    """Within the block, a standard stream that is closed leads nowhere, and standard error fails nobody.

    What a command says there, progress and warnings, is no reason to stop a training. After the block nothing waits
    that cannot be written, over which the interpreter would stumble at its end.
    """
    # Python has no stream that was closed when it began.
    output, errors = (
        stream or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w") for stream in (sys.stdout, sys.stderr)
    )
    for stream in (output, errors):
        # A terminal that cannot show a sign gets a question mark in its place.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    sys.stdout, sys.stderr = cast(TextIO, _Stream(output, False)), cast(TextIO, _Stream(errors, True))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = output, errors
        for stream in (output, errors):
            try:
                stream.flush()
            except OSError:
                with suppress(OSError):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
