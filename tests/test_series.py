"""Series: access, frames, and a round trip through a file."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from grokscope import Trajectory, measures
from grokscope.disk import tensor_file
from grokscope.errors import GrokscopeError
from grokscope.series import LabelledArrays, Series
from grokscope.variable import Variable

STEPS = np.array([0, 5, 20])


def series() -> Series:
    return Series(
        "embedding",
        STEPS,
        {"circularity": np.array([0.1, 0.5, 0.9]), "points": np.arange(12.0).reshape(3, 2, 2)},
        {"frequencies": np.array([1, 2]), "gaps": np.empty((0, 2), np.int64)},
        options={"seed": 3, "dtype": "float32", "tolerance": 1e-3},
        digest="ab" * 32,
    )


def assert_same(first: Series, second: Series) -> None:
    assert (first.measure, first.options, first.digest) == (second.measure, second.options, second.digest)
    np.testing.assert_array_equal(first.steps, second.steps)
    for first_arrays, second_arrays in ((first.arrays, second.arrays), (first.constants, second.constants)):
        assert set(first_arrays) == set(second_arrays)
        for name, array in first_arrays.items():
            assert (array.dtype, array.shape) == (second_arrays[name].dtype, second_arrays[name].shape)
            assert array.tobytes() == second_arrays[name].tobytes()


def test_label_of_a_loss_states_the_loss_after_a_file(tmp_path: Path):
    variables = {"circularity": Variable("{loss} train loss"), "points": Variable("points")}
    stated = dataclasses.replace(series(), variables=variables, loss="stablemax")
    stated.save(tmp_path / "series.safetensors")
    for read in (stated, Series.load(tmp_path / "series.safetensors")):
        assert read.variable("circularity").label == read.to_frame().attrs["circularity"]["label"]
        assert (
            read.variable("circularity").label == "stablemax train loss" and read.variable("points").label == "points"
        )
    assert dataclasses.replace(stated, loss="").variable("circularity").label == "train loss"


def test_arrays_and_constants_are_accessed_by_name():
    made = series()
    assert made["circularity"] is made.arrays["circularity"]
    assert made["gaps"] is made.constants["gaps"]
    assert made.keys() == ["circularity", "points", "frequencies", "gaps"]
    assert "points" in made and "frequencies" in made and "steps" not in made
    assert len(made) == 3


def test_unknown_name_is_refused_with_the_known_names():
    with pytest.raises(GrokscopeError, match="'embedding' has no 'sharpness'; it has: circularity, points"):
        series()["sharpness"]


def test_rows_become_arrays_over_steps_in_their_own_types():
    rows = [
        {
            "loss": 0.5 * i,
            "n": i,
            "shares": np.full(2, i, np.float32),
            "gram": torch.eye(2) * i,
            "is": torch.tensor(i > 0),
        }
        for i in range(3)
    ]
    made = Series.of_rows("made", STEPS, rows, {"frequencies": torch.arange(1, 3), "chance": 0.25})
    assert made.keys() == ["loss", "n", "shares", "gram", "is", "frequencies", "chance"]
    assert made["loss"].tolist() == [0, 0.5, 1] and made["n"].tolist() == [0, 1, 2]
    assert made["shares"].shape == (3, 2) and made["gram"].tolist()[2] == [[2, 0], [0, 2]]
    dtypes = [str(array.dtype) for array in (*made.arrays.values(), *made.constants.values())]
    assert dtypes == ["float64", "int64", "float32", "float32", "bool", "int64", "float64"]
    with pytest.raises(ValueError, match="made"):
        Series.of_rows("made", STEPS, rows[:2])


@pytest.mark.parametrize(
    ("arrays", "constants"),
    [({"a": np.zeros(2)}, {}), ({"a": np.zeros(3)}, {"a": np.zeros(1)})],
    ids=["an array without a step axis", "a name twice"],
)
def test_what_is_no_series_cannot_be_made(arrays, constants):
    with pytest.raises(ValueError, match="log"):
        Series("log", STEPS, arrays, constants)


def test_a_series_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        series().digest = "cd"  # pyright: ignore[reportAttributeAccessIssue]


def test_a_frame_has_a_row_a_step_and_a_column_a_number():
    frame = series().to_frame()
    assert frame.index.name == "step" and frame.index.tolist() == [0, 5, 20]
    assert list(frame.columns) == ["circularity", "points.0.0", "points.0.1", "points.1.0", "points.1.1"]
    assert frame["points.1.0"].tolist() == [2, 6, 10]


def test_a_series_comes_back_from_a_file_bit_for_bit(tmp_path):
    series().save(tmp_path / "one.safetensors")
    assert_same(Series.load(tmp_path / "one.safetensors"), series())


NUMBERS = st.sampled_from([np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_])


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n_steps=st.integers(1, 5))
def test_any_arrays_and_constants_survive_a_file(data, n_steps, tmp_path_factory):
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
    names = st.lists(st.text("abW_./ é", min_size=1, max_size=8), max_size=4, unique=True)
    keys = data.draw(names)
    split = data.draw(st.integers(0, len(keys)))

    def draw(leading: tuple[int, ...]) -> np.ndarray:
        return data.draw(hnp.arrays(data.draw(NUMBERS), leading + data.draw(shapes)))

    made = Series(
        "measure",
        np.arange(n_steps) * 7,
        {name: draw((n_steps,)) for name in keys[:split]},
        {name: draw(()) for name in keys[split:]},
    )
    path = tmp_path_factory.mktemp("series") / "one.safetensors"
    made.save(path)
    assert_same(Series.load(path), made)


def test_views_of_other_arrays_come_back_as_what_they_show(tmp_path):
    transposed, strided = np.arange(12.0).reshape(4, 3).T, np.arange(6)[::2]
    Series("measure", STEPS, {"a": transposed, "b": strided}).save(tmp_path / "one.safetensors")
    loaded = Series.load(tmp_path / "one.safetensors")
    np.testing.assert_array_equal(loaded["a"], transposed)
    np.testing.assert_array_equal(loaded["b"], [0, 2, 4])


def test_any_flipped_byte_is_noticed_and_the_file_named(tmp_path):
    series().save(tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    path = tmp_path / "hurt.safetensors"
    for place in np.random.default_rng(0).choice(len(whole), 150, replace=False):
        hurt = bytearray(whole)
        hurt[place] ^= 1 << (place % 8)
        path.write_bytes(hurt)
        with pytest.raises(GrokscopeError, match="hurt.safetensors"):
            Series.load(path)


@pytest.mark.parametrize("content", [b"", b"no series", b"\x08" + bytes(7) + b"{}      "])
def test_what_is_no_series_file_is_refused_and_named(tmp_path, content):
    path = tmp_path / "other.safetensors"
    path.write_bytes(content)
    with pytest.raises(GrokscopeError, match="other.safetensors"):
        Series.load(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(GrokscopeError, match="absent.safetensors"):
        Series.load(tmp_path / "absent.safetensors")


@pytest.mark.parametrize(
    ("arrays", "about"),
    [
        ({}, {"options": 5}),
        ({}, {"options": [1]}),
        ({"odd": STEPS}, {}),
        ({"steps": STEPS.astype(float)}, {}),
        ({"steps": STEPS.reshape(1, -1)}, {}),
        ({"arrays/short": STEPS[:1]}, {}),
    ],
    ids=str,
)
def test_file_without_a_series_is_refused_by_name(arrays: dict, about: dict, tmp_path):
    usual = {"kind": "series", "measure": "loss", "options": {}, "digest": ""}
    tensor_file.write(tmp_path / "loss.safetensors", {"steps": STEPS, **arrays}, {**usual, **about})
    with pytest.raises(GrokscopeError, match="loss.safetensors is damaged: it is not a series"):
        Series.load(tmp_path / "loss.safetensors")


def test_series_saved_by_version_0_1_still_loads_and_is_valid(tmp_path):
    """The file was written by grokscope 0.1, whose series had no descriptions and stored text as plain bytes."""
    golden = Path(__file__).parent / "golden"
    run = shutil.copytree(golden / "format1", tmp_path / "run")
    shutil.copytree(golden / "measures1", run / "measures", dirs_exist_ok=True)
    series = Series.load(run / "measures" / "weight_norm.safetensors")
    assert series.words("components") == ["embedding", "positions", "attention", "mlp", "unembedding"]
    assert series.variables == {} and series.variable("weight_norm").label == "weight norm"
    trajectory = Trajectory.open(run)
    saved = measures.found("weight_norm", trajectory)
    assert saved is not None and saved.variable("weight_norm").unit == "L2 norm"
    assert saved["weight_norm"].tobytes() == measures.evaluate("weight_norm", trajectory)["weight_norm"].tobytes()


def test_labelled_arrays_check_shapes_and_names():
    with pytest.raises(ValueError, match="shape"):
        LabelledArrays({"t": np.zeros(3)}, {"x": np.zeros(2)})
    with pytest.raises(GrokscopeError, match="'y'.*: t, x"):
        LabelledArrays({"t": np.zeros(3)}, {"x": np.zeros(3)})["y"]


def test_repr_names_arrays_without_their_values():
    assert repr(series()) == (
        "Series 'embedding': 3 rows, steps 0 to 20; circularity (3,), points (3, 2, 2), frequencies (2,), gaps (0, 2)"
    )
    grid = LabelledArrays({"step": STEPS, "x": np.arange(400.0)}, {"loss": np.zeros((3, 400))})
    assert repr(grid) == "LabelledArrays over step (3,), x (400,): loss"
