"""Every part of training, and all together: a run that was stopped goes on exact to the bit, with controls."""

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
from support.shared import make_tiny_config

from grokscope import rng, training
from grokscope.config import ModelConfig, OptimizerConfig, RunConfig, TaskConfig, presets
from grokscope.disk import tensor_file
from grokscope.store.run_store import RunStore, segments_folder
from grokscope.training import checkpointer, loop, optimizers
from grokscope.training.signals import InterruptedRunError

Read = Callable[[Path], dict[tuple[Any, ...], tuple[Any, ...]]]

N_STEPS, STOPS = 20, (9, 11)
POWER = [name for name in presets.names() if name.startswith("power2022")]


def shrunk(config: RunConfig) -> RunConfig:
    """Return a preset on S3, or on numbers mod 7, with a small model: all that it combines, in no time."""
    return dataclasses.replace(
        config,
        task=dataclasses.replace(config.task, group="S3", p=7),
        model=dataclasses.replace(config.model, d_model=16, n_heads=2, d_mlp=24),
        n_steps=N_STEPS,
        checkpoints="every 4",
        evaluate_every=4,
    )


def tiny(**changes: Any) -> RunConfig:
    """Return the tiny config of all tests, for 20 steps; what OptimizerConfig knows changes the optimizer."""
    config = dataclasses.replace(make_tiny_config(), n_steps=N_STEPS, checkpoints="every 4", evaluate_every=4)
    of_optimizer = {field.name for field in dataclasses.fields(OptimizerConfig)} & changes.keys()
    optimizer = dataclasses.replace(config.optimizer, **{name: changes.pop(name) for name in of_optimizer})
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
    "grokfast_ma, its window not yet full": tiny(gradient_filter="grokfast_ma", filter_window=15),
    "orthogonal": tiny(gradient_filter="orthogonal", weight_decay=0.0, loss="stablemax"),
    "adam": tiny(name="adam", weight_decay=0.0),
    "sgd": tiny(name="sgd", lr=0.1, weight_decay=1e-3),
    "sgd with momentum": tiny(name="sgd", lr=0.02, weight_decay=1e-3, momentum=0.9),
    "sgd with momentum and grokfast_ema": tiny(
        name="sgd", lr=0.005, weight_decay=0.0, momentum=0.9, gradient_filter="grokfast_ema"
    ),
    "decay to the initialization": tiny(decay_centre="initialization"),
    "sam": tiny(sam_radius=0.1),
    "stablemax": tiny(loss="stablemax"),
    "dropout": tiny(residual_dropout=0.2),
    "update noise": tiny(update_noise=1.0),
    "weight noise": tiny(weight_noise=0.05),
    "batch share": tiny(batch_share=0.3),
    "everything": EVERYTHING,
}
REMEMBERING = [
    "grokfast_ema",
    "grokfast_ma",
    "grokfast_ma, its window not yet full",
    "sgd with momentum",
    "dropout",
    "update noise",
    "weight noise",
    "everything",
    "power2022-decay-to-init",
]
CONFIGS = PARTS | {name: shrunk(presets.get(name)) for name in POWER}


def stopping_at(step: int) -> Callable[[int, dict[str, float]], None]:
    return lambda now, row: signal.raise_signal(signal.SIGINT) if now == step else None


def stopped(config: RunConfig, root: Path, step: int) -> Path:
    """Train into root/run until a signal comes at a step, and return the run's folder."""
    with pytest.raises(InterruptedRunError):
        training.train(config, "run", root, observer=stopping_at(step))
    return root / "run"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the uninterrupted runs."""
    return tmp_path_factory.mktemp("whole")


@pytest.fixture
def whole(root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """The function that returns a config's uninterrupted run, in segments of two checkpoints. Read it, or copy it."""

    def make(name: str) -> Path:
        folder = root / str(list(CONFIGS).index(name))
        if not folder.exists():
            with monkeypatch.context() as patch:
                patch.setattr(checkpointer, "SEGMENT_CHECKPOINTS", 2)
                training.train(CONFIGS[name], folder.name, root)
        return folder

    return make


def test_there_are_the_nine_variants_of_power_et_al_and_the_preset_they_vary():
    assert len(POWER) == 10 and all(not CONFIGS[name].faults() for name in POWER)
    parts = {(one.optimizer.name, one.optimizer.decay_centre) for one in map(CONFIGS.get, POWER) if one}
    assert parts == {("adam", "zero"), ("adamw", "zero"), ("adamw", "initialization")}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_run_stopped_twice_is_resumed_to_the_bit(name: str, tmp_path: Path, whole: Callable, saved: Read):
    expected, run = saved(whole(name)), stopped(CONFIGS[name], tmp_path, STOPS[0])
    with pytest.raises(InterruptedRunError):
        training.resume(run, observer=stopping_at(STOPS[1]))
    assert RunStore(run).last_step == STOPS[1]
    training.resume(run)
    found = saved(run)
    assert found.keys() == expected.keys()
    assert found == expected
    assert {key[1] for key in found if key[0] == "resume"} == {N_STEPS}
    assert len({key[1] for key in found if key[0] == "checkpoint"}) > 4


@pytest.mark.parametrize("name", REMEMBERING)
def test_a_run_whose_later_segments_are_gone_makes_them_again_to_the_bit(
    name: str, tmp_path: Path, whole: Callable, saved: Read
):
    cut = shutil.copytree(whole(name), tmp_path / "cut")
    segments = sorted(segments_folder(cut).glob("*.safetensors"))
    for path in segments[-(-len(segments) // 2) :]:
        path.unlink()
    assert 0 < RunStore(cut).last_step < N_STEPS
    training.resume(cut)
    assert saved(cut) == saved(whole(name))


def test_a_run_with_everything_on_is_densified_and_lengthened_to_the_bit(
    tmp_path: Path, whole: Callable, saved: Read
):
    run = shutil.copytree(whole("everything"), tmp_path / "run")
    trajectory = training.densify(run, 6, 16, 2)
    assert set(range(6, 17, 2)) <= set(trajectory.steps.tolist())
    training.train(dataclasses.replace(EVERYTHING, checkpoints="every 1"), "dense", tmp_path)
    dense = saved(tmp_path / "dense")
    checkpoints = {key: value for key, value in saved(run).items() if key[0] == "checkpoint"}
    assert checkpoints and checkpoints.items() <= dense.items()
    training.resume(run, n_steps=30)
    training.train(dataclasses.replace(EVERYTHING, n_steps=30), "long", tmp_path)
    assert saved(tmp_path / "long").items() <= saved(run).items()


def forgets(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what comes after the resume at the first stop forget one thing, or count its steps from there."""
    if kind in ("filter/", "/momentum_buffer", "/exp_avg", "/step"):
        load = optimizers.Optimizer.load

        def forgetful(self: Any, state: dict[str, torch.Tensor]) -> None:
            assert any(kind in name for name in state), "there is nothing of the kind to forget"
            load(self, {name: torch.zeros_like(one) if kind in name else one for name, one in state.items()})

        monkeypatch.setattr(optimizers.Optimizer, "load", forgetful)
    elif kind == "centre":
        start = optimizers.Optimizer.__init__

        def begun_here(self: Any, config: Any, parameters: Any, centre: Any, seed: int = 0) -> None:
            start(self, config, parameters, {name: one.detach().clone() for name, one in parameters.items()}, seed)

        monkeypatch.setattr(optimizers.Optimizer, "__init__", begun_here)
    else:
        generator = rng.generator

        def shifted(purpose: str, seed: int, index: int | str, device: Any = "cpu") -> torch.Generator:
            return generator(purpose, seed, int(index) - STOPS[0] if purpose == kind else index, device)

        monkeypatch.setattr(rng, "generator", shifted)


FORGOTTEN = [
    ("grokfast_ema", "filter/"),
    ("grokfast_ma", "filter/"),
    ("grokfast_ma, its window not yet full", "filter/"),
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
def test_the_comparison_catches_a_resume_that_forgets_a_part(
    name: str, kind: str, tmp_path: Path, whole: Callable, saved: Read, monkeypatch: pytest.MonkeyPatch
):
    """The control of the tests above: what they compare is fine enough to notice, for each thing that is kept."""
    expected, run = saved(whole(name)), stopped(CONFIGS[name], tmp_path, STOPS[0])
    forgets(kind, monkeypatch)
    training.resume(run)
    found = saved(run)
    # How many checkpoints an adaptive schedule takes is the run's own, but the last step is everyone's.
    assert {key for key in found if key[0] == "resume"} == {key for key in expected if key[0] == "resume"}
    assert found != expected
    assert any(found[key] != value for key, value in expected.items() if key[0] == "resume")


@pytest.mark.parametrize("name", ["grokfast_ma", "sgd"])
def test_the_estimate_of_disk_use_knows_what_each_part_remembers(name: str, tmp_path: Path):
    """A resume state of grokfast_ma is by far larger than the checkpoints beside it: w gradients a parameter."""
    config = dataclasses.replace(CONFIGS[name], checkpoints="every 1", n_steps=40)
    if name == "grokfast_ma":
        config = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, filter_window=100))
    path = training.train(config, "run", tmp_path).path
    assert path is not None
    used = sum(one.stat().st_size for one in segments_folder(path).iterdir())
    assert 0.7 < checkpointer.disk_use(loop.Setup(config)) / used < 1.3


def test_a_resume_state_holds_a_window_of_gradients_for_each_trained_parameter(whole: Callable):
    config = CONFIGS["grokfast_ma"]
    last = sorted(segments_folder(whole("grokfast_ma")).glob("*.safetensors"))[-1]
    shapes = tensor_file.TensorFile(last).shapes
    remembered = {name for name in shapes if name.startswith("resume/optimizer/filter/")}
    assert remembered == {f"resume/optimizer/filter/{name}" for name in loop.Setup(config).model.trained}
    assert shapes["resume/optimizer/filter/embed.W_E"] == (6, 8, 16)


WATCHED = """
import json, random, sys
from pathlib import Path
import numpy as np
import torch
from grokscope import training
from grokscope.config import from_dict

def generators():
    return str(random.getstate()), str(np.random.get_state()), str(torch.get_rng_state().tolist())

torch.manual_seed(12345)
before = generators()
training.train(from_dict(json.loads(sys.stdin.read())), "run", Path(sys.argv[1]))
print(json.dumps([a == b for a, b in zip(before, generators())]))
"""


def test_a_run_with_everything_on_touches_no_global_generator_and_none_touches_it(
    tmp_path: Path, whole: Callable, saved: Read
):
    """In a process of its own, without beartype, which draws from Python's generator itself."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WATCHED, str(tmp_path)],
        input=json.dumps(EVERYTHING.to_dict()),
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [True, True, True]
    assert saved(tmp_path / "run") == saved(whole("everything"))
