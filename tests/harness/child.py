"""The process that forks the children which are killed: it imports torch once, and lives no life itself.

It reads jobs as JSON, a line each, and answers with the exit status of a child, or minus the signal that ended it.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # noqa: F401  The first optimizer would import it, which takes seconds, in each child anew.

from grokscope import training
from grokscope.config import from_dict
from grokscope.disk import atomic
from grokscope.training import checkpointer
from grokscope.training.fork import fork
from grokscope.training.signals import InterruptedRunError
from harness.disks import Disk


class Deadly(Disk):
    """A disk that kills its process before, within or after an operation, at the n-th of these moments."""

    def __init__(self, n: int):
        super().__init__()
        self._left = n

    def _tick(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def happen(self, number: int, name: str, arguments: Sequence[Any]) -> Any:
        """Do an operation; a write is done in two halves."""
        self._tick()
        if name == "write":
            data = memoryview(b"".join(arguments[1]))
            half = os.writev(arguments[0], [data[: len(data) // 2]])
            self._tick()
            done = half + os.writev(arguments[0], [data[half:]])
        else:
            done = super().happen(number, name, arguments)
        self._tick()
        return done


def _naive(path: Path, *parts: bytes | memoryview) -> None:
    """Write straight to the final path, as a plain `torch.save` does."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    atomic._write_all(file, parts)
    os.close(file)


def _generators() -> tuple[Any, ...]:
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()


def live(job: dict[str, Any]) -> int:
    """Train, go on with, densify or fork a run as the job says; return the exit status."""
    checkpointer.SEGMENT_SECONDS = job["seconds"]
    SEGMENT_CHECKPOINTS = 3  # Of densify, which does not ask the clock.
    # Whoever is killed leaves all that it wrote to the kernel: only a power cut needs fsync, and it is slow.
    os.fsync = lambda descriptor: None
    if job["operations"]:
        disk = Deadly(job["operations"])
    if job["naive"]:
        atomic.write_atomic = _naive
    signals = [tuple(one) for one in job["signals"]]

    def observe(step: int, row: dict[str, float]) -> None:
        for at, number in signals:
            if at == step:
                os.kill(os.getpid(), number)

    before, root = _generators(), Path(job["root"])
    try:
        if job["densify"]:
            training.densify(root / "run", *job["densify"], observer=observe)
        elif (root / "run").exists():
            training.resume(root / "run", observer=observe)
        elif job["fork"]:
            fork(root / "origin", job["fork"], run="run", root=root, observer=observe)
        else:
            training.train(from_dict(job["config"]), "run", root, observer=observe)
    except InterruptedRunError as interruption:
        return 128 + interruption.signal_number
    except KeyboardInterrupt:
        return 128 + signal.SIGINT  # It came before the run began or after it ended.
    return 0 if _generators() == before else 99


def main() -> None:
    """Answer jobs until there are no more."""
    torch.set_num_threads(1)
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            status = 98
            try:
                status = live(job)
            finally:
                sys.stderr.flush()
                os._exit(status)
        for after, number in job["after"]:
            time.sleep(after)
            os.kill(child, number)  # Until it is waited for, a child that has ended is there to be signalled.
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
