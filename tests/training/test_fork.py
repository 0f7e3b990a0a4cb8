"""Forks: with nothing changed the origin's continuation bit for bit, and with something changed that alone."""

import dataclasses
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.shared import KINDS, Command, command_line, flip, make_tiny_config, of_kind, place

from grokscope import Trajectory, environment, measures, phases, report, training
from grokscope.config import OptimizerConfig, RunConfig, TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.series import Series
from grokscope.store import verify
from grokscope.store.run_store import Record, RunStore
from grokscope.training import checkpointer, loop
from grokscope.training import fork as training_fork
from grokscope.training.fork import prepare
from grokscope.training.signals import InterruptedRunError

Saved = dict[tuple[Any, ...], tuple[Any, ...]]
Read = Callable[[Path], Saved]

CONFIGS = {
    **{kind: of_kind(make_tiny_config(), kind) for kind in KINDS},
    "grokfast_ma": dataclasses.replace(
        make_tiny_config(), optimizer=OptimizerConfig(lr=1e-2, gradient_filter="grokfast_ma", filter_window=6)
    ),
    "decay to the initialization": dataclasses.replace(
        make_tiny_config(), optimizer=OptimizerConfig(lr=1e-2, decay_centre="initialization", update_noise=0.1)
    ),
    "long warm-up": dataclasses.replace(make_tiny_config(), optimizer=OptimizerConfig(lr=1e-2, warmup_steps=50)),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The function that returns an origin, trained once, committed every other checkpoint."""
    folder = tmp_path_factory.mktemp("origins")

    def of(name: str) -> Path:
        path = folder / name.replace(" ", "_")
        if not path.exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(checkpointer, "SEGMENT_CHECKPOINTS", 2)
                training.train(CONFIGS[name], path.name, folder)
        return path

    return of


def from_step(content: Saved, step: int) -> Saved:
    """Return what was saved from a step on, of checkpoints, log and the last resume state."""
    return {key: value for key, value in content.items() if key[0] == "resume" or (len(key) > 1 and key[1] >= step)}


@pytest.mark.parametrize("step", [0, 23, 30, 50])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_fork_with_nothing_changed_is_its_origins_continuation(
    name: str, step: int, whole: Callable[[str], Path], saved: Read, tmp_path: Path
):
    origin = whole(name)
    forked = training_fork.fork(origin, step, root=tmp_path)
    assert forked.path is not None and forked.path == tmp_path / f"{origin.name}-fork"
    content, expected = saved(forked.path), from_step(saved(origin), step)
    assert expected.items() <= content.items()
    # Where it begins is saved too, whether the schedule says so or not.
    new = {key[:2] for key in set(content) - set(expected) if key[0] != "config"}
    assert new <= {("checkpoint", step), ("log", step)}
    assert (int(forked.steps[0]), int(forked.log.steps[0])) == (step, step)
    assert list(RunStore(forked.path).damage()) == [] and forked.gaps == [] and len(forked.log["gaps"]) == 0
    (at_zero,) = Trajectory.open(origin).select([0])
    assert forked.initialization is not None
    assert all(torch.equal(one, at_zero.parameters[name]) for name, one in forked.initialization.items())


def test_the_parameters_it_begins_with_are_the_origins_at_that_step(run_copy: Path, tmp_path: Path):
    forked = training_fork.fork(run_copy, 23, root=tmp_path)
    dense = training.densify(run_copy, 23, 23).at(23).parameters
    assert all(torch.equal(one, dense[name]) for name, one in forked.first.parameters.items())


CHANGED = {
    "weight decay": {"optimizer.weight_decay": 0.0},
    "learning rate and length": {"optimizer.lr": 3e-3, "n_steps": 80},
    "split": {"split_seed": 5, "task.train_fraction": 0.4},
    "batches": {"batch_size": 8, "training_seed": 2},
    "another optimizer": {"optimizer.name": "sgd", "optimizer.momentum": 0.9, "optimizer.weight_decay": 0.0},
    "a filter": {"optimizer.gradient_filter": "grokfast_ma", "optimizer.filter_window": 5},
    "an average": {"optimizer.gradient_filter": "grokfast_ema"},
    "adaptive": {"checkpoints": "every 25 + adaptive 0.05", "evaluate_every": 3},
    "activation": {"model.act_fn": "gelu"},
    "biases": {"model.biases": "all"},
    "operation": {"task.name": "subtraction"},
}


def with_changes(config: RunConfig, changed: dict[str, Any]) -> RunConfig:
    for name, value in changed.items():
        table, _, leaf = name.rpartition(".")
        part = dataclasses.replace(getattr(config, table) if table else config, **{leaf: value})
        config = dataclasses.replace(config, **{table: part}) if table else part
    return config


@pytest.mark.parametrize("name", CHANGED)
def test_a_fork_that_is_killed_and_resumed_is_one_that_was_not(
    name: str, run_copy: Path, saved: Read, tmp_path: Path
):
    config = with_changes(make_tiny_config(), CHANGED[name])
    uninterrupted = training_fork.fork(run_copy, 30, config, "whole", tmp_path)

    def stop(step: int, row: dict[str, float]) -> None:
        if step in (31, 43):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(InterruptedRunError):
        training_fork.fork(run_copy, 30, config, "stopped", tmp_path, observer=stop)
    with pytest.raises(InterruptedRunError):
        training.resume(tmp_path / "stopped", observer=stop)
    resumed = training.resume(tmp_path / "stopped")
    assert saved(tmp_path / "stopped") == saved(tmp_path / "whole")
    assert resumed.digest == uninterrupted.digest and resumed.origin == uninterrupted.origin
    assert list(RunStore(tmp_path / "stopped").damage()) == []
    assert resumed.origin is not None
    was = make_tiny_config().to_dict()
    assert set(resumed.origin["changed"]) == set(CHANGED[name])
    for field, (before, after) in resumed.origin["changed"].items():
        table, _, leaf = field.rpartition(".")
        assert before == (was[table] if table else was)[leaf] and after == CHANGED[name][field]


def test_only_what_was_changed_is_other_than_in_the_origin(whole: Callable[[str], Path], tmp_path: Path):
    """By hand: one step of AdamW at the absolute step's warm-up, from the origin's own moments."""
    origin = whole("long warm-up")
    config = with_changes(CONFIGS["long warm-up"], {"optimizer.weight_decay": 0.0, "checkpoints": "every 1"})
    forked = training_fork.fork(origin, 20, config, root=tmp_path)
    segment = next(one for one in RunStore(origin).resume_points() if one.resume_step == 20)
    state = {name: torch.from_numpy(one) for name, one in segment.resume_state().items()}
    setup = loop.Setup(config)
    parameters = {name: state[f"parameters/{name}"].clone().requires_grad_() for name in setup.model.shapes}
    loss = torch.nn.functional.cross_entropy(
        setup.model.logits(parameters, setup.inputs[setup.split.train]).double(), setup.labels[setup.split.train]
    )
    (gradient,) = torch.autograd.grad(loss, [parameters["embed.W_E"]])
    mean, square = (state[f"optimizer/embed.W_E/exp_avg{suffix}"].double() for suffix in ("", "_sq"))
    mean, square = 0.9 * mean + 0.1 * gradient, 0.98 * square + 0.02 * gradient.double() ** 2
    update = mean / (1 - 0.9**21) / ((square / (1 - 0.98**21)).sqrt() + 1e-8)
    expected = state["parameters/embed.W_E"] - 1e-2 * 20 / 50 * update
    torch.testing.assert_close(forked.at(21).parameters["embed.W_E"].double(), expected, rtol=1e-4, atol=1e-6)


def test_what_the_optimizer_goes_on_with_and_what_begins_anew(run_copy: Path):
    def anew(step: int = 30, **changed: Any) -> list[str]:
        config = with_changes(make_tiny_config(), {f"optimizer.{name}": value for name, value in changed.items()})
        fork = prepare(run_copy, step, config)
        assert bool(fork.history[-1]["anew"]) == any("Begins anew" in one for one in fork.sentences())
        remembers = any(name.startswith("optimizer/") for name in fork.state)
        assert remembers == (
            step > 0 and "the optimizer" not in fork.history[-1]["anew"] and changed.get("name") != "sgd"
        )
        return fork.history[-1]["anew"]

    assert anew(name="adam", weight_decay=0.0) == anew(betas=(0.8, 0.9)) == anew(gradient_filter="orthogonal") == []
    assert anew(name="sgd", momentum=0.9) == ["the optimizer"]
    assert anew(name="sgd") == [], "it remembers nothing"
    assert anew(gradient_filter="grokfast_ma") == anew(gradient_filter="grokfast_ema") == ["the gradient filter"]
    assert anew(0, gradient_filter="grokfast_ema", name="sgd", momentum=0.9) == []


def test_a_window_of_gradients_that_begins_late_adds_nothing_until_it_is_full(run_copy: Path, tmp_path: Path):
    """Its first updates are the plain optimizer's; the one that fills the window is not."""
    dense = {"checkpoints": "every 1", "n_steps": 40}
    plain = training_fork.fork(run_copy, 30, with_changes(make_tiny_config(), dense), "plain", tmp_path)
    filtered = {**dense, "optimizer.gradient_filter": "grokfast_ma", "optimizer.filter_window": 5}
    late = training_fork.fork(run_copy, 30, with_changes(make_tiny_config(), filtered), "late", tmp_path)
    same = [
        torch.equal(plain.at(step).parameters["embed.W_E"], late.at(step).parameters["embed.W_E"])
        for step in range(30, 36)
    ]
    assert same == [True] * 5 + [False]


REFUSED = {
    "model.d_model": 32, "model.n_heads": 4, "model.d_mlp": 8, "model.n_layers": 2, "model.normalization_type": "LN",
    "model.init": "torch", "model.init_scale": 2.0, "model.positions": "sinusoidal", "init_seed": 1,
    "task.p": 5, "task.form": "a ∘ b =", "task.name": "composition",
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_change_is_refused_by_name(name: str, run_copy: Path, tmp_path: Path):
    config = with_changes(make_tiny_config(), {name: REFUSED[name], "optimizer.lr": 1e-3})
    with pytest.raises(GrokscopeError, match=rf"^{name}: .*{REFUSED[name]}.*allowed in a fork: ") as refused:
        training_fork.fork(run_copy, 30, config, root=tmp_path / "none")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "none").exists()


def test_another_group_is_refused_also_where_it_is_as_large(tmp_path: Path):
    task = TaskConfig(name="composition", group="S3", train_fraction=0.6)
    config = dataclasses.replace(make_tiny_config(), task=task, n_steps=10)
    training.train(config, "S3", tmp_path)
    with pytest.raises(GrokscopeError, match=r"^task.group: 'C6' changes what the tokens are; .*'S3'"):
        prepare(tmp_path / "S3", 10, with_changes(config, {"task.group": "C6", "n_steps": 20}))
    assert prepare(tmp_path / "S3", 10, with_changes(config, {"task.name": "aba", "n_steps": 20}))


@pytest.mark.parametrize(
    ("step", "n_steps", "said"),
    [
        (-1, 60, "step: -1; allowed: 0 to 60"),
        (61, 90, "step: 61; allowed: 0 to 60"),
        (60, 60, "n_steps: 60.*from 61"),
    ],
)
def test_a_step_that_cannot_be_is_refused(step: int, n_steps: int, said: str, run_copy: Path):
    with pytest.raises(GrokscopeError, match=said):
        prepare(run_copy, step, with_changes(make_tiny_config(), {"n_steps": n_steps}))


def test_a_fork_of_a_fork_goes_on_exactly_and_knows_where_it_came_from(run_copy: Path, saved: Read, tmp_path: Path):
    config = with_changes(make_tiny_config(), {"optimizer.weight_decay": 0.1})
    child = training_fork.fork(run_copy, 20, config, "child", tmp_path)
    grandchild = training_fork.fork(child.path or "", 37, run="grandchild", root=tmp_path)
    assert from_step(saved(tmp_path / "child"), 37).items() <= saved(tmp_path / "grandchild").items()
    history = Record.read(tmp_path / "grandchild").history
    assert [(one["run"], one["step"]) for one in history] == [("copy", 20), ("child", 37)]
    assert history[0]["config_digest"] == make_tiny_config().digest
    assert (Record.read(tmp_path / "grandchild").first_step, grandchild.steps[0]) == (37, 37)
    assert grandchild.initialization is not None
    start = Trajectory.open(run_copy).at(0).parameters
    assert all(torch.equal(one, start[name]) for name, one in grandchild.initialization.items())
    with pytest.raises(GrokscopeError, match="step: 19; allowed: 20 to 60"):
        prepare(child.path or "", 19)


def test_what_came_after_the_step_is_no_part_of_a_forks_history(run_copy: Path, tmp_path: Path):
    training.resume(run_copy, n_steps=70)
    assert Record.read(run_copy).history[0]["event"] == "lengthened"
    forked = training_fork.fork(run_copy, 30, root=tmp_path)
    assert [one["event"] for one in Record.read(forked.path or Path()).history] == ["forked"]


def test_a_fork_is_lengthened_densified_and_measured_like_any_run(run_copy: Path, tmp_path: Path):
    config = with_changes(make_tiny_config(), {"optimizer.weight_decay": 0.0})
    fork = training_fork.fork(run_copy, 25, config, "fork", tmp_path).path or Path()
    longer = training.resume(fork, n_steps=75)
    again = training_fork.fork(run_copy, 25, with_changes(config, {"n_steps": 75}), "long", tmp_path)
    assert longer.select(again.steps).digest == again.digest
    denser = training.densify(fork, 25, 33)
    assert set(range(25, 34)) <= set(denser.steps.tolist())
    with pytest.raises(GrokscopeError, match=r"allowed: 25 <= start"):
        training.densify(fork, 24, 33)
    assert list(RunStore(fork).damage()) == []
    norms = measures.evaluate("weight_norm", denser)
    start = Trajectory.open(run_copy).at(0).parameters
    moved = {name: one - start[name] for name, one in denser.first.parameters.items()}
    expected = sum(float(one.double().square().sum()) for name, one in moved.items() if name in denser.model.trained)
    assert norms["distance_from_initialization"][0] == pytest.approx(expected**0.5)
    assert norms.steps[0] == 25 and np.isfinite(norms["distance_from_initialization"]).all()
    assert (
        measures.evaluate("embedding", denser)["circularity_initialization"]
        == measures.evaluate("embedding", Trajectory.open(run_copy).select([0, 60]))["circularity_initialization"]
    )


@pytest.mark.slow
def test_a_fork_has_a_report(run_copy: Path, tmp_path: Path):
    """Also one that begins with what a report looks for behind it."""
    assert report.write(training_fork.fork(run_copy, 55, root=tmp_path)).is_file()


def test_what_a_fork_had_done_before_it_began_is_said_so():
    accuracies = {"train_accuracy": np.array([1.0, 1.0, 1.0]), "test_accuracy": np.array([0.1, 0.5, 1.0])}
    log = Series("log", np.array([50, 60, 70]), accuracies)
    assert str(phases.memorization_step(log)) == "50 (or before)"
    assert str(phases.generalisation_step(log)) == "70 (after 60)"
    assert phases.stages(log) == [("memorized", 50, 70)]
    unlearned = Series("log", log.steps, {name: np.zeros(3) for name in accuracies})
    assert phases.stages(unlearned) == [("before memorization", 50, 70)]


def test_a_lost_first_segment_is_a_gap_from_where_the_fork_begins(
    run_copy: Path, tmp_path: Path, short_segments: None
):
    fork = training_fork.fork(run_copy, 30, root=tmp_path).path or Path()
    min((fork / "segments").glob("*")).unlink()
    lost = Trajectory.open(fork)
    assert lost.gaps == [(30, 30)] and lost.initialization is None
    (fault,) = verify.faults(RunStore(fork))
    assert "Nothing is left that leads to step 30; a new fork of copy at step 30" in fault.remedy


def test_data_and_environment_that_differ_are_recorded_and_said(run_copy: Path, monkeypatch: pytest.MonkeyPatch):
    present = environment.present
    monkeypatch.setattr(environment, "present", lambda device: {**present(device), "torch": "1.0.0"})
    fork = prepare(run_copy, 30, with_changes(make_tiny_config(), {"split_seed": 5}))
    said = " ".join(fork.sentences())
    assert fork.history[-1]["other_data"] and "its train and test sets are its own" in said
    assert any("torch" in one for one in fork.history[-1]["drift"]) and "torch was" in said
    assert "split_seed 0 → 5" in said
    same = prepare(run_copy, 30, with_changes(make_tiny_config(), {"optimizer.lr": 1.0}))
    assert not same.history[-1]["other_data"]


def test_training_there_once_more_must_give_the_bits_that_were_saved(run_copy: Path, monkeypatch: pytest.MonkeyPatch):
    update = loop.Optimizer.update
    monkeypatch.setattr(
        loop.Optimizer,
        "update",
        lambda self, gradients, u: update(self, {name: 1.01 * one for name, one in gradients.items()}, u),
    )
    with pytest.raises(GrokscopeError, match="gives other bits at step 30"):
        prepare(run_copy, 25)
    assert prepare(run_copy, 40), "a commit is gone on from as it is"


def test_an_older_reader_sees_a_whole_run(run_copy: Path, tmp_path: Path):
    """It knows nothing of forks: neither an unknown key nor a stretch without a segment may be in its way."""
    fork = training_fork.fork(run_copy, 30, root=tmp_path).path or Path()
    values = json.loads((fork / "config.json").read_bytes())
    usual = json.loads((run_copy / "config.json").read_bytes())
    assert set(values) == set(usual) and values["format"] == usual["format"] == 1
    reached = -1
    for begin, end in sorted(one.coverage for one in RunStore(fork).segments if one.coverage):
        assert begin <= reached
        reached = max(reached, end)


@pytest.fixture
def grokscope(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    return command_line(capsys, monkeypatch, tmp_path / "here")


def test_the_command_forks_a_run_with_its_settings_but_those_that_are_flags(grokscope: Command, run_copy: Path):
    status, output, errors = grokscope(
        "fork", run_copy, "--step", 25, "--run", "new", "--optimizer.weight-decay", 0, "--n-steps", 70
    )
    assert status == 0, errors
    assert "No commit at step 25" in output
    assert "Goes on from copy at step 25, optimizer.weight_decay 1.0 → 0.0; n_steps 60 → 70." in output
    record = Record.read(Path("checkpoints/new"))
    assert record.config == with_changes(make_tiny_config(), {"optimizer.weight_decay": 0.0, "n_steps": 70})
    assert grokscope("verify", "new")[0] == 0
    assert "forked from copy at 25" in grokscope("list", "runs")[1]
    status, output, _ = grokscope("fork", "new", "--step", 70, "--n-steps", 72)
    assert status == 0 and Path("checkpoints/new-fork").is_dir()
    assert grokscope("resume", "new-fork", "--n-steps", 75)[0] == 0
    assert json.loads(grokscope("log", "new-fork")[1].splitlines()[0])["step"] == 70


@pytest.mark.parametrize(
    ("flags", "status", "said"),
    [
        (["--step", 25, "--model.d-model", 32], 1, "model.d_model: 32 changes the parameters' shapes"),
        (["--step", 99], 1, "step: 99; allowed: 0 to 60"),
        (["--step", 25, "--optimizer.lr", -1], 1, "optimizer.lr: -1"),
        (["--step", 25, "--run", "../x"], 1, "is no name for a run"),
        ([], 2, "--step"),
    ],
)
def test_a_mistake_is_one_message(flags: list[Any], status: int, said: str, grokscope: Command, run_copy: Path):
    found, _, errors = grokscope("fork", run_copy, *flags)
    assert (found, said in errors) == (status, True), errors
    assert not Path("checkpoints").exists()


def test_a_name_in_use_is_refused_before_anything_is_trained(grokscope: Command, run_copy: Path):
    assert grokscope("fork", run_copy, "--step", 50, "--run", "new", "--batch-size", "none")[0] == 0
    status, _, errors = grokscope("fork", run_copy, "--step", 25, "--run", "new")
    assert status == 1 and "exists already" in errors
    assert "is no folder" in grokscope("fork", "nothing", "--step", 1)[2]


def test_the_damaged_log_of_a_fork_s_first_segment_is_a_gap_from_its_first_step(tiny_run: Path, tmp_path: Path):
    path = training_fork.fork(tiny_run, 20, run="fork", root=tmp_path).path
    assert path
    opened = RunStore(path)
    first = next(one for one in opened.segments if one.coverage == (-1, 20))
    flip(first.path, 8 * place(first.path, "log")[0])
    damaged = RunStore(path)
    damaged.log()
    assert damaged.log_gaps == [(20, 20)]
