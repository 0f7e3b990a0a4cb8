"""Export: the folder contains the checkpoint, and HookedTransformer alone computes the run's logits from it."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.plugin_tasks import register_task as register_task
from support.plugin_tasks import three_operands, two_tokens
from support.shared import command_line, make_tiny_config

from grokscope import tasks
from grokscope.config import ModelConfig, TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.interop import export
from grokscope.model import bridge, families
from grokscope.trajectory import Trajectory

LOADED = f"""
{export.LOADING_4 if bridge.is_needed() else export.LOADING}
import sys, torch
assert not any(name.startswith("grokscope") for name in sys.modules)
tokens = torch.tensor(json.loads(Path("inputs.json").read_text()))
Path("logits.json").write_text(json.dumps(model(tokens)[:, -1].tolist()))
"""
WARNINGS = () if bridge.is_needed() else ("-W", "error")
"""TransformerLens 4 itself warns while it is imported."""


@pytest.mark.slow
def test_documented_code_gives_the_logits_of_the_run(tiny_run, tmp_path):
    trajectory = Trajectory.open(tiny_run)
    for folder, step in zip(export.export(trajectory, [0, 60], tmp_path), (0, 60), strict=True):
        (folder / "inputs.json").write_text(json.dumps(trajectory.task.inputs.tolist()))
        process = subprocess.run([sys.executable, *WARNINGS, "-c", LOADED], cwd=folder, stderr=subprocess.PIPE)
        # Nor may a file stay open, which only prints a warning.
        assert (process.returncode, process.stderr) == (0, b"")
        logits = torch.tensor(json.loads((folder / "logits.json").read_text()))
        expected = trajectory.model.logits(trajectory.at(step).parameters, trajectory.task.inputs)
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(bridge.is_needed(), reason="TransformerLens 4 has no HookedTransformer")
@pytest.mark.parametrize("normalization_type", [None, "LN"])
def test_files_equal_the_checkpoint_and_load_strictly(normalization_type, tmp_path):
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    config = dataclasses.replace(
        make_tiny_config(),
        task=TaskConfig(name="composition", group="S3", form="a ∘ b ="),
        model=ModelConfig(d_model=8, n_heads=2, d_mlp=8, n_layers=2, normalization_type=normalization_type),
    )
    built = families.build(config.model, tasks.build(config.task))
    trajectory = Trajectory.from_state_dicts(config, {0: built.initialize(1), 7: built.initialize(2)})
    (folder,) = export.export(trajectory, [np.int64(7)], tmp_path / "new" / "place")
    assert folder.name == "step-7" and len(list(folder.parent.iterdir())) == 1
    state = load_file(folder / "model.safetensors")
    for name, tensor in trajectory.at(7).parameters.items():
        assert torch.equal(state[name], tensor)
    with pytest.warns(DeprecationWarning, match="HookedTransformer"):
        hooked = HookedTransformer(HookedTransformerConfig(**json.loads((folder / "config.json").read_text())))
    hooked.load_state_dict(state)
    without = bridge.state_dict(trajectory.model.hooked_transformer_arguments, trajectory.at(7).parameters)
    assert {name: tensor.dtype for name, tensor in without.items()} == {n: t.dtype for n, t in state.items()}
    assert all(torch.equal(without[name], tensor) for name, tensor in state.items())
    inputs = trajectory.task.inputs
    expected = built.logits(trajectory.at(7).parameters, inputs)
    torch.testing.assert_close(hooked(inputs)[:, -1], expected, atol=1e-5, rtol=1e-5)
    tokens = json.loads((folder / "tokens.json").read_text())
    elements = list(trajectory.task.group.elements)  # pyright: ignore[reportOptionalMemberAccess]
    assert tokens["tokens"] == [*elements, "=", "∘"] and tokens["answers"] == elements
    assert tokens["positions"] == ["a", "∘", "b", "="] and tokens["answer_position"] == 3
    assert [tokens["tokens"][i] for i in inputs[8].tolist()][1::2] == ["∘", "="]
    assert (tokens["step"], tokens["config_digest"]) == (7, config.digest)


@pytest.mark.parametrize(
    ("function", "positions", "answer_position"),
    [(three_operands, ["a", "b", "c", "="], 3), (two_tokens, ["a", "b"], 1)],
)
def test_positions_of_a_plugin_task_are_its_own(function, positions, answer_position, register_task, tmp_path):
    config = dataclasses.replace(
        make_tiny_config(), task=register_task(function), model=ModelConfig(d_model=8, n_heads=2, d_mlp=8)
    )
    built = families.build(config.model, tasks.build(config.task))
    (folder,) = export.export(Trajectory.from_state_dicts(config, {0: built.initialize(0)}), [0], tmp_path)
    tokens = json.loads((folder / "tokens.json").read_text())
    assert tokens["positions"] == positions and tokens["answer_position"] == answer_position
    assert len(tokens["tokens"]) == built.d_vocab


def test_missing_step_or_existing_folder_writes_nothing(tiny_run, tmp_path):
    trajectory = Trajectory.open(tiny_run)
    with pytest.raises(GrokscopeError, match="no checkpoint at: 7"):
        export.export(trajectory, [0, 7], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "step-0").mkdir()
    (tmp_path / "step-0" / "mine").touch()
    with pytest.raises(GrokscopeError, match="exists already"):
        export.export(trajectory, [0], tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["step-0", "mine"]


def test_command_exports_last_step_and_prints_loading_code(run_copy, capsys, monkeypatch, tmp_path):
    run = command_line(capsys, monkeypatch, tmp_path / "here")
    status, output, _ = run("export", run_copy)
    assert status == 0 and export.LOADING.splitlines()[-1] in output and "boot_native" in output
    assert {path.name for path in (run_copy / "export" / "step-60").iterdir()} == {
        "model.safetensors",
        "config.json",
        "tokens.json",
        "README.md",
    }
    status, output, _ = run("export", run_copy, "--step", 0, "--step", 10, "-o", "there")
    assert status == 0 and sorted(path.name for path in Path("there").iterdir()) == ["step-0", "step-10"]
    assert run("export", run_copy, "--step", 5)[0] == 1
