"""The losses in a file, compared with ours: agreement, differences with their cause, losses above chance."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from grokscope import Trajectory, measures
from grokscope.errors import GrokscopeError
from grokscope.interop import stored_losses
from grokscope.interop.import_run import import_checkpoints
from grokscope.interop.stored_losses import Means, Stored
from grokscope.store.record import Record


@pytest.fixture
def original(tiny_run: Path) -> Trajectory:
    return Trajectory.open(tiny_run)


def event_of(run: Trajectory) -> Any:
    assert run.path is not None
    return Record.read(run.path).imported


def import_last(original: Trajectory, folder: Path, losses: dict[str, Any], **options: Any) -> Trajectory:
    """Import the last checkpoint with losses beside it; the tiny run's split unless the options name another."""
    path = folder / "step_60.pt"
    torch.save({"model": original.last.parameters, **losses}, path)
    return import_checkpoints([path], original.config, "run", folder, **{"split": "grokscope:0", **options})


def last_losses(original: Trajectory) -> dict[str, float]:
    return {name: float(original.log[name][-1]) for name in ("train_loss", "test_loss")}


def test_losses_that_agree_give_a_note(original: Trajectory, tmp_path: Path):
    losses = last_losses(original)
    event = event_of(import_last(original, tmp_path, {**losses, "val_loss": torch.tensor(9.0)}))
    assert any("The losses in the file agree with ours (softmax) to " in note for note in event["notes"])
    assert event["doubts"] == []


@pytest.mark.filterwarnings("ignore:.*above chance")
@pytest.mark.parametrize(
    ("change", "options", "cause"),
    [
        ({"test_loss": 0.5}, {}, "the task, the architecture, the loss function or the step"),
        ({"test_losses": [7.0, 9.0]}, {}, "the code may have evaluated the loss before its last update"),
        ({}, {"split": "random-shuffle:1"}, "the training set is probably another one"),
    ],
    ids=["unknown", "before the update", "another split"],
)
def test_loss_that_differs_is_reported_with_its_cause(
    change: dict[str, Any], options: dict[str, Any], cause: str, original: Trajectory, tmp_path: Path
):
    losses: dict[str, Any] = {**last_losses(original), **change}
    if "test_losses" in change:
        losses["test_loss"] = losses["test_loss"] * 1.1
    with pytest.warns(UserWarning, match=f"in the file is .*, and ours .softmax. is .*: {cause}"):
        run = import_last(original, tmp_path, losses, **options)
    assert cause in event_of(run)["doubts"][-1]


@pytest.mark.filterwarnings("ignore:.*above chance")
def test_losses_without_a_split_give_the_trained_share(original: Trajectory, tmp_path: Path):
    event = event_of(import_last(original, tmp_path, last_losses(original), split=None))
    share = len(original.split.train) / len(original.task.inputs)
    assert f"which fits if {share:.1%} of the equations were trained on." in " ".join(event["notes"])
    (tmp_path / "again").mkdir()
    torch.save({"model": original.last.parameters, "train_loss": 0.1, "test_loss": 0.2}, tmp_path / "step_60.pt")
    other = import_checkpoints([tmp_path / "step_60.pt"], original.config, "other", tmp_path)
    assert "which is not between them" in " ".join(event_of(other)["notes"])


def test_history_of_losses_is_compared_at_each_checkpoint(original: Trajectory, tmp_path: Path):
    """Entry s of a list with one loss per update is the loss after s updates."""
    losses = measures.evaluate("loss", original)
    steps = original.steps.tolist()
    history = torch.zeros(60, dtype=torch.float64)
    for i, step in enumerate(steps[:-1]):
        history[step] = float(losses["train_loss"][i])
    content = {
        "checkpoints": [snapshot.parameters for snapshot in original[1:]],
        "checkpoint_epochs": [step - 1 for step in steps[1:]],
        "train_losses": history.tolist(),
    }
    torch.save(content, tmp_path / "all.pt")
    run = import_checkpoints([tmp_path / "all.pt"], original.config, "run", tmp_path, split="grokscope:0")
    assert "The losses in the file agree with ours" in " ".join(event_of(run)["notes"])
    content["train_losses"][steps[2]] *= 1.5
    torch.save(content, tmp_path / "all.pt")
    with pytest.warns(UserWarning, match=f"At step {steps[2]} the train loss in the file"):
        import_checkpoints([tmp_path / "all.pt"], original.config, "other", tmp_path, split="grokscope:0")


def test_cause_of_a_variant_is_named():
    ours = Means(all=1.0, accuracy=0.5, train=0.5, test=1.5)
    stored = [Stored(60, "train", 0.1), Stored(60, "test", 9.0)]
    variants = {"gelu fits": lambda: Means(1.0, 0.5, 0.1, 9.0)}
    assert stored_losses.likely_cause(stored[0], stored, ours, 0.5, variants) == "gelu fits"


def test_loss_above_chance_is_a_doubt(original: Trajectory, tmp_path: Path):
    chance = f"ln(7) = {math.log(7):.4g}"
    path = tmp_path / "step_60.pt"
    torch.save(original.last.parameters, path)
    with pytest.warns(UserWarning, match="loss over all equations is .* above chance") as caught:
        import_checkpoints([path], original.config, "run", tmp_path)
    assert chance in str(caught[0].message) and "accuracy is" in str(caught[0].message)
    assert "The training set is unknown, and a model that has only memorized it looks like this" in str(
        caught[0].message
    )
    other_task = dataclasses.replace(original.config.task, name="subtraction")
    config = dataclasses.replace(original.config, task=other_task)
    with pytest.warns(UserWarning, match="the softmax train loss is .* above chance"):
        run = import_checkpoints([path], config, "subtraction", tmp_path, split="grokscope:0")
    assert len(event_of(run)["doubts"]) == 1


def test_untrained_checkpoint_gives_no_doubt(original: Trajectory, tmp_path: Path):
    torch.save(original.first.parameters, tmp_path / "step_0.pt")
    assert event_of(import_checkpoints([tmp_path / "step_0.pt"], original.config, "run", tmp_path))["doubts"] == []


@pytest.mark.parametrize("value", ["0.1", None, [], math.nan, True, torch.zeros(2)], ids=str)
def test_stored_values_that_are_not_losses_are_ignored(value: Any, original: Trajectory, tmp_path: Path):
    run = import_last(original, tmp_path, {"train_loss": value, "test_losses": value})
    assert not [note for note in event_of(run)["notes"] if "The losses in the file" in note]


def test_optimizer_settings_in_the_file_replace_the_configs(original: Trajectory, tmp_path: Path):
    group = {"lr": 2e-4, "initial_lr": 1e-3, "weight_decay": 0.25, "betas": (0.8, 0.9), "params": [0]}
    content = {"optimizer": {"state": {}, "param_groups": [group]}, "config": {"weight_decay": 1, "fn_name": "add"}}
    run = import_last(original, tmp_path, content)
    optimizer, event = run.config.optimizer, event_of(run)
    assert (optimizer.lr, optimizer.weight_decay, optimizer.betas) == (1e-3, 0.25, (0.8, 0.9))
    assert "optimizer.weight_decay is 0.25 in the file, not" in " ".join(event["notes"])
    assert "The file's config says weight_decay 1, but its optimizer 0.25." in event["notes"]
    assert event["found"]["config of the file: fn_name"] == "add"
    with pytest.raises(GrokscopeError, match=r"optimizer\.lr: .* was given, but the file has 0\.001"):
        import_checkpoints([tmp_path / "step_60.pt"], original.config, "other", tmp_path, given={"optimizer.lr"})
