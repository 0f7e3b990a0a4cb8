"""The contract of every registered measure: its signature, its series, determinism and its options."""

import inspect
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from support.measure_contract import BETWEEN, KEYS, assert_same, evaluate, options_of
from support.shared import SMALL

from grokscope import Trajectory, measures, plugins
from grokscope.errors import GrokscopeError
from grokscope.series import ROLES, Series

NAMES = measures.names()


@pytest.fixture(scope="module")
def trajectory(tiny_run: Path) -> Trajectory:
    """Four checkpoints of the tiny run."""
    return Trajectory.open(tiny_run).thin(4)


@pytest.fixture(scope="module")
def evaluated(trajectory):
    """The function that evaluates a measure once for all tests that only read the series."""
    return cache(lambda name: evaluate(name, trajectory))


def test_promised_measures_are_registered():
    assert set(KEYS) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_measure_takes_a_trajectory_and_keyword_only_options(name):
    measure = plugins.load("measures", name)
    first, *rest = inspect.signature(measure).parameters.values()
    assert first.name == "trajectory" and first.default is first.empty
    assert all(option.kind is option.KEYWORD_ONLY and option.default is not option.empty for option in rest)
    assert inspect.getdoc(measure)
    assert options_of(name).get("seed", 0) == 0


@pytest.mark.parametrize("name", NAMES)
def test_series_has_finite_arrays_over_the_steps(name, trajectory, evaluated):
    series = evaluated(name)
    assert series.measure == name
    assert series.steps.dtype == np.int64 and series.steps.tolist() == trajectory.steps.tolist()
    assert series.arrays
    for key, array in series.arrays.items():
        assert isinstance(array, np.ndarray) and len(array) == 4, key
        assert np.isfinite(array[2 if key in BETWEEN.get(name, ()) else 0 :]).all(), key
    assert KEYS.get(name, set()) <= set(series.arrays)


@pytest.mark.parametrize("name", NAMES)
def test_controls_and_errors_have_the_shape_of_their_array(name, evaluated):
    arrays = evaluated(name).arrays
    for key in arrays:
        for ending in ("_shuffled", "_stderr"):
            if key.endswith(ending):
                assert arrays[key].shape == arrays[key.removesuffix(ending)].shape, key


@pytest.mark.parametrize("name", NAMES)
def test_options_digest_and_gaps_are_recorded(name, trajectory, evaluated):
    series = evaluated(name)
    assert series.options == options_of(name)
    assert series.digest == trajectory.digest
    assert series["gaps"].shape == (0, 2)


@pytest.mark.parametrize("name", ["loss", "embedding", "sharpness"])
def test_lost_segment_is_a_recorded_gap(name, run_copy):
    lost = sorted((run_copy / "segments").glob("*.safetensors"))[1]
    lost.unlink()
    damaged = Trajectory.open(run_copy)
    assert damaged.gaps
    ends = damaged.select([damaged.steps[0], damaged.steps[-1]])
    assert evaluate(name, ends)["gaps"].tolist() == [list(gap) for gap in damaged.gaps]


@pytest.mark.parametrize("name", NAMES)
def test_second_evaluation_is_identical_and_writes_nothing(name, tiny_run, evaluated):
    """The files are reopened, and random numbers are drawn in between."""

    def listing() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in tiny_run.rglob("*")}

    before = listing()
    torch.rand(3)
    assert_same(evaluate(name, Trajectory.open(tiny_run).thin(4)), evaluated(name))
    assert listing() == before


@pytest.mark.parametrize("name", [name for name in NAMES if "seed" in options_of(name)])
def test_seed_changes_the_numbers_and_is_recorded(name, trajectory, evaluated):
    # The default layer is exact.
    options = {"layer": "blocks.0.mlp.W_in"} if name == "relative_flatness" else {}
    first = evaluate(name, trajectory, **options) if options else evaluated(name)
    second = evaluate(name, trajectory, seed=1, **options)
    assert second.options == {**first.options, "seed": 1}
    assert any(not np.array_equal(second[key], first[key]) for key in second.arrays)


@pytest.mark.parametrize("name", NAMES)
def test_measure_preserves_parameters_and_global_generators(name, plant):
    trajectory = plant({0: {}, 5: {"unembed.b_U": torch.ones(11)}})
    before = {parameter: trajectory.parameter(parameter) for parameter in trajectory.model.shapes}
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()  # pyright: ignore
    evaluate(name, trajectory)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # pyright: ignore
    assert all(torch.equal(trajectory.parameter(parameter), tensor) for parameter, tensor in before.items())
    assert not any(tensor.requires_grad for tensor in trajectory.first.parameters.values())


@pytest.mark.slow
def test_no_measure_touches_pythons_generator(tiny_run):
    """A separate process is needed, because beartype draws from the generator in the tests.

    scikit-learn draws from it once, at import, so everything is imported first.
    """
    code = (
        "import ast, random, sys, grokscope\n"
        "for name in grokscope.measures.names(): grokscope.measures.plugins.load('measures', name)\n"
        "trajectory = grokscope.Trajectory.open(sys.argv[1]).thin(2)\n"
        "random.seed(1); before = random.getstate()\n"
        "small = ast.literal_eval(sys.argv[2])\n"
        "for name in grokscope.measures.names():\n"
        "    grokscope.measures.evaluate(name, trajectory, **small.get(name, {}))\n"
        "assert random.getstate() == before\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tiny_run), repr(SMALL)], check=True, capture_output=True)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_option_is_rejected_with_a_suggestion(name, trajectory):
    options = options_of(name)
    for option in options:
        with pytest.raises(GrokscopeError, match=f"{name!r}.*{option[:-1]!r}.*Did you mean {option!r}"):
            evaluate(name, trajectory, **{option[:-1]: 1})
    with pytest.raises(GrokscopeError, match=f"{name!r}.*'nonsense'") as refused:
        evaluate(name, trajectory, nonsense=1)
    assert "allowed: ." not in str(refused.value), "a measure without options should state that it has none"


def test_unknown_measure_is_rejected_with_a_suggestion(trajectory):
    with pytest.raises(GrokscopeError, match="'sharpnes'.*Did you mean 'sharpness'"):
        measures.evaluate("sharpnes", trajectory)


@pytest.mark.parametrize("name", NAMES)
def test_series_survives_a_file(name, evaluated, tmp_path):
    evaluated(name).save(tmp_path / "series.safetensors")
    assert_same(Series.load(tmp_path / "series.safetensors"), evaluated(name))


@pytest.mark.parametrize("name", NAMES)
def test_every_array_is_described_by_its_measure(name, evaluated):
    series, declared = evaluated(name), measures.declaration_of(name).variables
    for key in set(series.keys()) - {"gaps"}:
        assert key in declared or key.startswith("weight_norm."), key
        variable = series.variables[key]
        n_dims = series[key].ndim - (key in series.arrays)
        assert variable.label and len(variable.dims) == n_dims and variable.role in ROLES, key
        if variable.role not in ("value", "coordinate"):
            assert variable.of in series, key


@pytest.mark.parametrize("name", NAMES)
def test_series_is_an_xarray_dataset_of_the_same_numbers(name, evaluated):
    pytest.importorskip("xarray")
    series = evaluated(name)
    dataset = series.to_xarray()
    assert dataset["step"].values.tolist() == series.steps.tolist()
    for key in series.arrays:
        assert dataset[key].dims[0] == "step" and dataset[key].attrs["units"] == series.variable(key).unit
        np.testing.assert_array_equal(dataset[key].values, series[key])


@pytest.mark.parametrize("name", NAMES)
def test_frame_has_a_row_per_step(name, evaluated):
    frame = evaluated(name).to_frame()
    assert frame.index.tolist() == evaluated(name).steps.tolist()
    n_numbers = sum(array[0].size for array in evaluated(name).arrays.values())
    assert frame.shape == (4, n_numbers)


@pytest.mark.parametrize("name", NAMES)
def test_fewer_checkpoints_give_the_same_numbers(name, trajectory, evaluated):
    """The last step stays, because it decides some quantities; arrays that depend on neighbours are left out."""
    whole, part = evaluated(name), evaluate(name, trajectory.select(trajectory.steps[[1, 3]]))
    for key in set(whole.arrays) - {"principal_components"} - BETWEEN.get(name, set()):
        # The start of the search changes an eigenvalue within its residual.
        rtol = 1e-6 if key == "sharpness" else 1e-9
        if key != "sharpness_residual":
            np.testing.assert_allclose(part[key], whole[key][[1, 3]], rtol=rtol, atol=1e-12, err_msg=key)
    for key in set(whole.constants):
        if whole[key].dtype.kind == "U":
            assert part.words(key) == whole.words(key)
        else:
            np.testing.assert_allclose(part[key], whole[key], rtol=1e-9, err_msg=key)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": "x"}, "tolerance = 'x'; allowed: a finite number"),
        ({"tolerance": np.nan}, "tolerance = nan; allowed: a finite number"),
        ({"n_probes": 2.5}, "n_probes = 2.5; allowed: a whole number"),
        ({"n_probes": True}, "n_probes = True; allowed: a whole number"),
        ({"seed": 10**30}, "seed = 1000.*; allowed: a whole number"),
        ({"dtype": 3}, "dtype = 3; allowed: a text"),
    ],
)
def test_option_of_the_wrong_type_is_rejected_by_name(options, message, trajectory):
    with pytest.raises(GrokscopeError, match=f"sharpness: {message}"):
        measures.evaluate("sharpness", trajectory, **options)
