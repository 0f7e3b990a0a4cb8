"""A server process that forks children, each of which works on a run and may be killed.

The import of torch takes seconds, so only the server imports it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from grokscope.config import RunConfig

TESTS = Path(__file__).parent.parent


class ForkServer:
    """The client of the server process, as a context manager."""

    def __init__(self):
        path = os.pathsep.join([str(TESTS), str(TESTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "harness.fork_server_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        )
        assert self.process.stdout and self.process.stdout.readline() == "ready\n"

    def __enter__(self) -> "ForkServer":
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
        timed_signals: tuple[tuple[float, int], ...] = (),
        kill_at_moment: int = 0,
        step_signals: tuple[tuple[int, int], ...] = (),
        naive: bool = False,
        segment_seconds: float = 0.0,
        densify: tuple[int, int] | None = None,
        fork: int = 0,
    ) -> int:
        """Train the run root/run in a child, or resume it if it exists; return the exit status, or minus the signal.

        Args:
            root: The folder of the run.
            config: The config of the run.
            kill_after: The seconds until the child is killed.
            timed_signals: Pairs (seconds since the previous signal, number) of signals to send.
            kill_at_moment: The moment on the disk at which the child kills itself, from 1: each operation has the
                moments before and after it, and a write also one within.
            step_signals: Pairs (step, number) of signals that the child sends itself.
            naive: Write straight to the final path, as a control.
            segment_seconds: The seconds after which a segment ends; 0 commits at every step.
            densify: Densify the checkpoints of these steps instead.
            fork: Continue root/origin from this step instead, if the run does not exist.
        """
        job: dict[str, Any] = {
            "root": str(root),
            "config": config.to_dict(),
            "timed_signals": timed_signals if kill_after is None else [(kill_after, 9)],
            "kill_at_moment": kill_at_moment,
            "step_signals": step_signals,
            "naive": naive,
            "segment_seconds": segment_seconds,
            "densify": densify,
            "fork": fork,
        }
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())
