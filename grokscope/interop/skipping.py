"""What an import leaves out because it cannot be read, if the caller allows it."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from grokscope.errors import GrokscopeError


@dataclass
class Skipped:
    """The files and checkpoints that cannot be read.

    Attributes:
        is_allowed: Whether they are left out; otherwise the first of them raises.
        notes: Receives a sentence for each of them.
    """

    is_allowed: bool
    notes: list[str]

    @contextmanager
    def file(self, path: Path) -> Iterator[None]:
        """Leave out a file that cannot be read inside this context."""
        try:
            yield
        except GrokscopeError as error:
            self._add(f"{path.name} was left out: {error}", error)

    @contextmanager
    def checkpoint(self, path: Path | None, step: int) -> Iterator[None]:
        """Leave out a checkpoint that cannot be read inside this context.

        Args:
            path: The file, which the message of an error then names.
            step: The step of the checkpoint.
        """
        try:
            yield
        except GrokscopeError as error:
            named = GrokscopeError(f"{path}: {error}") if path else error
            self._add(f"Step {step:,} was left out: {named}", named)

    def require(self, remaining: Collection[int]) -> None:
        """Raise GrokscopeError if nothing remains."""
        if not remaining:
            reasons = "; ".join(self.notes[-3:])
            raise GrokscopeError(f"No checkpoint can be read, so there is nothing to import. {reasons}")

    def _add(self, sentence: str, error: GrokscopeError) -> None:
        if not self.is_allowed:
            raise error
        self.notes.append(" ".join(sentence.split()))


@contextmanager
def in_file(path: Path) -> Iterator[None]:
    """Put the file's name in front of an error about its network."""
    try:
        yield
    except GrokscopeError as error:
        is_about_the_file = str(error).startswith(("it ", "its "))
        raise (GrokscopeError(f"{path}: {error}") if is_about_the_file else error) from error
