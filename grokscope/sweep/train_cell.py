"""The process of one cell: ``python -m grokscope.sweep.train_cell FOLDER PARENT [--allow-drift]``.

The cell's config is read as JSON from standard input. Each cell trains in its own process, so one crash does not stop
the sweep, and its bits are those of a fresh process. The process exits with:

- 0 when the cell is finished;
- 128 + N after signal N;
- `BUSY` if another process trains the cell, `IO_ERROR` after an I/O error, and 1 for an error that a retry repeats;
  the reason is on standard error.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from grokscope.config import from_dict
from grokscope.errors import BusyError, GrokscopeError
from grokscope.store.run_store import RunStore
from grokscope.sweep.sweep_folder import BUSY, IO_ERROR
from grokscope.training import run
from grokscope.training.run import resume
from grokscope.training.signals import InterruptedRunError


def main(arguments: list[str]) -> int:
    """Train or resume the cell's run to its end; return the exit status."""
    folder, allow_drift = Path(arguments[0]), "--allow-drift" in arguments

    def train() -> None:
        config = from_dict(json.load(sys.stdin))
        if folder.is_dir():
            # With n_steps, a run that its rule has ended would continue.
            n_steps = None if RunStore(folder).stopped else config.n_steps
            resume(folder, n_steps, allow_drift, progress=False)
        else:
            run.train(config, folder.name, folder.parent, progress=False)

    return exit_status(train, int(arguments[1]))


def exit_status(train: Callable[[], None], parent: int) -> int:
    """Train while the parent process lives, and return the exit status that the module's docstring describes."""
    # The parent passes its own process id, because it may die while this process imports.
    threading.Thread(target=_stop_with_parent, args=(parent,), daemon=True).start()
    try:
        train()
    except InterruptedRunError as interrupt:
        return 128 + interrupt.signal_number
    except GrokscopeError as error:
        sys.stderr.write(str(error))
        if isinstance(error, BusyError):
            return BUSY
        return IO_ERROR if isinstance(error.__cause__, OSError) else 1
    except OSError as error:
        sys.stderr.write(str(error))
        return IO_ERROR
    return 0


def _stop_with_parent(parent: int) -> None:
    """Send this process a SIGTERM, which commits and stops, when its parent process has ended."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
