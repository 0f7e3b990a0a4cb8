"""A run that a cluster stops twice and starts again on other hosts ends with the bits of an undisturbed run."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.processes import COMMAND

from grokscope import training
from grokscope.store.run_store import RunStore

pytestmark = pytest.mark.slow


def start(*arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", COMMAND, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)


def wait_for_step(run: Path, process: subprocess.Popen[bytes], step: int) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if (run / "config.json").exists() and RunStore(run).last_step >= step:
            return
        time.sleep(0.05)
    pytest.fail(f"the training ended with {process.poll()} before step {step}")


@pytest.mark.parametrize("is_frozen", [False, True], ids=["SIGTERM in time", "SIGKILL before the commit"])
def test_run_requeued_twice_has_the_bits_of_one_run(is_frozen, tiny_config, toml, saved, tmp_path):
    config = dataclasses.replace(tiny_config, n_steps=4000, checkpoints="every 20", evaluate_every=20)
    (tmp_path / "job.toml").write_text(toml(config.to_dict()))
    run = tmp_path / "job"
    process = start("train", tmp_path / "job.toml", "--root", tmp_path)
    step = 1
    for host in ("node17", "node18"):
        wait_for_step(run, process, step)
        if is_frozen:
            # A file system that hangs: the process gets no time between SIGTERM and SIGKILL.
            process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGTERM)
        if is_frozen:
            process.kill()
        assert process.wait(60) == (-signal.SIGKILL if is_frozen else 128 + signal.SIGTERM)
        # The next host sees the lock of a process on the last one. Its number may belong to a living process here.
        (run / "lock").write_text(json.dumps({"pid": os.getpid(), "host": host, "since": "2026-11-30 20:00:00 UTC"}))
        step = RunStore(run).last_step + 1
        process = start("resume", run)
    assert process.wait(300) == 0
    training.train(config, "undisturbed", tmp_path)
    assert saved(run) == saved(tmp_path / "undisturbed")
