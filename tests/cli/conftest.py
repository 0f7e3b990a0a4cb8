"""The fixtures of small sweeps, a command line, and the tiny config as a file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.shared import Command
from support.sweeps import grokscope as grokscope
from support.sweeps import install_probe as install_probe
from support.sweeps import make_probe as make_probe
from support.sweeps import partial_sweep as partial_sweep
from support.sweeps import uninterrupted as uninterrupted
from support.sweeps import write_sweep as write_sweep

from grokscope.config import RunConfig
from grokscope.training import run as training_run


@pytest.fixture
def tiny_toml(tiny_config: RunConfig, tmp_path: Path, toml: Callable[[dict[str, Any]], str]) -> Path:
    """The tiny config as a file."""
    path = tmp_path / "tiny.toml"
    path.write_text(toml(tiny_config.to_dict()), encoding="utf-8")
    return path


class TrainingRequest(Exception):
    """The arguments of `train`, raised instead of a training."""


@pytest.fixture
def request_training(
    grokscope: Command, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[RunConfig, str, Path]]:
    """The function that returns the config, name and root that a command line gives to `train`."""

    def refuse(config: RunConfig, name: str, root: Path, progress: Any, initialization: Any) -> None:
        raise TrainingRequest(config, name, root)

    def request(*arguments: Any) -> tuple[RunConfig, str, Path]:
        with monkeypatch.context() as patch, pytest.raises(TrainingRequest) as raised:
            patch.setattr(training_run, "train", refuse)
            grokscope("train", *arguments)
        return raised.value.args

    return request
