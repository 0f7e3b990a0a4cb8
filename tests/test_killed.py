"""Runs killed by SIGKILL or stopped by signals, in processes of their own, resumed to the end: every bit is there.

Importing torch takes seconds, so one process imports it and forks a child for each life of a run. The child trains,
or goes on with what is there; it is killed after a while, or kills itself at a chosen operation on the disk.
"""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from shared import KINDS, of_kind

from grokscope import Trajectory, training
from grokscope.config import RunConfig
from grokscope.errors import GrokscopeError
from grokscope.store import Store

Read = Callable[[Path], dict[tuple[Any, ...], tuple[Any, ...]]]

FOREBEAR = """
import json, os, random, signal, sys, time
from pathlib import Path
import numpy as np
import torch
import torch._dynamo  # The first optimizer would import it, which takes seconds, in each child anew.
from grokscope import files, recorder, training
from grokscope.config import from_dict
from grokscope.interrupts import Interrupted

torch.set_num_threads(1)

def live(job):
    recorder.SEGMENT_SECONDS = job["seconds"]
    # Whoever is killed leaves all that it wrote to the kernel: only a power cut needs fsync, and it is slow.
    os.fsync = lambda descriptor: None
    left = job["operations"]

    def tick():
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def ticking(function):
        def called(*arguments, **keywords):
            tick()
            result = function(*arguments, **keywords)
            tick()
            return result
        return called

    class Torn:
        # A file whose writes reach the disk in two halves, with a moment between them to die in.
        def __init__(self, *arguments):
            self.file = open(*arguments, buffering=0)
        def __enter__(self):
            return self
        def __exit__(self, *exception):
            self.file.close()
        def __getattr__(self, name):
            return getattr(self.file, name)
        def writelines(self, parts):
            data = b"".join(parts)
            self.file.write(data[:len(data) // 2])
            tick()
            self.file.write(data[len(data) // 2:])

    if left:
        files.open = Torn
        for name in ("fsync", "replace", "rename", "mkdir"):
            setattr(os, name, ticking(getattr(os, name)))
    if job["naive"]:
        def naive(path, *parts):
            with Torn(path, "wb") as file:
                file.writelines(parts)
        files.write_atomic = naive
    signals = [tuple(one) for one in job["signals"]]

    def observe(step, row):
        for at, number in signals:
            if at == step:
                os.kill(os.getpid(), number)

    def generators():
        return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()

    before, root = generators(), Path(job["root"])
    try:
        if (root / "run").exists():
            training.resume(root / "run", observer=observe)
        else:
            training.train(from_dict(job["config"]), "run", root, observer=observe)
    except Interrupted as interruption:
        return 128 + interruption.signal_number
    return 0 if generators() == before else 99

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
    if job["kill_after"] is not None:
        time.sleep(job["kill_after"])
        os.kill(child, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Forebear:
    """The process that forks the children."""

    def __init__(self):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", FOREBEAR],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self.process.stdout and self.process.stdout.readline() == "ready\n"

    def __call__(
        self,
        root: Path,
        config: RunConfig,
        *,
        kill_after: float | None = None,
        operations: int = 0,
        signals: tuple[tuple[int, int], ...] = (),
        naive: bool = False,
        seconds: float = 0.0,
    ) -> int:
        """Let a child train or go on with root/run; return its exit status, or minus the signal that ended it.

        It is killed after `kill_after` seconds, or at its `operations`-th operation on the disk, or gets the
        `signals` (step, number). A segment is committed every `seconds`: with 0 at every step.
        """
        job = {
            "root": str(root),
            "config": config.to_dict(),
            "kill_after": kill_after,
            "operations": operations,
            "signals": signals,
            "naive": naive,
            "seconds": seconds,
        }
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A forked child has lost its parent's threads, and other threads are other bits: both sides take one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def live() -> Iterator[Forebear]:
    """The function that lets a child process live a part of a run's life."""
    forebear = Forebear()
    yield forebear
    forebear.process.kill()
    forebear.process.communicate()


def committed(run: Path, saved: Read) -> dict:
    """Return the checkpoints and log rows of a run that must open and be sound; nothing if there is none yet."""
    if not run.exists():
        return {}
    opened = Store(run)
    assert opened.damaged == [] and list(opened.damage()) == []
    assert Trajectory.open(run).first.step == 0
    return {key: value for key, value in saved(run).items() if key[0] in ("checkpoint", "log")}


@pytest.mark.parametrize("n_chains", [1, pytest.param(25, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_any_instant_again_and_again_a_run_loses_nothing_and_ends_the_same(
    kind: str, n_chains: int, live: Forebear, tiny_config: RunConfig, tmp_path: Path, saved: Read
):
    config = of_kind(tiny_config, kind)
    durations = []
    for name in ("whole", "warm"):
        started = time.monotonic()
        assert live(tmp_path / name, config) == 0
        durations.append(time.monotonic() - started)
    expected = saved(tmp_path / "whole" / "run")
    training.train(config, "here", tmp_path)
    assert saved(tmp_path / "here") == expected, "this process computes other bits than the children"

    choose, killed, root = random.Random(f"{kind} {n_chains}"), 0, tmp_path / "killed"
    for _ in range(n_chains):
        before = {}
        for _ in range(5):
            killed += live(root, config, kill_after=choose.uniform(0, 0.4 * min(durations))) == -signal.SIGKILL
            after = committed(root / "run", saved)
            assert before.items() <= after.items(), "something committed is lost or was changed"
            before = after
        assert live(root, config) == 0
        assert saved(root / "run") == expected
        shutil.rmtree(root)
    assert killed >= 2 * n_chains, "the kills are meant to come while the run trains"


OPERATIONS = [*range(1, 36, 4), 64]


@pytest.mark.parametrize("operations", [OPERATIONS, pytest.param([*range(1, 100)], marks=pytest.mark.slow)], ids=len)
def test_killed_at_any_operation_on_the_disk_a_run_opens_and_ends_the_same(
    operations: list[int], live: Forebear, tiny_config: RunConfig, tmp_path: Path, saved: Read
):
    config = dataclasses.replace(tiny_config, n_steps=10, checkpoints="every 3")
    training.train(config, "whole", tmp_path)
    expected = saved(tmp_path / "whole")
    for n in operations:
        root = tmp_path / str(n)
        assert live(root, config, operations=n) == -signal.SIGKILL or n > 80, "there are fewer operations than that"
        committed(root / "run", saved)
        # And once more, while it goes on.
        if live(root, config, operations=n) == -signal.SIGKILL:
            before = committed(root / "run", saved)
            assert live(root, config) == 0
            assert before.items() <= committed(root / "run", saved).items()
        assert saved(root / "run") == expected
        assert [path.name for path in root.iterdir() if not path.name.startswith(".")] == ["run"]


def test_a_writer_that_is_not_atomic_is_caught(live: Forebear, tiny_config: RunConfig, tmp_path: Path, saved: Read):
    """The control of the test above: killed in the middle of a plain write, a run is damaged, and that is seen."""
    caught = 0
    for n in range(12, 30, 2):
        root = tmp_path / str(n)
        live(root, tiny_config, operations=n, naive=True)
        try:
            committed(root / "run", saved)
        except (AssertionError, GrokscopeError):
            caught += 1
    assert caught


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_commits_the_present_step(
    number: int, live: Forebear, tiny_config: RunConfig, tmp_path: Path, saved: Read
):
    training.train(tiny_config, "whole", tmp_path)
    assert live(tmp_path, tiny_config, signals=((17, number),), seconds=1e9) == 128 + number
    assert Store(tmp_path / "run").last_step == 17
    assert live(tmp_path, tiny_config, signals=((41, number),), seconds=1e9) == 128 + number
    assert Store(tmp_path / "run").last_step == 41
    assert live(tmp_path, tiny_config) == 0
    assert saved(tmp_path / "run") == saved(tmp_path / "whole")


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_exits_at_once_and_the_run_still_opens(
    second: int, live: Forebear, tiny_config: RunConfig, tmp_path: Path, saved: Read
):
    signals = ((17, signal.SIGINT), (17, second))
    assert live(tmp_path, tiny_config, signals=signals, seconds=1e9) == 128 + second
    committed(tmp_path / "run", saved)
    assert Store(tmp_path / "run").last_step == 0, "at once is without a commit"
    assert live(tmp_path, tiny_config) == 0
    training.train(tiny_config, "whole", tmp_path)
    assert saved(tmp_path / "run") == saved(tmp_path / "whole")
