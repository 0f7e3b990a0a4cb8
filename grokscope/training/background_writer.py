"""Writing on a background thread, so that training does not wait for the disk."""

from collections.abc import Callable
from threading import Thread


class BackgroundWriter:
    """Runs one write at a time on its own thread, in the order of submission.

    At most one write is in flight, which bounds the memory of waiting data. After a failed write, no further write
    starts. Use it as a context manager: the end of the block waits for the last write and raises its failure. The
    block may be entered repeatedly.
    """

    def __init__(self):
        self._thread: Thread | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> "BackgroundWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.wait()

    def submit(self, write: Callable[[], None]) -> None:
        """Start a write after the previous one has finished; raise the failure of the previous one."""
        self.wait()
        self._thread = Thread(target=self._run, args=(write,), name="grokscope writer")
        self._thread.start()

    def raise_failure(self) -> None:
        """Raise the failure of an earlier write, if it is known by now."""
        if self._failure:
            raise self._failure

    def wait(self) -> None:
        """Wait until the submitted write has finished; raise its failure."""
        if self._thread:
            self._thread.join()
            self._thread = None
        self.raise_failure()

    def _run(self, write: Callable[[], None]) -> None:
        try:
            write()
        except BaseException as error:
            self._failure = error
