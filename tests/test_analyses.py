"""The analyses: their settings are valid, and each script runs on small runs of its own sweep."""

import dataclasses
from pathlib import Path
from types import ModuleType

import pytest
from matplotlib.figure import Figure
from support.scripts import import_script
from support.shared import make_tiny_config, quick

from grokscope import training
from grokscope.config import ModelConfig, TaskConfig, toml
from grokscope.sweep import sweep_folder
from grokscope.sweep.plan import Cell, Sweep, read_sweep

ANALYSES = Path(__file__).parent.parent / "analyses"
SWEEPS = sorted(path for path in ANALYSES.rglob("*.toml") if "[sweep]" in path.read_text(encoding="utf-8"))
USERS = {
    "division_grokking": ["division_grokking", "double_descent"],
    "data_fraction": ["data_fraction"],
    "variants": ["variants"],
    "operations": ["operations", "tracking"],
    "unembedding": ["unembedding"],
    "outliers": ["outliers"],
    "flatness": ["flatness"],
    "phase_diagram": ["phase_diagram"],
    "flat_minima": ["flat_minima"],
}
"""Sweep → the scripts that read it."""
SINGLE_FORM = ("phase_diagram", "flat_minima")
"""Sweeps without a reduced form."""


def load(name: str) -> ModuleType:
    """Return the script of that name as a module."""
    (path,) = ANALYSES.rglob(f"{name}.py")
    return import_script(path)


def shrink(cell: Cell) -> Cell:
    """Return the cell on a tiny task and model with six steps; its other settings are unchanged."""
    # The sweep `unembedding`, the only one with p = 47, names subgroups of A5.
    group = "A5" if cell.config.task.name == "composition" and cell.config.task.p == 47 else "S3"
    share = max(cell.config.task.train_fraction, 0.5)
    config = dataclasses.replace(
        cell.config,
        task=dataclasses.replace(
            cell.config.task, p=7, group=group, train_fraction=share, outliers=min(cell.config.task.outliers, 9)
        ),
        model=ModelConfig(d_model=8, n_heads=2, d_mlp=8),
        n_steps=6,
        checkpoints="every 3",
        evaluate_every=2,
    )
    return dataclasses.replace(cell, config=config)


@pytest.mark.parametrize("path", sorted(ANALYSES.rglob("*.toml")), ids=lambda path: path.stem)
def test_every_toml_file_is_valid(path: Path):
    if path in SWEEPS:
        plan = read_sweep(path)
        assert plan.about
        assert ("reduced form" in plan.about) == path.stem.endswith(".reduced") or path.stem in SINGLE_FORM
    else:
        toml.read(path)


@pytest.mark.slow
def test_reduced_sweeps_vary_the_axes_of_the_full_ones():
    full = [path for path in SWEEPS if path.parent.name == "power2022" and not path.stem.endswith(".reduced")]
    assert len(full) == 7
    for path in full:
        reduced = read_sweep(path.with_name(f"{path.stem}.reduced.toml"))
        assert set(read_sweep(path).axes) <= set(reduced.axes) | {"seed"}


# These evaluate every maximiser and all noise, many times the work of any other script.
COSTLY = {"flatness_families", "flat_minima", "loss_landscape", "unembedding"}


# A setting of the full sweep, such as its warm-up, can be without effect on six steps of a tiny task.
@pytest.mark.filterwarnings("ignore:.*has no effect:UserWarning")
@pytest.mark.parametrize("name", quick(USERS, {*USERS} - COSTLY))
def test_script_runs_on_small_runs_of_its_sweep(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (path,) = [path for path in SWEEPS if path.stem in (f"{name}.reduced", *SINGLE_FORM) and name in path.stem]
    plan = read_sweep(path)
    plan = Sweep(tuple(shrink(cell) for cell in plan.cells[:4]), plan.about)
    sweep_folder.save(plan, tmp_path / name)
    for cell in plan.cells:
        training.train(cell.config, cell.name, tmp_path / name)
    for script in USERS[name]:
        assert isinstance(load(script).main(tmp_path / name), Figure)
        assert len(capsys.readouterr().out.splitlines()) >= 1


RUN_SCRIPTS = sorted(path.stem for path in ANALYSES.glob("*.py") if path.stem not in USERS)


@pytest.mark.parametrize("name", quick(RUN_SCRIPTS, {*RUN_SCRIPTS} - COSTLY))
def test_script_of_a_run_prints_findings_for_a_small_run(
    name: str, run_copy: Path, capsys: pytest.CaptureFixture[str]
):
    assert isinstance(load(name).main(run_copy), Figure)
    assert len(capsys.readouterr().out.splitlines()) > 1


def test_group_script_prints_the_best_cosets(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    task = TaskConfig(name="composition", group="S3", train_fraction=0.7)
    config = dataclasses.replace(make_tiny_config(), task=task, n_steps=10)
    training.train(config, "s3", tmp_path)
    assert isinstance(load("group_circuit").main(tmp_path / "s3"), Figure)
    printed = capsys.readouterr().out
    assert "best left cosets in W_E: of ⟨" in printed and "standard" in printed
