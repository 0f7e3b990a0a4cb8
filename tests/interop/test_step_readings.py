"""Steps in other programs' files: from the content, from epochs, from the optimizer, or from the file's name."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from grokscope import Trajectory
from grokscope.errors import GrokscopeError
from grokscope.interop.import_run import import_checkpoints
from grokscope.store.record import Record

pytestmark = pytest.mark.filterwarnings("ignore:.*above chance")


@pytest.fixture
def original(tiny_run: Path) -> Trajectory:
    return Trajectory.open(tiny_run)


def adam(n_updates: Any) -> dict[str, Any]:
    """Return the state of an optimizer as torch saves it."""
    return {"state": {0: {"step": n_updates}, 1: {"step": n_updates}}, "param_groups": [{"lr": 1e-3}]}


def imported_step(original: Trajectory, path: Path, values: dict[str, Any], **options: Any) -> int:
    """Import a file with a state dict and these values, and return the step of its checkpoint."""
    torch.save({"model": original.last.parameters, **values} if values else original.last.parameters, path)
    config = options.pop("config", original.config)
    imported = import_checkpoints([path], config, "run", path.parent, **options)
    return int(imported.steps[0])


def notes_of(folder: Path) -> str:
    return " ".join((Record.read(folder).imported or {})["notes"])


@pytest.mark.parametrize(
    ("values", "step"),
    [
        ({"step": torch.tensor(7)}, 7),
        ({"step": torch.tensor(7, dtype=torch.int32)}, 7),
        ({"epoch": 3, "step": 0}, 0),
        ({"epoch": 3, "global_step": 200}, 200),
        ({"epoch": 3, "iteration": 200}, 200),
        ({"step": 7, "optimizer": adam(9)}, 7),
        ({"epoch": 99}, 100),
        ({"epoch": torch.tensor(0)}, 1),
        ({"epoch": 99, "optimizer": adam(100)}, 100),
        ({"epoch": 99, "optimizer_state_dict": adam(torch.tensor(99.0))}, 99),
        ({"epoch": 3, "optimizer_states": [adam(200)]}, 200),
        ({"optimizer": adam(300)}, 300),
    ],
    ids=str,
)
def test_step_is_read_from_the_content(values: dict[str, Any], step: int, original: Trajectory, tmp_path: Path):
    assert imported_step(original, tmp_path / "x_5.pt", values) == step


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("epoch=3-step=400", 400),
        ("step 40", 40),
        ("run1_step_50_seed2", 50),
        ("step_200_of_40000", 200),
        ("STEP-7", 7),
        ("global_step60_wd1", 60),
        ("iter12", 12),
        ("iteration_12", 12),
        ("checkpoint-500", 500),
        ("ckpt_3_step_200", 200),
        ("step100.v2", 100),
        ("step_100 (1)", 100),
        *((name, None) for name in ("quick_p113_seed0", "model_wd1", "addition_113_30000", "float64-60", "200")),
        *((name, None) for name in ("ckpt_1234567890123456789012", "step_1.5e6", "step_12,000", "step_12_000")),
        *((name, None) for name in ("step_40k", "step_1e5", "max_step_40000", "warmup_step_10", "timestep5")),
        *((name, None) for name in ("step_1_step_2", "step_-5", "step²", "step_١٢", "epoch_9", "last", "lr1e-3")),
    ],
)
def test_step_is_read_from_a_name_that_says_step(name: str, step: int | None, original: Trajectory, tmp_path: Path):
    if step is not None:
        assert imported_step(original, tmp_path / f"{name}.pt", {}) == step
        return
    with pytest.raises(GrokscopeError, match=r"does not tell the step of its checkpoint\. Name it with --steps"):
        imported_step(original, tmp_path / f"{name}.pt", {})


@pytest.mark.parametrize(
    ("name", "values", "step", "reason"),
    [
        ("x_5", {"epoch": 99}, 100, "epochs count from 0"),
        ("step_99", {"epoch": 99}, 99, "its name says so"),
        ("step_100", {"epoch": 99}, 100, "its name says so"),
        ("epoch_99", {"epoch": 99}, 100, "epochs count from 0"),
        ("x", {"epoch": 99, "optimizer": adam(99)}, 99, "its optimizer has counted them"),
    ],
)
def test_message_says_how_an_epoch_was_read(
    name: str, values: dict[str, Any], step: int, reason: str, original: Trajectory, tmp_path: Path
):
    assert imported_step(original, tmp_path / f"{name}.pt", values) == step
    assert f"epoch 99 was read as step {step}: {reason}" in notes_of(tmp_path / "run")


def test_message_says_how_many_epochs_were_read(original: Trajectory, tmp_path: Path):
    path = tmp_path / "all.pt"
    state_dicts = [snapshot.parameters for snapshot in original[1:]]
    torch.save({"state_dicts": state_dicts, "epochs": list(range(9, 60, 10))}, path)
    imported = import_checkpoints([path], original.config, "run", tmp_path)
    assert imported.steps.tolist() == [10, 20, 30, 40, 50, 60]
    assert "epochs 9 to 59 were read as steps 10 to 60" in notes_of(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("step_300", {"step": 200}, "its name says step 300, but it contains step 200"),
        ("step_300", {"epoch": 199}, "its name says step 300, but it contains epoch 199"),
        ("step_300", {"optimizer": adam(200)}, "its name says step 300, but it contains 200 updates"),
        ("epoch_50", {"epoch": 199}, "its name says epoch 50, but it contains epoch 199"),
        ("x", {"epoch": 199, "optimizer": adam(20)}, "epoch 199 does not determine the step"),
    ],
)
def test_contradiction_needs_given_steps(
    name: str, values: dict[str, Any], message: str, original: Trajectory, tmp_path: Path
):
    path = tmp_path / f"{name}.pt"
    with pytest.raises(GrokscopeError, match=re.escape(message)):
        imported_step(original, path, values)
    assert imported_step(original, path, values, steps=[200]) == 200


def test_epoch_of_several_updates_is_not_a_step(original: Trajectory, tmp_path: Path):
    batches = dataclasses.replace(original.config, batch_size=7)
    with pytest.raises(GrokscopeError, match="epoch 9 does not determine the step, because an epoch has several"):
        imported_step(original, tmp_path / "x.pt", {"epoch": 9}, config=batches)
    assert imported_step(original, tmp_path / "step_70.pt", {"epoch": 9}, config=batches) == 70


@pytest.mark.parametrize(
    "step",
    [
        7.0,
        "7",
        -1,
        True,
        None,
        [7],
        torch.tensor([7]),
        torch.tensor(7.0),
        torch.tensor(-7),
        torch.tensor(True),
        2**62,
    ],
    ids=str,
)
def test_invalid_step_in_file_needs_given_steps(step: Any, original: Trajectory, tmp_path: Path):
    path = tmp_path / "x_5.pt"
    for key in ("step", "epoch"):
        torch.save({"model": original.last.parameters, key: step}, path)
        with pytest.raises(GrokscopeError, match=rf"x_5\.pt: '{key}' does not contain a whole number .*--steps"):
            import_checkpoints([path], original.config, "run", tmp_path)
        imported = import_checkpoints([path], original.config, key, tmp_path, steps=[9])
        assert imported.steps.tolist() == [9]


def test_schedule_of_the_config_does_not_limit_steps(original: Trajectory, tmp_path: Path):
    path = tmp_path / "plain_200.pth"
    every = dataclasses.replace(original.config, checkpoints="every 1", n_steps=100)
    assert imported_step(original, path, {}, steps=[1_000_000], config=every) == 1_000_000
    window = dataclasses.replace(original.config, checkpoints="window 50 60 1")
    torch.save(original.last.parameters, path)
    assert import_checkpoints([path], window, "early", tmp_path, steps=[7]).steps.tolist() == [7]
