"""A run's figures for paper, as PNG and PDF, and the animation of its circle."""

from collections.abc import Mapping
from pathlib import Path

from grokscope import figures, files
from grokscope.series import Series
from grokscope.trajectory import Trajectory


def write(trajectory: Trajectory, series: Mapping[str, Series], folder: Path) -> list[Path]:
    """Draw what a report shows into a folder and return the files; raise GrokscopeError for an I/O error."""
    log, embedding = trajectory.log, series["embedding"]
    drawn = {
        "losses": figures.figure_losses(log),
        "embedding": figures.figure_embedding(embedding, figures.telling_steps(log, trajectory.steps)),
        "weight_norms": figures.figure_weight_norms(log, series["weight_norm"]),
        "sharpness": figures.figure_sharpness(log, series["sharpness"]),
    }
    if "circularity" in embedding:
        drawn["circularity"] = figures.figure_circularity(log, embedding)
    written = [path for name, figure in drawn.items() for path in figures.save(figure, folder / f"{name}.png")]
    files.write_atomic(folder / "circle.webp", figures.animation(embedding, log))
    return [*written, folder / "circle.webp"]
