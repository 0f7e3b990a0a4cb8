"""The contract that every source of a trajectory keeps: a run's folder and checkpoints in memory."""

import zlib
from pathlib import Path

import numpy as np
import pytest

from grokscope import Trajectory
from grokscope.errors import GrokscopeError
from grokscope.store.run_store import RunStore
from grokscope.store.source import Memory, Source


@pytest.fixture(params=["folder", "memory"])
def source(request: pytest.FixtureRequest, tiny_run: Path) -> Source:
    """The same checkpoints, from each source."""
    store = RunStore(tiny_run)
    if request.param == "folder":
        return store
    names = list(store.checksums(0))
    steps = store.steps.tolist()
    arrays = store.read(names, steps)
    return Memory({step: {name: arrays[name][i] for name in names} for i, step in enumerate(steps)})


def test_source_implements_the_whole_protocol(source: Source):
    assert isinstance(source, Source)
    members = [name for name in vars(Source) if not name.startswith("_")]
    assert all(hasattr(source, name) for name in members)


def test_read_stacks_steps_in_the_requested_order(source: Source):
    arrays = source.read(["embed.W_E"], [30, 0])
    assert arrays["embed.W_E"].shape == (2, 8, 16)
    assert np.array_equal(arrays["embed.W_E"][1], source.read(["embed.W_E"], [0])["embed.W_E"][0])


def test_reading_twice_gives_the_same_and_changes_nothing(source: Source):
    before = (source.steps.tolist(), list(source.damaged), list(source.gaps))
    first, second = (source.read(["unembed.W_U"], [10, 20])["unembed.W_U"] for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert (source.steps.tolist(), list(source.damaged), list(source.gaps)) == before


def test_step_without_checkpoint_is_refused(source: Source):
    with pytest.raises(GrokscopeError, match="no checkpoint at step 7"):
        source.read(["embed.W_E"], [0, 7])


def test_checksums_are_those_of_the_bytes(source: Source):
    for name, checksum in source.checksums(20).items():
        assert checksum == zlib.crc32(source.read([name], [20])[name][0].tobytes())


def test_sound_checkpoints_have_no_damage(source: Source):
    assert source.damage(source.steps.tolist()) == {} and list(source.damaged) == []


def test_equal_checkpoints_have_equal_digests(source: Source, tiny_run: Path):
    run = Trajectory.open(tiny_run)
    assert Trajectory(run.config, source, source.steps).digest == run.digest
