"""The names that every measure promises, and how the tests evaluate and compare measures."""

import inspect
import json
from typing import Any

from grokscope import Trajectory, measures, plugins
from grokscope.series import Series
from support.shared import SMALL

KEYS = {
    "loss": {"train_loss", "test_loss", "loss", "train_accuracy", "test_accuracy", "accuracy"},
    "weight_norm": {
        "weight_norm", "distance_from_initialization", "component_norms", "component_distances",
        "weight_norm.embed.W_E",
    },
    "weight_average": {
        "train_loss", "test_loss", "loss", "train_accuracy", "test_accuracy", "accuracy", "distance",
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
            "average_sharpness", "average_sharpness_stderr", "average_sharpness_interval", "perturbation_radius",
            "perturbation_radius_stderr", "perturbation_radius_interval",
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
    "parallelograms": {"rqi", "whole_number_rqi", "percentile_distance", "percentile_distance_shuffled"},
    "algorithm": {
        "gradient_symmetricity", "gradient_symmetricity_stderr", "distance_irrelevance",
        "distance_irrelevance_shuffled", "clock_explained_variance", "pizza_explained_variance",
    },
    "attention": {"attention", "attention_stderr", "attention_by_first"},
    "example_loss": {"example_loss", "is_right"},
}  # fmt: skip
"""The arrays that the documentation names, by measure. Scripts outside the repository rely on them."""

BETWEEN = {
    "weight_average": KEYS["weight_average"],
    "hessian": {"update_overlap", "eigenspace_overlap"},
    "path": {
        "update_size", "update_size_per_step", "update_weight_cosine", "update_cosine", "path_length", "displacement",
        "straightness", "component_update_sizes", "component_update_weight_cosines",
    },
}  # fmt: skip
"""The arrays that depend on the neighbouring or the first checkpoint, by measure."""


def assert_same(series: Series, expected: Series) -> None:
    """Assert that two series are equal bit for bit."""
    assert (series.measure, series.digest) == (expected.measure, expected.digest)
    # A file stores a tuple as a list.
    assert json.dumps(series.options, sort_keys=True) == json.dumps(expected.options, sort_keys=True)
    assert series.steps.tolist() == expected.steps.tolist()
    assert set(series.arrays) == set(expected.arrays) and set(series.constants) == set(expected.constants)
    for name in {*series.arrays, *series.constants}:
        array, expected_array = series[name], expected[name]
        assert (array.dtype, array.shape) == (expected_array.dtype, expected_array.shape), name
        assert array.tobytes() == expected_array.tobytes(), name


def options_of(name: str) -> dict[str, object]:
    """Return the options at which the tests evaluate a measure."""
    parameters = inspect.signature(plugins.load("measures", name)).parameters.values()
    defaults = {
        parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY
    }
    return defaults | SMALL.get(name, {})


def evaluate(name: str, trajectory: Trajectory, **options: Any) -> Series:
    """Evaluate a measure with small options."""
    return measures.evaluate(name, trajectory, **{**SMALL.get(name, {}), **options})
