"""A disk that is really full: a small file system in memory, if the tests may mount one."""

import dataclasses
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.shared import damage_of, read_everything, writing

from grokscope import training
from grokscope.disk import atomic
from grokscope.disk.lock import is_locked
from grokscope.errors import GrokscopeError
from grokscope.store.run_store import RunStore
from harness.scenarios import fake_computation, report, small_config

pytestmark = pytest.mark.usefixtures("segments_by_count")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB. The test is skipped if it cannot be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    process = subprocess.run(mount, capture_output=True, text=True)
    if process.returncode:
        pytest.skip(
            f"a file system cannot be mounted: {process.stderr.strip()}; disk/test_atomic limits a file's size"
        )
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_run_on_full_disk_ends_the_same_once_there_is_room(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fake_computation(monkeypatch)
    config = dataclasses.replace(small_config(), n_steps=5, checkpoints="every 1")
    training.train(config, "whole", tmp_path)
    expected, outcomes = read_everything(tmp_path / "whole"), {"refused": 0, "lost": 0, "differ": 0}
    ballast = small_disk / "ballast"
    for n_free in range(0, 240_000, 40_000):
        root = small_disk / str(n_free)
        ballast.write_bytes(bytes(256 * 1024 - n_free - 4096))
        try:
            training.train(config, "run", root)
        except GrokscopeError as error:
            outcomes["refused"] += 1
            assert re.match(rf"Could not [a-z ]+ {root}.* \([\d,]+ bytes needed, [\d,]+ free\)", str(error))
        run = root / "run"
        assert writing() == [] and not is_locked(run)
        assert not run.exists() or damage_of(RunStore(run)) == []
        assert not list(small_disk.rglob(f"*{atomic.TEMPORARY_SUFFIX}*"))
        ballast.unlink()
        if run.exists():
            training.resume(run)
        else:
            training.train(config, "run", root)
        assert read_everything(run) == expected
        subprocess.run(["rm", "-r", str(root)], check=True)
    report("a disk full at six places", outcomes)
    assert 3 <= outcomes["refused"] < 6
