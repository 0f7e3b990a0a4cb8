"""`resume`: exact to the bit after signals, lost segments and extensions, and refused where bits may change."""

import dataclasses
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.shared import KINDS, Saved, flip, of_kind, place, quick, truncate

from grokscope import Trajectory, environment, rng, training
from grokscope.config import RunConfig
from grokscope.disk import atomic, tensor_file
from grokscope.disk.lock import LOCK_NAME, Lock
from grokscope.errors import GrokscopeError
from grokscope.store.run_store import Record, RunStore
from grokscope.training.checkpointer import Checkpointer
from grokscope.training.loop import Setup
from grokscope.training.optimizers import Optimizer
from grokscope.training.signals import InterruptedRunError

Read = Callable[[Path], Saved]
Uninterrupted = Callable[[str], Saved]


@pytest.fixture(scope="module")
def _cache() -> dict[str, Saved]:
    return {}


@pytest.fixture
def uninterrupted(_cache: dict[str, Saved], tiny_config: RunConfig, tmp_path: Path, saved: Read) -> Uninterrupted:
    """A function that returns everything that an uninterrupted run of a kind saves."""

    def read(kind: str) -> Saved:
        if kind not in _cache:
            training.train(of_kind(tiny_config, kind), "uninterrupted", tmp_path)
            _cache[kind] = saved(tmp_path / "uninterrupted")
        return _cache[kind]

    return read


def interrupt_at(*steps: int) -> Callable[[int, dict[str, float]], None]:
    """Return an observer that interrupts the training at these steps, as Ctrl-C does."""
    return lambda step, row: signal.raise_signal(signal.SIGINT) if step in steps else None


def train_until(config: RunConfig, root: Path, step: int) -> Path:
    """Train into root/run until a signal at a step, and return the run's folder."""
    with pytest.raises(InterruptedRunError):
        training.train(config, "run", root, observer=interrupt_at(step))
    return root / "run"


def file_contents(folder: Path) -> dict[Path, bytes]:
    """Return every file of a folder byte for byte, except for the lock."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != LOCK_NAME}


def replace_metadata(path: Path, changes: dict[str, Any]) -> None:
    """Write a segment with changed metadata and valid checksums."""
    file = tensor_file.TensorFile(path)
    arrays = {name: file.read(name) for name in file.shapes}
    tensor_file.write(path, arrays, {**file.metadata, **changes}, by_row=("checkpoints/",))


# Exact resume.


@pytest.mark.parametrize(
    ("kind", "step"), [("full batch", step) for step in (1, 9, 10, 59, 60)] + [(kind, 37) for kind in KINDS]
)
def test_interrupted_run_resumes_to_the_bit(
    step: int, kind: str, tiny_config: RunConfig, tmp_path: Path, uninterrupted: Uninterrupted, saved: Read
):
    run = train_until(of_kind(tiny_config, kind), tmp_path, step)
    assert RunStore(run).last_step == step
    training.resume(run)
    assert saved(run) == uninterrupted(kind)


@pytest.mark.usefixtures("short_segments")
@pytest.mark.parametrize("kind", quick(KINDS, ["adaptive"]))
def test_run_resumed_many_times_is_exact(
    kind: str, tiny_config: RunConfig, tmp_path: Path, uninterrupted: Uninterrupted, saved: Read
):
    run = train_until(of_kind(tiny_config, kind), tmp_path, 3)
    for step in (4, 5, 17, 18, 40, 59):
        with pytest.raises(InterruptedRunError):
            training.resume(run, observer=interrupt_at(step))
    training.resume(run)
    assert saved(run) == uninterrupted(kind)


def test_resume_counts_earlier_adaptive_checkpoints(tiny_config: RunConfig, tmp_path: Path, saved: Read):
    optimizer = dataclasses.replace(tiny_config.optimizer, lr=3e-2)
    config = dataclasses.replace(tiny_config, checkpoints="every 20 + adaptive 0.05", evaluate_every=1)
    config = dataclasses.replace(config, optimizer=optimizer, max_checkpoints=12)
    with pytest.warns(UserWarning, match="max_checkpoints = 12"):
        whole = training.train(config, "whole", tmp_path)
    run = train_until(config, tmp_path, int(whole.steps[6]))
    assert len(RunStore(run).steps) == 7
    with pytest.warns(UserWarning, match="max_checkpoints = 12"):
        training.resume(run)
    assert len(whole) == 12 and saved(run) == saved(tmp_path / "whole")


@pytest.mark.parametrize(
    ("lost", "kind"), [("optimizer", "full batch"), ("reference loss", "adaptive"), ("batch order", "minibatch")]
)
def test_comparison_notices_what_a_resume_forgets(
    lost: str,
    kind: str,
    tiny_config: RunConfig,
    tmp_path: Path,
    uninterrupted: Uninterrupted,
    saved: Read,
    monkeypatch: pytest.MonkeyPatch,
):
    """The control of the tests above."""
    run, expected = train_until(of_kind(tiny_config, kind), tmp_path, 37), uninterrupted(kind)
    if lost == "optimizer":
        monkeypatch.setattr(Optimizer, "load", lambda self, state: None)
    elif lost == "reference loss":
        initialize = Checkpointer.__init__

        def forgetful_initialize(self: Any, *arguments: Any) -> None:
            initialize(self, *arguments)
            self._reference = 1.0

        monkeypatch.setattr(Checkpointer, "__init__", forgetful_initialize)
    else:
        batch = Setup.batch
        monkeypatch.setattr(Setup, "batch", lambda self, step: batch(self, step - 37))
    training.resume(run)
    assert saved(run) != expected


# The number of steps.


@pytest.mark.parametrize("n_steps", quick([61, 95], [61]))
@pytest.mark.parametrize("kind", ["full batch", "minibatch"])
def test_lengthened_run_equals_a_long_run(
    kind: str, n_steps: int, tiny_config: RunConfig, tmp_path: Path, saved: Read
):
    config = of_kind(tiny_config, kind)
    training.train(config, "run", tmp_path)
    lengthened = training.resume(tmp_path / "run", n_steps=n_steps)
    training.train(dataclasses.replace(config, n_steps=n_steps), "long", tmp_path)
    assert saved(tmp_path / "run") == saved(tmp_path / "long")
    assert lengthened.config.n_steps == n_steps and lengthened.last.step == n_steps
    assert Record.read(tmp_path / "run").history == ({"event": "lengthened", "step": 60, "from": 60, "to": n_steps},)


def test_unfinished_run_can_be_lengthened(tiny_config: RunConfig, tmp_path: Path, saved: Read):
    run = train_until(tiny_config, tmp_path, 33)
    training.resume(run, n_steps=80)
    training.train(dataclasses.replace(tiny_config, n_steps=80), "long", tmp_path)
    assert saved(run) == saved(tmp_path / "long")


@pytest.mark.parametrize(
    ("n_steps", "message"),
    [(59, "59 would shorten .*from 60"), (0, "would shorten"), (10**10, "n_steps: 10000000000")],
)
def test_invalid_length_changes_no_file(n_steps: int, message: str, run_copy: Path):
    before = file_contents(run_copy)
    with pytest.raises(GrokscopeError, match=message):
        training.resume(run_copy, n_steps=n_steps)
    assert file_contents(run_copy) == before


def test_length_beyond_max_checkpoints_changes_no_file(tiny_config: RunConfig, tmp_path: Path):
    training.train(dataclasses.replace(tiny_config, max_checkpoints=8), "run", tmp_path)
    before = file_contents(tmp_path)
    with pytest.raises(GrokscopeError, match="9 checkpoints.*max_checkpoints = 8"):
        training.resume(tmp_path / "run", n_steps=80)
    assert file_contents(tmp_path) == before


def test_finished_run_is_returned_unchanged_even_if_locked(run_copy: Path):
    before = file_contents(run_copy)
    with Lock(run_copy):
        trajectory = training.resume(run_copy)
        assert training.resume(run_copy, n_steps=60).digest == trajectory.digest
    assert trajectory.last.step == 60 and file_contents(run_copy) == before


# Another environment, other data.


@pytest.fixture
def move_elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function that makes this another machine, with another torch."""
    describe = environment.describe
    changes = {"torch": "1.0.0", "threads": "77"}

    def move() -> None:
        monkeypatch.setattr(environment, "describe", lambda *arguments: {**describe(*arguments), **changes})

    return move


def test_drift_is_named_before_the_first_step(
    tiny_config: RunConfig, tmp_path: Path, move_elsewhere: Callable[[], None]
):
    run = train_until(tiny_config, tmp_path, 33)
    before = file_contents(run)
    move_elsewhere()
    with pytest.raises(GrokscopeError) as raised:
        training.resume(run, observer=lambda step, row: pytest.fail("a step was made"))
    for part in ("threads was", "is 77", f"torch was {torch.__version__}, is 1.0.0", "--allow-drift"):
        assert part in str(raised.value)
    assert file_contents(run) == before


def test_allowed_drift_is_recorded_once(tiny_config: RunConfig, tmp_path: Path, move_elsewhere: Callable[[], None]):
    run = train_until(tiny_config, tmp_path, 33)
    move_elsewhere()
    with pytest.raises(InterruptedRunError):
        training.resume(run, allow_drift=True, observer=interrupt_at(40))
    (event,) = json.loads((run / "config.json").read_bytes())["history"]
    assert event["event"] == "drift allowed" and event["step"] == 33
    assert any("torch was" in clause for clause in event["drift"])
    training.resume(run)
    assert len(Record.read(run).history) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has CUDA, which the test needs to be missing")
def test_run_from_a_gpu_is_refused_without_one(run_copy: Path):
    record = Record.read(run_copy)
    config = dataclasses.replace(record.config, device="cuda", n_steps=90)
    dataclasses.replace(record, config=config).write(run_copy)
    for path in (run_copy / "segments").iterdir():
        replace_metadata(path, {"config_digest": config.digest})
    assert Trajectory.open(run_copy).last.step == 60
    for write in (training.resume, lambda run: training.densify(run, 0, 5)):
        with pytest.raises(GrokscopeError, match="cuda"):
            write(run_copy)


def test_run_with_changed_data_is_refused_before_a_write(
    tiny_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, permuted: Callable[..., Any]
):
    run = train_until(tiny_config, tmp_path, 33)
    before = file_contents(run)
    monkeypatch.setattr(rng, "permutation", permuted)
    for write in (training.resume, lambda run: training.densify(run, 0, 5)):
        with pytest.raises(GrokscopeError, match="other examples or another split"):
            write(run)
        assert file_contents(run) == before


# Lost and damaged files.


def test_resume_removes_the_files_of_a_crashed_writer(tiny_config: RunConfig, tmp_path: Path):
    run = train_until(tiny_config, tmp_path, 33)
    partial_file = run / "segments" / f".000009.safetensors.1{atomic.TEMPORARY_SUFFIX}"
    partial_file.write_bytes(b"half")
    training.resume(run)
    assert not partial_file.exists()


@pytest.mark.usefixtures("short_segments")
def test_lost_last_segments_are_retrained(
    tiny_config: RunConfig, tmp_path: Path, uninterrupted: Uninterrupted, saved: Read
):
    training.train(tiny_config, "run", tmp_path)
    paths = sorted((tmp_path / "run" / "segments").iterdir())
    truncate(paths[-1])
    for path in paths[-15:-1]:
        path.unlink()
    trajectory = training.resume(tmp_path / "run")
    assert trajectory.damaged and str(paths[-1]) in trajectory.damaged[0] and trajectory.gaps == []
    paths[-1].unlink()
    assert saved(tmp_path / "run") == uninterrupted("full batch")


@pytest.mark.usefixtures("short_segments")
@pytest.mark.parametrize("name", ["resume/parameters/embed.W_E", "log"])
def test_flipped_bit_in_a_segment_does_not_prevent_resume(name: str, tiny_config: RunConfig, tmp_path: Path):
    run = train_until(tiny_config, tmp_path, 33)
    # The last segment, of step 33, has no log row; the one of step 30 has.
    path = sorted((run / "segments").iterdir())[-4 if name == "log" else -1]
    flip(path, 8 * place(path, name)[0] + 4)
    expected = training.train(tiny_config, "expected", tmp_path)
    assert training.resume(run).digest == expected.digest


def test_run_without_a_resume_state_is_refused(run_copy: Path):
    for path in (run_copy / "segments").iterdir():
        truncate(path)
    with pytest.raises(GrokscopeError, match="no readable"):
        training.resume(run_copy)


@pytest.mark.parametrize("kind", ["empty folder", "missing"])
def test_folder_that_is_not_a_run_is_refused_unchanged(kind: str, tmp_path: Path):
    path = tmp_path / "stranger"
    if kind == "empty folder":
        path.mkdir()
    for write in (training.resume, lambda run: training.densify(run, 0, 0)):
        with pytest.raises(GrokscopeError, match=f"^{path} is not a run"):
            write(path)
    assert list(tmp_path.rglob("*")) == ([path] if kind == "empty folder" else [])
