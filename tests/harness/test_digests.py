"""The same config gives the same digest of all checkpoints in every process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from grokscope import Trajectory, training
from grokscope.config import RunConfig
from harness.fork_server import ForkServer
from harness.scenarios import report

pytestmark = pytest.mark.usefixtures("one_thread")

PROGRAM = """
import json, sys
from grokscope import training
from grokscope.config import from_dict
print(training.train(from_dict(json.loads(sys.argv[1])), "run", sys.argv[2]).digest)
"""


@pytest.mark.parametrize("is_new_process", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_process_computes_the_same_digest(
    is_new_process: bool, run_child: ForkServer, tiny_config: RunConfig, tmp_path: Path
):
    """Uses two forked processes, or 20 newly started ones."""
    digests = [training.train(tiny_config, "here", tmp_path).digest]
    for i in range(20 if is_new_process else 2):
        root = tmp_path / str(i)
        if is_new_process:
            command = [sys.executable, "-W", "ignore", "-c", PROGRAM, json.dumps(tiny_config.to_dict()), str(root)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            process = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            digests.append(process.stdout.strip())
        else:
            assert run_child(root, tiny_config) == 0
            digests.append(Trajectory.open(root / "run").digest)
    counts = {"with the same digest": digests[1:].count(digests[0]), "in total": len(digests) - 1}
    report("other processes", counts)
    assert set(digests) == {digests[0]}
