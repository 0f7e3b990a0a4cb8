"""The writer: a thread that writes what training hands over, so that training need not wait for the disk."""

from collections.abc import Callable
from threading import Thread


class Writer:
    """Does one piece of writing after the other, each on a thread of its own, in the order they are handed over.

    At most one is in flight, so that what waits to be written is bounded; after one that failed none is begun. Use
    as a context manager: when the block ends, however it does, all is written and no thread is left, or what went
    wrong is raised. The block may be entered again.
    """

    def __init__(self):
        self._thread: Thread | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.wait()

    def begin(self, write: Callable[[], None]) -> None:
        """Begin to write once what was handed over before is written; raise what went wrong with that."""
        self.wait()
        self._thread = Thread(target=self._attempt, args=(write,), name="grokscope writer")
        self._thread.start()

    def check(self) -> None:
        """Raise what went wrong with anything handed over before, if that is known yet."""
        if self._failure:
            raise self._failure

    def wait(self) -> None:
        """Wait until all that was handed over is written; raise what went wrong with it."""
        if self._thread:
            self._thread.join()
            self._thread = None
        self.check()

    def _attempt(self, write: Callable[[], None]) -> None:
        try:
            write()
        except BaseException as error:
            self._failure = error
