"""The built-in figures of a run, one line each, and what they need besides measures.

They are `grokscope.gallery`'s pictures; `grokscope.plugins` has their names.
"""

from typing import Any

import numpy as np

from grokscope import interventions, landscape, measures, phases
from grokscope.gallery import registry
from grokscope.gallery.registry import Asked, Measured, Need, Picture, log, step, steps
from grokscope.landscape import edge_of_stability as landscape_edge_of_stability
from grokscope.phases import Crossing
from grokscope.series import LabelledArrays, Series
from grokscope.thinning import spread_by_log_step

_N_FRAMES = 40
_N_SEARCHED = 100
"""How many steps a search on a sphere has: enough for a solution that memorizes, as in training."""


def _ends(asked: Asked) -> tuple[int, int]:
    """Return the checkpoint nearest to memorization, or the first, and the last."""
    steps, memorized = asked.trajectory.steps, phases.memorization_step(log(asked))
    return int(steps[np.abs(steps - (memorized.step if memorized else 0)).argmin()]), int(steps[-1])


def line(asked: Asked) -> LabelledArrays:
    """Return the losses on the straight line from the memorizing to the last checkpoint."""
    return landscape.interpolate(asked.trajectory, *_ends(asked))


def ends(asked: Asked) -> tuple[str, str]:
    """Return what the two checkpoints of `line` are called."""
    first, last = _ends(asked)
    return f"step {first:,}", f"step {last:,}"


@registry.of_steps
def exchanged(asked: Asked) -> LabelledArrays:
    """Return the losses of models with one component of another of the steps."""
    nearest = _checkpoints(asked)
    return interventions.transplant(asked.trajectory, nearest, nearest)


@registry.of_steps
def around(asked: Asked) -> LabelledArrays:
    """Return the losses around the checkpoints at the steps, along random directions."""
    return landscape.slices(asked.trajectory, _checkpoints(asked))


def around_all(asked: Asked) -> LabelledArrays:
    """Return the same for the frames of a moving figure: coarser, around many checkpoints."""
    chosen = asked.trajectory.steps[spread_by_log_step(asked.trajectory.steps, _N_FRAMES)]
    return landscape.slices(asked.trajectory, chosen.tolist(), along=("random",) * 3, n_points=21)


def plane(asked: Asked) -> tuple[LabelledArrays, LabelledArrays, LabelledArrays]:
    """Return the losses in the plane of the run's path, the path in it, and how much of the path it holds."""
    found = landscape.path_plane(asked.trajectory)
    return found.grid, found.path, found.components


def rays(asked: Asked) -> LabelledArrays:
    """Return the losses on the rays of the memorizing and of the last checkpoint."""
    return landscape.rays(asked.trajectory, sorted(set(_ends(asked))))


def shells_of(asked: Asked) -> LabelledArrays:
    """Return the lowest losses found on spheres, in a short search from the first and from the last checkpoint."""
    every = asked.trajectory.steps
    return landscape.shells(asked.trajectory, sorted({int(every[0]), int(every[-1])}), n_steps=_N_SEARCHED)


def edge(asked: Asked) -> Series:
    """Return the sharpness that counts and its threshold at a few checkpoints; for Adam, training is repeated."""
    return landscape_edge_of_stability.edge_of_stability(asked.trajectory.thin(measures.COSTLY["hessian"]))


DEPARTURES = {
    "progress": {"logit_variance_share": "logit variance in key cosines*", "restricted_loss": "restricted loss*"},
    "fourier": {"W_E_gini": "Gini of W_E", "W_U_gini": "Gini of W_U", "W_L_gini": "Gini of W_L"},
    "embedding": {"circularity": "circularity of PCs 1–4", "key_frequency_share": "W_E in key frequencies*"},
    "algorithm": {"distance_irrelevance": "distance irrelevance"},
}
"""The quantities of each measure that have a control; those with a star use the key frequencies of the last step."""


class _Departures:
    """Since when each quantity of DEPARTURES lies outside its control, of 16 random orders."""

    parts = tuple(Measured(name, {"n_shuffles": 16}) for name in DEPARTURES)

    def __call__(self, asked: Asked) -> dict[str, Crossing | None]:
        found = {}
        for one in self.parts:
            series = one(asked)
            found |= {said: phases.departure(series, name) for name, said in DEPARTURES[one.name].items()}
        return found


departed = _Departures()


def landmarks(asked: Asked) -> dict[str, Crossing | None]:
    """Return when the accuracies told that the run memorized and generalised."""
    found = log(asked)
    return {
        "memorized": phases.memorization_step(found),
        "test accuracy 50%": phases.first_crossing(found, "test_accuracy", 0.5),
        "generalised": phases.generalisation_step(found),
    }


def _checkpoints(asked: Asked) -> list[int]:
    """Return the steps of the checkpoints nearest to those asked for."""
    every = asked.trajectory.steps
    return sorted({int(every[np.abs(every - one).argmin()]) for one in steps(asked)})


def _of(name: str, *needs: Need, **more: Any) -> Picture:
    return Picture(f"grokscope.figures:figure_{name}", needs, **more)


losses = _of("losses", log)
accuracies = _of("accuracies", log)
embedding = _of("embedding", "embedding", steps)
circle = _of("circle", "embedding", step, move="grokscope.figures:animation", moves=("embedding", log))
circularity = _of("circularity", log, "embedding", of_a_circle=True)
weight_norms = _of("weight_norms", log, "weight_norm")
sharpness = _of("sharpness", log, "sharpness")
keskar_sharpness = _of("keskar_sharpness", log, "keskar_sharpness")
flatness = _of("flatness", log, "sam_sharpness", "average_sharpness", "fisher_rao_norm", "relative_flatness")
hessian = _of("hessian", log, "hessian")
hessian_spectrum = _of("hessian_spectrum", "hessian_spectrum", steps)
edge_of_stability = _of("edge_of_stability", log, edge)
path = _of("path", log, "weight_norm", "path")
matrix_norms = _of("matrix_norms", log, "matrix_norms")
numerics = _of("numerics", log, "numerics")
progress = _of("progress", log, "progress", "fourier")
gini = _of("gini", log, "fourier")
spectra = _of("spectra", "fourier", steps)
spectrum = _of("spectrum", "fourier", step, move="grokscope.figures:animation_of_spectrum", moves=("fourier", log))
neurons = _of("neurons", log, "neurons")
ablations = _of("ablations", log, "ablations")
algorithm = _of("algorithm", log, "algorithm")
parallelograms = _of("parallelograms", log, "parallelograms")
representations = _of("representations", log, "representations")
cosets = _of("cosets", log, "representations")
unembedding = _of("unembedding", "unembedding", step)
departures = _of("departures", log, departed, landmarks)
interpolation = _of("interpolation", line, ends)
transplants = _of("transplant", exchanged)
slices = _of("slices", around, move="grokscope.figures:slice_animation", moves=(around_all, log))
path_plane = _of("path_plane", plane, log)
shells = _of("shells", rays, shells_of, "weight_norm", "loss")
