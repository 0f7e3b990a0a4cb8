"""The process of one cell: ``python -m grokscope.sweep.train_cell FOLDER PARENT [--allow-drift]``, its config on stdin.

A cell has a process of its own, so that one that dies takes nobody with it, and its bits are those of a fresh
process. It exits with 0 when the cell is finished, 128 + N after signal N, and with the reason on standard error
with `BUSY` if somebody else trains it, `IO_ERROR` after an I/O error, and 1 for what would be the same again.
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
from grokscope.sweep.sweep_folder import BUSY, IO_ERROR
from grokscope.training import run
from grokscope.training.run import resume
from grokscope.training.signals import InterruptedRunError


def main(arguments: list[str]) -> int:
    """Train the cell's run, or go on with it, to its end; return the exit status."""
    folder, allow_drift = Path(arguments[0]), "--allow-drift" in arguments

    def train() -> None:
        config = from_dict(json.load(sys.stdin))
        if folder.is_dir():
            resume(folder, config.n_steps, allow_drift)
        else:
            run.train(config, folder.name, folder.parent)

    return status(train, int(arguments[1]))


def status(train: Callable[[], None], parent: int) -> int:
    """Train as long as the process that started this one lives, and return the exit status that says how it ended."""
    # The parent's number is given: while this process was importing, the parent may have died already.
    threading.Thread(target=_stop_with, args=(parent,), daemon=True).start()
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


def _stop_with(parent: int) -> None:
    """Stop as a signal would, saving everything, when the process that started this one is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
