"""The outer guard of every command: a user's error ends in a message and an exit status, not in a traceback."""

import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from grokscope.errors import DamagedError, GrokscopeError, quoted_name


class UsageError(GrokscopeError):
    """A name, value or setting on the command line is wrong, whatever the disk contains; the exit status is 2."""


def printable(text: object) -> str:
    """Return a message with every unprintable character escaped, because names in it may be hostile."""
    return "".join(
        character if character.isprintable() or character == "\n" else character.encode("unicode_escape").decode()
        for character in str(text)
    )


def run_guarded(command: Callable[[list[str]], None], arguments: list[str]) -> None:
    """Run a command, and turn every error that a user can cause into a message and an exit status."""
    warnings.formatwarning = lambda message, *_, **__: printable(f"grokscope: {message}\n")
    with _streams():
        try:
            try:
                command(arguments)
            except SystemExit:  # As after --help.
                sys.stdout.flush()
                raise
            sys.stdout.flush()
        except GrokscopeError as error:
            print(printable(f"grokscope: {_message(error)}"), file=sys.stderr)
            sys.exit(2 if isinstance(error, UsageError) else 1)
        except BrokenPipeError:
            # The reader has closed the output, as in `grokscope log RUN | head`.
            sys.exit(1)
        except OSError as error:
            reason = error.strerror or str(error)
            subject = "The system" if error.filename is None else quoted_name(os.fsdecode(error.filename))
            print(printable(f"grokscope: {subject} cannot be reached: {reason}."), file=sys.stderr)
            sys.exit(1)
        except KeyboardInterrupt as interrupt:
            number = getattr(interrupt, "signal_number", 2)
            next_command = getattr(interrupt, "command", None)
            if next_command is not None:
                print(printable(f"\n{interrupt} Continue with:\n  {next_command}"), file=sys.stderr)
            sys.exit(128 + number)


def _message(error: GrokscopeError) -> str:
    """Return an error's message, with the advice for a damaged checkpoint."""
    if not isinstance(error, DamagedError):
        return str(error)
    from grokscope.store import verify

    return verify.explained(error)


class _Stream:
    """A standard stream whose failed writes raise GrokscopeError, or are ignored if `is_optional`."""

    def __init__(self, stream: TextIO, is_optional: bool):
        self._stream, self._is_optional = stream, is_optional

    def write(self, text: str) -> int:
        """Write a text."""
        with self._errors_handled():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write buffered text."""
        with self._errors_handled():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _errors_handled(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if self._is_optional:
                return
            if isinstance(error, BrokenPipeError):
                raise
            raise GrokscopeError(f"The output cannot be written: {error.strerror}.") from error


@contextmanager
def _streams() -> Iterator[None]:
    """Guard the standard streams inside the block.

    - A closed stream is replaced by the null device.
    - Errors of standard error are ignored: progress and warnings must not stop a training.
    - After the block, no buffered text is left that cannot be written, because the interpreter would fail at its end.
    """
    # A stream that was closed when Python started is None.
    output, errors = (
        stream or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w") for stream in (sys.stdout, sys.stderr)
    )
    for stream in (output, errors):
        # Replace characters that the terminal cannot show by question marks.
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
