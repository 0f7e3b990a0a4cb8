"""Places: stacked reads over several segments, and the undamaged copies of damaged checkpoints."""

from pathlib import Path

import numpy as np
import pytest
from support.shared import flip, place

from grokscope.config import RunConfig
from grokscope.errors import DamagedError
from grokscope.store.places import read_stacked, undamaged_places
from grokscope.store.run_store import Record, RunStore, create


def checkpoint(step: int) -> dict[str, np.ndarray]:
    return {"w": np.full((2, 3), step, np.float32), "b": np.arange(4, dtype=np.float32) + step}


@pytest.fixture
def store(tiny_config: RunConfig, tmp_path: Path) -> RunStore:
    """A run of two segments, and a third with a copy of step 20."""
    run = create(tmp_path / "run", Record(tiny_config, {}, ""))
    for steps, coverage in (([0, 10], (-1, 10)), ([20, 30], (10, 30)), ([20], None)):
        RunStore(run.folder).commit(steps, [checkpoint(step) for step in steps], coverage=coverage)
    return RunStore(run.folder)


def flip_tensor(store: RunStore, number: int, name: str) -> None:
    """Flip a bit in the first row of a parameter of a segment."""
    path = store.segments[number].path
    flip(path, 8 * place(path, f"checkpoints/{name}")[0])


def test_read_over_segments_keeps_the_requested_order(store: RunStore):
    arrays = read_stacked(["b", "w"], [30, 0, 20, 10], store.places)
    for i, step in enumerate([30, 0, 20, 10]):
        for name, expected in checkpoint(step).items():
            assert arrays[name][i].tobytes() == expected.tobytes()


@pytest.mark.parametrize(("damaged", "copy"), [(1, 2), (2, 1)])
def test_damaged_checkpoint_moves_to_its_undamaged_copy(damaged: int, copy: int, store: RunStore):
    flip_tensor(store, damaged, "w")
    places = {**store.places, 20: (store.segments[damaged], 0)}
    undamaged, damage = undamaged_places(store.segments, places, store.steps.tolist())
    assert damage == {} and undamaged == {**places, 20: (store.segments[copy], 0)}
    assert store.read(["w"], [20])["w"][0].tobytes() == checkpoint(20)["w"].tobytes()


def test_checkpoint_without_undamaged_copy_is_named(store: RunStore):
    for number in (1, 2):
        flip_tensor(store, number, "w")
    _, damage = undamaged_places(store.segments, store.places, [10, 20, 30])
    assert damage.keys() == {20} and damage[20].parameter == "w" and damage[20].step == 20
    with pytest.raises(DamagedError, match=r"checkpoints/w \(step 20\)"):
        store.read(["w"], [20, 30])


def test_damage_of_an_unread_parameter_moves_nothing(store: RunStore):
    flip_tensor(store, 2, "w")
    places, damage = undamaged_places(store.segments, store.places, [20], ["b"])
    assert places == store.places and damage == {}
