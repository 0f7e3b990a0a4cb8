"""Wrong settings: one message names all of them, in Python, by file and by flag, before any file is written."""

from pathlib import Path
from typing import Any

import pytest
from support.configs import FIELDS, construct, nested
from support.shared import Command, command_line, quick

from grokscope import tasks
from grokscope.config import RunConfig, TaskConfig
from grokscope.config import toml as config_toml
from grokscope.errors import GrokscopeError
from grokscope.plugins import BUILT_IN

# Wrong values of each field's own type, so that a flag can have them. A boolean flag cannot be wrong, the faults of
# tables, expressions, data and mixtures depend on the task, and the initial weights have a flag of their own.
BY_TASK = ("task.table", "task.expression", "task.sizes", "task.data", "task.mixture")
WRONG: dict[str, Any] = {
    **{
        name: value
        for name, (value, allowed, _) in FIELDS.items()
        if allowed != "true or false" and name not in (*BY_TASK, "initialization")
    },
    **{"model.d_mlp": 0, "init_seed": -1, "training_seed": -2, "optimizer.betas": [0.9, 1.0]},
    # A schedule has a fault for each term.
    "checkpoints": " + ".join(["evry 100", "window 5 3 1", "log x", "adaptive 0", *(f"each {i}" for i in range(13))]),
}


@pytest.fixture
def grokscope(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    return command_line(capsys, monkeypatch, tmp_path / "here")


def faults_in(message: str) -> list[str]:
    heading, *lines = message.strip().splitlines()
    assert heading.endswith(f"{len(lines)} settings cannot be used:")
    return [line.strip() for line in lines]


def flags_of(values: dict[str, Any]) -> list[str]:
    flags = []
    for name, value in values.items():
        flags += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    return flags


def test_sixty_faults_are_in_one_message_in_three_interfaces(grokscope: Command, tmp_path: Path, toml: Any):
    with pytest.raises(GrokscopeError) as python:
        construct({**WRONG, "optimizer.betas": (0.9, 1.0)}).validate()
    faults = faults_in(str(python.value))
    assert len(faults) >= 60 and all("allowed" in fault or "is not of the form" in fault for fault in faults)
    assert {fault.split(":")[0] for fault in faults} == set(WRONG)

    path = tmp_path / "wrong.toml"
    path.write_text(toml(nested(WRONG)), encoding="utf-8")
    files = sorted(tmp_path.rglob("*"))
    status, output, errors = grokscope("train", path)
    assert (status, output) == (2, "") and sorted(tmp_path.rglob("*")) == files
    expected = [fault.replace("(0.9, 1.0)", "[0.9, 1.0]") for fault in faults]
    assert sorted(fault.replace("(0.9, 1.0)", "[0.9, 1.0]") for fault in faults_in(errors)) == sorted(expected)

    status, output, errors = grokscope("train", "quick", *flags_of(WRONG))
    assert (status, output) == (2, "") and sorted(tmp_path.rglob("*")) == files
    assert sorted(faults_in(errors)) == sorted(faults)
    print(f"{len(faults)} faults in one message")


def test_faults_of_the_data_are_listed_with_the_others(grokscope: Command, tmp_path: Path):
    status, _, errors = grokscope("train", "quick", "--task.train-fraction", "0.0001", "--model.n-heads", "3")
    assert status == 2
    assert [fault.split(";")[0] for fault in faults_in(errors)] == [
        "model.n_heads: 3 does not divide d_model = 128",
        "task.train_fraction: 0.0001 of 3481 equations leaves the training set empty",
    ]
    for changes, message in (
        ({"outliers": 15, "p": 7}, "15 of 14 training equations; allowed: 0 to 14"),
        ({"name": "table", "table": "0 .; . ."}, "'table' has too few equations (1); allowed: at least 2"),
        ({"name": "composition", "group": "C2", "train_fraction": 0.2}, "0.2 of 4 equations"),
    ):
        (fault,) = construct({f"task.{name}": value for name, value in changes.items()}).faults()
        assert message in fault
    assert not (tmp_path / "here" / "checkpoints").exists()


@pytest.mark.parametrize("fractions", quick([(0.02, 0.5), (0.11, 0.25, 0.97, 0.999)], [(0.02, 0.5)]), ids=str)
@pytest.mark.parametrize("name", BUILT_IN["tasks"])
def test_config_and_task_agree_on_the_split(name: str, fractions: tuple[float, ...]):
    """A config is valid exactly if its task can be loaded."""
    table = "0 1 .; 1 2 0; 2 0 1" if name == "table" else ""
    for group, p in (("S3", 5), ("C2", 3), ("D4", 7)):
        for fraction in fractions:
            for outliers in (0, 1, 9):
                sizes = {"p": p, "train_fraction": fraction, "outliers": outliers, "n_examples": 500}
                config = TaskConfig(name=name, group=group, table=table, **sizes)
                faults = RunConfig(task=config).faults()
                try:
                    tasks.load(config, 0)
                    assert faults == []
                except GrokscopeError as error:
                    assert [f"{fault}." for fault in faults] == [str(error)]


def test_unknown_setting_suggests_the_right_one(grokscope: Command, tmp_path: Path, toml: Any):
    path = tmp_path / "mistyped.toml"
    path.write_text(toml({"n_stpes": 5, "optimizer": {"weigth_decay": 1.0}, "task": {"name": "additon"}}))
    with pytest.raises(GrokscopeError) as refusal:
        config_toml.read(path)
    faults = faults_in(str(refusal.value))
    for right, line in zip(("'n_steps'?", "'optimizer.weight_decay'?", "'addition'?"), faults, strict=True):
        assert line.endswith(f"Did you mean {right}")
    for wrong, right in (("--n-stpes", "--n-steps"), ("--optimizer.weigth-decay", "--optimizer.weight-decay")):
        status, _, errors = grokscope("train", "quick", wrong, "5")
        assert status == 2 and right in errors
