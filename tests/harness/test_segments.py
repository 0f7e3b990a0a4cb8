"""Resuming a run from each of its segments, with every optimizer, gives the same bits."""

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.shared import Saved, read_everything

from grokscope import training
from grokscope.config import RunConfig
from grokscope.disk import tensor_file
from grokscope.errors import GrokscopeError
from grokscope.store.run_store import segments_folder
from grokscope.training import optimizers
from harness.scenarios import fake_computation, report, small_config

pytestmark = pytest.mark.usefixtures("segments_by_count")

OPTIMIZERS = {
    "adamw": {"name": "adamw"},
    "adam": {"name": "adam", "weight_decay": 0.0},
    "sgd with momentum": {"name": "sgd", "lr": 0.02, "momentum": 0.9},
}
VARIANTS = {
    "grokfast_ema": {"gradient_filter": "grokfast_ema"},
    "grokfast_ma": {"gradient_filter": "grokfast_ma", "filter_window": 5},
    "orthogonal": {"gradient_filter": "orthogonal"},
    "sam": {"sam_radius": 0.05},
    "noise": {"weight_noise": 0.01, "update_noise": 0.1},
    "decay to the initialization": {"decay_centre": "initialization"},
}
SETTINGS = {**OPTIMIZERS, **VARIANTS}


def config_of(name: str, batch_size: int | None) -> RunConfig:
    """Return a config of 18 steps in seven segments."""
    config = small_config()
    optimizer = dataclasses.replace(config.optimizer, **SETTINGS[name])
    return dataclasses.replace(config, n_steps=18, batch_size=batch_size, optimizer=optimizer)


def resumes_differ(config: RunConfig, folder: Path, forget: bool = False) -> list[bool]:
    """Resume a run from each of its segments, without the later ones; return whether each result differs.

    Args:
        config: The config of the run.
        folder: The folder for the runs.
        forget: Resume without the optimizer's state, as a control.
    """
    whole = training.train(config, "whole", folder).path
    assert whole
    expected, differences = require_resume_state(read_everything(whole)), []
    segments = sorted(path.name for path in (whole / "segments").iterdir())
    for i in range(1, len(segments)):
        shortened = shutil.copytree(whole, folder / str(i))
        for name in segments[i:]:
            (shortened / "segments" / name).unlink()
        with pytest.MonkeyPatch.context() as patch:
            if forget:
                patch.setattr(optimizers.Optimizer, "load", lambda self, state: None)
            training.resume(shortened)
        differences.append(require_resume_state(read_everything(shortened)) != expected)
    return differences


def require_resume_state(saved: Saved) -> Saved:
    """Return what a run has saved, after a check that it contains checkpoints, log, resume state and config."""
    assert {key[0] for key in saved} == {"checkpoint", "log", "resume", "config"}
    return saved


@pytest.mark.parametrize("batch_size", [None, 4], ids=["full batch", "minibatch"])
@pytest.mark.parametrize(
    ("name", "trains"),
    [(name, False) for name in OPTIMIZERS] + [pytest.param(name, True, marks=pytest.mark.slow) for name in SETTINGS],
)
def test_resume_from_each_segment_gives_the_same_bits(
    name: str, trains: bool, batch_size: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if not trains:
        fake_computation(monkeypatch)
    differences = resumes_differ(config_of(name, batch_size), tmp_path)
    report(f"{name}, resumed from each segment", {"resumed": len(differences), "differ": sum(differences)})
    assert len(differences) == 6 and not any(differences)


@pytest.mark.parametrize("name", ["adamw", "sgd with momentum"])
def test_resume_without_optimizer_state_is_detected(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The control. At step 0, the optimizer has no state yet."""
    fake_computation(monkeypatch)
    assert resumes_differ(config_of(name, None), tmp_path, forget=True) == [False] + [True] * 5


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"optimizer/embed.W_E/exp_avg": None}, "it lacks optimizer/embed.W_E/exp_avg"),
        (
            {"parameters/embed.W_E": None, "schedule/reference": None},
            "parameters/embed.W_E, schedule/reference",
        ),
        ({"parameters/embed.W_X": np.zeros(3, np.float32)}, "it has unknown parameters/embed.W_X"),
        ({"optimizer/filter/embed.W_E": np.zeros((7, 16), np.float32)}, "it has unknown optimizer/filter/embed.W_E"),
        (
            {"optimizer/embed.W_E/exp_avg": np.zeros(3, np.float32)},
            "exp_avg is float32 of shape [3], not float32 of",
        ),
        (
            {"optimizer/embed.W_E/exp_avg": np.zeros((8, 16))},
            "exp_avg is float64 of shape [8, 16], not float32",
        ),
        ({"step": np.array(7)}, "its resume state has another step than its end"),
    ],
)
def test_resume_state_that_does_not_fit_raises(change: dict[str, Any], sentence: str, run_copy: Path):
    for path in segments_folder(run_copy).glob("*.safetensors"):
        file = tensor_file.TensorFile(path)
        changed = {f"resume/{name}": array for name, array in change.items()}
        content = {name: file.read(name) for name in file.shapes} | changed
        if file.metadata["end"]:
            tensors = {name: array for name, array in content.items() if array is not None}
            tensor_file.write(path, tensors, file.metadata, by_row=("checkpoints/",))
        else:
            path.unlink()  # The segment of step 0, from which training could restart.
    with pytest.raises(GrokscopeError, match=re.escape(sentence)):
        training.resume(run_copy, n_steps=70)
