"""A run goes on from each of its segments, with every optimizer, to the same bits."""

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
from harness.lives import compute_little, said, small_config

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
ALL = {**OPTIMIZERS, **VARIANTS}


def config_of(name: str, batch_size: int | None) -> RunConfig:
    """Return a run of 18 steps in seven segments."""
    config = small_config()
    optimizer = dataclasses.replace(config.optimizer, **ALL[name])
    return dataclasses.replace(config, n_steps=18, batch_size=batch_size, optimizer=optimizer)


def differing(config: RunConfig, folder: Path, forget: bool = False) -> list[bool]:
    """Resume a run from each of its segments, the later ones gone; return of each whether anything came otherwise."""
    whole = training.train(config, "whole", folder).path
    assert whole
    expected, found = read_everything(whole), []
    segments = sorted(path.name for path in (whole / "segments").iterdir())
    for i in range(1, len(segments)):
        cut = shutil.copytree(whole, folder / str(i))
        for name in segments[i:]:
            (cut / "segments" / name).unlink()
        with pytest.MonkeyPatch.context() as patch:
            if forget:
                patch.setattr(optimizers.Optimizer, "load", lambda self, state: None)
            training.resume(cut)
        found.append(everything(read_everything(cut)) != everything(expected))
    return found


def everything(saved: Saved) -> Saved:
    """Return checkpoints, log and the final resume state, and of these the optimizer's must be there."""
    assert {key[0] for key in saved} == {"checkpoint", "log", "resume", "config"}
    return saved


@pytest.mark.parametrize("batch_size", [None, 4], ids=["full batch", "minibatch"])
@pytest.mark.parametrize(
    ("name", "trains"),
    [(name, False) for name in OPTIMIZERS] + [pytest.param(name, True, marks=pytest.mark.slow) for name in ALL],
)
def test_from_each_segment_a_run_comes_to_the_same_bits(
    name: str, trains: bool, batch_size: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if not trains:
        compute_little(monkeypatch)
    found = differing(config_of(name, batch_size), tmp_path)
    said(f"{name}, resumed from each segment", {"resumed": len(found), "differ": sum(found)})
    assert len(found) == 6 and not any(found)


@pytest.mark.parametrize("name", ["adamw", "sgd with momentum"])
def test_a_resume_without_the_optimizer_s_state_is_caught(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The control. At step 0 there is nothing yet to be forgotten."""
    compute_little(monkeypatch)
    assert differing(config_of(name, None), tmp_path, forget=True) == [False] + [True] * 5


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
        ({"step": np.array(7)}, "has a resume state of another step than that at which it ends"),
    ],
)
def test_a_resume_state_that_does_not_fit_its_run_is_one_error(change: dict[str, Any], sentence: str, run_copy: Path):
    for path in segments_folder(run_copy).glob("*.safetensors"):
        file = tensor_file.TensorFile(path)
        changed = {f"resume/{name}": array for name, array in change.items()}
        content = {name: file.read(name) for name in file.shapes} | changed
        if file.metadata["end"]:
            kept = {name: array for name, array in content.items() if array is not None}
            tensor_file.write(path, kept, file.metadata, by_row=("checkpoints/",))
        else:
            path.unlink()  # Step 0, from which all could be trained once more.
    with pytest.raises(GrokscopeError, match=re.escape(sentence)):
        training.resume(run_copy, n_steps=70)
