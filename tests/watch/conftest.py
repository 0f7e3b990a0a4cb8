"""Fixtures of the tests of watching: a run that died in the middle, and the command line."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.shared import Command, command_line

from grokscope import training
from grokscope.config import RunConfig
from grokscope.training.checkpointer import Checkpointer


class Death(Exception):
    """Ends a training from its observer."""


def train_until(step: int, config: RunConfig, folder: Path) -> Path:
    """Train a run that dies at a step, and return its folder with everything committed before."""

    def die(current: int, row: dict[str, float]) -> None:
        if current == step:
            # A dead process commits nothing more.
            patch.setattr(Checkpointer, "commit", lambda *_: None)
            raise Death

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Death):
        training.train(config, folder.name, folder.parent, observer=die)
    return folder


@pytest.fixture
def train_dying_run() -> Callable[[int, RunConfig, Path], Path]:
    """The function that trains a run until it dies at a step."""
    return train_until


@pytest.fixture
def young_run(tiny_config: RunConfig, short_segments: None, tmp_path: Path) -> Path:
    """A run of 60 steps that died after its commit at step 30."""
    return train_until(31, tiny_config, tmp_path / "young")


@pytest.fixture
def grokscope(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """The function that runs a command of grokscope in an empty folder."""
    return command_line(capsys, monkeypatch, tmp_path / "here")
