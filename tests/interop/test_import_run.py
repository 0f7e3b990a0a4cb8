"""Import: checkpoints of other programs become a run that every reader of runs can read."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from einops import rearrange
from support.shared import Command, command_line, damage_of, flip, place
from torch import Tensor

from grokscope import Trajectory, measures, phases, training
from grokscope.config import RunConfig
from grokscope.errors import GrokscopeError
from grokscope.interop.import_run import import_checkpoints
from grokscope.store.run_store import Record, RunStore
from grokscope.training.fork import fork

# The tiny run memorizes without generalising, so its loss over all equations is above chance.
pytestmark = pytest.mark.filterwarnings("ignore:.*above chance")
SPLIT = "grokscope:0"
"""The split of the tiny run."""


@pytest.fixture
def original(tiny_run: Path) -> Trajectory:
    return Trajectory.open(tiny_run)


def parameters_of(trajectory: Trajectory) -> dict[int, dict[str, Tensor]]:
    return {snapshot.step: snapshot.parameters for snapshot in trajectory}


def same(imported: Trajectory, original: Trajectory) -> bool:
    """Return whether two trajectories have the same checkpoints at the same steps, bit for bit."""
    return imported.steps.tolist() == original.steps.tolist() and all(
        a.parameters[name].numpy().tobytes() == b.parameters[name].numpy().tobytes()
        for a, b in zip(imported, original, strict=True)
        for name in a.parameters
    )


def as_demo(trajectory: Trajectory, path: Path) -> Path:
    """Save a trajectory as TransformerLens' Grokking_Demo does, with its config object and buffers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hooked = trajectory.last.model
        content = {
            "model": hooked.state_dict(),
            "config": hooked.cfg,
            "checkpoints": [snapshot.model.state_dict() for snapshot in trajectory],
            "checkpoint_epochs": [int(step) - 1 for step in trajectory.steps],
            "test_losses": [1.0, 2.0],
            "train_losses": [np.float64(1.0)],
            "train_indices": trajectory.split.train[torch.randperm(len(trajectory.split.train))],
            "test_indices": trajectory.split.test,
        }
    torch.save(content, path)
    return path


def as_nanda(parameters: dict[str, Tensor], n_columns: int) -> dict[str, Tensor]:
    """Return parameters in the names and shapes of the code of Nanda et al. 2023, with a column for each token."""
    state_dict = {"blocks.0.attn.mask": torch.ones(3, 3).tril()}
    for name, value in parameters.items():
        leaf = name.split(".")[-1]
        if leaf in ("W_E", "W_in", "W_out"):
            state_dict[name] = value.T.contiguous()
        elif leaf in ("W_Q", "W_K", "W_V"):
            state_dict[name] = rearrange(value, "head d_model d_head -> head d_head d_model").contiguous()
        elif leaf == "W_O":
            state_dict[name] = rearrange(value, "head d_head d_model -> d_model (head d_head)").contiguous()
        elif name == "unembed.W_U":
            state_dict[name] = torch.cat([value, torch.full((len(value), n_columns - value.shape[1]), 7.0)], 1)
        elif leaf in ("W_pos", "b_in", "b_out"):
            state_dict[name] = value
    return state_dict


def test_demo_file_becomes_a_run_with_split_and_log(original: Trajectory, tmp_path: Path):
    path = as_demo(original[1:], tmp_path / "grokking_demo.pth")
    other_split = RunConfig(**{**vars(original.config), "split_seed": 5})
    imported = import_checkpoints([path], other_split, "demo", tmp_path)
    assert same(imported, original[1:]) and torch.equal(imported.split.train, original.split.train)
    assert torch.equal(imported.split.test, original.split.test)
    assert imported.config.n_steps == 60 and (imported.gaps, imported.damaged) == ([], [])
    assert damage_of(RunStore(tmp_path / "demo")) == []
    for name, array in imported.log.arrays.items():
        np.testing.assert_allclose(array, original.log[name][1:], rtol=1e-5)
    assert phases.memorization_step(imported.log) == phases.memorization_step(original.log)
    assert measures.saved("weight_norm", imported)["weight_norm"].shape == (6,)
    event = Record.read(tmp_path / "demo").imported
    assert event is not None and event["files"][0]["name"] == "grokking_demo.pth"


def test_nanda_checkpoints_are_rearranged(original: Trajectory, tmp_path: Path):
    state_dicts = [as_nanda(parameters, 8) for parameters in parameters_of(original[1:]).values()]
    path = tmp_path / "full_run.pth"
    torch.save({"state_dicts": state_dicts, "epochs": list(range(9, 60, 10)), "train_losses": [0.5]}, path)
    complete = import_checkpoints([path], original.config, "complete", tmp_path)
    assert complete.config.model.d_vocab_out == 8 and bool((complete.last.parameters["unembed.W_U"][:, 7] == 7).all())
    imported = import_checkpoints([path], original.config, "nanda", tmp_path, answers_only=True, split=SPLIT)
    frozen = [name for name in original.model.shapes if name not in original.model.trained]
    assert all(not original.last.parameters[name].any() for name in frozen), "so the zeros are right"
    assert same(imported, original[1:])
    np.testing.assert_allclose(imported.log["test_loss"], original.log["test_loss"][1:], rtol=1e-5)


def one_by_one(trajectory: Trajectory, folder: Path, save: Callable[[Any, Path], None], name: str) -> list[Path]:
    paths = []
    for step, parameters in parameters_of(trajectory).items():
        paths.append(folder / name.format(step))
        save(parameters, paths[-1])
    return paths


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("p113-step{}.safetensors", lambda state, path: safetensors.torch.save_file(state, path)),
        ("ckpt_{:06d}.pt", torch.save),
        ("model_iter{}.pth", lambda state, path: torch.save({"model": state, "loss": 0.5}, path)),
        ("a{}.pt", lambda state, path: torch.save({"state_dict": state, "step": int(path.stem[1:])}, path)),
        (
            "Step {} of 60.pt",
            lambda state, path: torch.save({n: torch.nn.Parameter(t) for n, t in state.items()}, path),
        ),
    ],
    ids=["safetensors", "state dict", "model", "with step", "Parameter"],
)
def test_file_per_step_has_step_in_name_or_inside(
    name: str, save: Callable[[Any, Path], None], original: Trajectory, tmp_path: Path
):
    paths = one_by_one(original, tmp_path, save, name)
    imported = import_checkpoints(paths[::-1], original.config, "run", tmp_path, split=SPLIT)
    assert same(imported, original) and imported.initialization is not None
    assert torch.equal(imported.split.train, original.split.train)
    assert imported.digest == original.digest


def test_given_steps_override_file_names(original: Trajectory, tmp_path: Path):
    paths = one_by_one(original, tmp_path, torch.save, "x{}.pt")
    imported = import_checkpoints(paths, original.config, "run", tmp_path, steps=[100 * i for i in range(7)])
    assert imported.steps.tolist() == [0, 100, 200, 300, 400, 500, 600] and imported.config.n_steps == 600
    for wrong in ([1, 2], [-1] * 7, [1] * 7, [2**70] * 7):
        with pytest.raises(GrokscopeError, match="[Ss]tep"):
            import_checkpoints(paths, original.config, "other", tmp_path, steps=wrong)


@pytest.mark.parametrize("steps", [torch.tensor([3, 7]), (3, 7), [3, 7]], ids=["tensor", "tuple", "list"])
def test_steps_of_a_list_are_read(steps: Any, original: Trajectory, tmp_path: Path):
    path = tmp_path / "all.pt"
    torch.save({"state_dicts": [original.at(step).parameters for step in (0, 10)], "steps": steps}, path)
    imported = import_checkpoints([path], original.config, "run", tmp_path)
    assert imported.steps.tolist() == [3, 7]


def changed(name: str, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda state: {**state, name: value}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: {n: t for n, t in state.items() if "mlp.W" not in n},
            r"W_in is missing\n.*W_out is missing\Z",
        ),
        (changed("x.W", torch.zeros(2)), r"step 60: x\.W is unknown"),
        (changed("a\x1b[31m\n\u202e", torch.zeros(2)), r"'a\\x1b\[31m\\n\\u202e' is unknown"),
        (changed("embed.W_E", torch.zeros(3, 3)), r"W_E has shape \(3, 3\); allowed: \(8, 16\)"),
        (
            changed("embed.W_E", torch.zeros(8, 16, dtype=torch.complex64)),
            r"contains 'torch\.ComplexFloatStorage'; nothing in it was run",
        ),
        (changed("embed.W_E", torch.zeros(8, 16, dtype=torch.int64)), r"W_E is of type int64"),
        (changed("embed.W_E", torch.full((8, 16), torch.nan)), r"W_E is not finite at step 60"),
        (lambda state: {}, r"contains \[\], and no state dict\."),
        (lambda state: {"state_dicts": []}, r"not a list of state dicts"),
        (
            lambda state: {"state_dicts": [state], "steps": [1, 2]},
            r"'steps' .* for each state dict, of which there is 1\.",
        ),
        (lambda state: {"state_dicts": [state], "steps": ["1"]}, r"whole number"),
        (lambda state: {"model": state, "train_indices": torch.tensor([0, 0])}, r"train_indices"),
        (lambda state: {"model": state, "train_indices": torch.tensor([99])}, r"train_indices"),
        (lambda state: {"model": state, "train_indices": [1.0, 2.0]}, r"train_indices"),
        (lambda state: [state], r"contains a list"),
        (lambda state: {"model": {1: torch.zeros(1)}}, r"contains 1\. Allowed: the names of TransformerLens"),
    ],
    ids=[
        *("missing", "unknown", "unprintable", "shape", "complex", "int64", "nan", "empty", "no list"),
        *("steps", "text", "repeated index", "large index", "numbers as indices", "list", "number as name"),
    ],
)
def test_wrong_checkpoint_is_refused_and_leaves_nothing(
    change: Callable[[Any], Any], message: str, original: Trajectory, tmp_path: Path
):
    path = tmp_path / "step60.pt"
    torch.save(change(dict(original.last.parameters)), path)
    with pytest.raises(GrokscopeError, match=message):
        import_checkpoints([path], original.config, "run", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_float64_is_kept_and_lower_precision_converted(original: Trajectory, tmp_path: Path):
    for dtype, imported_dtype in (
        (torch.float64, torch.float64),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
    ):
        path = tmp_path / f"{str(dtype).split('.')[1]}-step60.pt"
        torch.save({name: value.to(dtype) for name, value in original.last.parameters.items()}, path)
        imported = import_checkpoints([path], original.config, path.stem, tmp_path)
        assert imported.last.parameters["embed.W_E"].dtype == imported_dtype
        expected = original.last.parameters["embed.W_E"].to(dtype).to(imported_dtype)
        assert torch.equal(imported.last.parameters["embed.W_E"], expected)
        assert damage_of(RunStore(tmp_path / path.stem)) == []


def test_unknown_or_repeated_step_and_taken_name_are_refused(original: Trajectory, tmp_path: Path):
    for name in ("last.pt", "a_step10.pt", "b_step10.pt"):
        torch.save(original.last.parameters, tmp_path / name)
    for names, message in (
        (["last.pt"], "does not tell the step"),
        (["a_step10.pt", "b_step10.pt"], "Step 10 occurs twice"),
        ([], "no file to import"),
    ):
        with pytest.raises(GrokscopeError, match=message):
            import_checkpoints([tmp_path / name for name in names], original.config, "run", tmp_path)
    (tmp_path / "run").mkdir()
    with pytest.raises(GrokscopeError, match="already exists"):
        import_checkpoints([tmp_path / "a_step10.pt"], original.config, "run", tmp_path)


def test_lost_segment_of_an_imported_run_is_a_gap(
    original: Trajectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("grokscope.interop.import_run.SEGMENT_CHECKPOINTS", 2)
    paths = one_by_one(original, tmp_path, torch.save, "step{}.pt")
    import_checkpoints(paths, original.config, "run", tmp_path)
    (tmp_path / "run" / "segments" / "000002.safetensors").unlink()
    assert Trajectory.open(tmp_path / "run").gaps == [(11, 30)]


def test_imported_run_cannot_be_trained(original: Trajectory, tmp_path: Path):
    torch.save(original.last.parameters, tmp_path / "step60.pt")
    run = import_checkpoints([tmp_path / "step60.pt"], original.config, "run", tmp_path).path
    assert run is not None
    for train in (
        lambda: training.resume(run, 100),
        lambda: training.densify(run, 0, 10),
        lambda: fork(run, 60),
    ):
        with pytest.raises(GrokscopeError, match=f"^{run} was imported: it has checkpoints and no optimizer state"):
            train()


def test_command_imports_a_run_that_other_commands_read(
    original: Trajectory,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    toml: Any,
):
    grokscope: Command = command_line(capsys, monkeypatch, tmp_path / "here")
    paths = one_by_one(original, tmp_path, torch.save, "step{}.pt")
    (tmp_path / "tiny.toml").write_text(toml(original.config.to_dict()), encoding="utf-8")
    status, output, errors = grokscope(
        "import", *paths, "--preset", "../tiny.toml", "--run", "theirs", "--split", SPLIT
    )
    assert status == 0, errors
    assert output.startswith("imported 7 checkpoints, steps 0 to 60\n")
    assert "\nThe files do not name the activation function" in output and "\nmemorized at step " in output
    listed = grokscope("list", "runs")[1]
    assert listed.startswith("theirs ") and "imported, 7 checkpoints to step 60" in listed
    assert grokscope("verify", "theirs")[0] == 0 and grokscope("log", "theirs")[0] == 0
    assert grokscope("measure", "theirs", "loss")[0] == 0
    shutil.copytree("checkpoints/theirs", "checkpoints/harmed")
    path = Path("checkpoints/harmed/segments/000001.safetensors")
    flip(path, 8 * place(path, "checkpoints/embed.W_E")[0])
    status, output, errors = grokscope("verify", "harmed")
    assert status == 1 and "step 0, embed.W_E" in output
    assert "import its files again" in errors and "densify" not in errors
    for arguments in (["resume", "theirs"], ["fork", "theirs", "--step", "60"]):
        status, output, errors = grokscope(*arguments)
        assert (status, output) == (1, "") and "was imported" in errors
    flags = ["--task.p", "7", "--model.d-model", "16", "--model.n-heads", "2", "--model.act-fn", "relu"]
    assert grokscope("import", paths[0], *flags, "--steps", "7", "--run", "flags")[0] == 0
    status, _, errors = grokscope("import", paths[0], "--run", "wrong")
    assert status == 1 and "The files do not name the activation function. Add --model.act-fn … as in" in errors
    assert grokscope("import", paths[0], "--run", "read", "--model.act-fn", "relu")[0] == 0
    assert Trajectory.open("checkpoints/read").config.task.p == 7
    status, _, errors = grokscope("import", paths[0], "--run", "wrong", "--preset", "quick")
    assert status == 1 and "step 0: embed.W_E has shape (8, 16); allowed: (60, 16)" in errors
    status, _, errors = grokscope("import", paths[0], "--preset", "quik")
    assert status == 2 and "Did you mean 'quick'" in errors
    assert "no file to import" in grokscope("import")[2]
