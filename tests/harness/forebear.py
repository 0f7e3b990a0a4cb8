"""Processes that live a part of a run's life and are killed in it, by a signal or at an operation on the disk.

Importing torch takes seconds, so one process, `child`, imports it and forks a child for each life.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from grokscope.config import RunConfig

TESTS = Path(__file__).parent.parent


class Forebear:
    """The process that forks the children; use as a context manager."""

    def __init__(self):
        path = os.pathsep.join([str(TESTS), str(TESTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "harness.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        )
        assert self.process.stdout and self.process.stdout.readline() == "ready\n"

    def __enter__(self) -> "Forebear":
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.communicate()

    def __call__(
        self,
        root: Path,
        config: RunConfig,
        *,
        kill_after: float | None = None,
        after: tuple[tuple[float, int], ...] = (),
        operations: int = 0,
        signals: tuple[tuple[int, int], ...] = (),
        naive: bool = False,
        seconds: float = 0.0,
        densify: tuple[int, int] | None = None,
        fork: int = 0,
    ) -> int:
        """Let a child train or go on with root/run; return its exit status, or minus the signal that ended it.

        With `densify` it takes the checkpoints of these steps, and with `fork` a new run goes on from this step of
        root/origin. It is killed after `kill_after` seconds, or at its `operations`-th moment on the disk, gets the
        `signals` (step, number), or those in `after` (seconds since the one before, number). A segment is committed
        every `seconds`: with 0 at every step.
        """
        job: dict[str, Any] = {
            "root": str(root),
            "config": config.to_dict(),
            "after": after if kill_after is None else [(kill_after, 9)],
            "operations": operations,
            "signals": signals,
            "naive": naive,
            "seconds": seconds,
            "densify": densify,
            "fork": fork,
        }
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())
