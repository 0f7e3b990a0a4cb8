"""The format: golden runs of every version open, and an independent reader of the described format agrees."""

import dataclasses
import hashlib
import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.shared import damage_of

from grokscope import Trajectory, __version__, measures, training
from grokscope.environment import NUMERICS
from grokscope.errors import GrokscopeError
from grokscope.series import Series
from grokscope.store.record import FORMAT
from grokscope.store.run_store import RunStore
from grokscope.training.fork import fork
from hostile.reader import read_file, read_run

GOLDEN = Path(__file__).parent.parent / "golden"
# Expected values by golden run: the trajectory's digest, the last log row, a weight, and the last weight norm.
PINNED = {
    "format1": (
        "0c961dcc19e85a445801b40780e13e52c5187ae47efd3dea4fb7329ed04aaf7d",
        [1.808136173945233, 2.1742286558526116, 0.3448275862068966, 0.1],
        -0.06708014011383057,
        8.286824765735794,
    ),
    "format1-numerics3": (
        "eea00a7886dda8e5c7405a9c39a2dd730bfe7709519abaebff9ad2a5e54f89de",
        [1.8081361547784152, 2.1742287257096438, 0.3448275862068966, 0.1],
        -0.06708014011383057,
        8.286877859880235,
    ),
    "format1-numerics4": (
        "f3b0c9b098f89e368a6a54ba3968c7bc3b6562a80ec13adea2fdb9e5c1111aa2",
        [1.8081361521787982, 2.174228738833212, 0.3448275862068966, 0.1],
        -0.06708014011383057,
        8.286842819255096,
    ),
}


def test_every_format_has_a_small_golden_run():
    assert {name.partition("-")[0] for name in PINNED} == {f"format{version}" for version in range(1, FORMAT + 1)}
    assert f"format{FORMAT}-numerics{NUMERICS}" in PINNED
    for name in PINNED:
        paths = [path for path in (GOLDEN / name).rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in paths) < 200_000
        assert all("/home/" not in path.read_bytes().decode("latin-1") for path in paths)


@pytest.mark.parametrize("name", PINNED)
def test_golden_run_opens_with_its_numbers(name: str):
    run = GOLDEN / name
    assert damage_of(RunStore(run)) == []
    trajectory = Trajectory.open(run)
    digest, row, weight, norm = PINNED[name]
    assert trajectory.steps.tolist() == [0, 10, 12, 13, 20, 30, 40] and trajectory.digest == digest
    assert [float(array[-1]) for array in trajectory.log.arrays.values()] == row
    assert trajectory.log.steps.tolist() == list(range(0, 41, 5))
    assert float(trajectory.at(12).parameters["embed.W_E"][1, 2]) == weight
    # A measure of another version of its formula can be read, and is computed again.
    saved = Series.load(run / "measures" / "weight_norm.safetensors")
    assert float(saved["weight_norm"][-1]) == norm
    recomputed = measures.evaluate("weight_norm", trajectory)
    np.testing.assert_allclose(recomputed["weight_norm"], saved["weight_norm"], rtol=1e-6)


@pytest.mark.parametrize("name", PINNED)
def test_golden_run_can_be_resumed(name: str, tmp_path: Path):
    run = shutil.copytree(GOLDEN / name, tmp_path / "run")
    trajectory = training.resume(run, 50, allow_drift=True)
    assert trajectory.steps.tolist() == [0, 10, 12, 13, 20, 30, 40, 50] and trajectory.gaps == []
    assert trajectory.select([0, 10, 12, 13, 20, 30, 40]).digest != trajectory.digest


def compare(run: Path) -> int:
    """Compare the contents of a run in both readers, and return the number of compared tensors."""
    trajectory, contents = Trajectory.open(run), read_run(run)
    assert list(contents["checkpoints"]) == trajectory.steps.tolist()
    n = 0
    for snapshot in trajectory:
        arrays = contents["checkpoints"][snapshot.step]
        assert sorted(arrays) == sorted(snapshot.parameters)
        for name, tensor in snapshot.parameters.items():
            assert tensor.numpy().tobytes() == arrays[name].tobytes() and tuple(tensor.shape) == arrays[name].shape
            n += 1
    log = trajectory.log
    assert list(contents["log"]) == log.steps.tolist()
    assert list(contents["log"].values()) == np.stack(list(log.arrays.values()), 1).tolist()
    assert contents["gaps"] == trajectory.gaps
    state = RunStore(run).resume_points()[-1].resume_state()
    assert {name: array.tobytes() for name, array in state.items()} == {
        name: array.tobytes() for name, array in contents["resume"].items()
    }
    config_digest = read_file(next((run / "segments").glob("*.safetensors")))[0]["config_digest"]
    assert config_digest == trajectory.config.digest
    for name, (about, arrays) in contents["measures"].items():
        saved = Series.load(run / "measures" / f"{name}.safetensors")
        assert about["digest"] == saved.digest == trajectory.digest == described_digest(contents, run)
        assert all(saved.arrays[key].tobytes() == arrays[f"arrays/{key}"].tobytes() for key in saved.arrays)
        n += len(arrays)
    return n


def described_digest(contents: dict[str, Any], run: Path) -> str:
    """Return the digest of a trajectory as checkpoints/README.md defines it."""
    rows = [
        [step, sorted([name, zlib.crc32(array.tobytes())] for name, array in parameters.items())]
        for step, parameters in contents["checkpoints"].items()
    ]
    about = read_file(next((run / "segments").glob("*.safetensors")))[0]
    return hashlib.sha256(json.dumps([about["config_digest"], rows]).encode()).hexdigest()


@pytest.mark.parametrize("name", PINNED)
def test_independent_reader_agrees_on_a_golden_run(name: str):
    print(f"{compare(GOLDEN / name)} equal tensors")


def test_independent_reader_agrees_on_a_gap_and_a_fork(tiny_run: Path, tmp_path: Path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    compare(run)
    (run / "segments" / "000002.safetensors").unlink()
    assert read_run(run)["gaps"] == Trajectory.open(run).gaps != []
    longer = dataclasses.replace(Trajectory.open(tiny_run).config, n_steps=80)
    forked = fork(tiny_run, 60, longer, "fork", tmp_path)
    assert forked.path is not None and compare(forked.path)


def test_independent_reader_detects_a_flipped_bit(tmp_path: Path):
    run = shutil.copytree(GOLDEN / f"format{FORMAT}", tmp_path / "run")
    path = run / "segments" / "000002.safetensors"
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(AssertionError):
        read_run(run)


def test_newer_format_is_refused_with_both_versions(tmp_path: Path):
    run = shutil.copytree(GOLDEN / f"format{FORMAT}", tmp_path / "run")
    values = json.loads((run / "config.json").read_bytes())
    (run / "config.json").write_text(json.dumps({**values, "format": FORMAT + 1, "grokscope": "7.8.9"}))
    with pytest.raises(GrokscopeError) as refusal:
        Trajectory.open(run)
    for part in (f"format {FORMAT + 1}", "7.8.9", __version__, f"up to {FORMAT}", str(run)):
        assert part in str(refusal.value)
