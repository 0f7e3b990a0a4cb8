"""The commands on a run's page: running them gives the same run, bit for bit."""

import dataclasses
import shlex
from pathlib import Path

import pytest

import grokscope
from grokscope import cli, report, training
from grokscope.algebra.tables import tabulate
from grokscope.config import RunConfig, TaskConfig
from grokscope.store.record import Record
from grokscope.trajectory import Trajectory


def make_run(kind: str, config: RunConfig, root: Path) -> Path:
    """Train a run whose recipe needs flags only, a TOML file, a fork or an extension."""
    config = dataclasses.replace(config, n_steps=20, checkpoints="every 5", batch_size=7, residual_dropout=0.1)
    if kind == "table":
        task = TaskConfig("table", table=tabulate(lambda a, b: (a * b + 1) % 17, 17), train_fraction=0.6)
        config = dataclasses.replace(config, task=task, batch_size=None)
    training.train(config, "first", root)
    if kind == "fork":
        slower = dataclasses.replace(config, n_steps=25, optimizer=dataclasses.replace(config.optimizer, lr=1e-3))
        grokscope.fork(root / "first", 10, slower, "second", root)
        return root / "second"
    if kind == "lengthened":
        training.resume(root / "first", 30)
    return root / "first"


def follow_recipe(run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run the commands of a run's page in an empty folder, and return the run that they make."""
    recipe = report.retraining_recipe(Record.read(run), run.name)
    folder.mkdir()
    monkeypatch.chdir(folder)
    if recipe.file:
        Path(recipe.file_name).write_text(recipe.file, encoding="utf-8")
    for command in recipe.commands:
        program, *arguments = shlex.split(command)
        assert program == "grokscope"
        cli.main(arguments)
    return Path("checkpoints") / f"{run.name}-again"


@pytest.mark.parametrize("kind", ["plain", "table", "fork", "lengthened"])
def test_commands_retrain_the_run(kind, tiny_config, tmp_path, monkeypatch, capsys):
    run = make_run(kind, tiny_config, tmp_path)
    copy = follow_recipe(run, tmp_path / "elsewhere", monkeypatch)
    assert Trajectory.open(copy).digest == Trajectory.open(run).digest
    capsys.readouterr()


def test_preset_needs_no_flags():
    record = Record(grokscope.presets.get("quick"), {}, "")
    recipe = report.retraining_recipe(record, "demo")
    assert recipe.commands == ("grokscope train quick --run demo-again",)


def test_name_with_a_space_is_not_reused():
    record = Record(grokscope.presets.get("quick"), {}, "")
    assert report.retraining_recipe(record, "a b").commands == ("grokscope train quick --run again",)
