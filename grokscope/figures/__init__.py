"""Figures: `plot_*(series, *, ax)` draws on an Axes and returns it; `figure_*` puts several on one Figure.

A figure never computes a measure, and never touches pyplot or the global rcParams. Colours are Okabe and Ito's,
which colour-blind readers can tell apart; train and test also differ in line style.
"""

import io
from pathlib import Path

from matplotlib.figure import Figure

from grokscope import files
from grokscope.figures.algorithm import figure_algorithm, plot_algorithm, plot_explained_variance
from grokscope.figures.circles import (
    animation,
    figure_embedding,
    plot_frequency_plane,
    plot_principal_plane,
    telling_steps,
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
    figure_circularity,
    figure_losses,
    figure_sharpness,
    figure_weight_norms,
    plot_accuracies,
    plot_circularity,
    plot_losses,
    plot_parameter_norms,
    plot_sharpness,
    plot_weight_norm,
)
from grokscope.figures.departures import figure_departures, plot_departures
from grokscope.figures.flatness import figure_flatness, plot_flatness
from grokscope.figures.interventions import figure_transplant, plot_transplant
from grokscope.figures.landscape import (
    figure_interpolation,
    figure_landscape,
    figure_path_plane,
    figure_shells,
    figure_slices,
    plot_interpolation,
    plot_path_plane,
    plot_shells,
    plot_slice,
    plot_surface,
    slice_animation,
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
from grokscope.figures.progress import (
    figure_progress,
    figure_spectra,
    plot_excluded_losses,
    plot_gini,
    plot_logit_variance,
    plot_progress_losses,
    plot_spectrum,
)
from grokscope.figures.representations import (
    figure_cosets,
    figure_representations,
    plot_representation_losses,
    plot_representations,
    plot_silhouettes,
)
from grokscope.figures.steps import shade_stages
from grokscope.figures.style import PAGE_WIDTH, new_figure
from grokscope.figures.sweeps import (
    figure_against,
    figure_train_and_test,
    plot_against,
    plot_curve,
    plot_median_steps,
    plot_phase_diagram,
    plot_scatter,
    plot_train_and_test,
)
from grokscope.figures.unembedding import figure_unembedding, plot_unembedding

__all__ = [
    "PAGE_WIDTH",
    "animation",
    "figure_against",
    "figure_algorithm",
    "figure_circularity",
    "figure_cosets",
    "figure_departures",
    "figure_edge_of_stability",
    "figure_embedding",
    "figure_flatness",
    "figure_hessian",
    "figure_hessian_spectrum",
    "figure_interpolation",
    "figure_landscape",
    "figure_losses",
    "figure_matrix_norms",
    "figure_numerics",
    "figure_path",
    "figure_path_plane",
    "figure_progress",
    "figure_representations",
    "figure_sharpness",
    "figure_shells",
    "figure_slices",
    "figure_spectra",
    "figure_train_and_test",
    "figure_transplant",
    "figure_unembedding",
    "figure_weight_norms",
    "new_figure",
    "plot_accuracies",
    "plot_against",
    "plot_algorithm",
    "plot_circularity",
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
    "plot_last_layer",
    "plot_logit_variance",
    "plot_losses",
    "plot_margins",
    "plot_matrices",
    "plot_median_steps",
    "plot_naive_loss",
    "plot_overlaps",
    "plot_parameter_norms",
    "plot_path_plane",
    "plot_phase_diagram",
    "plot_principal_plane",
    "plot_progress_losses",
    "plot_representation_losses",
    "plot_representations",
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
    "png",
    "save",
    "shade_stages",
    "slice_animation",
    "telling_steps",
]


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as PNG and PDF beside each other, fonts embedded; return both paths."""
    files.make_folder(path.parent)
    written, layout = [], figure.get_layout_engine()
    for kind in ("png", "pdf"):
        data = io.BytesIO()
        # No date in the file: the same figure has the same bytes.
        metadata = {"CreationDate": None} if kind == "pdf" else None
        figure.savefig(data, format=kind, dpi=200, metadata=metadata)
        written.append(path.with_suffix(f".{kind}"))
        files.write_atomic(written[-1], data.getvalue())
        # Both are laid out alike, and it is half of the work.
        figure.set_layout_engine("none")
    figure.set_layout_engine(layout)
    return written


def png(figure: Figure, dpi: int = 160) -> bytes:
    """Return a figure as PNG bytes."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=dpi)
    return data.getvalue()
