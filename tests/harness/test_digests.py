"""The same config in another process gives the same digest of all checkpoints."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from grokscope import Trajectory, training
from grokscope.config import RunConfig
from harness.forebear import Forebear
from harness.lives import said

pytestmark = pytest.mark.usefixtures("one_thread")

FRESH = """
import json, sys
from grokscope import training
from grokscope.config import from_dict
print(training.train(from_dict(json.loads(sys.argv[1])), "run", sys.argv[2]).digest)
"""


@pytest.mark.parametrize("is_fresh", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_process_computes_the_same_digest(
    is_fresh: bool, live: Forebear, tiny_config: RunConfig, tmp_path: Path
):
    """Twice in forked processes; 20 times each in one that has just started."""
    digests = [training.train(tiny_config, "here", tmp_path).digest]
    for i in range(20 if is_fresh else 2):
        root = tmp_path / str(i)
        if is_fresh:
            command = [sys.executable, "-W", "ignore", "-c", FRESH, json.dumps(tiny_config.to_dict()), str(root)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            digests.append(done.stdout.strip())
        else:
            assert live(root, tiny_config) == 0
            digests.append(Trajectory.open(root / "run").digest)
    said(
        "processes beside this one", {"of the same digest": digests[1:].count(digests[0]), "in all": len(digests) - 1}
    )
    assert set(digests) == {digests[0]}
