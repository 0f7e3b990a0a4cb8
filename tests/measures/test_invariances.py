"""The invariances of every measure: transformations of the parameters that preserve the model's function."""

from functools import cache

import numpy as np
import pytest
import torch
from support.measure_contract import KEYS, evaluate

from grokscope import plugins


def rotate(parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rotate the residual stream, of which no axis is special without LayerNorm."""
    generator = torch.Generator().manual_seed(0)
    width = parameters["embed.W_E"].shape[1]
    R = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64)).Q
    written = ("W_E", "W_pos", "W_O", "W_out", "b_out", "b_O")
    read = ("W_Q", "W_K", "W_V", "W_in", "W_U")
    return {
        name: W @ R if name.split(".")[-1] in written else R.T @ W if name.split(".")[-1] in read else W
        for name, W in parameters.items()
    }


def permute_neurons(parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Reorder the MLP's neurons."""
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    mlp = "blocks.0.mlp."
    return parameters | {
        f"{mlp}W_in": parameters[f"{mlp}W_in"][:, order],
        f"{mlp}b_in": parameters[f"{mlp}b_in"][order],
        f"{mlp}W_out": parameters[f"{mlp}W_out"][order],
    }


def swap_heads(parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Reverse the order of the attention heads."""
    heads = [f"blocks.0.attn.{name}" for name in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V")]
    return parameters | {name: parameters[name].flip(0) for name in heads}


def rescale_neurons(parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Multiply the input of each neuron by 3 and divide its output by 3, which cancels for a ReLU."""
    mlp = "blocks.0.mlp."
    return parameters | {
        f"{mlp}W_in": parameters[f"{mlp}W_in"] * 3,
        f"{mlp}b_in": parameters[f"{mlp}b_in"] * 3,
        f"{mlp}W_out": parameters[f"{mlp}W_out"] / 3,
    }


def shift_logits(parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Add one number to all logits of an example, which a softmax ignores."""
    W_U = parameters["unembed.W_U"]
    return parameters | {"unembed.W_U": W_U + torch.linspace(-1, 1, len(W_U), dtype=torch.float64)[:, None]}


# A trace is estimated with probes along the axes, so moving the axes changes it within its standard error.
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
# Rounding decides which analytic zeros are exact zeros.
ROUNDING = {"zero_parameter_gradient_share", "gradient_imbalance"}
LENGTHS = {"update_size", "update_size_per_step", "path_length", "displacement", "component_update_sizes"}
COSINES = {"update_weight_cosine", "component_update_weight_cosines"}
LLC = KEYS["local_learning_coefficient"] - {"train_loss"}
BOX = {"keskar_sharpness", "keskar_sharpness_by_start"}
BALL = {"sam_sharpness", "sam_sharpness_step", "sam_sharpness_by_start"}
ELLIPTIC_BALL = {f"adaptive_{name}" for name in BALL}
NOISE = {"average_sharpness", "average_sharpness_stderr", "average_sharpness_interval"}
ELLIPTIC_NOISE = {f"adaptive_{name}" for name in NOISE}
# The arrays of each measure that a transformation changes.
CHANGES = {
    "loss": {},
    "embedding": {},
    "weight_norm": {
        rescale_neurons: MLP | TOTAL,
        shift_logits: {"weight_norm", "weight_norm.unembed.W_U", "component_norms"},
    },
    "weight_average": {rescale_neurons: {"distance"}},
    # A shift that is the same at every step does not move the weights.
    "path": {rescale_neurons: LENGTHS | COSINES, shift_logits: COSINES},
    "matrix_norms": {rescale_neurons: NORMS, swap_heads: NORMS | RANKS, shift_logits: NORMS | RANKS},
    "numerics": {
        rescale_neurons: {"gradient_norm", "naive_loss_cosine", "component_naive_loss_cosines"},
        # bfloat16 rounds the shifted logits differently.
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
    # The noise of a chain is fixed along each weight, so moving the axes changes the draws.
    "local_learning_coefficient": dict.fromkeys((rotate, permute_neurons, swap_heads, rescale_neurons), LLC),
    "attention": {swap_heads: {"attention", "attention_stderr", "attention_by_first"}},
    "example_loss": {},
    # The paper's two quantities use the raw logits.
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
    # A random start depends on the order of the parameters.
    "keskar_sharpness": {"n_starts": 1},
    "numerics": {"dtype": "float64"},
    "sam_sharpness": {"n_starts": 1, "dtype": "float64"},
    "average_sharpness": {"dtype": "float64", "n_pairs": 2, "n_radius_pairs": 4},
    "fisher_rao_norm": {"dtype": "float64"},
}


@pytest.fixture(scope="module")
def generic(plant_once) -> dict[int, dict[str, torch.Tensor]]:
    """Random float64 parameters by step, with well separated variances of the embedding."""
    generator = torch.Generator().manual_seed(0)
    shapes = plant_once({0: {}}).model.shapes
    steps = {
        step: {name: torch.randn(s, generator=generator, dtype=torch.float64) * 0.3 for name, s in shapes.items()}
        for step in (0, 10)
    }
    for parameters in steps.values():
        parameters["embed.W_E"] = parameters["embed.W_E"] * torch.linspace(3, 0.3, 16, dtype=torch.float64)
    return steps


@pytest.fixture(scope="module")
def precise(plant_once):
    """The function that evaluates a measure on parameters by step, in the precision that invariance needs."""
    return lambda name, steps: evaluate(name, plant_once(steps, biases="all"), **OPTIONS.get(name, {}))


@pytest.fixture(scope="module")
def unmoved(precise, generic):
    """The function that evaluates a measure on the generic parameters, once for all transformations."""
    return cache(lambda name: precise(name, generic))


@pytest.mark.parametrize("transform", [rotate, permute_neurons, swap_heads, rescale_neurons, shift_logits])
@pytest.mark.parametrize("name", sorted(plugins.BUILT_IN["measures"]))
def test_only_the_listed_arrays_change_under_a_transformation(name, transform, generic, precise, unmoved):
    moved = {step: transform(parameters) for step, parameters in generic.items()}
    assert any(not torch.equal(moved[0][key], W) for key, W in generic[0].items())
    before, after = unmoved(name), precise(name, moved)
    changes = CHANGES[name].get(transform, set())
    for key in before.arrays:
        # Residuals and the health of chains are not properties of the model. The perturbation radius of a guess is
        # chance, and that of a trained model has its own test.
        is_chance = key in ROUNDING or "perturbation_radius" in key
        endings = ("_residual", "_residual_stderr", "_at_equilibrium", "_autocorrelation_time")
        if not key.endswith(endings) and not is_chance:
            same = np.allclose(after[key], before[key], rtol=1e-5, atol=1e-8, equal_nan=True)
            assert same == (key not in changes), key
    if changes == PROBES:
        error = np.hypot(before["hessian_trace_stderr"], after["hessian_trace_stderr"])
        assert (np.abs(before["hessian_trace"] - after["hessian_trace"]) < 4 * error).all()
