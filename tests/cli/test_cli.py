"""The command line: what it prints, what it leaves on the disk, and that every mistake ends in one clear message."""

import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.shared import Command, command_line, flip, place, refuse, truncate

from grokscope import Trajectory, cli
from grokscope.config import OptimizerConfig, RunConfig, presets
from grokscope.disk.lock import Lock
from grokscope.series import Series
from grokscope.store.run_store import Record, RunStore
from grokscope.training import run as training_run


@pytest.fixture
def grokscope(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """The function that runs one command here, in an empty folder; it returns status, output and errors."""
    return command_line(capsys, monkeypatch, tmp_path / "here")


@pytest.fixture
def tiny_toml(tiny_config: RunConfig, tmp_path: Path, toml: Callable[[dict[str, Any]], str]) -> Path:
    """The tiny config as a file."""
    path = tmp_path / "tiny.toml"
    path.write_text(toml(tiny_config.to_dict()), encoding="utf-8")
    return path


class Asked(Exception):
    """What `train` was asked for, instead of a training."""


@pytest.fixture
def asked(grokscope: Command, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[RunConfig, str, Path]]:
    """The function that returns the config, the name and the root with which a command line would train."""

    def refuse(config: RunConfig, name: str, root: Path, observer: Any) -> None:
        raise Asked(config, name, root)

    def ask(*arguments: Any) -> tuple[RunConfig, str, Path]:
        with monkeypatch.context() as patch, pytest.raises(Asked) as answer:
            patch.setattr(training_run, "train", refuse)
            grokscope("train", *arguments)
        return answer.value.args

    return ask


def test_a_run_from_its_training_to_its_report(
    grokscope: Command, tiny_toml: Path, tiny_run: Path, tiny_config: RunConfig, tmp_path: Path
):
    root = tmp_path / "runs"
    status, output, errors = grokscope("train", tiny_toml, "--root", root, "--n-steps", 40)
    assert status == 0
    run = root / "tiny"
    for part in (str(run), "a + b mod 7", "29 of 49 equations", "5 fixed checkpoints", "40 steps", "MB on disk"):
        assert part in output
    assert f"grokscope report {run}" in output
    assert re.search(r"step 40/40 .*loss .*train .*test .*accuracy .*steps/s .*memoriz", errors)
    assert Record.read(run).config == dataclasses.replace(tiny_config, n_steps=40)

    status, output, _ = grokscope("resume", "tiny", "--root", root)
    assert (status, "finished" in output) == (0, True)
    status, output, _ = grokscope("resume", run, "--n-steps", 60)
    assert status == 0 and "from step 40 of 60" in output
    assert Trajectory.open(run).digest == Trajectory.open(tiny_run).digest

    status, output, _ = grokscope("densify", run, "--start", 12, "--stop", 18, "--every", 2)
    assert (status, output) == (0, f"{run}: 4 checkpoints added, 11 in all.\n")

    status, output, _ = grokscope("log", run)
    rows = [json.loads(line) for line in output.splitlines()]
    log = Trajectory.open(run).log
    assert status == 0 and [row["step"] for row in rows] == list(range(0, 61, 10))
    for name in ("train_loss", "test_loss", "train_accuracy", "test_accuracy"):
        assert [row[name] for row in rows] == log[name].tolist()
    assert all(set(row) == {"step", *log.arrays} for row in rows)

    status, output, _ = grokscope("measure", run, "weight_norm", "loss", "--thin", 3)
    assert status == 0 and (run / "measures" / "loss.safetensors").exists()
    assert not (run / "measures" / "embedding.safetensors").exists()

    status, output, _ = grokscope("list", "runs", "--root", root)
    assert status == 0 and re.search(r"^tiny .*addition mod 7, 60 of 60 steps, 11 checkpoints", output)

    status, output, _ = grokscope("report", run)
    assert status == 0 and str(run / "report.html") in output and not (run / "figures").exists()
    assert (run / "report.html").read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")

    status, output, _ = grokscope("verify", run)
    assert (status, output) == (0, f"{run}: 11 checkpoints in {len(RunStore(run).segments)} segments, all intact.\n")


def test_every_field_of_the_config_is_a_flag(asked: Callable, tiny_toml: Path, tiny_config: RunConfig):
    config, name, root = asked(
        *(tiny_toml, "--batch-size", "none", "--optimizer.lr", "3e-3", "--optimizer.betas", "0.5", "0.75"),
        *("--model.n_layers", 2, "--model.normalization-type", "LN", "--task.form", "a ∘ b =", "--run", "mine"),
    )
    expected = dataclasses.replace(
        tiny_config,
        optimizer=dataclasses.replace(tiny_config.optimizer, lr=3e-3, betas=(0.5, 0.75)),
        model=dataclasses.replace(tiny_config.model, n_layers=2, normalization_type="LN"),
        task=dataclasses.replace(tiny_config.task, form="a ∘ b ="),
    )
    assert (config, name, root) == (expected, "mine", Path("checkpoints"))


@pytest.mark.parametrize(
    "spelled", [["--batch-size", "none"], ["--batch-size=none"], ["--batch_size", "None"]], ids=str
)
def test_none_is_spelled_as_in_toml(spelled: list[str], asked: Callable, toml: Callable, tmp_path: Path):
    path = tmp_path / "small.toml"
    path.write_text(toml({"preset": "quick", "batch_size": 50}))
    assert asked(path)[0].batch_size == 50
    assert asked(path, *spelled)[0].batch_size is None


def test_none_on_the_command_line_undoes_what_the_file_says(asked: Callable, toml: Callable, tmp_path: Path):
    path = tmp_path / "filtered.toml"
    values = {"optimizer": {"gradient_filter": "grokfast_ma"}, "model": {"normalization_type": "LN", "biases": "all"}}
    path.write_text(toml(values))
    config = asked(path)[0]
    assert (config.optimizer.gradient_filter, config.model.normalization_type) == ("grokfast_ma", "LN")
    for flags in (
        ["--optimizer.gradient-filter", "none", "--model.normalization-type", "none"],
        ["--optimizer.gradient_filter=none", "--model.normalization_type=none"],
        ["--model.normalization-type", "None", "--optimizer.gradient-filter=None"],
    ):
        config = asked(path, *flags)[0]
        assert config.optimizer.gradient_filter is None and config.model.normalization_type is None
        assert config.model.biases == "all"
    assert asked(path, "--optimizer.gradient-filter", "orthogonal")[0].optimizer.gradient_filter == "orthogonal"


@pytest.mark.parametrize("spelled", [["--model.biases", "none"], ["--model.biases=none"]], ids=str)
def test_the_text_none_stays_a_text_where_it_is_one_of_the_choices(spelled: list[str], asked: Callable):
    assert asked("quick")[0].model.biases == "mlp"
    assert asked("quick", *spelled)[0].model.biases == "none"


@pytest.mark.parametrize("flag", ["--checkpoints", "--task.group", "--optimizer.decay-centre"])
def test_none_where_there_is_none_is_a_mistake(flag: str, grokscope: Command):
    status, _, errors = grokscope("train", "quick", flag, "none")
    assert status in (1, 2) and "none" in errors.lower()


def test_a_flag_replaces_what_cannot_be_used_in_the_file(
    asked: Callable, grokscope: Command, toml: Callable, tmp_path: Path
):
    path = tmp_path / "wrong.toml"
    path.write_text(toml({"preset": "quick", "checkpoints": "evry 10", "task": {"p": 12, "random_labels": 3}}))
    flags = ("--checkpoints", "every 50", "--task.p=13", "--task.no-random-labels")
    for arguments in ((path, *flags), (*flags, path)):
        config = asked(*arguments)[0]
        assert (config.checkpoints, config.task.p, config.task.random_labels) == ("every 50", 13, False)
        assert config.n_steps == presets.get("quick").n_steps
    status, _, errors = grokscope("train", path, *flags[:2])
    assert status == 1 and errors.startswith(f"grokscope: {path}: 2 settings cannot be used:")
    assert "evry" not in errors and "task.p: 12" in errors and "task.random_labels: 3" in errors
    path.write_text(toml({"preset": "quick", "run": "mine"}))
    status, _, errors = grokscope("train", path, "--run", "other")
    assert status == 1 and "'run'" in errors, "what is no setting is no flag's to replace"


def test_a_truth_value_is_a_flag(asked: Callable, toml: Callable, tmp_path: Path):
    assert asked("quick")[0].task.random_labels is False
    assert asked("quick", "--task.random-labels")[0].task.random_labels is True
    path = tmp_path / "random.toml"
    path.write_text(toml({"task": {"random_labels": True}}))
    assert asked(path)[0].task.random_labels is True
    assert asked(path, "--task.no-random-labels")[0].task.random_labels is False


def test_a_flag_may_say_what_the_file_says_already(asked: Callable, toml: Callable, tmp_path: Path):
    path = tmp_path / "random.toml"
    path.write_text(toml({"task": {"random_labels": True, "outliers": 3}}))
    assert asked(path, "--task.outliers", 3)[0].task.outliers == 3
    assert asked(path, "--task.random-labels")[0].task.random_labels is True


ROWS = "0 1 2\n1 2 0\n2 0 .\n"


@pytest.mark.parametrize("spelled", ["@rows.txt", "@../rows.txt", "@{}/rows.txt", ROWS, "0 1 2; 1 2 0; 2 0 ."])
def test_a_table_on_the_command_line_is_a_file_where_one_is_or_the_text_itself(
    spelled: str, asked: Callable, tmp_path: Path
):
    for folder in (tmp_path, tmp_path / "here"):
        (folder / "rows.txt").write_text(ROWS)
    flags = ("--task.name", "table", "--task.table", spelled.format(tmp_path))
    for source in (["quick", *flags], [*flags, "quick"]):
        config = asked(*source)[0]
        table = ROWS.strip() if spelled.startswith("@") else spelled
        usual = presets.get("quick")
        assert config == dataclasses.replace(usual, task=dataclasses.replace(usual.task, name="table", table=table))


def test_a_table_beside_the_toml_file_and_another_on_the_command_line(
    asked: Callable, toml: Callable, tmp_path: Path
):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "rows.txt").write_text(ROWS)
    (tmp_path / "here" / "rows.txt").write_text("1 0; 0 1")
    path = tmp_path / "deep" / "mine.toml"
    path.write_text(toml({"task": {"name": "table", "table": "@rows.txt"}}))
    assert asked(path)[0].task.table == asked("../deep/mine.toml")[0].task.table == ROWS.strip()
    # On the command line a path is meant from here, as every path there is.
    assert asked(path, "--task.table", "@rows.txt")[0].task.table == "1 0; 0 1"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("@none.txt", r"task\.table: none\.txt cannot be read: .*No such file"),
        ("@", r"task\.table: .*cannot be read: .*directory"),
        ("@latin.txt", r"task\.table: latin\.txt cannot be read: "),
        ("@wrong.txt", r"task\.table: row 1 has '7'; allowed: 0 to 1, or '\.'"),
        ("0 1; 1", r"task\.table: row 1 has 1 entries; allowed: 2"),
        ("rows.txt", r"task\.table: 1 rows; allowed: rows of numbers"),
        (". .; . .", r"task\."),
    ],
)
def test_a_table_that_cannot_be_had_is_one_sentence(table: str, said: str, grokscope: Command, tmp_path: Path):
    here = tmp_path / "here"
    (here / "latin.txt").write_bytes(b"\xe9")
    (here / "wrong.txt").write_text("0 1\n1 7\n")
    before = sorted(tmp_path.rglob("*"))
    status, output, errors = grokscope("train", "quick", "--task.name", "table", "--task.table", table)
    assert (status, output) == (1, "")
    assert errors.startswith("grokscope: ") and errors.count("\n") == 1
    assert re.search(said, errors), errors
    assert sorted(tmp_path.rglob("*")) == before


def test_a_table_for_another_task_is_one_sentence(grokscope: Command, tmp_path: Path):
    (tmp_path / "here" / "rows.txt").write_text(ROWS)
    status, _, errors = grokscope("train", "quick", "--task.table", "@rows.txt")
    assert status == 1 and errors.count("\n") == 1 and "allowed: with the task 'table' only" in errors


def test_a_run_of_a_table_needs_its_file_no_more(
    grokscope: Command, tiny_config: RunConfig, toml: Callable, tmp_path: Path
):
    rows = tmp_path / "rows.txt"
    rows.write_text("\n".join(" ".join(str(a ^ b) for b in range(8)) for a in range(8)))
    values = tiny_config.to_dict()
    values["task"] |= {"name": "table", "table": "@rows.txt"}
    path = tmp_path / "xor.toml"
    path.write_text(toml(values), encoding="utf-8")
    status, output, errors = grokscope("train", path, "--root", tmp_path, "--n-steps", 20)
    assert status == 0, errors
    assert "a table of 8" in output and "38 of 64 equations" in output
    rows.unlink()
    assert grokscope("resume", tmp_path / "xor", "--n-steps", 40)[0] == 0
    trajectory = Trajectory.open(tmp_path / "xor")
    assert trajectory.task.labels.tolist() == [a ^ b for a in range(8) for b in range(8)]
    assert trajectory.steps[-1] == 40
    assert re.search(r"^xor +table, 40 of 40 steps", grokscope("list", "runs", "--root", tmp_path)[1], re.MULTILINE)


def test_the_default_name_is_the_preset_s_and_then_numbered(asked: Callable, tmp_path: Path):
    root = tmp_path / "root"
    for expected in ("quick", "quick-2", "quick-3"):
        config, name, where = asked("quick", "--root", root)
        assert (config, name, where) == (presets.get("quick"), expected, root)
        (root / expected).mkdir(parents=True)


def test_flags_may_come_before_what_they_change(asked: Callable, tiny_toml: Path, tiny_config: RunConfig):
    config, name, _ = asked("--n-steps", 7, tiny_toml)
    assert (config, name) == (dataclasses.replace(tiny_config, n_steps=7), "tiny")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], r"'trian'.*Did you mean 'train'\?"),
        (["list", "runz"], r"'runz'.*Did you mean 'runs'\?"),
        (["train", "quik"], r"'quik'; allowed: nanda2023, .*, quick\..*Did you mean 'quick'\?"),
        (["train", "--n-steps", "5", "quik"], r"'quik'.*Did you mean 'quick'\?"),
        (["train", "none.toml"], r"none\.toml cannot be read: No such file"),
        (["train", "quick", "--task.p", "12"], r"task\.p: 12; allowed: a prime from 3"),
        (
            ["train", "quick", "--model.n-heads", "3"],
            r"model\.n_heads: 3 does not divide d_model = 128; allowed: 1, 2",
        ),
        (["train", "quick", "--run", "copy", "--root", ".."], r"copy exists already"),
        (["train", "quick", "--run", "a/b"], r"'a/b' is no name for a run"),
        (["train", "quick", "--run", ".a"], r"'\.a' is no name for a run"),
        (["train", "quick", "--batch-share", "0"], r"batch_share: 0\.0; allowed: a number above 0 and up to 1"),
        (["train", "quick", "--device", "cuda:77"], r"device: 'cuda:77'"),
        (["train", "quick", "--checkpoints", "evry 5"], r"checkpoints: unknown term 'evry 5'"),
        (["resume", "../none"], r"\.\./none is no folder, so no run"),
        (["resume", "none"], r"checkpoints/none is no folder, so no run"),
        (["resume", "../copy", "--n-steps", "10"], r"n_steps: 10 would shorten"),
        (["densify", "../none", "--start", "0", "--stop", "5"], r"is no folder, so no run"),
        (["densify", "../copy", "--start", "5", "--stop", "70"], r"start 5, stop 70.*<= 60"),
        (["measure", "../here"], r"\.\./here is no run: it has no config\.json"),
        (["measure", "../copy", "los"], r"'los'.*Did you mean 'loss'\?"),
        (["measure", "../copy", "loss", "--jobs", "0"], r"jobs: 0; allowed: a whole number from 1"),
        (["measure", "../copy", "loss", "--thin", "0"], r"thin\(0\): allowed: a whole number from 1"),
        (["measure", "../copy", "sharpness", "--set", "seed"], r"--set seed: allowed: an option and its value"),
        (["measure", "../copy", "sharpness", "--set", "sed=1"], r"'sharpness' 'sed'.*Did you mean 'seed'\?"),
        (["measure", "../copy", "sharpness", "--set", "name=1"], r"'sharpness' 'name'; allowed: tolerance, "),
        (["measure", "../copy", "sharpness", "--set", "tolerance=x"], r"tolerance = 'x'; allowed: a finite number"),
        (
            ["measure", "../copy", "loss", "sharpness", "--set", "seed=1"],
            r"'loss' 'seed'; allowed: none\. --set is for all measures named: loss, sharpness\.",
        ),
        (["report", "../here"], r"\.\./here is no run"),
        (["report", "../copy", "--cells"], r"--cells goes with one sweep"),
        (["verify", "../here"], r"\.\./here is no run"),
        (["log", "../here"], r"\.\./here is no run"),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, list) else "",
)
@pytest.mark.usefixtures("run_copy")
def test_a_mistake_ends_in_one_clear_sentence(arguments: list[str], said: str, grokscope: Command, tmp_path: Path):
    before = sorted(tmp_path.rglob("*"))
    status, _, errors = grokscope(*arguments)
    assert status in (1, 2)
    assert errors.startswith("grokscope: ") and errors.count("\n") == 1
    assert re.search(said, errors), errors
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "quick", "--n-setps", "5"], "--n-steps"),
        (["train", "quick", "--optimizer.weight-deacy", "5"], "--optimizer.weight-decay"),
        (["resume", "x", "--alow-drift"], "--allow-drift"),
        (["train", "quick", "--n-steps", "many"], "--n-steps"),
        (["train"], "PRESET"),
        (["log"], "RUN"),
        (["densify", "x"], "--start"),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, list) else "",
)
def test_a_mistyped_flag_suggests_the_right_one(arguments: list[str], said: str, grokscope: Command):
    status, _, errors = grokscope(*arguments)
    assert status == 2 and said in errors


def test_every_wrong_flag_is_named_in_one_message(grokscope: Command, tmp_path: Path):
    wrong = {"--task.p": 12, "--model.n-heads": 0, "--optimizer.lr": -1, "--n-steps": 0, "--checkpoints": "x"}
    wrong |= {"--loss-dtype": "float8", "--task.train-fraction": 2, "--task.name": "additon", "--split-seed": -1}
    status, output, errors = grokscope("train", "quick", *(one for pair in wrong.items() for one in pair))
    assert (status, output) == (1, "")
    heading, *lines = errors.splitlines()
    assert heading == f"grokscope: {len(wrong)} settings cannot be used:" and len(lines) == len(wrong)
    for flag in wrong:
        name = flag.removeprefix("--").replace("-", "_")
        assert any(line.strip().startswith(f"{name}: ") and "allowed" in line for line in lines)
    assert not (tmp_path / "here" / "checkpoints").exists()


@pytest.mark.parametrize("command", ["verify", "measure", "log", "resume"])
def test_a_truncated_segment_is_named_by_every_command_that_reads_the_run(
    command: str, run_copy: Path, grokscope: Command
):
    path = run_copy / "segments" / "000003.safetensors"
    truncate(path)
    status, output, errors = grokscope(command, run_copy, *(["weight_norm"] if command == "measure" else []))
    assert str(path) in (output if command == "verify" else errors)
    assert status == (1 if command == "verify" else 0)


def test_a_run_in_which_nothing_is_readable_is_one_sentence(run_copy: Path, grokscope: Command):
    for path in (run_copy / "segments").iterdir():
        truncate(path)
    for command in ("measure", "report"):
        status, _, errors = grokscope(command, run_copy)
        assert status == 1 and "no readable checkpoint" in errors


def test_verify_names_the_segment_the_step_and_the_tensor_of_a_flipped_bit(run_copy: Path, grokscope: Command):
    path = run_copy / "segments" / "000002.safetensors"
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[:8], "little")
    data[8 + size + json.loads(data[8 : 8 + size])["checkpoints/embed.W_E"]["data_offsets"][0]] ^= 1
    path.write_bytes(data)
    status, output, errors = grokscope("verify", run_copy)
    assert status == 1 and errors.startswith("grokscope: ")
    assert re.fullmatch(r"000002\.safetensors: step 10, embed\.W_E does not match its checksum\n", output)


def verified(grokscope: Command, run: Path) -> tuple[int, str, str]:
    """Return verify's status, what it found, and what it advises."""
    status, output, errors = grokscope("verify", run)
    assert "remove" not in output + errors
    return status, output, errors


def test_what_verify_advises_for_a_damaged_checkpoint_mends_it(run_copy: Path, grokscope: Command):
    path = run_copy / "segments" / "000003.safetensors"
    flip(path, 8 * place(path, "checkpoints/embed.W_E")[0])
    step = RunStore(run_copy).segments[2].steps[0]
    status, _, errors = verified(grokscope, run_copy)
    advised = f"grokscope densify {run_copy} --start {step} --stop {step}"
    assert status == 1 and f"`{advised}`" in errors
    status, output, _ = grokscope(*shlex.split(advised)[1:])
    assert status == 0 and "1 checkpoints added, 7 in all" in output
    status, output, errors = verified(grokscope, run_copy)
    assert (status, errors) == (0, "") and f"step {step}, embed.W_E" in output and "whole" in output


def test_what_verify_advises_for_a_lost_segment_gives_back_all_that_can_be_had(run_copy: Path, grokscope: Command):
    path = run_copy / "segments" / "000003.safetensors"
    segment = next(one for one in RunStore(run_copy).segments if one.path == path)
    steps, (begin, end) = segment.steps, segment.coverage or (0, 0)
    truncate(path)
    status, _, errors = verified(grokscope, run_copy)
    every = " --every 10" if len(steps) > 1 else ""
    advised = f"grokscope densify {run_copy} --start {steps[0]} --stop {steps[-1]}{every}"
    assert status == 1 and f"`{advised}`" in errors and "elsewhere" not in errors
    assert grokscope(*shlex.split(advised)[1:])[0] == 0
    status, _, errors = verified(grokscope, run_copy)
    assert status == 1 and "can be kept elsewhere" in errors and "densify" not in errors
    path.rename(run_copy.parent / path.name)
    status, output, errors = verified(grokscope, run_copy)
    assert (status, errors) == (0, "")
    assert f"steps {begin + 1} to {end}: " in output and "rows of the log that were there are lost" in output
    assert Trajectory.open(run_copy).steps.tolist() == list(range(0, 61, 10))


def test_verify_and_the_other_commands_say_that_a_run_has_no_segments(run_copy: Path, grokscope: Command):
    shutil.rmtree(run_copy / "segments")
    for make in (False, True):
        if make:
            (run_copy / "segments").mkdir()
        what = f"{run_copy / 'segments'} is {'empty' if make else 'gone'}"
        status, output, errors = verified(grokscope, run_copy)
        assert status == 1 and what in output and "Nothing is left" in errors and "intact" not in output
        assert what in grokscope("list", "runs", "--root", run_copy.parent)[1]
        status, _, errors = grokscope("resume", run_copy)
        assert status == 1 and what in errors


def test_a_run_that_another_process_writes_is_refused_with_who_it_is(run_copy: Path, grokscope: Command):
    with Lock(run_copy):
        status, _, errors = grokscope("densify", run_copy, "--start", 0, "--stop", 5)
        assert status == 1 and f"written by process {os.getpid()} on {os.uname().nodename} since " in errors
        assert grokscope("log", run_copy)[0] == 0


def test_a_bare_name_lies_under_the_root_and_a_path_is_a_path(run_copy: Path, grokscope: Command):
    for arguments in (["copy", "--root", run_copy.parent], [run_copy], ["../copy"]):
        assert grokscope("log", *arguments)[0] == 0


def test_drift_is_refused_unless_it_is_allowed(
    grokscope: Command, tiny_toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from grokscope import environment

    assert grokscope("train", tiny_toml, "--root", tmp_path)[0] == 0
    present = environment.present
    monkeypatch.setattr(environment, "present", lambda device: {**present(device), "torch": "1.0.0"})
    status, _, errors = grokscope("resume", tmp_path / "tiny", "--n-steps", 70)
    assert status == 1 and "torch was" in errors and "--allow-drift" in errors
    assert grokscope("resume", tmp_path / "tiny", "--n-steps", 70, "--allow-drift")[0] == 0
    assert [event["event"] for event in Record.read(tmp_path / "tiny").history] == ["drift allowed", "lengthened"]


def test_list_prints_what_there_is(grokscope: Command, tmp_path: Path):
    powers = ["a2_ab_b2", "a2_ab_b2_a", "a2_b2", "a3_ab", "a3_ab2_b"]
    modular = ["addition", "division", "division_or_subtraction", "multiplication", "subtraction"]
    for kind, names in {
        "tasks": sorted([*powers, *modular, "aba", "composition", "conjugation", "table"]),
        "optimizers": ["adam", "adamw", "sgd"],
    }.items():
        assert grokscope("list", kind) == (0, "\n".join(names) + "\n", "")
    status, output, _ = grokscope("list", "measures")
    assert status == 0 and {"embedding", "loss", "sharpness", "weight_norm"} <= set(output.splitlines())
    assert re.search(r"^nanda2023 .*mod 113(.*\n)+power2022 (.*\n)+quick .*mod 59", grokscope("list", "presets")[1])
    assert grokscope("list", "runs") == (0, "There is no run in checkpoints.\n", "")


def test_list_runs_shows_a_damaged_run_beside_the_others(run_copy: Path, tiny_run: Path, grokscope: Command):
    (run_copy / "config.json").write_text("{")
    (run_copy.parent / "whole").symlink_to(tiny_run)
    status, output, _ = grokscope("list", "runs", "--root", run_copy.parent)
    lines = dict(line.split(maxsplit=1) for line in output.splitlines())
    assert status == 0 and "damaged" in lines["copy"] and "60 of 60 steps" in lines["whole"]


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_every_command_explains_itself(command: str, grokscope: Command):
    status, output, _ = grokscope(command, "--help")
    assert status == 0 and f"grokscope {command}" in output
    for nothing in ([], ["--help"], ["-h"]):
        assert re.search(rf"^  {command} +\S", grokscope(*nothing)[1], re.MULTILINE)


def test_measures_take_options_and_keep_what_they_gave(run_copy: Path, grokscope: Command):
    names, options = ("embedding", "unembedding"), ("--set", "seed=2", "--set", "n_components=3", "--thin", "2")
    status, output, errors = grokscope("measure", run_copy, *names, *options)
    assert status == 0, errors
    assert re.search(r"^embedding +2 of 7 checkpoints .*\nunembedding +2 of 7 checkpoints", output)
    files = {path.name: Series.load(path) for path in (run_copy / "measures").iterdir()}
    assert [series.options["seed"] for series in files.values()] == [2, 2]
    assert all(re.fullmatch(r"(un)?embedding-[0-9a-f]{12}\.safetensors", name) for name in files)


def in_a_process(program: str, *arguments: Any, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, **environment},
    )


def test_help_and_list_and_log_do_not_import_torch(tiny_run: Path):
    program = (
        "import sys\n"
        "from grokscope.cli import main\n"
        "kinds = ('tasks', 'optimizers', 'measures', 'presets')\n"
        "for arguments in (['--help'], ['--version'], *(['list', kind] for kind in kinds),\n"
        "                  ['list', 'runs', '--root', sys.argv[2]], ['log', sys.argv[1]], ['verify', sys.argv[1]]):\n"
        "    main(arguments)\n"
        "print('imported:', *{'torch', 'transformer_lens', 'matplotlib', 'pandas'} & set(sys.modules))\n"
    )
    done = in_a_process(program, tiny_run, tiny_run.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported:"


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_no_terminal_s_encoding_ends_in_a_traceback(encoding: str, tmp_path: Path):
    program = "import sys\nfrom grokscope.cli import main\nmain(sys.argv[1:])\n"
    for arguments in (["--help"], ["log", tmp_path / "ü ∘"]):
        done = in_a_process(program, *arguments, PYTHONIOENCODING=encoding)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == (0 if arguments == ["--help"] else 1)


def test_a_reader_who_has_enough_is_no_fault(tiny_run: Path):
    program = "from grokscope.cli import main\nimport sys\nmain(['log', sys.argv[1]])\n"
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, tiny_run], stdout=writer, stderr=subprocess.PIPE, text=True
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="there is no device that is always full")


def ended(*arguments: Any, more: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command from a shell, which leads its streams elsewhere, with its standard error where that is let."""
    command = [sys.executable, "-m", "grokscope", *map(str, arguments)]
    return subprocess.run(["sh", "-c", f'"$@" {more}', "sh", *command], capture_output=True, text=True)


@needs_full
@pytest.mark.parametrize("command", ["log", "list", "--help", "train"])
def test_an_output_that_cannot_be_written_is_one_sentence(
    command: str, tiny_run: Path, tiny_toml: Path, tmp_path: Path
):
    more = {"log": [tiny_run], "list": ["tasks"], "train": [tiny_toml, "--root", tmp_path]}
    done = ended(command, *more.get(command, []), more=f"> {FULL}")
    assert done.stderr == "grokscope: The output cannot be written: No space left on device.\n"
    assert done.returncode == 1 and not (tmp_path / "tiny").exists()
    assert ended(command, *more.get(command, []), more=f"> {FULL} 2>&1").returncode == 1


@pytest.mark.parametrize("more", [">&-", "2>&-", ">&- 2>&-", pytest.param(f"2> {FULL}", marks=needs_full)])
def test_a_training_goes_on_without_streams_to_show_it(more: str, tiny_toml: Path, tiny_run: Path, tmp_path: Path):
    done = ended("train", tiny_toml, "--root", tmp_path, more=more)
    assert (done.returncode, "grokscope: " in done.stderr, "Traceback" in done.stderr) == (0, False, False)
    assert Trajectory.open(tmp_path / "tiny").digest == Trajectory.open(tiny_run).digest
    assert len(Trajectory.open(tmp_path / "tiny")) == 7


@pytest.mark.parametrize(("more", "n_lines"), [("2>&1 | head -n 1", 1), ("| true", 0)])
def test_a_training_goes_on_when_its_reader_has_enough(more: str, n_lines: int, tiny_toml: Path, tmp_path: Path):
    done = ended("train", tiny_toml, "--root", tmp_path, "--n-steps", 3000, more=more)
    assert done.stdout.count("\n") == n_lines and "Traceback" not in done.stderr
    assert Trajectory.open(tmp_path / "tiny").steps[-1] == 3000


@pytest.mark.parametrize("more", ["2>&-", pytest.param(f"2> {FULL}", marks=needs_full)])
def test_a_mistake_that_cannot_be_told_keeps_its_status(more: str):
    assert ended("lst", more=more).returncode == 2


LONG = "x" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "quick", "--root", LONG],
        ["list", "runs", "--root", LONG],
        ["sweep", "../sweep.toml", "--root", LONG],
        ["report", LONG],
        ["watch", LONG, "--until-end"],
        ["fork", LONG, "--step", "3"],
    ],
    ids=lambda one: one[0],
)
def test_a_name_that_is_too_long_is_one_sentence(
    arguments: list[str], grokscope: Command, toml: Callable, tmp_path: Path
):
    (tmp_path / "sweep.toml").write_text(toml({"preset": "quick", "sweep": {"seeds": [0]}}))
    status, output, errors = grokscope(*arguments)
    assert (status, output) == (1, "") and errors.count("\n") == 1
    assert "xxxxxxxx" in errors and re.search("File name too long|is no folder", errors)


@pytest.mark.parametrize("command", ["verify", "log", "report", "measure", "export", "fork", "resume"])
def test_a_run_that_may_not_be_read_is_said_to_be_one_that_may_not(
    command: str, run_copy: Path, grokscope: Command, monkeypatch: pytest.MonkeyPatch
):
    refuse(monkeypatch, run_copy)
    status, output, errors = grokscope(command, run_copy, *(["--step", 3] if command == "fork" else []))
    assert (status, output, errors.count("\n")) == (1, "", 1)
    assert re.fullmatch(rf"grokscope: {run_copy}/\S+ cannot be (read|reached): Permission denied\.\n", errors)


def test_measures_that_may_not_be_read_are_named(run_copy: Path, grokscope: Command, monkeypatch: pytest.MonkeyPatch):
    refuse(monkeypatch, run_copy / "measures")
    status, _, errors = grokscope("measure", run_copy, "loss")
    assert status == 1 and f"{run_copy / 'measures' / 'loss.safetensors'} cannot be reached" in errors


def test_a_root_that_may_not_be_read_is_said_to_be_one_that_may_not(
    run_copy: Path, grokscope: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    refuse(monkeypatch, run_copy.parent)
    for arguments in (["list", "runs"], ["train", "quick"], ["verify", "copy"], ["fork", "copy", "--step", 3]):
        status, output, errors = grokscope(*arguments, "--root", run_copy.parent)
        assert (status, output) == (1, "")
        assert re.fullmatch(rf"grokscope: {run_copy.parent}\S* cannot be re\w+: Permission denied\.\n", errors)


def test_list_runs_shows_a_run_that_may_not_be_read_beside_the_others(
    run_copy: Path, tiny_run: Path, grokscope: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "root").mkdir()
    for name in ("closed", "whole"):
        (tmp_path / "root" / name).symlink_to(run_copy if name == "closed" else tiny_run)
    refuse(monkeypatch, tmp_path / "root" / "closed")
    status, output, _ = grokscope("list", "runs", "--root", tmp_path / "root")
    lines = dict(line.split(maxsplit=1) for line in output.splitlines())
    assert status == 0 and "Permission denied" in lines["closed"] and "60 of 60 steps" in lines["whole"]


@pytest.mark.parametrize("module", ["tyro", "grokscope.cli", "torch"])
def test_an_interrupt_while_it_is_read_in_ends_a_command_without_a_word(module: str, tmp_path: Path):
    # Whatever imports this module gets a signal at that moment, and takes an exception for a lack of the module.
    program = (
        "import importlib.abc, runpy, signal, sys\n"
        "class Finder(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == {module!r}:\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv = ['grokscope', 'train', 'quick']\n"
        "runpy.run_module('grokscope', run_name='__main__', alter_sys=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_training_says_when_the_adaptive_schedule_has_had_its_share(
    tiny_config: RunConfig, tmp_path: Path, toml: Callable
):
    fast = OptimizerConfig(lr=3e-2, warmup_steps=5)
    config = dataclasses.replace(
        tiny_config, checkpoints="adaptive 0.05", evaluate_every=1, max_checkpoints=5, optimizer=fast
    )
    (tmp_path / "adaptive.toml").write_text(toml(config.to_dict()))
    program = "import sys\nfrom grokscope.cli import main\nmain(sys.argv[1:])\n"
    done = in_a_process(program, "train", tmp_path / "adaptive.toml", "--root", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 fixed checkpoints and up to 3 adaptive ones" in done.stdout
    assert len(re.findall(r"^grokscope: At step \d+ .*max_checkpoints = 5.*$", done.stderr, re.MULTILINE)) == 1
    assert len(Trajectory.open(tmp_path / "adaptive").steps) == 5


def test_the_estimate_printed_before_training_is_near_what_is_used(
    grokscope: Command, tiny_toml: Path, tmp_path: Path
):
    arguments = ("--checkpoints", "every 1", "--model.d-model", 64, "--model.d-mlp", 256, "--run", "wide")
    status, output, _ = grokscope("train", tiny_toml, "--root", tmp_path, *arguments)
    told = re.search(r"61 fixed checkpoints in 60 steps: about (\d+) MB on disk", output)
    used = sum(path.stat().st_size for path in (tmp_path / "wide" / "segments").iterdir()) / 1e6
    assert status == 0 and told and np.isclose(int(told[1]), used, rtol=0.15)


def test_the_package_runs_as_a_module_too():
    done = subprocess.run([sys.executable, "-m", "grokscope", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("grokscope ")
