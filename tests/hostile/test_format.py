"""The format: golden runs of every version open, and a reader written from the page alone reads the same."""

import dataclasses
import hashlib
import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grokscope import Trajectory, __version__, measures, training
from grokscope.errors import GrokscopeError
from grokscope.series import Series
from grokscope.store.record import FORMAT
from grokscope.store.run_store import RunStore
from grokscope.training.fork import fork
from hostile.reader import read_file, read_run

GOLDEN = Path(__file__).parent.parent / "golden"
# What was written, by format: the trajectory's digest, the last log row, a weight, the last norm of the weights.
PINNED = {
    1: (
        "0c961dcc19e85a445801b40780e13e52c5187ae47efd3dea4fb7329ed04aaf7d",
        [1.808136173945233, 2.1742286558526116, 0.3448275862068966, 0.1],
        -0.06708014011383057,
        8.286824765735794,
    ),
}


def test_there_is_a_golden_run_of_every_format_and_it_is_small():
    assert sorted(PINNED) == list(range(1, FORMAT + 1))
    for version in PINNED:
        paths = [path for path in (GOLDEN / f"format{version}").rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in paths) < 200_000
        assert all("/home/" not in path.read_bytes().decode("latin-1") for path in paths)


@pytest.mark.parametrize("version", PINNED)
def test_a_golden_run_opens_with_the_numbers_it_was_written_with(version: int):
    run = GOLDEN / f"format{version}"
    assert list(RunStore(run).damage()) == []
    trajectory = Trajectory.open(run)
    digest, row, weight, norm = PINNED[version]
    assert trajectory.steps.tolist() == [0, 10, 12, 13, 20, 30, 40] and trajectory.digest == digest
    assert [float(array[-1]) for array in trajectory.log.arrays.values()] == row
    assert trajectory.log.steps.tolist() == list(range(0, 41, 5))
    assert float(trajectory.at(12).parameters["embed.W_E"][1, 2]) == weight
    # What another version of the formula measured can be read, and is measured anew.
    saved = Series.load(run / "measures" / "weight_norm.safetensors")
    assert float(saved["weight_norm"][-1]) == norm
    again = measures.evaluate("weight_norm", trajectory)
    np.testing.assert_allclose(again["weight_norm"], saved["weight_norm"], rtol=1e-6)


@pytest.mark.parametrize("version", PINNED)
def test_a_golden_run_can_be_gone_on_with(version: int, tmp_path: Path):
    run = shutil.copytree(GOLDEN / f"format{version}", tmp_path / "run")
    trajectory = training.resume(run, 50, allow_drift=True)
    assert trajectory.steps.tolist() == [0, 10, 12, 13, 20, 30, 40, 50] and trajectory.gaps == []
    assert trajectory.select([0, 10, 12, 13, 20, 30, 40]).digest != trajectory.digest


def compare(run: Path) -> int:
    """Compare what the two readers say of a run; return how many tensors were compared."""
    trajectory, theirs = Trajectory.open(run), read_run(run)
    assert list(theirs["checkpoints"]) == trajectory.steps.tolist()
    n = 0
    for snapshot in trajectory:
        other = theirs["checkpoints"][snapshot.step]
        assert sorted(other) == sorted(snapshot.parameters)
        for name, one in snapshot.parameters.items():
            assert one.numpy().tobytes() == other[name].tobytes() and tuple(one.shape) == other[name].shape
            n += 1
    log = trajectory.log
    assert list(theirs["log"]) == log.steps.tolist()
    assert list(theirs["log"].values()) == np.stack(list(log.arrays.values()), 1).tolist()
    assert theirs["gaps"] == trajectory.gaps
    ours = RunStore(run).resume_points()[-1].resume_state()
    assert {name: one.tobytes() for name, one in ours.items()} == {
        name: one.tobytes() for name, one in theirs["resume"].items()
    }
    config_digest = read_file(next((run / "segments").glob("*.safetensors")))[0]["config_digest"]
    assert config_digest == trajectory.config.digest
    for name, (about, arrays) in theirs["measures"].items():
        saved = Series.load(run / "measures" / f"{name}.safetensors")
        assert about["digest"] == saved.digest == trajectory.digest == digest_by_the_page(theirs, run)
        assert all(saved.arrays[key].tobytes() == arrays[f"arrays/{key}"].tobytes() for key in saved.arrays)
        n += len(arrays)
    return n


def digest_by_the_page(theirs: dict[str, Any], run: Path) -> str:
    rows = [
        [step, sorted([name, zlib.crc32(one.tobytes())] for name, one in parameters.items())]
        for step, parameters in theirs["checkpoints"].items()
    ]
    about = read_file(next((run / "segments").glob("*.safetensors")))[0]
    return hashlib.sha256(json.dumps([about["config_digest"], rows]).encode()).hexdigest()


@pytest.mark.parametrize("version", PINNED)
def test_a_reader_written_from_the_page_reads_a_golden_run(version: int):
    print(f"{compare(GOLDEN / f'format{version}')} tensors alike")


def test_a_reader_written_from_the_page_reads_a_run_with_a_gap_and_a_fork(tiny_run: Path, tmp_path: Path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    compare(run)
    (run / "segments" / "000002.safetensors").unlink()
    assert read_run(run)["gaps"] == Trajectory.open(run).gaps != []
    longer = dataclasses.replace(Trajectory.open(tiny_run).config, n_steps=80)
    forked = fork(tiny_run, 60, longer, "fork", tmp_path)
    assert forked.path is not None and compare(forked.path)


def test_the_other_reader_notices_a_flipped_bit(tmp_path: Path):
    run = shutil.copytree(GOLDEN / f"format{FORMAT}", tmp_path / "run")
    path = run / "segments" / "000002.safetensors"
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(AssertionError):
        read_run(run)


def test_a_newer_format_is_refused_with_both_versions_named(tmp_path: Path):
    run = shutil.copytree(GOLDEN / f"format{FORMAT}", tmp_path / "run")
    values = json.loads((run / "config.json").read_bytes())
    (run / "config.json").write_text(json.dumps({**values, "format": FORMAT + 1, "grokscope": "7.8.9"}))
    with pytest.raises(GrokscopeError) as refusal:
        Trajectory.open(run)
    for part in (f"format {FORMAT + 1}", "7.8.9", __version__, f"up to {FORMAT}", str(run)):
        assert part in str(refusal.value)
