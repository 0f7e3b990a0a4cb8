"""Fixtures of the report's tests: runs and a sweep with their pages, and a browser tab."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from support.browser import Tab, chromium
from support.shared import make_tiny_config

from grokscope import Trajectory, measures, report, training
from grokscope.config import ModelConfig, RunConfig, TaskConfig
from grokscope.sweep import sweep_folder
from grokscope.sweep.plan import read_sweep

SWEEP = """
n_steps = 20
checkpoints = "every 10"
evaluate_every = 10
[task]
p = 7
train_fraction = 0.6
[model]
d_model = 16
n_heads = 2
d_mlp = 24
[sweep]
about = "Tiny runs."
seeds = [0, 1]
[sweep.grid]
optimizer.weight_decay = [0.0, 1.0]
optimizer.lr = [0.01]
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Playwright's event loop must not outlive the module: other tests start loops of their own.
    with chromium() as browser:
        yield browser


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    tab = Tab(browser)
    yield tab
    tab.page.close()


@pytest.fixture(scope="module")
def reported_run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny run with its report."""
    copy = shutil.copytree(tiny_run, tmp_path_factory.mktemp("reported") / "tiny")
    assert report.write(Trajectory.open(copy)) == copy / "report.html"
    return copy


@pytest.fixture
def run_tab(tab: Tab, reported_run: Path) -> Iterator[Tab]:
    """The tiny run's page in a tab. Whatever a test does, the page may not fail or request anything else."""
    tab.open(reported_run / "report.html")
    yield tab
    tab.assert_quiet(reported_run / "report.html")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with its page. Of its four cells, one was never started and one is damaged."""
    folder = tmp_path_factory.mktemp("sweeps") / "small"
    (folder.parent / "sweep.toml").write_text(SWEEP)
    plan = read_sweep(folder.parent / "sweep.toml")
    sweep_folder.save(plan, folder)
    for cell in plan.cells[:3]:
        training.train(cell.config, cell.name, folder)
    (folder / plan.cells[2].name / "config.json").write_text("damaged")
    report.write(Trajectory.open(folder / plan.cells[0].name))
    assert report.write_comparison([folder]) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def seeds_page(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of three runs: two that differ only in a seed, and one with another learning rate."""
    root = tmp_path_factory.mktemp("seeds")
    shutil.copytree(tiny_run, root / "tiny")
    config = make_tiny_config()
    training.train(dataclasses.replace(config, init_seed=1), "other", root)
    slow = dataclasses.replace(config.optimizer, lr=1e-4)
    training.train(dataclasses.replace(config, optimizer=slow), "slow", root)
    for name in ("tiny", "other"):
        measures.saved("weight_norm", Trajectory.open(root / name))
    return report.write_comparison([root / name for name in ("tiny", "other", "slow")])


@pytest.fixture(scope="module")
def tasks_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of three runs on different kinds of task."""
    root = tmp_path_factory.mktemp("tasks")
    tasks = {
        "a_sum": (TaskConfig("addition", p=11, train_fraction=0.6), 24),
        "a_quotient": (TaskConfig("division", p=7, train_fraction=0.6), 24),
        "a_product_in_some_group": (TaskConfig("composition", group="D4", train_fraction=0.6), 32),
    }
    for name, (task, d_mlp) in tasks.items():
        model = ModelConfig(d_model=16, n_heads=2, d_mlp=d_mlp)
        config = RunConfig(task=task, model=model, n_steps=20, checkpoints="every 10", evaluate_every=10)
        training.train(config, name, root)
        measures.saved("weight_norm", Trajectory.open(root / name))
    return report.write_comparison([root / name for name in tasks])
