"""The server process, which imports torch once and forks a child for each job.

It reads jobs as JSON, one per line. Its answer is the exit status of the child, or minus the signal that ended it.
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
import torch._dynamo  # noqa: F401  Otherwise the first optimizer imports it in every child, which takes seconds.

from grokscope import training
from grokscope.config import from_dict
from grokscope.disk import atomic, syscalls
from grokscope.training import checkpointer, densification
from grokscope.training.fork import fork
from grokscope.training.signals import InterruptedRunError
from harness.disks import CountingDisk


class KillingDisk(CountingDisk):
    """A disk that kills its process at the n-th moment: before, within or after an operation."""

    def __init__(self, n: int):
        super().__init__()
        self._n_moments_left = n

    def _count_moment(self) -> None:
        self._n_moments_left -= 1
        if self._n_moments_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def perform(self, number: int, name: str, arguments: Sequence[Any]) -> Any:
        """Perform an operation, a write in two halves."""
        self._count_moment()
        if name == "write":
            data = memoryview(b"".join(arguments[1]))
            n_half = os.writev(arguments[0], [data[: len(data) // 2]])
            self._count_moment()
            result = n_half + os.writev(arguments[0], [data[n_half:]])
        else:
            result = super().perform(number, name, arguments)
        self._count_moment()
        return result


def _write_naively(path: Path, *parts: bytes | memoryview) -> None:
    """Write straight to the final path, as a plain `torch.save` does."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    atomic._write_all(file, parts)
    os.close(file)


def _generator_states() -> tuple[Any, ...]:
    """Return the states of the global random generators."""
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()


def run_job(job: dict[str, Any]) -> int:
    """Train, resume, densify or fork a run; return the exit status."""
    checkpointer.SEGMENT_SECONDS = job["segment_seconds"]
    densification.SEGMENT_CHECKPOINTS = 3  # Densify does not use the clock.
    # A killed process leaves its writes in the kernel: only a loss of power needs fsync, which is slow.
    os.fsync = lambda descriptor: None
    if job["kill_at_moment"]:
        syscalls.disk = KillingDisk(job["kill_at_moment"])
    if job["naive"]:
        atomic.write_atomic = _write_naively

    def observe(step: int, row: dict[str, float]) -> None:
        for signal_step, number in job["step_signals"]:
            if signal_step == step:
                os.kill(os.getpid(), number)

    states, root = _generator_states(), Path(job["root"])
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
        return 128 + signal.SIGINT  # The signal arrived before or after training.
    return 0 if _generator_states() == states else 99


def main() -> None:
    """Run jobs until the input ends."""
    torch.set_num_threads(1)
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            status = 98
            try:
                status = run_job(job)
            finally:
                sys.stderr.flush()
                os._exit(status)
        for seconds, number in job["timed_signals"]:
            time.sleep(seconds)
            os.kill(child, number)  # The process number stays valid until `waitpid`, even if the child has ended.
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
