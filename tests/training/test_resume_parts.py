"""Exact resume with every part of training alone and with all of them together, and with controls."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.shared import Saved, make_tiny_config, quick

from grokscope import plugins, rng, training
from grokscope.config import ModelConfig, OptimizerConfig, RunConfig, TaskConfig, presets
from grokscope.disk import tensor_file
from grokscope.store.run_store import RunStore, segments_folder
from grokscope.training import checkpointer
from grokscope.training.checkpointer import estimate_disk_use
from grokscope.training.loop import Setup
from grokscope.training.optimizers import Optimizer
from grokscope.training.signals import InterruptedRunError

Read = Callable[[Path], Saved]
Uninterrupted = Callable[[str], Path]

N_STEPS, STOPS = 20, (9, 11)
POWER = [name for name in presets.names() if name.startswith("power2022")]


def shrink(config: RunConfig) -> RunConfig:
    """Return a preset on S3, or on numbers mod 7, with a small model and few steps."""
    setting = plugins.task_settings(config.task.name)[0]
    small = {"p": 7, "group": "S3"}
    return dataclasses.replace(
        config,
        task=dataclasses.replace(config.task, **{setting: small[setting]}),
        model=dataclasses.replace(config.model, d_model=16, n_heads=2, d_mlp=24),
        n_steps=N_STEPS,
        checkpoints="every 4",
        evaluate_every=4,
    )


def tiny(**changes: Any) -> RunConfig:
    """Return the tiny config with 20 steps and some changes, which apply to the optimizer if it has the field."""
    config = dataclasses.replace(make_tiny_config(), n_steps=N_STEPS, checkpoints="every 4", evaluate_every=4)
    names = {field.name for field in dataclasses.fields(OptimizerConfig)} & changes.keys()
    optimizer = dataclasses.replace(config.optimizer, **{name: changes.pop(name) for name in names})
    return dataclasses.replace(config, optimizer=optimizer, **changes)


EVERYTHING = RunConfig(
    task=TaskConfig(name="composition", group="S3", train_fraction=0.75, form="a ∘ b =", outliers=2),
    model=ModelConfig(
        n_layers=2, d_model=16, n_heads=2, d_mlp=24, normalization_type="LN", positions="sinusoidal", init="torch"
    ),
    optimizer=OptimizerConfig(
        lr=3e-3,
        decay_centre="initialization",
        warmup_steps=4,
        gradient_filter="grokfast_ma",
        filter_window=5,
        update_noise=0.1,
        weight_noise=0.01,
        sam_radius=0.05,
        decay_by_part="embed 0.5 + biases 0",
        schedule="cosine 40",
        gradient_clip=0.5,
        norm_clamp=14.0,
    ),
    n_steps=N_STEPS,
    checkpoints="every 5 + adaptive 0.02",
    batch_size=512,
    batch_share=0.3,
    evaluate_every=4,
    loss="stablemax",
    residual_dropout=0.1,
    training_seed=1,
)

PARTS = {
    "grokfast_ema": tiny(gradient_filter="grokfast_ema", filter_alpha=0.9),
    "grokfast_ma": tiny(gradient_filter="grokfast_ma", filter_window=6),
    "grokfast_ma with a long window": tiny(gradient_filter="grokfast_ma", filter_window=15),
    "orthogonal": tiny(gradient_filter="orthogonal", weight_decay=0.0, loss="stablemax"),
    "adam": tiny(name="adam", weight_decay=0.0),
    "sgd": tiny(name="sgd", lr=0.1, weight_decay=1e-3),
    "sgd with momentum": tiny(name="sgd", lr=0.02, weight_decay=1e-3, momentum=0.9),
    "sgd with momentum and grokfast_ema": tiny(
        name="sgd", lr=0.005, weight_decay=0.0, momentum=0.9, gradient_filter="grokfast_ema"
    ),
    "muon": tiny(name="muon", lr=0.02, decay_by_part="embed 0", schedule="linear 25"),
    "muon with grokfast_ema": tiny(name="muon", lr=0.01, gradient_filter="grokfast_ema", norm_clamp=10.0),
    "inverse square root": tiny(schedule="inverse_sqrt", gradient_clip=0.2),
    "decay to the initialization": tiny(decay_centre="initialization"),
    "sam": tiny(sam_radius=0.1),
    "stablemax": tiny(loss="stablemax"),
    "dropout": tiny(residual_dropout=0.2),
    "update noise": tiny(update_noise=1.0),
    "weight noise": tiny(weight_noise=0.05),
    "batch share": tiny(batch_size=512, batch_share=0.3),
    "fresh sequences": dataclasses.replace(
        tiny(),
        task=TaskConfig(name="induction", n_tokens=8, length=8, n_repeated=3, n_examples=30, fresh=True),
        batch_size=6,
    ),
    "everything": EVERYTHING,
}
WITH_STATE = [
    "grokfast_ema",
    "grokfast_ma",
    "grokfast_ma with a long window",
    "sgd with momentum",
    "muon",
    "dropout",
    "update noise",
    "weight noise",
    "everything",
    "power2022-decay-to-init",
]
"""Configs in which a part of training has a state or draws random numbers."""
CONFIGS = PARTS | {name: shrink(presets.get(name)) for name in POWER}


def interrupt_at(step: int) -> Callable[[int, dict[str, float]], None]:
    """Return an observer that raises SIGINT at a step."""
    return lambda now, row: signal.raise_signal(signal.SIGINT) if now == step else None


def train_until(config: RunConfig, root: Path, step: int) -> Path:
    """Train into root/run until a signal at a step, and return the run's folder."""
    with pytest.raises(InterruptedRunError):
        training.train(config, "run", root, observer=interrupt_at(step))
    return root / "run"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the uninterrupted runs."""
    return tmp_path_factory.mktemp("uninterrupted")


@pytest.fixture
def uninterrupted(root: Path, monkeypatch: pytest.MonkeyPatch) -> Uninterrupted:
    """A function that returns a config's uninterrupted run, in segments of two checkpoints; tests only read it."""

    def train(name: str) -> Path:
        folder = root / str(list(CONFIGS).index(name))
        if not folder.exists():
            with monkeypatch.context() as patch:
                patch.setattr(checkpointer, "SEGMENT_CHECKPOINTS", 2)
                training.train(CONFIGS[name], folder.name, root)
        return folder

    return train


def test_power_presets_are_the_nine_variants_and_their_base():
    assert len(POWER) == 10 and all(not CONFIGS[name].faults() for name in POWER)
    optimizers = [CONFIGS[name].optimizer for name in POWER]
    variants = {(optimizer.name, optimizer.decay_centre) for optimizer in optimizers}
    assert variants == {("adam", "zero"), ("adamw", "zero"), ("adamw", "initialization")}


@pytest.mark.parametrize("name", quick(CONFIGS, [*WITH_STATE, "sam", "batch share", "fresh sequences"]))
def test_run_stopped_twice_resumes_to_the_bit(name: str, tmp_path: Path, uninterrupted: Uninterrupted, saved: Read):
    expected, run = saved(uninterrupted(name)), train_until(CONFIGS[name], tmp_path, STOPS[0])
    with pytest.raises(InterruptedRunError):
        training.resume(run, observer=interrupt_at(STOPS[1]))
    assert RunStore(run).last_step == STOPS[1]
    training.resume(run)
    content = saved(run)
    assert content.keys() == expected.keys()
    assert content == expected
    assert {key[1] for key in content if key[0] == "resume"} == {N_STEPS}
    assert len({key[1] for key in content if key[0] == "checkpoint"}) > 4


@pytest.mark.parametrize("name", WITH_STATE)
def test_lost_last_segments_are_retrained_to_the_bit(
    name: str, tmp_path: Path, uninterrupted: Uninterrupted, saved: Read
):
    cut = shutil.copytree(uninterrupted(name), tmp_path / "cut")
    segments = sorted(segments_folder(cut).glob("*.safetensors"))
    for path in segments[-(-len(segments) // 2) :]:
        path.unlink()
    assert 0 < RunStore(cut).last_step < N_STEPS
    training.resume(cut)
    assert saved(cut) == saved(uninterrupted(name))


def test_run_with_all_parts_is_densified_and_lengthened(tmp_path: Path, uninterrupted: Uninterrupted, saved: Read):
    run = shutil.copytree(uninterrupted("everything"), tmp_path / "run")
    trajectory = training.densify(run, 6, 16, 2)
    assert set(range(6, 17, 2)) <= set(trajectory.steps.tolist())
    training.train(dataclasses.replace(EVERYTHING, checkpoints="every 1"), "dense", tmp_path)
    dense = saved(tmp_path / "dense")
    checkpoints = {key: value for key, value in saved(run).items() if key[0] == "checkpoint"}
    assert checkpoints and checkpoints.items() <= dense.items()
    training.resume(run, n_steps=30)
    training.train(dataclasses.replace(EVERYTHING, n_steps=30), "long", tmp_path)
    assert saved(tmp_path / "long").items() <= saved(run).items()


# Controls.


def forget(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every later resume lose one part of the state, or count its random streams from the first stop."""
    if kind in ("filter/", "/momentum_buffer", "/exp_avg", "/step"):
        load = Optimizer.load

        def forgetful_load(self: Any, state: dict[str, torch.Tensor]) -> None:
            assert any(kind in name for name in state), "the state has no such part"
            load(
                self,
                {name: torch.zeros_like(tensor) if kind in name else tensor for name, tensor in state.items()},
            )

        monkeypatch.setattr(Optimizer, "load", forgetful_load)
    elif kind == "centre":
        initialize = Optimizer.__init__

        def initialize_here(self: Any, config: Any, parameters: Any, centre: Any, seed: int = 0) -> None:
            present = {name: tensor.detach().clone() for name, tensor in parameters.items()}
            initialize(self, config, parameters, present, seed)

        monkeypatch.setattr(Optimizer, "__init__", initialize_here)
    else:
        generator = rng.generator

        def shifted_generator(purpose: str, seed: int, index: int | str, device: Any = "cpu") -> torch.Generator:
            return generator(purpose, seed, int(index) - STOPS[0] if purpose == kind else index, device)

        monkeypatch.setattr(rng, "generator", shifted_generator)


FORGOTTEN = [
    ("grokfast_ema", "filter/"),
    ("grokfast_ma", "filter/"),
    ("grokfast_ma with a long window", "filter/"),
    ("sgd with momentum", "/momentum_buffer"),
    ("sgd with momentum and grokfast_ema", "filter/"),
    ("sgd with momentum and grokfast_ema", "/momentum_buffer"),
    ("adam", "/exp_avg"),
    ("adam", "/step"),
    ("decay to the initialization", "centre"),
    ("power2022-decay-to-init", "centre"),
    ("update noise", "update noise"),
    ("weight noise", "weight noise"),
    ("dropout", "dropout"),
    *(("everything", kind) for kind in ("filter/", "/exp_avg", "centre", "update noise", "weight noise", "dropout")),
]


@pytest.mark.parametrize(("name", "kind"), FORGOTTEN, ids=[f"{name}-{kind.strip('/')}" for name, kind in FORGOTTEN])
def test_comparison_notices_a_forgotten_part(
    name: str,
    kind: str,
    tmp_path: Path,
    uninterrupted: Uninterrupted,
    saved: Read,
    monkeypatch: pytest.MonkeyPatch,
):
    """The control of the tests above: their comparison notices each part that a resume may lose."""
    expected, run = saved(uninterrupted(name)), train_until(CONFIGS[name], tmp_path, STOPS[0])
    forget(kind, monkeypatch)
    training.resume(run)
    content = saved(run)
    # An adaptive schedule may take other checkpoints, but the last step is the same.
    assert {key for key in content if key[0] == "resume"} == {key for key in expected if key[0] == "resume"}
    assert content != expected
    assert any(content[key] != value for key, value in expected.items() if key[0] == "resume")


# The size of a resume state.


@pytest.mark.parametrize("name", ["grokfast_ma", "sgd"])
def test_estimate_of_disk_use_includes_the_optimizer_state(name: str, tmp_path: Path):
    """A resume state of grokfast_ma has w gradients per parameter, so it is far larger than a checkpoint."""
    config = dataclasses.replace(CONFIGS[name], checkpoints="every 1", n_steps=40)
    if name == "grokfast_ma":
        config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, filter_window=100))
    path = training.train(config, "run", tmp_path).path
    assert path is not None
    n_bytes = sum(file.stat().st_size for file in segments_folder(path).iterdir())
    assert 0.7 < estimate_disk_use(Setup(config)) / n_bytes < 1.3


def test_resume_state_has_a_window_of_gradients_per_parameter(uninterrupted: Uninterrupted):
    config = CONFIGS["grokfast_ma"]
    last = sorted(segments_folder(uninterrupted("grokfast_ma")).glob("*.safetensors"))[-1]
    shapes = tensor_file.TensorFile(last).shapes
    filter_tensors = {name for name in shapes if name.startswith("resume/optimizer/filter/")}
    assert filter_tensors == {f"resume/optimizer/filter/{name}" for name in Setup(config).model.trained}
    assert shapes["resume/optimizer/filter/embed.W_E"] == (6, 8, 16)


# Global random generators.

CHILD = """
import json, random, sys
from pathlib import Path
import numpy as np
import torch

def generators():
    return str(random.getstate()), str(np.random.get_state()), str(torch.get_rng_state().tolist())

torch.manual_seed(12345)
before = generators()
from grokscope import training
from grokscope.config import from_dict
from grokscope.training.run_progress import Progress
training.train(from_dict(json.loads(sys.stdin.read())), "run", Path(sys.argv[1]), progress=Progress)
print(json.dumps([a == b for a, b in zip(before, generators())]))
"""


def test_training_and_global_generators_do_not_affect_each_other(
    tmp_path: Path, uninterrupted: Uninterrupted, saved: Read
):
    """The child process runs without beartype, which draws from Python's generator itself."""
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD, str(tmp_path)],
        input=json.dumps(EVERYTHING.to_dict()),
        # A forced terminal draws the progress bar too.
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "FORCE_COLOR": "1", "TERM": "xterm"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(child.stdout) == [True, True, True]
    assert saved(tmp_path / "run") == saved(uninterrupted("everything"))
