"""Sharded state dicts, folders of transformers and accelerate, .npz files, and what an import leaves out."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from grokscope import Trajectory
from grokscope.errors import GrokscopeError
from grokscope.interop import safe_load, sources
from grokscope.interop.formats import parse_content
from grokscope.interop.import_run import import_checkpoints
from grokscope.store.record import Record

pytestmark = pytest.mark.filterwarnings("ignore:.*above chance")


@pytest.fixture
def original(tiny_run: Path) -> Trajectory:
    return Trajectory.open(tiny_run)


def shards(original: Trajectory, folder: Path, n: int = 3) -> list[Path]:
    """Save the last checkpoint in several parts with an index, as the package transformers does."""
    folder.mkdir(exist_ok=True)
    names = list(original.last.parameters)
    paths, weight_map = [], {}
    for i in range(n):
        path = folder / f"model-{i + 1:05d}-of-{n:05d}.safetensors"
        part = {name: original.last.parameters[name].contiguous() for name in names[i::n]}
        safetensors.torch.save_file(part, path)
        weight_map |= dict.fromkeys(part, path.name)
        paths.append(path)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return paths


def test_shards_index_and_folder_are_the_same_source(original: Trajectory, tmp_path: Path):
    folder = tmp_path / "checkpoint-500"
    paths = shards(original, folder)
    for given in (paths, [paths[1]], [folder / "model.safetensors.index.json"], [folder]):
        (source,) = sources.find(given)
        assert source.parts == tuple(paths)
        content = source.read()
        assert all(torch.equal(content[name], value) for name, value in original.last.parameters.items())
    run = import_checkpoints([folder], original.config, "run", tmp_path)
    assert run.steps.tolist() == [500], "the folder's name has the step"
    assert run.path is not None and len((Record.read(run.path).imported or {})["files"]) == 3


def test_missing_shard_is_named(original: Trajectory, tmp_path: Path):
    paths = shards(original, tmp_path / "x")
    paths[2].unlink()
    with pytest.raises(GrokscopeError, match=r"3 parts, of which 1 are missing, such as model-00003-of-00003"):
        sources.find([paths[0]])
    (tmp_path / "bad.index.json").write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}))
    with pytest.raises(GrokscopeError, match="names files outside its folder"):
        sources.find([tmp_path / "bad.index.json"])
    with pytest.raises(GrokscopeError, match="is a folder without model.safetensors, pytorch_model.bin"):
        sources.find([tmp_path])


def test_trainer_state_beside_the_weights_has_the_step(original: Trajectory, tmp_path: Path):
    folder = tmp_path / "last"
    folder.mkdir()
    safetensors.torch.save_file(
        {name: value.contiguous() for name, value in original.last.parameters.items()}, folder / "model.safetensors"
    )
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 60, "epoch": 2.0}))
    assert import_checkpoints([folder], original.config, "run", tmp_path).steps.tolist() == [60]


def test_numbered_folder_of_accelerate_is_not_a_step(original: Trajectory, tmp_path: Path):
    folder = tmp_path / "checkpoint_3"
    folder.mkdir()
    path = folder / "pytorch_model.bin"
    torch.save(original.last.parameters, path)
    (folder / "random_states_0.pkl").write_bytes(b"")
    with pytest.raises(GrokscopeError, match="does not tell the step"):
        import_checkpoints([folder], original.config, "run", tmp_path)
    optimizer = {"state": {0: {"step": torch.tensor(60.0)}}, "param_groups": [{"lr": 1e-3}]}
    torch.save(optimizer, folder / "optimizer.bin")
    assert import_checkpoints([folder], original.config, "run", tmp_path).steps.tolist() == [60]


def test_npz_gives_the_same_parameters(original: Trajectory, tmp_path: Path):
    path = tmp_path / "weights.npz"
    arrays = {name: value.numpy() for name, value in original.last.parameters.items()}
    np.savez(path, **arrays, step=np.array(60))  # pyright: ignore[reportArgumentType]
    run = import_checkpoints([path], original.config, "run", tmp_path)
    assert run.steps.tolist() == [60]
    assert all(np.array_equal(run.last.parameters[name], value) for name, value in arrays.items())


def test_npz_with_objects_is_refused(tmp_path: Path):
    np.savez(tmp_path / "x.npz", a=np.array([{}, 1], object))
    with pytest.raises(GrokscopeError, match=r"x\.npz is not a readable \.npz file of numbers"):
        safe_load.read(tmp_path / "x.npz")


def test_damaged_files_are_left_out_only_if_allowed(original: Trajectory, tmp_path: Path):
    paths = []
    for step in (10, 20, 30):
        paths.append(tmp_path / f"step_{step}.pt")
        torch.save(original.at(step).parameters, paths[-1])
    paths[0].write_bytes(paths[0].read_bytes()[:-2000])
    broken = {**original.at(20).parameters, "embed.W_E": torch.full((8, 16), torch.nan)}
    torch.save(broken, paths[1])
    with pytest.raises(GrokscopeError, match=r"step_10\.pt is"):
        import_checkpoints(paths, original.config, "run", tmp_path)
    assert not (tmp_path / "run").exists()
    run = import_checkpoints(paths, original.config, "run", tmp_path, skip_damaged=True)
    assert run.steps.tolist() == [30] and run.path is not None
    notes = " ".join((Record.read(run.path).imported or {})["notes"])
    assert "step_10.pt was left out: " in notes and "Step 20 was left out: embed.W_E is not finite" in notes
    with pytest.raises(GrokscopeError, match="No checkpoint can be read, so there is nothing to import"):
        import_checkpoints(paths[:2], original.config, "other", tmp_path, skip_damaged=True)


def test_equal_weights_under_different_steps_are_doubted(original: Trajectory, tmp_path: Path):
    for step in (50, 60, 70):
        torch.save(original.at(min(step, 60)).parameters, tmp_path / f"step_{step}.pt")
    with pytest.warns(UserWarning, match="Steps 60 and 70 have equal weights"):
        import_checkpoints(sorted(tmp_path.glob("*.pt")), original.config, "run", tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_stated_with_its_cost(dtype: torch.dtype, original: Trajectory, tmp_path: Path):
    path = tmp_path / "step_60.pt"
    torch.save({name: value.to(dtype) for name, value in original.last.parameters.items()}, path)
    run = import_checkpoints([path], original.config, "run", tmp_path)
    assert run.path is not None
    notes = " ".join((Record.read(run.path).imported or {})["notes"])
    expected = {torch.float16: "11 significant bits", torch.bfloat16: "8 significant bits"}[dtype]
    assert expected in notes
    stated = float(notes.split("trained weight by ")[1].split()[0])
    weights, ours = original.last.parameters["embed.W_E"], run.last.parameters["embed.W_E"]
    assert float(((weights - ours).abs() / weights.abs()).max()) <= stated * 1.01


@pytest.mark.parametrize(
    ("content", "n"),
    [
        ({"net_its": [3], "net": [{"a": torch.ones(2, 2)}], "steps": [3]}, 1),
        ({"history": {"step_0": {"a": torch.ones(2, 2)}, "step_5": {"a": torch.ones(2, 2)}}}, 2),
        ({0: {"a": torch.ones(2, 2)}, 5: {"a": torch.ones(2, 2)}, 7: {"a": torch.ones(2, 2)}}, 3),
        ({"epoch": 3, "global_step": 9, "state_dict": {"a": torch.ones(2, 2)}, "callbacks": {}}, 1),
        ({"agent": {"a": torch.ones(2, 2)}, "optimizer": {"state": {}}, "step": 3}, 1),
        ({"a": torch.ones(2, 2), "b": torch.ones(1), "step": torch.tensor(3)}, 1),
        ({"saved": [{"a": torch.ones(2, 2)}, {"a": torch.ones(2, 2)}], "saved_epochs": torch.tensor([1, 2])}, 2),
    ],
    ids=["list", "keys", "numbers", "Lightning", "other key", "flat", "epochs alongside"],
)
def test_state_dicts_are_located_by_their_content(content: object, n: int, tmp_path: Path):
    file = parse_content(content, tmp_path / "x.pt")
    assert len(file.state_dicts) == n and all("a" in state_dict for state_dict in file.state_dicts)
    assert len(file.readings) == n and all(reading.key for reading in file.readings)


def test_several_state_dicts_are_refused(tmp_path: Path):
    content = {"actor": {"a": torch.ones(2, 2)}, "critic": {"a": torch.ones(2, 2)}}
    with pytest.raises(GrokscopeError, match=r"several state dicts, as \['actor', 'critic'\]"):
        parse_content(content, tmp_path / "x.pt")
