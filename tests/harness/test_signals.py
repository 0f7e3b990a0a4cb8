"""Signals at random instants, once and twice: the exit status is that of the signal, and the run ends the same.

training/test_signals tests the message and a real `grokscope train`; sweep/test_workers tests sweeps.
"""

import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from support.shared import damage_of, read_everything

from grokscope.config import RunConfig
from grokscope.store.run_store import RunStore
from harness.fork_server import ForkServer
from harness.scenarios import report

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("n_runs", [2, pytest.param(200, marks=pytest.mark.slow)])
def test_run_signalled_at_random_instants_ends_the_same(
    n_runs: int, run_child: ForkServer, tiny_config: RunConfig, tmp_path: Path
):
    assert run_child(tmp_path / "warm-up", tiny_config, segment_seconds=0.02) == 0
    started = time.monotonic()
    assert run_child(tmp_path / "whole", tiny_config, segment_seconds=0.02) == 0
    duration, expected = time.monotonic() - started, read_everything(tmp_path / "whole" / "run")
    generator, counts = random.Random(n_runs), Counter[str]()
    for i in range(n_runs):
        root, first = tmp_path / "stopped", generator.choice([signal.SIGINT, signal.SIGTERM])
        signals = [(generator.uniform(0.1, 0.9) * duration, int(first))]
        if i % 2:
            second = generator.uniform(0, 0.02), int(generator.choice([signal.SIGINT, signal.SIGTERM]))
            signals.append(second)
        status = run_child(root, tiny_config, timed_signals=tuple(signals), segment_seconds=0.02)
        # A child that is signalled before or after training ends like any other process.
        assert status in {0, *(128 + number for _, number in signals), *(-number for _, number in signals)}
        counts["ended before the signal" if status == 0 else f"{len(signals)} signals"] += 1
        if (root / "run").exists():
            store = RunStore(root / "run")
            assert store.damaged == [] and damage_of(store) == []
        assert run_child(root, tiny_config, segment_seconds=1e9) == 0
        assert read_everything(root / "run") == expected
        shutil.rmtree(root)
    report("signals at random instants, 0 lost, 0 differ", counts)
    assert counts["1 signals"] + counts["2 signals"] > n_runs / 3
