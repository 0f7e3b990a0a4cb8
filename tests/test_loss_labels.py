"""Which loss a label names: a run trained with stablemax has two train losses, its own and that of the softmax."""

import dataclasses
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console
from support.shared import make_tiny_config

from grokscope import Trajectory, figures, gallery, landscape, measures, plugins, report, training
from grokscope.cli import main
from grokscope.measures import declaration_of
from grokscope.training.run_progress import Progress
from grokscope.watch import Screen, WatchedRun


@pytest.fixture(scope="module")
def stablemax_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = dataclasses.replace(make_tiny_config(), loss="stablemax", n_steps=20, checkpoints="every 10")
    folder = tmp_path_factory.mktemp("stablemax")
    training.train(config, "run", folder)
    return folder / "run"


@pytest.mark.parametrize("name", sorted(plugins.BUILT_IN["measures"]))
def test_label_of_every_declared_loss_states_the_loss(name: str):
    declaration = declaration_of(name)
    labels = [variable.label for variable in declaration.variables.values()]
    for label in [*labels, *(panel.title for panel in declaration.panels)]:
        if re.search(r"\bloss|sharpness|Hessian|∇L", label):
            assert "{loss} " in label or "softmax" in label, label


def test_log_loss_and_sharpness_name_the_loss_of_the_run(stablemax_run: Path):
    trajectory = Trajectory.open(stablemax_run)
    labels = {"train_loss": "stablemax train loss", "test_loss": "stablemax test loss"}
    for series in (trajectory.log, measures.evaluate("loss", trajectory)):
        assert {name: series.variable(name).label for name in labels} == labels
    sharpness = measures.saved("sharpness", trajectory)
    assert sharpness.variable("sharpness").label == "sharpness λ₁ of the stablemax train loss"
    loaded = measures.found("sharpness", trajectory)
    assert loaded is not None and loaded.variable("sharpness").label == sharpness.variable("sharpness").label


def test_saved_series_has_the_label_of_today(stablemax_run: Path):
    trajectory = Trajectory.open(stablemax_run)
    series = measures.evaluate("loss", trajectory)
    old = {name: dataclasses.replace(variable, label="loss") for name, variable in series.variables.items()}
    measures.keep(dataclasses.replace(series, variables=old, loss=""), trajectory)
    (loaded,) = [series for series in measures.kept(trajectory) if series.measure == "loss"]
    assert loaded.variable("train_loss").label == "stablemax train loss"


def test_figures_state_the_loss_on_their_axes(stablemax_run: Path):
    trajectory = Trajectory.open(stablemax_run)
    losses = gallery.figure("losses", gallery.FigureRequest(trajectory))
    assert losses.axes[0].get_ylabel() == "stablemax loss (nats)"
    axes = gallery.figure("sharpness", gallery.FigureRequest(trajectory)).axes
    assert axes[1].get_ylabel().split() == ["Hessian,", "stablemax", "train", "loss"]
    line = landscape.interpolate(trajectory, 0, 20)
    assert figures.figure_interpolation(line).axes[0].get_ylabel() == "stablemax loss (nats)"


def test_progress_figure_of_stablemax_draws_softmax_losses(stablemax_run: Path):
    trajectory = Trajectory.open(stablemax_run)
    progress = measures.evaluate("progress", trajectory)
    ax = Figure().subplots()
    figures.plot_progress_losses(trajectory.log, progress, ax=ax)
    (train,) = [line for line in ax.lines if line.get_label() == "train"]
    np.testing.assert_array_equal(train.get_ydata(), progress["train_loss"])
    assert ax.get_ylabel() == "softmax loss (nats)"
    assert abs(progress["train_loss"][-1] / trajectory.log["train_loss"][-1] - 1) > 0.01


def test_figure_of_runs_with_two_losses_names_both(stablemax_run: Path, tiny_run: Path):
    logs = [Trajectory.open(run).log for run in (stablemax_run, tiny_run)]
    figure = figures.figure_bands({"runs": logs}, "loss", title="")
    assert figure.axes[0].get_ylabel() == "softmax or stablemax loss (nats)"


def test_texts_state_the_loss(stablemax_run: Path, capsys: pytest.CaptureFixture[str]):
    trajectory = Trajectory.open(stablemax_run)
    names = [line.name for line in report.headlines(trajectory.log, {})]
    assert {"final stablemax train loss", "final stablemax test loss"} <= set(names)
    screen = Screen(WatchedRun(stablemax_run))
    console = Console(width=100, file=io.StringIO())
    console.print(screen)
    assert isinstance(console.file, io.StringIO) and "stablemax train loss" in console.file.getvalue()
    assert " · stablemax loss " in screen.line
    assert main(["log", str(stablemax_run)]) in (None, 0)
    assert json.loads(capsys.readouterr().out.splitlines()[0])["loss_function"] == "stablemax"
    with Progress(1, loss="stablemax") as progress:
        row = {name: 0.5 for name in ("train_loss", "test_loss", "train_accuracy", "test_accuracy")}
        progress(1, row)
    assert "stablemax loss 5.0e-01 train" in capsys.readouterr().err
