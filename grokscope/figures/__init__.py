"""Figures: `plot_*(series, *, ax)` draws on an Axes and returns it; `figure_*` returns a Figure of several panels.

- `series` is a run's log or the result of a measure. Each docstring names which.
- `ax` is the Axes to draw on. Its scale, labels and legend are set.
- `width` is the width of a figure in inches. `PAGE_WIDTH` is the usual default, and `COLUMN_WIDTH` suits two columns.
- A stack of panels has one step axis. Shades mark the stages of training, and hatches mark lost checkpoints.

A figure never computes a measure, and never uses pyplot or changes the global rcParams. `_style` sets all colours.
"""

import warnings
from typing import Any

from grokscope.figures._axes import shade_stages
from grokscope.figures._export import MOVING, STILL, data, encoded, png, save
from grokscope.figures._steps import n_panels_per_row, representative_steps
from grokscope.figures._style import COLUMN_WIDTH, PAGE_WIDTH, new_figure
from grokscope.figures.ablations import (
    figure_ablations,
    figure_algorithm,
    figure_neurons,
    figure_transplant,
    plot_ablations,
    plot_algorithm,
    plot_clusters,
    plot_explained_variance,
    plot_neurons,
    plot_transplant,
    plot_without_frequencies,
)
from grokscope.figures.bands import figure_bands, plot_bands
from grokscope.figures.circuit import (
    animation_of_spectrum,
    figure_departures,
    figure_gini,
    figure_progress,
    figure_spectra,
    figure_spectrum,
    plot_departures,
    plot_excluded_losses,
    plot_gini,
    plot_logit_variance,
    plot_progress_losses,
    plot_spectrum,
)
from grokscope.figures.curvature import (
    figure_edge_of_stability,
    figure_hessian,
    figure_hessian_spectrum,
    plot_density_lines,
    plot_edge_of_stability,
    plot_eigenvalues,
    plot_gauss_newton_share,
    plot_hessian_blocks,
    plot_hessian_traces,
    plot_overlaps,
    plot_spectral_density,
)
from grokscope.figures.curves import (
    figure_accuracies,
    figure_circularity,
    figure_keskar_sharpness,
    figure_losses,
    figure_parallelograms,
    figure_sharpness,
    figure_weight_norms,
    plot_accuracies,
    plot_circularity,
    plot_keskar_sharpness,
    plot_losses,
    plot_parallelogram_distances,
    plot_parameter_norms,
    plot_rqi,
    plot_sharpness,
    plot_weight_norm,
)
from grokscope.figures.embedding import (
    animation,
    figure_circle,
    figure_embedding,
    plot_frequency_plane,
    plot_principal_plane,
)
from grokscope.figures.flatness import figure_flatness, plot_flatness
from grokscope.figures.landscape import (
    figure_landscape,
    figure_path_plane,
    figure_shells,
    plot_path_plane,
    plot_shells,
    plot_surface,
)
from grokscope.figures.norms import (
    figure_matrix_norms,
    figure_path,
    plot_component_norms,
    plot_last_layer,
    plot_matrices,
    plot_update_cosines,
    plot_update_sizes,
)
from grokscope.figures.numerics import (
    figure_numerics,
    plot_collapse,
    plot_gradient_norms,
    plot_margins,
    plot_naive_loss,
)
from grokscope.figures.phase_diagram import plot_phase_diagram
from grokscope.figures.representations import (
    figure_cosets,
    figure_representations,
    plot_representation_losses,
    plot_representations,
    plot_silhouettes,
)
from grokscope.figures.slices import (
    figure_interpolation,
    figure_slices,
    plot_interpolation,
    plot_slice,
    slice_animation,
)
from grokscope.figures.sweeps import (
    figure_against,
    figure_runs,
    figure_train_and_test,
    plot_against,
    plot_curve,
    plot_median_steps,
    plot_runs,
    plot_scatter,
    plot_train_and_test,
)
from grokscope.figures.unembedding import figure_unembedding, plot_unembedding

__all__ = [
    "COLUMN_WIDTH",
    "MOVING",
    "PAGE_WIDTH",
    "STILL",
    "animation",
    "animation_of_spectrum",
    "data",
    "encoded",
    "figure_ablations",
    "figure_accuracies",
    "figure_against",
    "figure_algorithm",
    "figure_bands",
    "figure_circle",
    "figure_circularity",
    "figure_cosets",
    "figure_departures",
    "figure_edge_of_stability",
    "figure_embedding",
    "figure_flatness",
    "figure_gini",
    "figure_hessian",
    "figure_hessian_spectrum",
    "figure_interpolation",
    "figure_keskar_sharpness",
    "figure_landscape",
    "figure_losses",
    "figure_matrix_norms",
    "figure_neurons",
    "figure_numerics",
    "figure_parallelograms",
    "figure_path",
    "figure_path_plane",
    "figure_progress",
    "figure_representations",
    "figure_runs",
    "figure_sharpness",
    "figure_shells",
    "figure_slices",
    "figure_spectra",
    "figure_spectrum",
    "figure_train_and_test",
    "figure_transplant",
    "figure_unembedding",
    "figure_weight_norms",
    "n_panels_per_row",
    "new_figure",
    "plot_ablations",
    "plot_accuracies",
    "plot_against",
    "plot_algorithm",
    "plot_bands",
    "plot_circularity",
    "plot_clusters",
    "plot_collapse",
    "plot_component_norms",
    "plot_curve",
    "plot_density_lines",
    "plot_departures",
    "plot_edge_of_stability",
    "plot_eigenvalues",
    "plot_excluded_losses",
    "plot_explained_variance",
    "plot_flatness",
    "plot_frequency_plane",
    "plot_gauss_newton_share",
    "plot_gini",
    "plot_gradient_norms",
    "plot_hessian_blocks",
    "plot_hessian_traces",
    "plot_interpolation",
    "plot_keskar_sharpness",
    "plot_last_layer",
    "plot_logit_variance",
    "plot_losses",
    "plot_margins",
    "plot_matrices",
    "plot_median_steps",
    "plot_naive_loss",
    "plot_neurons",
    "plot_overlaps",
    "plot_parallelogram_distances",
    "plot_parameter_norms",
    "plot_path_plane",
    "plot_phase_diagram",
    "plot_principal_plane",
    "plot_progress_losses",
    "plot_representation_losses",
    "plot_representations",
    "plot_rqi",
    "plot_runs",
    "plot_scatter",
    "plot_sharpness",
    "plot_shells",
    "plot_silhouettes",
    "plot_slice",
    "plot_spectral_density",
    "plot_spectrum",
    "plot_surface",
    "plot_train_and_test",
    "plot_transplant",
    "plot_unembedding",
    "plot_update_cosines",
    "plot_update_sizes",
    "plot_weight_norm",
    "plot_without_frequencies",
    "png",
    "representative_steps",
    "save",
    "shade_stages",
    "slice_animation",
]
_RENAMED = {"telling_steps": "representative_steps"}
"""Former names, which still work with a warning."""


def __getattr__(name: str) -> Any:
    if name not in _RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"grokscope.figures.{name} is now {_RENAMED[name]}", DeprecationWarning, stacklevel=2)
    return globals()[_RENAMED[name]]
