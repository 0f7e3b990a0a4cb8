"""The commands on a run's page: running them gives the same run, bit for bit."""

import dataclasses
import shlex
from pathlib import Path

import pytest

import grokscope
from grokscope import cli, report, training
from grokscope.algebra.tables import tabulate
from grokscope.config import RunConfig, TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.store.record import Record
from grokscope.training.train_ensemble import train_ensemble
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


def test_recipe_of_an_ensemble_claims_no_equal_bits(tiny_config, tmp_path):
    configs = [dataclasses.replace(tiny_config, init_seed=seed, n_steps=20, checkpoints="every 5") for seed in (0, 1)]
    folders = [tmp_path / name for name in ("a", "b")]
    train_ensemble(configs, folders)
    recipe = report.retraining_recipe(Record.read(folders[0]), "a")
    assert recipe.commands and not recipe.is_exact
    assert recipe.remarks[0].startswith("The run was trained in an ensemble (run 1 of 2, ")
    page = report.write(Trajectory.open(folders[0])).read_text(encoding="utf-8")
    assert "this gives the same run, bit for bit" not in page and "but not bit for bit" in page
    grokscope.fork(folders[0], 20, dataclasses.replace(configs[0], n_steps=25), "fork", tmp_path)
    recipe = report.retraining_recipe(Record.read(tmp_path / "fork"), "fork")
    assert not recipe.is_exact and "Its environment changed at step 20: ensemble was run 1 of 2" in recipe.remarks[0]


def test_ensemble_refuses_what_it_would_train_alone(tiny_config, tmp_path):
    configs = [dataclasses.replace(tiny_config, init_seed=seed, n_steps=20, checkpoints="every 5") for seed in (0, 1)]
    folders = [tmp_path / name for name in ("a", "b")]
    train_ensemble(configs, folders)
    for train in (lambda: training.densify(folders[0], 1, 20), lambda: grokscope.fork(folders[0], 7)):
        with pytest.raises(GrokscopeError, match=r"ensemble was run 1 of 2, .* alone gives other bits"):
            train()


def test_recipe_of_a_plain_run_is_exact(tiny_run):
    assert report.retraining_recipe(Record.read(tiny_run), "tiny").is_exact
