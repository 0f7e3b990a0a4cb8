"""What every registered measure keeps to, whichever it is, and what each is invariant to."""

import dataclasses
import inspect
import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.shared import SMALL

import grokscope
from grokscope import Trajectory, measures, plugins
from grokscope.disk import tensor_file
from grokscope.errors import GrokscopeError
from grokscope.series import ROLES, Series

NAMES = measures.names()

# What the documentation names; a script outside the repository relies on these.
KEYS = {
    "loss": {"train_loss", "test_loss", "loss", "train_accuracy", "test_accuracy", "accuracy"},
    "weight_norm": {
        "weight_norm", "distance_from_initialization", "component_norms", "component_distances",
        "weight_norm.embed.W_E",
    },
    "path": {
        "update_size", "update_size_per_step", "update_weight_cosine", "update_cosine", "path_length", "displacement",
        "straightness", "component_update_sizes", "component_update_weight_cosines",
    },
    "matrix_norms": {"spectral_norm", "nuclear_norm", "frobenius_norm", "stable_rank", "effective_rank"},
    "numerics": {
        "collapse_share", "zero_loss_share", "zero_gradient_share", "gradient_imbalance",
        "zero_parameter_gradient_share", "gradient_norm", "gradient_cosine", "naive_loss_cosine",
        "component_naive_loss_cosines", "train_margins", "train_margin_mean", "train_logit_scale", "test_margins",
        "test_margin_mean", "test_logit_scale",
    },
    "embedding": {
        "principal_components", "explained_variance_ratio", "component_frequency", "component_circularity",
        "circularity", "circularity_shuffled", "component_circularity_shuffled",
    },
    "sharpness": {"sharpness", "hessian_trace", "hessian_trace_stderr"},
    "hessian": {
        "eigenvalues", "eigenvalues_residual", "bottom_eigenvalue", "bottom_eigenvalue_residual", "trace",
        "trace_stderr", "frobenius_norm", "gauss_newton_eigenvalue", "gauss_newton_trace", "gauss_newton_share",
        "block_eigenvalues", "block_traces", "block_gauss_newton_traces", "gradient_norm", "gradient_overlap",
        "update_overlap", "eigenspace_overlap",
    },
    "hessian_spectrum": {"density", "density_stderr", "nodes", "weights", "moments", "moments_stderr", "resolution"},
    "keskar_sharpness": {"keskar_sharpness", "keskar_sharpness_by_start", "keskar_sharpness_residual", "train_loss"},
    "sam_sharpness": {
        f"{prefix}{name}"
        for prefix in ("", "adaptive_")
        for name in ("sam_sharpness", "sam_sharpness_step", "sam_sharpness_by_start", "sam_sharpness_residual")
    } | {"train_loss"},
    "average_sharpness": {
        f"{prefix}{name}"
        for prefix in ("", "adaptive_")
        for name in (
            "average_sharpness", "average_sharpness_stderr", "perturbation_radius", "perturbation_radius_stderr",
            "perturbation_radius_interval",
        )
    } | {"train_loss", "train_accuracy"},
    "fisher_rao_norm": {"fisher_rao_norm", "empirical_fisher_rao_norm"},
    "relative_flatness": {"relative_flatness", "relative_flatness_stderr"},
    "unembedding": {"principal_components", "explained_variance_ratio", "tsne", "circularity", "nearest_shift"},
    "representations": {
        "embedding_shares", "embedding_shares_shuffled", "unembedding_shares", "neuron_shares", "logit_similarity",
        "logit_variance_explained", "restricted_loss", "excluded_loss", "excluded_loss_by_representation",
    },
    "fourier": {
        "W_E_norms", "W_U_norms", "W_L_norms", "W_E_gini", "W_U_gini", "W_L_gini", "W_E_gini_shuffled",
        "W_L_singular_values", "W_L_rank",
    },
    "progress": {
        "train_loss", "test_loss", "restricted_loss", "restricted_to_test_ratio", "excluded_loss",
        "excluded_loss_by_frequency", "cosine_coefficients", "logit_variance_shares", "logit_variance_share",
        "restricted_loss_shuffled", "logit_variance_share_shuffled",
    },
    "neurons": {
        "neuron_share", "neuron_frequency", "clustered_share", "cluster_sizes", "constant_share", "head_share",
        "head_frequency", "mean_neuron_share", "mean_neuron_share_shuffled", "mean_head_share",
    },
    "ablations": {
        "loss", "loss_without_frequency", "loss_with_only_frequency", "loss_with_polynomials",
        "loss_with_all_polynomials", "loss_without_attention", "loss_without_mlp",
    },
    "local_learning_coefficient": {
        "local_learning_coefficient", "local_learning_coefficient_stderr", "local_learning_coefficient_by_chain",
        "llc_drift", "llc_drift_stderr", "llc_at_equilibrium", "llc_acceptance", "llc_autocorrelation_time",
        "llc_distance", "train_loss",
    },
    "parallelograms": {"rqi", "percentile_distance", "percentile_distance_shuffled"},
    "algorithm": {
        "gradient_symmetricity", "gradient_symmetricity_stderr", "distance_irrelevance",
        "distance_irrelevance_shuffled", "clock_explained_variance", "pizza_explained_variance",
    },
    "attention": {"attention", "attention_stderr", "attention_by_first"},
    "example_loss": {"example_loss", "is_right"},
}  # fmt: skip

# What is said of the way from one checkpoint to the next: there is none to the first, and others where some are left
# out. What is said of the first checkpoint depends on which is first.
BETWEEN = {
    "hessian": {"update_overlap", "eigenspace_overlap"},
    "path": {
        "update_size", "update_size_per_step", "update_weight_cosine", "update_cosine", "path_length", "displacement",
        "straightness", "component_update_sizes", "component_update_weight_cosines",
    },
}  # fmt: skip


def assert_same(one: Series, other: Series) -> None:
    """Assert that two series say the same, bit for bit."""
    assert (one.measure, one.digest) == (other.measure, other.digest)
    # A file keeps a tuple as a list.
    assert json.dumps(one.options, sort_keys=True) == json.dumps(other.options, sort_keys=True)
    assert one.steps.tolist() == other.steps.tolist()
    assert set(one.arrays) == set(other.arrays) and set(one.constants) == set(other.constants)
    for name in {*one.arrays, *one.constants}:
        assert one[name].dtype == other[name].dtype, name
        assert (one[name].shape, one[name].tobytes()) == (other[name].shape, other[name].tobytes()), name


def options_of(name: str) -> dict[str, object]:
    parameters = inspect.signature(plugins.load("measures", name)).parameters.values()
    return {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY} | SMALL.get(name, {})


def evaluate(name: str, trajectory: Trajectory, **options: Any) -> Series:
    return measures.evaluate(name, trajectory, **{**SMALL.get(name, {}), **options})


@pytest.fixture(scope="module")
def trajectory(tiny_run: Path) -> Trajectory:
    return Trajectory.open(tiny_run).thin(4)


@pytest.fixture(scope="module")
def evaluated(trajectory):
    """The function that evaluates a measure once for all the tests that only look at it."""
    return cache(lambda name: evaluate(name, trajectory))


def test_the_measures_that_are_promised_are_registered():
    assert set(KEYS) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_measure_is_a_function_of_a_trajectory_and_keyword_only_options(name):
    measure = plugins.load("measures", name)
    first, *rest = inspect.signature(measure).parameters.values()
    assert first.name == "trajectory" and first.default is first.empty
    assert all(one.kind is one.KEYWORD_ONLY and one.default is not one.empty for one in rest)
    assert inspect.getdoc(measure)
    assert options_of(name).get("seed", 0) == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_series_has_the_trajectorys_steps_and_finite_arrays_over_them(name, trajectory, evaluated):
    series = evaluated(name)
    assert series.measure == name
    assert series.steps.dtype == np.int64 and series.steps.tolist() == trajectory.steps.tolist()
    assert series.arrays
    for key, array in series.arrays.items():
        assert isinstance(array, np.ndarray) and len(array) == 4, key
        assert np.isfinite(array[2 if key in BETWEEN.get(name, ()) else 0 :]).all(), key
    assert KEYS.get(name, set()) <= set(series.arrays)


@pytest.mark.parametrize("name", NAMES)
def test_a_control_and_an_error_stand_beside_what_they_belong_to(name, evaluated):
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
def test_a_lost_segment_is_a_recorded_gap(name, run_copy):
    lost = sorted((run_copy / "segments").glob("*.safetensors"))[1]
    lost.unlink()
    damaged = Trajectory.open(run_copy)
    assert damaged.gaps
    kept = damaged.select([damaged.steps[0], damaged.steps[-1]])
    assert evaluate(name, kept)["gaps"].tolist() == [list(gap) for gap in damaged.gaps]


@pytest.mark.parametrize("name", NAMES)
def test_a_second_evaluation_gives_the_same_bits_and_writes_nothing(name, tiny_run, evaluated):
    """Also from files opened anew, and whatever random numbers were drawn in between."""

    def listing() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in tiny_run.rglob("*")}

    before = listing()
    torch.rand(3)
    assert_same(evaluate(name, Trajectory.open(tiny_run).thin(4)), evaluated(name))
    assert listing() == before


@pytest.mark.parametrize("name", [name for name in NAMES if "seed" in options_of(name)])
def test_the_seed_counts_and_is_recorded(name, trajectory, evaluated):
    # The default layer is exact.
    given = {"layer": "blocks.0.mlp.W_in"} if name == "relative_flatness" else {}
    one = evaluate(name, trajectory, **given) if given else evaluated(name)
    other = evaluate(name, trajectory, seed=1, **given)
    assert other.options == {**one.options, "seed": 1}
    assert any(not np.array_equal(other[key], one[key]) for key in other.arrays)


@pytest.mark.parametrize("name", NAMES)
def test_a_measure_changes_neither_the_parameters_nor_torchs_or_numpys_generator(name, plant):
    trajectory = plant({0: {}, 5: {"unembed.b_U": torch.ones(11)}})
    before = {one: trajectory.parameter(one) for one in trajectory.model.shapes}
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()  # pyright: ignore
    evaluate(name, trajectory)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # pyright: ignore
    assert all(torch.equal(trajectory.parameter(one), tensor) for one, tensor in before.items())
    assert not any(tensor.requires_grad for tensor in trajectory.first.parameters.values())


@pytest.mark.slow
def test_no_measure_touches_pythons_generator(tiny_run):
    """In a process of its own, since beartype, which checks types in the tests, draws from it.

    scikit-learn draws from it too, once, when it is imported; so what measures need is imported first.
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
def test_an_unknown_option_is_refused_with_the_one_that_was_meant(name, trajectory):
    options = options_of(name)
    for option in options:
        with pytest.raises(GrokscopeError, match=f"{name!r}.*{option[:-1]!r}.*Did you mean {option!r}"):
            evaluate(name, trajectory, **{option[:-1]: 1})
    with pytest.raises(GrokscopeError, match=f"{name!r}.*'nonsense'") as refused:
        evaluate(name, trajectory, nonsense=1)
    assert "allowed: ." not in str(refused.value), "a measure without options should say that it has none"


def test_an_unknown_measure_is_refused_with_the_one_that_was_meant(trajectory):
    with pytest.raises(GrokscopeError, match="'sharpnes'.*Did you mean 'sharpness'"):
        measures.evaluate("sharpnes", trajectory)


@pytest.mark.parametrize("name", NAMES)
def test_a_series_survives_a_file(name, evaluated, tmp_path):
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
def test_a_series_is_a_frame_of_as_many_rows(name, evaluated):
    frame = evaluated(name).to_frame()
    assert frame.index.tolist() == evaluated(name).steps.tolist()
    n_numbers = sum(array[0].size for array in evaluated(name).arrays.values())
    assert frame.shape == (4, n_numbers)


@pytest.mark.parametrize("name", NAMES)
def test_fewer_checkpoints_give_the_same_numbers_at_those(name, trajectory, evaluated):
    """What is decided by the end of a run stays if the last step stays; what looks at neighbours may not."""
    whole, part = evaluated(name), evaluate(name, trajectory.select(trajectory.steps[[1, 3]]))
    for key in set(whole.arrays) - {"principal_components"} - BETWEEN.get(name, set()):
        # An eigenvalue is within its residual, which depends on where the search began, as the residual does.
        rtol = 1e-6 if key == "sharpness" else 1e-9
        if key != "sharpness_residual":
            np.testing.assert_allclose(part[key], whole[key][[1, 3]], rtol=rtol, atol=1e-12, err_msg=key)
    for key in set(whole.constants):
        if whole[key].dtype.kind == "U":
            assert part.words(key) == whole.words(key)
        else:
            np.testing.assert_allclose(part[key], whole[key], rtol=1e-9, err_msg=key)


def rotate(parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rotate the residual stream: without LayerNorm nothing in the model prefers an axis of it."""
    generator = torch.Generator().manual_seed(0)
    width = parameters["embed.W_E"].shape[1]
    R = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64)).Q
    written = ("W_E", "W_pos", "W_O", "W_out", "b_out", "b_O")
    read = ("W_Q", "W_K", "W_V", "W_in", "W_U")
    turned = {
        name: one @ R if name.split(".")[-1] in written else R.T @ one if name.split(".")[-1] in read else one
        for name, one in parameters.items()
    }
    return turned


def permute_neurons(parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Number the MLP's neurons in another order."""
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    mlp = "blocks.0.mlp."
    return parameters | {
        f"{mlp}W_in": parameters[f"{mlp}W_in"][:, order],
        f"{mlp}b_in": parameters[f"{mlp}b_in"][order],
        f"{mlp}W_out": parameters[f"{mlp}W_out"][order],
    }


def swap_heads(parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Number the attention heads the other way round."""
    heads = [f"blocks.0.attn.{name}" for name in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V")]
    return parameters | {name: parameters[name].flip(0) for name in heads}


def rescale_neurons(parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Multiply what goes into each neuron by 3 and divide what comes out: a ReLU does not notice."""
    mlp = "blocks.0.mlp."
    return parameters | {
        f"{mlp}W_in": parameters[f"{mlp}W_in"] * 3,
        f"{mlp}b_in": parameters[f"{mlp}b_in"] * 3,
        f"{mlp}W_out": parameters[f"{mlp}W_out"] / 3,
    }


def shift_logits(parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Add the same to all logits of an example, which a softmax does not notice."""
    W_U = parameters["unembed.W_U"]
    return parameters | {"unembed.W_U": W_U + torch.linspace(-1, 1, len(W_U), dtype=torch.float64)[:, None]}


# The transformations that leave the model's function as it is, and for each measure the arrays that change under
# one. A trace is estimated with probes along the axes: what moves the axes moves it, within its standard error.
PROBES = {"hessian_trace", "hessian_trace_stderr"}
ESTIMATES = {
    f"{name}{ending}"
    for name in (
        "trace",
        "frobenius_norm",
        "gauss_newton_trace",
        "gauss_newton_share",
        "block_traces",
        "block_gauss_newton_traces",
    )
    for ending in ("", "_stderr")
}
DENSITY = KEYS["hessian_spectrum"]
MLP = {"weight_norm.blocks.0.mlp.W_in", "weight_norm.blocks.0.mlp.b_in", "weight_norm.blocks.0.mlp.W_out"}
TOTAL = {"weight_norm", "distance_from_initialization", "component_norms", "component_distances"}
NORMS = {"spectral_norm", "nuclear_norm", "frobenius_norm"}
RANKS = {"stable_rank", "effective_rank"}
# Which analytic zeros are zeros to the last bit is no property of the model.
ROUNDING = {"zero_parameter_gradient_share", "gradient_imbalance"}
LENGTHS = {"update_size", "update_size_per_step", "path_length", "displacement", "component_update_sizes"}
COSINES = {"update_weight_cosine", "component_update_weight_cosines"}
LLC = KEYS["local_learning_coefficient"] - {"train_loss"}
BOX = {"keskar_sharpness", "keskar_sharpness_by_start"}
BALL = {"sam_sharpness", "sam_sharpness_step", "sam_sharpness_by_start"}
ELLIPTIC_BALL = {f"adaptive_{name}" for name in BALL}
NOISE = {"average_sharpness", "average_sharpness_stderr"}
ELLIPTIC_NOISE = {f"adaptive_{name}" for name in NOISE}
CHANGES = {
    "loss": {},
    "embedding": {},
    "weight_norm": {
        rescale_neurons: MLP | TOTAL,
        shift_logits: {"weight_norm", "weight_norm.unembed.W_U", "component_norms"},
    },
    # The same shift at every step moves nothing.
    "path": {rescale_neurons: LENGTHS | COSINES, shift_logits: COSINES},
    "matrix_norms": {rescale_neurons: NORMS, swap_heads: NORMS | RANKS, shift_logits: NORMS | RANKS},
    "numerics": {
        rescale_neurons: {"gradient_norm", "naive_loss_cosine", "component_naive_loss_cosines"},
        # bfloat16 rounds the shifted logits otherwise.
        shift_logits: {"gradient_norm", "naive_loss_cosine", "component_naive_loss_cosines"},
    },
    "sharpness": {
        rotate: PROBES,
        permute_neurons: PROBES,
        swap_heads: PROBES,
        rescale_neurons: {"sharpness", *PROBES},
    },
    "hessian": {
        rotate: ESTIMATES,
        permute_neurons: ESTIMATES,
        swap_heads: ESTIMATES,
        rescale_neurons: {
            *ESTIMATES, "eigenvalues", "bottom_eigenvalue", "gauss_newton_eigenvalue", "gradient_norm",
            "gradient_overlap", "update_overlap", "eigenspace_overlap",
        },
    },
    "hessian_spectrum": {
        rotate: DENSITY, permute_neurons: DENSITY, swap_heads: DENSITY, rescale_neurons: DENSITY,
    },
    "keskar_sharpness": {rotate: BOX, rescale_neurons: BOX, shift_logits: BOX},
    "sam_sharpness": {rotate: ELLIPTIC_BALL, rescale_neurons: BALL, shift_logits: ELLIPTIC_BALL},
    "average_sharpness": {
        rotate: NOISE | ELLIPTIC_NOISE,
        permute_neurons: NOISE | ELLIPTIC_NOISE,
        swap_heads: NOISE | ELLIPTIC_NOISE,
        rescale_neurons: NOISE,
        shift_logits: ELLIPTIC_NOISE,
    },
    "fisher_rao_norm": {},
    "relative_flatness": {},
    "unembedding": {},
    "representations": {},
    "fourier": {rescale_neurons: {"W_L_norms", "W_L_singular_values"}},
    "progress": {},
    "neurons": {
        permute_neurons: {"neuron_share", "neuron_frequency"},
        swap_heads: {"head_share", "head_frequency"},
    },
    "ablations": {},
    "parallelograms": {},
    # The noise along each weight is the same: what moves the axes gives it another meaning.
    "local_learning_coefficient": {one: LLC for one in (rotate, permute_neurons, swap_heads, rescale_neurons)},
    "attention": {swap_heads: {"attention", "attention_stderr", "attention_by_first"}},
    "example_loss": {},
    # The paper's two take the logits as they are, and so notice what softmax does not.
    "algorithm": {
        shift_logits: {
            "gradient_symmetricity", "gradient_symmetricity_stderr", "distance_irrelevance",
            "distance_irrelevance_shuffled", "distance_irrelevance_shuffled_stderr",
        }
    },
}  # fmt: skip
OPTIONS = {
    "hessian": {"dtype": "float64", "tolerance": 1e-9},
    "hessian_spectrum": {"dtype": "float64"},
    "sharpness": {"dtype": "float64", "tolerance": 1e-6, "n_probes": 16},
    "local_learning_coefficient": {"dtype": "float64", "localization": 10.0},
    # A random start is a point of the box, whose sides have names.
    "keskar_sharpness": {"n_starts": 1},
    "numerics": {"dtype": "float64"},
    "sam_sharpness": {"n_starts": 1, "dtype": "float64"},
    "average_sharpness": {"dtype": "float64", "n_pairs": 2},
    "fisher_rao_norm": {"dtype": "float64"},
}


@pytest.fixture(scope="module")
def generic(plant_once) -> dict[int, dict[str, torch.Tensor]]:
    """Parameters by step, in float64, none of them zero and the embedding's variances well apart."""
    generator = torch.Generator().manual_seed(0)
    shapes = plant_once({0: {}}).model.shapes
    steps = {
        step: {name: torch.randn(s, generator=generator, dtype=torch.float64) * 0.3 for name, s in shapes.items()}
        for step in (0, 10)
    }
    for one in steps.values():
        one["embed.W_E"] = one["embed.W_E"] * torch.linspace(3, 0.3, 16, dtype=torch.float64)
    return steps


@pytest.fixture(scope="module")
def precise(plant_once):
    """The function that evaluates a measure on given parameters by step, in the precision that invariance needs."""
    return lambda name, steps: evaluate(name, plant_once(steps, biases="all"), **OPTIONS.get(name, {}))


@pytest.fixture(scope="module")
def unmoved(precise, generic):
    """The function that evaluates a measure on the generic parameters, once for all transformations."""
    return cache(lambda name: precise(name, generic))


@pytest.mark.parametrize("transform", [rotate, permute_neurons, swap_heads, rescale_neurons, shift_logits])
@pytest.mark.parametrize("name", sorted(plugins.BUILT_IN["measures"]))
def test_a_measure_is_invariant_to_what_it_should_be(name, transform, generic, precise, unmoved):
    moved = {step: transform(one) for step, one in generic.items()}
    assert any(not torch.equal(moved[0][key], one) for key, one in generic[0].items())
    before, after = unmoved(name), precise(name, moved)
    changes = CHANGES[name].get(transform, set())
    for key in before.arrays:
        # A residual, a control's estimated error and the health of chains are no properties of the model; what noise
        # a guess bears is chance, and that of answers has a test of its own.
        is_chance = key in ROUNDING or "perturbation_radius" in key
        endings = ("_residual", "_residual_stderr", "_at_equilibrium", "_autocorrelation_time")
        if not key.endswith(endings) and not is_chance:
            same = np.allclose(after[key], before[key], rtol=1e-5, atol=1e-8, equal_nan=True)
            assert same == (key not in changes), key
    if changes == PROBES:
        error = np.hypot(before["hessian_trace_stderr"], after["hessian_trace_stderr"])
        assert (np.abs(before["hessian_trace"] - after["hessian_trace"]) < 4 * error).all()


@pytest.fixture
def evaluations(monkeypatch) -> list[str]:
    """The names of the measures that were evaluated, not read from a file."""
    names, evaluate = [], measures.MeasureRequest.evaluate

    def counted(request):
        names.append(request.name)
        return evaluate(request)

    monkeypatch.setattr(measures.MeasureRequest, "evaluate", counted)
    return names


@pytest.fixture
def redeclare(monkeypatch):
    """The function that changes the declaration of the measure `loss`."""

    def change(**changes):
        measure = plugins.load("measures", "loss")
        monkeypatch.setattr(measure, "declaration", dataclasses.replace(measure.declaration, **changes))

    return change


def test_what_was_measured_is_not_measured_again(run_copy, evaluations):
    first = measures.saved("loss", Trajectory.open(run_copy))
    assert_same(measures.saved("loss", Trajectory.open(run_copy)), first)
    assert evaluations == ["loss"]
    assert_same(Series.load(measures.folder(run_copy) / "loss.safetensors"), first)


def test_a_costly_measure_is_taken_at_a_few_steps_unless_more_are_there(run_copy, evaluations, redeclare):
    redeclare(n_checkpoints=3)
    trajectory = Trajectory.open(run_copy)
    assert measures.saved("loss", trajectory).steps.tolist() == trajectory.thin(3).steps.tolist()
    assert len(measures.saved("loss", trajectory, thin=5)) == 5
    assert len(measures.saved("loss", trajectory)) == 5
    assert len(measures.saved("loss", trajectory, thin=2)) == 2
    assert len(measures.saved("loss", trajectory)) == 5, "fewer checkpoints never replace more"
    assert len(evaluations) == 3


def test_a_longer_run_is_measured_anew(run_copy, evaluations, redeclare):
    """Also where as many steps as a costly measure takes were measured before the run grew."""
    redeclare(n_checkpoints=2)
    measures.saved("loss", Trajectory.open(run_copy).select([0, 10]))
    assert measures.saved("loss", Trajectory.open(run_copy)).steps[-1] == 60
    assert len(evaluations) == 2


def test_results_with_other_options_are_not_taken_for_the_usual_ones(run_copy, evaluations):
    trajectory = Trajectory.open(run_copy)
    measures.saved("embedding", trajectory)
    measures.evaluate("embedding", trajectory, seed=5).save(measures.folder(run_copy) / "embedding.safetensors")
    assert measures.saved("embedding", trajectory).options == options_of("embedding")
    assert len(evaluations) == 3


def test_results_with_options_are_kept_beside_the_usual_ones(run_copy, evaluations):
    trajectory = Trajectory.open(run_copy)
    series = [measures.saved("embedding", trajectory, seed=seed) for seed in (0, 1, 2, 1, 0)]
    assert evaluations == ["embedding"] * 3
    assert_same(series[1], series[3])
    assert_same(series[0], series[4])
    assert series[1].options == {**options_of("embedding"), "seed": 1}
    assert len(list(measures.folder(run_copy).iterdir())) == 3
    assert Series.load(measures.folder(run_copy) / "embedding.safetensors").options["seed"] == 0


def test_an_option_at_its_default_or_spelled_otherwise_is_no_other_option(run_copy, evaluations):
    trajectory = Trajectory.open(run_copy)
    for options in ({}, {"seed": 0}, {"n_components": 10}):
        measures.saved("embedding", trajectory, **options)
    for tolerance in (1, 1.0):
        measures.saved("sharpness", trajectory, 1, tolerance=tolerance)
    assert evaluations == ["embedding", "sharpness"]


def test_an_option_of_several_values_is_the_same_after_a_file(run_copy, evaluations, monkeypatch):
    def several(trajectory, *, several: tuple[str, ...] = ("a",)):
        return Series("several", trajectory.steps, {"x": trajectory.steps * len(several)})

    monkeypatch.setitem(plugins._registered("measures"), "several", SimpleNamespace(load=lambda: several))
    trajectory = Trajectory.open(run_copy)
    for _ in range(2):
        measures.saved("several", trajectory)
        assert measures.saved("several", trajectory, several=("a", "b"))["x"][-1] == 120
    assert len(evaluations) == 2


def test_fewer_checkpoints_are_kept_too_and_never_in_the_place_of_more(run_copy, evaluations):
    trajectory = Trajectory.open(run_copy)
    whole = measures.saved("loss", trajectory)
    few = [measures.saved("loss", trajectory, thin=2) for _ in range(2)]
    assert_same(*few)
    assert len(few[0]) == 2
    assert_same(measures.saved("loss", trajectory), whole)
    assert_same(Series.load(measures.folder(run_copy) / "loss.safetensors"), whole)
    assert len(evaluations) == 2


def test_many_checkpoints_of_a_run_that_grew_since_are_not_lost(run_copy, evaluations):
    """`--thin 2` of the longer run used to replace them."""
    many = measures.keep(measures.evaluate("loss", Trajectory.open(run_copy)[:-1]), Trajectory.open(run_copy))
    assert len(measures.saved("loss", Trajectory.open(run_copy), thin=2)) == 2
    assert_same(Series.load(measures.folder(run_copy) / "loss.safetensors"), many)
    assert len(measures.saved("loss", Trajectory.open(run_copy), thin=2)) == 2
    assert len(evaluations) == 2


def test_a_gap_that_came_since_is_not_hidden_by_what_was_measured_before(run_copy, evaluations, monkeypatch):
    """A segment may be lost that has no checkpoint: the others are then as they were, to the bit."""
    assert measures.saved("loss", Trajectory.open(run_copy))["gaps"].tolist() == []
    later = Trajectory.open(run_copy)
    monkeypatch.setattr(Trajectory, "gaps", [(3, 5)])
    assert measures.saved("loss", later)["gaps"].tolist() == [[3, 5]]
    assert measures.saved("loss", later)["gaps"].tolist() == [[3, 5]]
    assert evaluations == ["loss"] * 2


def test_thinned_to_nothing_is_refused(run_copy):
    """It used to mean all checkpoints."""
    with pytest.raises(GrokscopeError, match=r"thin\(0\)"):
        measures.saved("loss", Trajectory.open(run_copy), thin=0)


def test_another_version_of_the_formula_is_measured_anew(run_copy, evaluations, redeclare):
    trajectory = Trajectory.open(run_copy)
    assert measures.saved("loss", trajectory).version == 1
    redeclare(version=2)
    assert [measures.saved("loss", trajectory).version for _ in range(2)] == [2, 2]
    assert len(evaluations) == 2


def test_a_file_of_before_formulas_had_versions_counts_as_version_1(run_copy, evaluations, monkeypatch):
    write = tensor_file.write

    def older(path, arrays, about):
        write(path, arrays, {key: value for key, value in about.items() if key != "version"})

    with monkeypatch.context() as patch:
        patch.setattr(tensor_file, "write", older)
        measures.saved("loss", Trajectory.open(run_copy))
    assert measures.saved("loss", Trajectory.open(run_copy)).version == 1
    assert len(evaluations) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tolerance": "x"}, "tolerance = 'x'; allowed: a finite number"),
        ({"tolerance": np.nan}, "tolerance = nan; allowed: a finite number"),
        ({"n_probes": 2.5}, "n_probes = 2.5; allowed: a whole number"),
        ({"n_probes": True}, "n_probes = True; allowed: a whole number"),
        ({"seed": 10**30}, "seed = 1000.*; allowed: a whole number"),
        ({"dtype": 3}, "dtype = 3; allowed: a text"),
    ],
)
def test_an_option_of_the_wrong_kind_is_refused_by_name(options, said, trajectory):
    with pytest.raises(GrokscopeError, match=f"sharpness: {said}"):
        measures.evaluate("sharpness", trajectory, **options)


def test_a_damaged_result_is_measured_anew(run_copy, evaluations):
    first = measures.saved("loss", Trajectory.open(run_copy))
    path = measures.folder(run_copy) / "loss.safetensors"
    path.write_bytes(path.read_bytes()[:-7] + b"damaged")
    assert_same(measures.saved("loss", Trajectory.open(run_copy)), first)
    assert len(evaluations) == 2
    assert_same(Series.load(path), first)


def test_another_runs_results_are_not_taken_for_this_ones(run_copy, tiny_config, tmp_path, evaluations):
    other = grokscope.train(dataclasses.replace(tiny_config, init_seed=1), "other", tmp_path)
    measures.saved("loss", Trajectory.open(run_copy))
    shutil.copytree(measures.folder(run_copy), measures.folder(tmp_path / "other"))
    assert measures.saved("loss", other).digest == other.digest
    assert len(evaluations) == 2


def test_a_trajectory_in_memory_has_nowhere_to_save(plant):
    with pytest.raises(GrokscopeError, match="in memory"):
        measures.saved("loss", plant({0: {}}))
