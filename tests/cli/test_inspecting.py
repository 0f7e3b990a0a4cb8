"""The commands `verify`, `log` and `list`."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from support.shared import Command, flip, place, refuse, truncate

from grokscope import Trajectory, plugins
from grokscope.store.run_store import RunStore


@pytest.mark.parametrize("command", ["verify", "measure", "log", "resume"])
def test_truncated_segment_is_named_by_every_command(command: str, run_copy: Path, grokscope: Command):
    path = run_copy / "segments" / "000003.safetensors"
    truncate(path)
    status, output, errors = grokscope(command, run_copy, *(["weight_norm"] if command == "measure" else []))
    assert str(path) in (output if command == "verify" else errors)
    assert status == (1 if command == "verify" else 0)


def test_run_without_readable_checkpoints_is_one_sentence(run_copy: Path, grokscope: Command):
    for path in (run_copy / "segments").iterdir():
        truncate(path)
    for command in ("measure", "report"):
        status, _, errors = grokscope(command, run_copy)
        assert status == 1 and "no readable checkpoint" in errors


def test_verify_names_segment_step_and_tensor(run_copy: Path, grokscope: Command):
    path = run_copy / "segments" / "000002.safetensors"
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[:8], "little")
    data[8 + size + json.loads(data[8 : 8 + size])["checkpoints/embed.W_E"]["data_offsets"][0]] ^= 1
    path.write_bytes(data)
    status, output, errors = grokscope("verify", run_copy)
    assert status == 1 and errors.startswith("grokscope: ")
    assert re.fullmatch(r"000002\.safetensors: step 10, embed\.W_E does not match its checksum\n", output)


def run_verify(grokscope: Command, run: Path) -> tuple[int, str, str]:
    """Return the status, output and errors of `verify`."""
    status, output, errors = grokscope("verify", run)
    assert "remove" not in output + errors
    return status, output, errors


def test_advice_for_a_damaged_checkpoint_recovers_it(run_copy: Path, grokscope: Command):
    path = run_copy / "segments" / "000003.safetensors"
    flip(path, 8 * place(path, "checkpoints/embed.W_E")[0])
    step = RunStore(run_copy).segments[2].steps[0]
    status, _, errors = run_verify(grokscope, run_copy)
    command = f"grokscope densify {run_copy} --start {step} --stop {step}"
    assert status == 1 and f"`{command}`" in errors
    status, output, _ = grokscope(*shlex.split(command)[1:])
    assert status == 0 and "1 checkpoint added, 7 in all" in output
    status, output, errors = run_verify(grokscope, run_copy)
    assert (status, errors) == (0, "") and f"step {step}, embed.W_E" in output and "has an undamaged copy" in output


def test_advice_for_a_lost_segment_recovers_checkpoints(run_copy: Path, grokscope: Command):
    path = run_copy / "segments" / "000003.safetensors"
    segment = next(segment for segment in RunStore(run_copy).segments if segment.path == path)
    steps, (begin, end) = segment.steps, segment.coverage or (0, 0)
    truncate(path)
    status, _, errors = run_verify(grokscope, run_copy)
    every = " --every 10" if len(steps) > 1 else ""
    command = f"grokscope densify {run_copy} --start {steps[0]} --stop {steps[-1]}{every}"
    assert status == 1 and f"`{command}`" in errors and "moved out" not in errors
    assert grokscope(*shlex.split(command)[1:])[0] == 0
    status, _, errors = run_verify(grokscope, run_copy)
    assert status == 1 and "can be moved out of the run's folder" in errors and "densify" not in errors
    path.rename(run_copy.parent / path.name)
    status, output, errors = run_verify(grokscope, run_copy)
    assert (status, errors) == (0, "")
    assert f"steps {begin + 1} to {end}: " in output and "their log rows are lost" in output
    assert Trajectory.open(run_copy).steps.tolist() == list(range(0, 61, 10))


def test_run_without_segments_is_named_by_every_command(run_copy: Path, grokscope: Command):
    shutil.rmtree(run_copy / "segments")
    for make in (False, True):
        if make:
            (run_copy / "segments").mkdir()
        message = f"{run_copy / 'segments'} is {'empty' if make else 'missing'}"
        status, output, errors = run_verify(grokscope, run_copy)
        assert status == 1 and message in output and "Nothing is readable" in errors and "intact" not in output
        assert message in grokscope("list", "runs", "--root", run_copy.parent)[1]
        status, _, errors = grokscope("resume", run_copy)
        assert status == 1 and message in errors


def test_list_prints_every_kind(grokscope: Command, tmp_path: Path):
    powers = ["a2_ab_b2", "a2_ab_b2_a", "a2_b2", "a3_ab", "a3_ab2_b"]
    modular = ["addition", "division", "division_or_subtraction", "multiplication", "subtraction"]
    others = ["data", "digit_addition", "expression", "induction", "mixture", "parity"]
    for kind, names in {
        "tasks": sorted([*powers, *modular, *others, "aba", "composition", "conjugation", "table"]),
        "optimizers": ["adam", "adamw", "muon", "sgd"],
    }.items():
        status, output, errors = grokscope("list", kind)
        assert (status, [line.split()[0] for line in output.splitlines()], errors) == (0, names, "")
    status, output, _ = grokscope("list", "measures")
    listed = {line.split()[0] for line in output.splitlines()}
    assert status == 0 and {"embedding", "loss", "sharpness", "weight_norm"} <= listed
    assert re.search(r"^nanda2023 .*mod 113(.*\n)+power2022 (.*\n)+quick .*mod 59", grokscope("list", "presets")[1])
    assert grokscope("list", "runs") == (0, "There is no run in checkpoints.\n", "")


@pytest.mark.parametrize("kind", plugins.BUILT_IN)
def test_list_describes_every_built_in_name(kind: str, grokscope: Command):
    lines = [re.split(r"  +", line) for line in grokscope("list", kind)[1].splitlines()]
    assert {name for name, _ in lines} >= set(plugins.BUILT_IN[kind])
    assert all(len(description) > 10 and not description.endswith(".") for _, description in lines)


def test_list_names_a_task_of_another_package(grokscope: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plugins, "names", lambda kind: ["addition", "maximum"])
    assert re.search(r"^maximum +of another package$", grokscope("list", "tasks")[1], re.MULTILINE)


def test_damaged_run_is_listed_with_the_others(run_copy: Path, tiny_run: Path, grokscope: Command):
    (run_copy / "config.json").write_text("{")
    (run_copy.parent / "whole").symlink_to(tiny_run)
    status, output, _ = grokscope("list", "runs", "--root", run_copy.parent)
    lines = dict(line.split(maxsplit=1) for line in output.splitlines())
    assert status == 0 and "damaged" in lines["copy"] and "60 of 60 steps" in lines["whole"]


def test_unreadable_run_is_listed_with_the_others(
    run_copy: Path, tiny_run: Path, grokscope: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "root").mkdir()
    for name in ("closed", "whole"):
        (tmp_path / "root" / name).symlink_to(run_copy if name == "closed" else tiny_run)
    refuse(monkeypatch, tmp_path / "root" / "closed")
    status, output, _ = grokscope("list", "runs", "--root", tmp_path / "root")
    lines = dict(line.split(maxsplit=1) for line in output.splitlines())
    assert status == 0 and "Permission denied" in lines["closed"] and "60 of 60 steps" in lines["whole"]
