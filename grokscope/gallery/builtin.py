"""The built-in figures of a run, and the functions that compute what they need in addition to measures.

Each figure is a `Picture` of one line at the end of this file. `grokscope.plugins` registers it under its name.
"""

from typing import Any

from grokscope import interventions, landscape, measures, phases
from grokscope.gallery import registry
from grokscope.gallery.registry import FigureRequest, Measured, Need, Picture, log, step, steps
from grokscope.landscape import edge_of_stability as edge
from grokscope.phases import Crossing
from grokscope.series import LabelledArrays, Series
from grokscope.thinning import nearest_row, spread_by_log_step

_N_FRAMES = 40
_N_SEARCH_STEPS = 100
"""The optimizer steps of a search on a sphere. A hundred are enough to memorize, as in training."""
_N_SHUFFLES = 16
"""The number of random orders in the control of a departure."""
DEPARTURES = {
    "progress": {
        "logit_variance_share": "logit variance in final key frequencies",
        "restricted_loss": "loss restricted to final key frequencies",
    },
    "fourier": {"W_E_gini": "Gini of W_E", "W_U_gini": "Gini of W_U", "W_L_gini": "Gini of W_L"},
    "embedding": {
        "circularity": "circularity of PCs 1–4",
        "key_frequency_share": "W_E variance in final key frequencies",
    },
    "algorithm": {"distance_irrelevance": "distance irrelevance"},
}
"""Measure → array with a shuffled control → label. Some arrays use the key frequencies of the last step."""


class _Departures:
    """The need of when each array of `DEPARTURES` leaves its shuffled control for good."""

    parts = tuple(Measured(name, {"n_shuffles": _N_SHUFFLES}) for name in DEPARTURES)

    def __call__(self, request: FigureRequest) -> dict[str, Crossing | None]:
        """Return label → departure, or None for an array inside its control at the end."""
        departures = {}
        for part in self.parts:
            series = part(request)
            departures |= {label: phases.departure(series, name) for name, label in DEPARTURES[part.name].items()}
        return departures


find_departures = _Departures()


def accuracy_landmarks(request: FigureRequest) -> dict[str, Crossing | None]:
    """Return when the run memorized, when its test accuracy reached 50%, and when it generalised.

    Without a known training set there are no landmarks.
    """
    series = log(request)
    if "test_accuracy" not in series:
        return {}
    return {
        "memorized": phases.memorization_step(series),
        "test accuracy 50%": phases.first_crossing(series, "test_accuracy", 0.5),
        "generalised": phases.generalisation_step(series),
    }


def _memorized_and_last(request: FigureRequest) -> tuple[int, int]:
    """Return the steps of the checkpoint nearest to memorization, or the first, and of the last."""
    checkpoints, memorized = request.trajectory.steps, phases.memorization_step(log(request))
    row = nearest_row(checkpoints, memorized.step if memorized else 0)
    return int(checkpoints[row]), int(checkpoints[-1])


def _line(request: FigureRequest) -> LabelledArrays:
    """Return the losses on the straight line from the memorizing to the last checkpoint."""
    return landscape.interpolate(request.trajectory, *_memorized_and_last(request))


def _line_ends(request: FigureRequest) -> tuple[str, str]:
    """Return the names of the two ends of `_line`."""
    first, last = _memorized_and_last(request)
    return f"step {first:,}", f"step {last:,}"


def _checkpoints(request: FigureRequest) -> list[int]:
    """Return the steps of the checkpoints nearest to the requested ones."""
    checkpoints = request.trajectory.steps
    return sorted({int(checkpoints[nearest_row(checkpoints, wanted)]) for wanted in steps(request)})


@registry.of_steps
def _transplants(request: FigureRequest) -> LabelledArrays:
    """Return the losses of models with one component from another of the requested steps."""
    checkpoints = _checkpoints(request)
    return interventions.transplant(request.trajectory, checkpoints, checkpoints)


@registry.of_steps
def _slices(request: FigureRequest) -> LabelledArrays:
    """Return the losses along random lines through the checkpoints of the requested steps."""
    return landscape.slices(request.trajectory, _checkpoints(request))


def _frames_of_slices(request: FigureRequest) -> LabelledArrays:
    """Return slices for an animation: of many checkpoints, with fewer points each."""
    checkpoints = request.trajectory.steps
    chosen = checkpoints[spread_by_log_step(checkpoints, _N_FRAMES)].tolist()
    return landscape.slices(request.trajectory, chosen, along=("random",) * 3, n_points=21)


def _plane(request: FigureRequest) -> tuple[LabelledArrays, LabelledArrays, LabelledArrays]:
    """Return the losses in the plane of the run's path, the path, and its principal components."""
    plane = landscape.path_plane(request.trajectory)
    return plane.grid, plane.path, plane.components


def _rays(request: FigureRequest) -> LabelledArrays:
    """Return the losses of the memorizing and the last checkpoint, rescaled to several norms."""
    return landscape.rays(request.trajectory, sorted(set(_memorized_and_last(request))))


def _shells(request: FigureRequest) -> LabelledArrays:
    """Return the lowest losses at several norms that short searches from the first and the last checkpoint find."""
    checkpoints = request.trajectory.steps
    ends = sorted({int(checkpoints[0]), int(checkpoints[-1])})
    return landscape.shells(request.trajectory, ends, n_steps=_N_SEARCH_STEPS)


def _edge_of_stability(request: FigureRequest) -> Series:
    """Return effective sharpness and threshold at as many checkpoints as the measure `hessian` uses."""
    n_checkpoints = measures.declaration_of("hessian").n_checkpoints or len(request.trajectory)
    return edge.edge_of_stability(request.trajectory.thin(n_checkpoints))


def _picture(name: str, *needs: Need, **options: Any) -> Picture:
    """Return the picture that `grokscope.figures.figure_NAME` draws."""
    return Picture(f"grokscope.figures:figure_{name}", needs, **options)


losses = _picture("losses", log)
accuracies = _picture("accuracies", log)
embedding = _picture("embedding", "embedding", steps)
circle = _picture("circle", "embedding", step, move="grokscope.figures:animation", moves=("embedding", log))
circularity = _picture("circularity", log, "embedding", of_a_circle=True)
weight_norms = _picture("weight_norms", log, "weight_norm")
sharpness = _picture("sharpness", log, "sharpness")
keskar_sharpness = _picture("keskar_sharpness", log, "keskar_sharpness")
flatness = _picture("flatness", log, "sam_sharpness", "average_sharpness", "fisher_rao_norm", "relative_flatness")
hessian = _picture("hessian", log, "hessian")
hessian_spectrum = _picture("hessian_spectrum", "hessian_spectrum", steps)
edge_of_stability = _picture("edge_of_stability", log, _edge_of_stability)
path = _picture("path", log, "weight_norm", "path")
matrix_norms = _picture("matrix_norms", log, "matrix_norms")
numerics = _picture("numerics", log, "numerics")
progress = _picture("progress", log, "progress", "fourier")
gini = _picture("gini", log, "fourier")
spectra = _picture("spectra", "fourier", steps)
spectrum = _picture(
    "spectrum", "fourier", step, move="grokscope.figures:animation_of_spectrum", moves=("fourier", log)
)
neurons = _picture("neurons", log, "neurons")
ablations = _picture("ablations", log, "ablations")
algorithm = _picture("algorithm", log, "algorithm")
parallelograms = _picture("parallelograms", log, "parallelograms")
representations = _picture("representations", log, "representations")
cosets = _picture("cosets", log, "representations")
unembedding = _picture("unembedding", "unembedding", step)
departures = _picture("departures", log, find_departures, accuracy_landmarks)
interpolation = _picture("interpolation", _line, _line_ends)
transplants = _picture("transplant", _transplants)
slices = _picture("slices", _slices, move="grokscope.figures:slice_animation", moves=(_frames_of_slices, log))
path_plane = _picture("path_plane", _plane, log)
shells = _picture("shells", _rays, _shells, "weight_norm", "loss")
