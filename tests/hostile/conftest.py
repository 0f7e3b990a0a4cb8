"""The tiny run with a saved measure."""

import shutil
from pathlib import Path

import pytest

from grokscope import Trajectory, measures


@pytest.fixture(scope="session")
def measured_run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run with the measure `loss` saved. It is shared, so a test that changes it copies it first."""
    run = shutil.copytree(tiny_run, tmp_path_factory.mktemp("measured") / "run")
    measures.saved("loss", Trajectory.open(run))
    return run
