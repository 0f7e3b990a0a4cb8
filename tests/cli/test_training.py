"""The commands `train`, `resume` and `densify`: their configs, names, output and files."""

import dataclasses
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.processes import COMMAND, run_program
from support.shared import Command

from grokscope import Trajectory
from grokscope.config import OptimizerConfig, RunConfig, presets
from grokscope.disk.lock import Lock
from grokscope.store.run_store import Record, RunStore


def test_commands_from_training_to_report(
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
    assert status == 0 and "at step 40 of 60" in output
    assert Trajectory.open(run).digest == Trajectory.open(tiny_run).digest

    status, output, _ = grokscope("densify", run, "--start", 12, "--stop", 18, "--every", 2)
    assert (status, output) == (0, f"{run}: 4 checkpoints added, 11 in all.\n")

    status, output, _ = grokscope("log", run)
    rows = [json.loads(line) for line in output.splitlines()]
    log = Trajectory.open(run).log
    assert status == 0 and [row["step"] for row in rows] == list(range(0, 61, 10))
    for name in ("train_loss", "test_loss", "train_accuracy", "test_accuracy"):
        assert [row[name] for row in rows] == log[name].tolist()
    assert all(set(row) == {"step", "loss_function", *log.arrays} for row in rows)
    assert {row["loss_function"] for row in rows} == {"softmax"}

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


def test_every_config_field_is_a_flag(request_training: Callable, tiny_toml: Path, tiny_config: RunConfig):
    config, name, root = request_training(
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
    "flags", [["--batch-size", "none"], ["--batch-size=none"], ["--batch_size", "None"]], ids=range(3)
)
def test_none_is_spelled_as_in_toml(flags: list[str], request_training: Callable, toml: Callable, tmp_path: Path):
    path = tmp_path / "small.toml"
    path.write_text(toml({"preset": "quick", "batch_size": 50}))
    assert request_training(path)[0].batch_size == 50
    assert request_training(path, *flags)[0].batch_size is None


def test_none_replaces_the_value_in_the_file(request_training: Callable, toml: Callable, tmp_path: Path):
    path = tmp_path / "filtered.toml"
    values = {"optimizer": {"gradient_filter": "grokfast_ma"}, "model": {"normalization_type": "LN", "biases": "all"}}
    path.write_text(toml(values))
    config = request_training(path)[0]
    assert (config.optimizer.gradient_filter, config.model.normalization_type) == ("grokfast_ma", "LN")
    for flags in (
        ["--optimizer.gradient-filter", "none", "--model.normalization-type", "none"],
        ["--optimizer.gradient_filter=none", "--model.normalization_type=none"],
        ["--model.normalization-type", "None", "--optimizer.gradient-filter=None"],
    ):
        config = request_training(path, *flags)[0]
        assert config.optimizer.gradient_filter is None and config.model.normalization_type is None
        assert config.model.biases == "all"
    assert (
        request_training(path, "--optimizer.gradient-filter", "orthogonal")[0].optimizer.gradient_filter
        == "orthogonal"
    )


@pytest.mark.parametrize("flags", [["--model.biases", "none"], ["--model.biases=none"]], ids=range(2))
def test_none_stays_text_where_it_is_a_choice(flags: list[str], request_training: Callable):
    assert request_training("quick")[0].model.biases == "mlp"
    assert request_training("quick", *flags)[0].model.biases == "none"


@pytest.mark.parametrize("flag", ["--checkpoints", "--task.group", "--optimizer.decay-centre"])
def test_none_for_a_required_setting_is_an_error(flag: str, grokscope: Command):
    status, _, errors = grokscope("train", "quick", flag, "none")
    assert status in (1, 2) and "none" in errors.lower()


def test_flag_replaces_a_fault_in_the_file(
    request_training: Callable, grokscope: Command, toml: Callable, tmp_path: Path
):
    path = tmp_path / "wrong.toml"
    path.write_text(toml({"preset": "quick", "checkpoints": "evry 10", "task": {"p": 1, "random_labels": 3}}))
    flags = ("--checkpoints", "every 50", "--task.p=13", "--task.no-random-labels")
    for arguments in ((path, *flags), (*flags, path)):
        config = request_training(*arguments)[0]
        assert (config.checkpoints, config.task.p, config.task.random_labels) == ("every 50", 13, False)
        assert config.n_steps == presets.get("quick").n_steps
    status, _, errors = grokscope("train", path, *flags[:2])
    assert status == 2 and errors.startswith(f"grokscope: {path}: 2 settings cannot be used:")
    assert "evry" not in errors and "task.p: 1;" in errors and "task.random_labels: 3" in errors
    path.write_text(toml({"preset": "quick", "run": "mine"}))
    status, _, errors = grokscope("train", path, "--run", "other")
    assert status == 2 and "'run'" in errors, "a flag cannot replace an unknown setting"


def test_boolean_setting_has_a_negative_flag(request_training: Callable, toml: Callable, tmp_path: Path):
    assert request_training("quick")[0].task.random_labels is False
    assert request_training("quick", "--task.random-labels")[0].task.random_labels is True
    path = tmp_path / "random.toml"
    path.write_text(toml({"task": {"random_labels": True}}))
    assert request_training(path)[0].task.random_labels is True
    assert request_training(path, "--task.no-random-labels")[0].task.random_labels is False


def test_flag_may_repeat_the_file(request_training: Callable, toml: Callable, tmp_path: Path):
    path = tmp_path / "random.toml"
    path.write_text(toml({"task": {"random_labels": True, "outliers": 3}}))
    assert request_training(path, "--task.outliers", 3)[0].task.outliers == 3
    assert request_training(path, "--task.random-labels")[0].task.random_labels is True


def test_default_name_is_the_preset_then_numbered(request_training: Callable, tmp_path: Path):
    root = tmp_path / "root"
    for expected in ("quick", "quick-2", "quick-3"):
        config, name, requested_root = request_training("quick", "--root", root)
        assert (config, name, requested_root) == (presets.get("quick"), expected, root)
        (root / expected).mkdir(parents=True)


def test_flags_may_precede_the_source(request_training: Callable, tiny_toml: Path, tiny_config: RunConfig):
    config, name, _ = request_training("--n-steps", 7, tiny_toml)
    assert (config, name) == (dataclasses.replace(tiny_config, n_steps=7), "tiny")


def test_all_wrong_flags_are_named_in_one_message(grokscope: Command, tmp_path: Path):
    wrong = {"--task.p": 1, "--model.n-heads": 0, "--optimizer.lr": -1, "--n-steps": 0, "--checkpoints": "x"}
    wrong |= {"--loss-dtype": "float8", "--task.train-fraction": 2, "--task.name": "additon", "--split-seed": -1}
    status, output, errors = grokscope("train", "quick", *(text for pair in wrong.items() for text in pair))
    assert (status, output) == (2, "")
    heading, *lines = errors.splitlines()
    assert heading == f"grokscope: {len(wrong)} settings cannot be used:" and len(lines) == len(wrong)
    for flag in wrong:
        name = flag.removeprefix("--").replace("-", "_")
        assert any(line.strip().startswith(f"{name}: ") and "allowed" in line for line in lines)
    assert not (tmp_path / "here" / "checkpoints").exists()


def test_run_in_use_is_refused_with_its_process(run_copy: Path, grokscope: Command):
    with Lock(run_copy):
        status, _, errors = grokscope("densify", run_copy, "--start", 0, "--stop", 5)
        assert status == 1 and f"written by process {os.getpid()} on {os.uname().nodename} since " in errors
        assert grokscope("log", run_copy)[0] == 0


def test_drift_needs_allow_drift(
    grokscope: Command, tiny_toml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from grokscope import environment

    assert grokscope("train", tiny_toml, "--root", tmp_path)[0] == 0
    present = environment.describe
    monkeypatch.setattr(environment, "describe", lambda *arguments: {**present(*arguments), "torch": "1.0.0"})
    status, _, errors = grokscope("resume", tmp_path / "tiny", "--n-steps", 70)
    assert status == 1 and "torch was" in errors and "--allow-drift" in errors
    assert grokscope("resume", tmp_path / "tiny", "--n-steps", 70, "--allow-drift")[0] == 0
    assert [event["event"] for event in Record.read(tmp_path / "tiny").history] == ["drift allowed", "lengthened"]


@pytest.mark.slow
def test_training_warns_when_max_checkpoints_is_reached(tiny_config: RunConfig, tmp_path: Path, toml: Callable):
    fast = OptimizerConfig(lr=3e-2, warmup_steps=5)
    config = dataclasses.replace(
        tiny_config, checkpoints="adaptive 0.05", evaluate_every=1, max_checkpoints=5, optimizer=fast
    )
    (tmp_path / "adaptive.toml").write_text(toml(config.to_dict()))
    process = run_program(COMMAND, "train", tmp_path / "adaptive.toml", "--root", tmp_path)
    assert process.returncode == 0, process.stderr
    assert "2 fixed checkpoints and up to 3 adaptive ones" in process.stdout
    warnings = re.findall(r"^grokscope: .* from step \d+ on: max_checkpoints = 5 .*$", process.stderr, re.MULTILINE)
    assert len(warnings) == 1
    assert len(Trajectory.open(tmp_path / "adaptive").steps) == 5


def test_printed_disk_use_is_near_the_real_use(grokscope: Command, tiny_toml: Path, tmp_path: Path):
    arguments = ("--checkpoints", "every 1", "--model.d-model", 64, "--model.d-mlp", 256, "--run", "wide")
    status, output, _ = grokscope("train", tiny_toml, "--root", tmp_path, *arguments)
    estimate = re.search(r"61 fixed checkpoints in 60 steps: about (\d+) MB on disk", output)
    used = sum(path.stat().st_size for path in (tmp_path / "wide" / "segments").iterdir()) / 1e6
    assert status == 0 and estimate and np.isclose(int(estimate[1]), used, rtol=0.15)


def test_flag_without_effect_is_refused_before_training(grokscope: Command, tmp_path: Path):
    for flags, fault in (
        (["--optimizer.filter-alpha", 0.98], "optimizer.filter_alpha: 0.98 has no effect"),
        (["--task.name=composition", "--task.p=12"], "task.p: 12 has no effect"),
        (["--batch-share=0.5"], "batch_share: 0.5 has no effect"),
    ):
        status, _, errors = grokscope("train", "quick", *flags)
        assert (status, errors.count(fault)) == (2, 1)
        assert errors.startswith("grokscope: One setting cannot be used: ")
    path = tmp_path / "alpha.toml"
    path.write_text("[optimizer]\nfilter_alpha = 0.5\n", encoding="utf-8")
    status, _, errors = grokscope("train", path)
    assert status == 2 and "optimizer.filter_alpha: 0.5 has no effect" in errors


def test_flag_gives_effect_to_a_setting_of_the_file(
    request_training: Callable[..., tuple[RunConfig, str, Path]], tmp_path: Path
):
    path = tmp_path / "alpha.toml"
    path.write_text("[optimizer]\nfilter_alpha = 0.5\n", encoding="utf-8")
    config, *_ = request_training(path, "--optimizer.gradient-filter", "grokfast_ema")
    assert config.optimizer.filter_alpha == 0.5
    config, *_ = request_training("power2022", "--batch-size", "none")
    assert config.batch_share == 0.5, "the preset gave batch_share, not the user"


def test_unused_setting_of_a_preset_is_not_named(grokscope: Command):
    tiny = ("--model.d-model", 8, "--model.n-heads", 1, "--model.d-mlp", 8, "--n-steps", 1)
    group = ("--task.name", "composition", "--task.group", "S3", "--task.train-fraction", 0.7)
    status, _, errors = grokscope("train", "quick", *group, *tiny)
    assert status == 0 and "has no effect" not in errors, "the preset gives task.p, not the user"
