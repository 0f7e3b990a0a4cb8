"""The registry of figures: measures evaluated once, figures of other packages, and refused requests."""

import dataclasses
import re
import shutil
import sys
import warnings
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure
from support.shared import command_line, make_tiny_config

from grokscope import figures, gallery, measures, plugins, tasks
from grokscope.config import TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.gallery import registry
from grokscope.model import families
from grokscope.series import Series
from grokscope.trajectory import Trajectory


@pytest.fixture(scope="module")
def measured(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny run with the measure `embedding`."""
    run = shutil.copytree(tiny_run, tmp_path_factory.mktemp("gallery") / "tiny")
    measures.saved("embedding", Trajectory.open(run))
    return run


def in_memory(run: Path) -> Trajectory:
    """Return the checkpoints of a run as a trajectory without a folder."""
    trajectory = Trajectory.open(run)
    return Trajectory.from_state_dicts(
        trajectory.config, {snapshot.step: snapshot.parameters for snapshot in trajectory}
    )


def draw_norms(log: Series, norms: Series, *, width: float) -> Figure:
    figure = figures.new_figure(width, 2)
    figure.subplots().plot(norms.steps, norms["weight_norm"], label=str(len(log)))
    return figure


def test_missing_measure_is_evaluated_once_and_saved(run_copy):
    request = registry.FigureRequest(Trajectory.open(run_copy))
    (need,) = registry.get("weight_norms").measured()
    assert need.find(request) is None
    registry.figure("weight_norms", request)
    assert need.find(request) is not None and (run_copy / "measures" / "weight_norm.safetensors").exists()


def test_trajectory_in_memory_has_figures(tiny_run):
    memory = in_memory(tiny_run)
    for name in ("losses", "weight_norms"):
        assert registry.figure(name, registry.FigureRequest(memory)).axes


def test_former_name_of_figure_request_warns():
    with pytest.warns(DeprecationWarning, match="FigureRequest"):
        assert gallery.Asked is registry.FigureRequest


@pytest.fixture
def foreign_package(monkeypatch: pytest.MonkeyPatch):
    """A package that registers a figure of its own."""
    picture = registry.Picture(draw_norms, (registry.log, "weight_norm"))
    monkeypatch.setitem(sys.modules, "foreign_package", SimpleNamespace(picture=picture))
    monkeypatch.setattr(
        plugins,
        "entry_points",
        lambda group: [EntryPoint("mine", "foreign_package:picture", group)] if group.endswith("figures") else [],
    )
    plugins._registered.cache_clear()
    yield
    plugins._registered.cache_clear()


@pytest.mark.usefixtures("foreign_package")
def test_figure_of_another_package_is_drawn_by_name(tiny_run):
    memory = in_memory(tiny_run)
    (line,) = registry.figure("mine", registry.FigureRequest(memory, width=3)).axes[0].lines
    assert line.get_label() == str(len(memory)) and "mine" in registry.names()


def test_command_writes_figure_and_data_and_shows_progress(run_copy, capsys, monkeypatch, tmp_path):
    run = command_line(capsys, monkeypatch, tmp_path / "work")
    status, output, errors = run("figure", "weight_norms", run_copy, "-o", "new/n.svg", "--data", "n.csv")
    assert (status, output.split()) == (0, ["figure", "new/n.svg", "data", "n.csv"])
    assert re.fullmatch(r"weight_norm +7 of 7 checkpoints +\d+\.\d s\n", errors)
    assert Path("new/n.svg").read_text().lstrip().startswith("<?xml") and "‖w‖" in Path("n.csv").read_text()
    assert run("figure", "weight_norms", run_copy, "--width", "column")[2] == "", "the saved measure is reused"
    assert (run_copy / "figures" / "weight_norms-column.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("arguments", "expected_status", "message"),
    [
        (["losse"], 2, "Did you mean 'losses'"),
        (["losses", "-o", "x.jpg"], 2, "allowed endings are .pdf, .svg, .png; .jpg is not one of them"),
        (["losses", "-o", "x"], 2, "no ending is not one of them"),
        (["losses", "-o", "x.gif"], 2, "this figure has no animation"),
        (["losses", "--data", "x.txt"], 2, "ends in .csv"),
        (["circle", "-o", "x.gif", "--data", "x.csv"], 2, "is an animation"),
        (["circle", "-o", "x.gif", "--step", "10"], 1, "shows all steps"),
        (["losses", "--step", "10"], 1, "Figures with a step: circle, embedding"),
        (["embedding", "--step", "0", "--step", "99"], 1, "step: 99; the run has checkpoints from 0 to 60"),
        (["circle", "--step", "0", "--step", "10"], 1, "the figure 'circle' shows one"),
        (["cosets"], 1, "no cosets"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refused_request_is_one_line(arguments, expected_status, message, measured, capsys, monkeypatch, tmp_path):
    if "--step" in arguments:
        monkeypatch.setattr(registry.Measured, "__call__", None)  # Nothing is measured before the refusal.
    if arguments == ["cosets"]:
        monkeypatch.setattr(
            registry.Measured, "__call__", lambda self, request: Series(self.name, request.trajectory.steps, {})
        )
        monkeypatch.setattr(registry.Measured, "find", lambda self, request: self(request))
    run = command_line(capsys, monkeypatch, tmp_path / "work")
    name, *options = arguments
    status, _, errors = run("figure", name, measured, *options)
    assert status in (1, 2) and message in errors and len(errors.splitlines()) == 1
    assert not list(Path().iterdir()), "nothing was written"


def test_task_without_a_circle_has_no_circularity():
    task_config = TaskConfig(name="composition", group="S3", train_fraction=0.6)
    config = dataclasses.replace(make_tiny_config(), task=task_config)
    initial = families.build(config.model, tasks.build(config.task)).initialize(0)
    trajectory = Trajectory.from_state_dicts(config, {0: initial, 5: initial})
    with warnings.catch_warnings(), pytest.raises(GrokscopeError, match="has no circle"):
        registry.figure("circularity", registry.FigureRequest(trajectory))
