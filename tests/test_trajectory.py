"""Trajectories: the public interface to a run's checkpoints, from disk and from memory."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from grokscope import Trajectory, measures, rng, tasks, training
from grokscope.config import ModelConfig, RunConfig
from grokscope.disk import tensor_file
from grokscope.errors import GrokscopeError

STEPS = [0, 10, 20, 30, 40, 50, 60]


@pytest.fixture
def trajectory(tiny_run: Path) -> Trajectory:
    return Trajectory.open(tiny_run)


def state_dicts(trajectory: Trajectory) -> dict[int, dict[str, torch.Tensor]]:
    """Return every snapshot as the state dict of a HookedTransformer, buffers included."""
    return {snapshot.step: snapshot.model.state_dict() for snapshot in trajectory}


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Return whether two sets of parameters have the same names, dtypes and bytes."""
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and first[name].numpy().tobytes() == second[name].numpy().tobytes()
        for name in first
    )


def test_steps_are_the_committed_checkpoints(trajectory: Trajectory):
    assert isinstance(trajectory.steps, np.ndarray) and np.issubdtype(trajectory.steps.dtype, np.integer)
    assert trajectory.steps.tolist() == STEPS and len(trajectory) == len(STEPS)
    assert [snapshot.step for snapshot in trajectory] == STEPS


def test_snapshot_is_accessed_by_step_and_by_position(trajectory: Trajectory):
    assert equal(trajectory.at(30).parameters, trajectory[3].parameters)
    assert equal(trajectory.at(30).parameters, trajectory[-4].parameters)
    assert equal(trajectory.at(trajectory.steps[3]).parameters, trajectory[3].parameters)
    assert trajectory.first.step == 0 and trajectory.last.step == 60
    assert equal(trajectory.first.parameters, trajectory[0].parameters)
    assert equal(trajectory.last.parameters, trajectory[-1].parameters)
    assert not equal(trajectory.first.parameters, trajectory.last.parameters)
    with pytest.raises(IndexError):
        trajectory[7]


@pytest.mark.parametrize(("step", "nearest"), [(33, "30 and 40"), (61, "60"), (-1, "0")])
def test_step_without_checkpoint_is_refused_with_neighbours(trajectory: Trajectory, step: int, nearest: str):
    with pytest.raises(GrokscopeError, match=rf"no checkpoint at step {step}; the nearest: {nearest}\."):
        trajectory.at(step)


@pytest.mark.parametrize("which", [slice(2, 5), slice(None), slice(-2, None), slice(None, None, 3)])
def test_slice_is_a_trajectory_of_those_steps(trajectory: Trajectory, which: slice):
    part = trajectory[which]
    assert part.steps.tolist() == STEPS[which]
    assert equal(part.last.parameters, trajectory.at(STEPS[which][-1]).parameters)
    assert part.config == trajectory.config and torch.equal(part.split.train, trajectory.split.train)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6, 7, 8, 100])
def test_thin_keeps_first_and_last_step(trajectory: Trajectory, n: int):
    kept = trajectory.thin(n).steps.tolist()
    assert len(kept) == min(n, len(STEPS)) and kept == sorted(set(kept)) and set(kept) <= set(STEPS)
    assert kept[-1] == 60 and (n == 1 or kept[0] == 0)


def test_thinning_to_nothing_is_refused(trajectory: Trajectory):
    with pytest.raises(GrokscopeError, match="from 1"):
        trajectory.thin(0)


def test_select_takes_steps_in_any_order_once(trajectory: Trajectory):
    assert trajectory.select([50, 0, 50]).steps.tolist() == [0, 50]
    assert trajectory.select(trajectory.steps[::2]).steps.tolist() == STEPS[::2]
    assert trajectory.select(step for step in (10, 20)).steps.tolist() == [10, 20]


@pytest.mark.parametrize(("steps", "reason"), [([0, 5, 15], "5, 15"), ([], "No step")])
def test_select_refuses_missing_steps_by_name(trajectory: Trajectory, steps: list[int], reason: str):
    with pytest.raises(GrokscopeError, match=reason):
        trajectory.select(steps)


def test_part_of_a_trajectory_has_the_initialization(trajectory: Trajectory):
    part = trajectory.select([40, 60])
    assert part.initialization is not None
    assert equal(part.initialization, trajectory.at(0).parameters)
    with pytest.raises(GrokscopeError, match="no checkpoint at step 0"):
        part.at(0)


def test_parameter_is_the_snapshots_stacked(trajectory: Trajectory):
    part = trajectory.select([0, 20, 30, 60])
    for name, shape in trajectory.model.shapes.items():
        stacked = part.parameter(name)
        assert stacked.dtype == torch.float32 and tuple(stacked.shape) == (4, *shape)
        expected = torch.stack([snapshot.parameters[name] for snapshot in part])
        assert stacked.numpy().tobytes() == expected.numpy().tobytes()


def test_unknown_parameter_is_refused_with_a_suggestion(trajectory: Trajectory):
    with pytest.raises(GrokscopeError, match=r"Did you mean 'embed\.W_E'"):
        trajectory.parameter("embed.WE")


def test_changing_a_snapshot_does_not_change_the_trajectory(tiny_run: Path, trajectory: Trajectory):
    memory = Trajectory.from_state_dicts(trajectory.config, {s.step: s.parameters for s in trajectory})
    for each in (trajectory, memory):
        for tensor in (each.at(10).parameters["embed.W_E"], each.parameter("embed.W_E")):
            tensor.zero_()
        assert equal(each.at(10).parameters, Trajectory.open(tiny_run).at(10).parameters)


def test_split_and_task_are_those_of_the_config(trajectory: Trajectory):
    config = trajectory.config
    expected = tasks.draw_split(tasks.build(config.task), config.task.train_fraction, config.split_seed)
    assert torch.equal(trajectory.split.train, expected.train)
    assert torch.equal(trajectory.split.test, expected.test)
    together = torch.cat([trajectory.split.train, trajectory.split.test]).sort().values
    assert torch.equal(together, torch.arange(len(trajectory.task.inputs)))


@pytest.mark.parametrize(
    "architecture",
    [
        ModelConfig(d_model=16, n_heads=2, d_mlp=24),
        ModelConfig(d_model=12, n_heads=3, d_mlp=8, n_layers=2, act_fn="gelu", normalization_type="LN", biases="all"),
    ],
    ids=["nanda", "two layers"],
)
def test_snapshot_model_has_the_logits_of_the_pure_function(architecture: ModelConfig, tmp_path: Path):
    from transformer_lens import HookedTransformer

    config = RunConfig(
        task=dataclasses.replace(RunConfig().task, p=5, form="a ∘ b ="), model=architecture, n_steps=20
    )
    trajectory = training.train(config, "run", tmp_path)
    snapshot, tokens = trajectory.last, trajectory.task.inputs
    assert isinstance(snapshot.model, HookedTransformer)
    hooked, cache = snapshot.model.run_with_cache(tokens)
    assert "blocks.0.attn.hook_pattern" in cache
    torch.testing.assert_close(torch.as_tensor(hooked)[:, -1], trajectory.model.logits(snapshot.parameters, tokens))
    named = {name: tensor.detach() for name, tensor in snapshot.model.named_parameters()}
    assert equal(dict(sorted(named.items())), dict(sorted(snapshot.parameters.items())))


def test_digest_depends_on_config_steps_and_bits_only(trajectory: Trajectory, tmp_path: Path):
    again = training.train(trajectory.config, "again", tmp_path)
    assert again.digest == trajectory.digest
    assert trajectory.select(STEPS).digest == trajectory.digest
    assert trajectory.thin(3).digest != trajectory.digest

    parameters = {snapshot.step: snapshot.parameters for snapshot in trajectory}
    assert Trajectory.from_state_dicts(trajectory.config, parameters).digest == trajectory.digest
    other = dataclasses.replace(trajectory.config, init_seed=5)
    assert Trajectory.from_state_dicts(other, parameters).digest != trajectory.digest
    parameters[20]["embed.W_E"][0, 0] = -parameters[20]["embed.W_E"][0, 0]
    assert Trajectory.from_state_dicts(trajectory.config, parameters).digest != trajectory.digest


def test_hooked_state_dicts_make_the_same_trajectory(trajectory: Trajectory):
    content = state_dicts(trajectory)
    assert any(name.endswith(".attn.mask") for name in content[0])
    memory = Trajectory.from_state_dicts(trajectory.config, dict(reversed(content.items())))
    assert memory.steps.tolist() == STEPS
    assert all(equal(memory.at(step).parameters, trajectory.at(step).parameters) for step in STEPS)
    assert memory.digest == trajectory.digest
    assert (memory.path, memory.gaps, memory.damaged) == (None, [], [])
    for name in ("loss", "weight_norm"):
        series, expected = measures.evaluate(name, memory), measures.evaluate(name, trajectory)
        assert all(np.array_equal(series[key], expected[key]) for key in expected.keys())  # noqa: SIM118


def test_state_dicts_may_change_afterwards(trajectory: Trajectory):
    content = {0: {name: tensor.clone() for name, tensor in trajectory.first.parameters.items()}}
    memory = Trajectory.from_state_dicts(trajectory.config, content)
    for tensor in content[0].values():
        tensor.zero_()
    assert equal(memory.first.parameters, trajectory.first.parameters)


def test_float64_and_parameters_with_grad_are_accepted(trajectory: Trajectory):
    content = {7: {name: tensor.double().requires_grad_() for name, tensor in trajectory.last.parameters.items()}}
    memory = Trajectory.from_state_dicts(trajectory.config, content)
    assert all(tensor.dtype == torch.float64 for tensor in memory.at(7).parameters.values())
    assert memory.parameter("embed.W_E").dtype == torch.float64
    assert next(memory.last.model.parameters()).dtype == torch.float64
    assert measures.evaluate("loss", memory)["loss"][0] == pytest.approx(
        measures.evaluate("loss", trajectory)["loss"][-1], rel=1e-5
    )


def test_every_wrong_key_is_named_in_one_error(trajectory: Trajectory):
    content = {step: dict(trajectory.at(step).parameters) for step in (0, 10, 20)}
    del content[0]["embed.W_E"], content[0]["blocks.0.mlp.b_in"]
    content[10]["embed.W_X"] = torch.zeros(3)
    content[10]["blocks.7.attn.W_Q"] = torch.zeros(3)
    content[20]["unembed.W_U"] = content[20]["unembed.W_U"].T
    content[20]["pos_embed.W_pos"] = None  # pyright: ignore[reportArgumentType]
    content[-5] = {}
    with pytest.raises(GrokscopeError) as refusal:
        Trajectory.from_state_dicts(trajectory.config, content)
    heading, *lines = str(refusal.value).splitlines()
    expected = [
        r"step 0: embed\.W_E is missing",
        r"step 0: blocks\.0\.mlp\.b_in is missing",
        r"step 10: embed\.W_X is unknown",
        r"step 10: blocks\.7\.attn\.W_Q is unknown",
        r"step 20: unembed\.W_U has shape \(7, 16\); allowed: \(16, 7\)",
        r"step 20: pos_embed\.W_pos is not a tensor",
        r"step -5: allowed: a whole number from 0",
    ]
    assert len(lines) == len(expected)
    assert all(sum(bool(re.search(pattern, line)) for line in lines) == 1 for pattern in expected), lines


def test_empty_state_dicts_and_bad_config_are_refused(trajectory: Trajectory):
    with pytest.raises(GrokscopeError, match="no state dict"):
        Trajectory.from_state_dicts(trajectory.config, {})
    wrong = dataclasses.replace(trajectory.config, n_steps=-1)
    with pytest.raises(GrokscopeError, match="n_steps"):
        Trajectory.from_state_dicts(wrong, {0: trajectory.first.parameters})


def test_own_split_replaces_that_of_the_config(trajectory: Trajectory):
    train, test = torch.arange(0, 49, 2), torch.arange(1, 49, 2)
    content = {step: trajectory.at(step).parameters for step in (0, 60)}
    for split in (tasks.Split(train, test), (train, test)):
        memory = Trajectory.from_state_dicts(trajectory.config, content, split)
        assert torch.equal(memory.split.train, train) and torch.equal(memory[1:].split.test, test)
        series = measures.evaluate("loss", memory)
        assert not np.array_equal(series["train_loss"], measures.evaluate("loss", trajectory[::6])["train_loss"])
        assert np.array_equal(series["loss"], measures.evaluate("loss", trajectory[::6])["loss"])


@pytest.mark.parametrize(
    "split",
    [([0, 49], [1]), ([-1], [1]), ([], [1]), ([0, 1], [1, 2]), ([0, 0], [1])],
    ids=["beyond", "below", "no train", "in both", "twice"],
)
def test_invalid_split_is_refused(trajectory: Trajectory, split: tuple[list[int], list[int]]):
    parts = (torch.tensor(split[0], dtype=torch.int64), torch.tensor(split[1], dtype=torch.int64))
    with pytest.raises(GrokscopeError, match="split"):
        Trajectory.from_state_dicts(trajectory.config, {0: trajectory.first.parameters}, parts)


def test_trajectory_in_memory_has_no_log(trajectory: Trajectory):
    memory = Trajectory.from_state_dicts(trajectory.config, {0: trajectory.first.parameters})
    with pytest.raises(GrokscopeError, match="loss"):
        _ = memory.log


def test_log_is_that_of_the_run_for_any_selected_steps(trajectory: Trajectory):
    assert trajectory.log.steps.tolist() == STEPS
    assert trajectory.log.keys() == ["train_loss", "test_loss", "train_accuracy", "test_accuracy", "gaps"]
    assert trajectory.thin(2).log.steps.tolist() == STEPS


@pytest.mark.usefixtures("short_segments")
def test_run_opens_while_it_trains_with_committed_steps(tiny_config: RunConfig, tmp_path: Path):
    opened: dict[int, Trajectory] = {}

    def look(step: int, row: dict[str, float]) -> None:
        opened[step] = Trajectory.open(tmp_path / "run")

    training.train(tiny_config, "run", tmp_path, observer=look)
    for step, trajectory in opened.items():
        # The last commit may still be on its way to the disk.
        committed = [t for t in STEPS if t <= step]
        assert trajectory.steps.tolist() in (committed, committed[:-1])
        assert trajectory.log.steps.tolist() == trajectory.steps.tolist()
        assert (trajectory.damaged, trajectory.gaps) == ([], [])
    last = opened[35].last
    assert equal(last.parameters, Trajectory.open(tmp_path / "run").at(last.step).parameters)


def test_run_whose_task_gives_other_examples_is_refused(
    run_copy: Path, monkeypatch: pytest.MonkeyPatch, permuted: Callable[..., Any]
):
    monkeypatch.setattr(rng, "permutation", permuted)
    with pytest.raises(GrokscopeError, match=f"{run_copy}.*'addition'.*other examples or another split"):
        Trajectory.open(run_copy)


def test_parameter_reads_each_segment_once(tiny_run: Path, monkeypatch: pytest.MonkeyPatch):
    trajectory, reads = Trajectory.open(tiny_run), []
    read_all = tensor_file.TensorFile.read_all

    def note(self: Any, *arguments: Any) -> Any:
        reads.append(self.path)
        return read_all(self, *arguments)

    monkeypatch.setattr(tensor_file.TensorFile, "read_all", note)
    trajectory.parameter("embed.W_E")
    assert len(reads) == len(set(reads)) < len(trajectory)
