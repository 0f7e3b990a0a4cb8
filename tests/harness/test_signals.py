"""Signals at any instant, also twice: the status is the signal's, the run opens and ends the same.

The message and a real `grokscope train` are in test_interrupts, a sweep and its workers in sweep/test_workers.
"""

import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from support.shared import read_everything

from grokscope.config import RunConfig
from grokscope.store.run_store import RunStore
from harness.forebear import Forebear
from harness.lives import said

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("n_runs", [3, pytest.param(200, marks=pytest.mark.slow)])
def test_a_signal_at_any_instant_once_or_twice_leaves_a_run_that_ends_the_same(
    n_runs: int, live: Forebear, tiny_config: RunConfig, tmp_path: Path
):
    assert live(tmp_path / "warm", tiny_config, seconds=0.02) == 0
    started = time.monotonic()
    assert live(tmp_path / "whole", tiny_config, seconds=0.02) == 0
    duration, expected = time.monotonic() - started, read_everything(tmp_path / "whole" / "run")
    choose, counts = random.Random(n_runs), Counter[str]()
    for i in range(n_runs):
        root, first = tmp_path / "stopped", choose.choice([signal.SIGINT, signal.SIGTERM])
        after = [(choose.uniform(0.1, 0.9) * duration, int(first))]
        if i % 2:
            after.append((choose.uniform(0, 0.02), int(choose.choice([signal.SIGINT, signal.SIGTERM]))))
        status = live(root, tiny_config, after=tuple(after), seconds=0.02)
        # A child that is signalled before it trains, or after, ends as any process does.
        assert status in {0, *(128 + number for _, number in after), *(-number for _, number in after)}
        counts["ended before it" if status == 0 else f"{len(after)} signals"] += 1
        if (root / "run").exists():
            opened = RunStore(root / "run")
            assert opened.damaged == [] and list(opened.damage()) == []
        assert live(root, tiny_config, seconds=1e9) == 0
        assert read_everything(root / "run") == expected
        shutil.rmtree(root)
    said("signals at any instant, 0 lost, 0 differ", counts)
    assert counts["1 signals"] + counts["2 signals"] > n_runs / 3
