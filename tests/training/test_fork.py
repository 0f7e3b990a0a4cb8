"""Forks: bit-exact continuations without changes, and otherwise different only in the changed settings."""

import dataclasses
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.shared import KINDS, Saved, damage_of, flip, make_tiny_config, of_kind, place, quick

from grokscope import Trajectory, environment, fork, measures, phases, report, training
from grokscope.config import OptimizerConfig, RunConfig, TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.series import Series
from grokscope.store import verify
from grokscope.store.run_store import Record, RunStore
from grokscope.training import checkpointer
from grokscope.training.fork import prepare_fork
from grokscope.training.loop import Setup
from grokscope.training.optimizers import Optimizer
from grokscope.training.signals import InterruptedRunError

Read = Callable[[Path], Saved]
Origin = Callable[[str], Path]

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
CHANGES = {
    "weight decay": {"optimizer.weight_decay": 0.0},
    "learning rate and length": {"optimizer.lr": 3e-3, "n_steps": 80},
    "split": {"split_seed": 5, "task.train_fraction": 0.4},
    "batches": {"batch_size": 8, "training_seed": 2},
    "optimizer": {"optimizer.name": "sgd", "optimizer.momentum": 0.9, "optimizer.weight_decay": 0.0},
    "grokfast_ma": {"optimizer.gradient_filter": "grokfast_ma", "optimizer.filter_window": 5},
    "grokfast_ema": {"optimizer.gradient_filter": "grokfast_ema"},
    "adaptive schedule": {"checkpoints": "every 25 + adaptive 0.05", "evaluate_every": 3},
    "activation": {"model.act_fn": "gelu"},
    "biases": {"model.biases": "all"},
    "operation": {"task.name": "subtraction"},
}
REFUSED = {
    "model.d_model": 32, "model.n_heads": 4, "model.d_mlp": 8, "model.n_layers": 2, "model.normalization_type": "LN",
    "model.init": "torch", "model.init_scale": 2.0, "model.positions": "sinusoidal", "init_seed": 1,
    "task.p": 5, "task.form": "a ∘ b =", "task.name": "composition",
}  # fmt: skip


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Origin:
    """A function that returns an origin, trained once, with a commit at every other checkpoint."""
    folder = tmp_path_factory.mktemp("origins")

    def train(name: str) -> Path:
        path = folder / name.replace(" ", "_")
        if not path.exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(checkpointer, "SEGMENT_CHECKPOINTS", 2)
                training.train(CONFIGS[name], path.name, folder)
        return path

    return train


def with_changes(config: RunConfig, changes: dict[str, Any]) -> RunConfig:
    """Return a config with changes by dotted name."""
    for name, value in changes.items():
        table, _, leaf = name.rpartition(".")
        part = dataclasses.replace(getattr(config, table) if table else config, **{leaf: value})
        config = dataclasses.replace(config, **{table: part}) if table else part
    return config


def changed_tiny_config(**changes: Any) -> RunConfig:
    """Return the tiny config with changes of its optimizer."""
    return with_changes(make_tiny_config(), {f"optimizer.{name}": value for name, value in changes.items()})


def content_from(content: Saved, step: int) -> Saved:
    """Return the saved checkpoints and log rows from a step on, and the last resume state."""
    return {key: value for key, value in content.items() if key[0] == "resume" or (len(key) > 1 and key[1] >= step)}


def path_of(trajectory: Trajectory) -> Path:
    assert trajectory.path is not None
    return trajectory.path


def scale_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Change the updates slightly, as another version of torch might."""
    update = Optimizer.update

    def changed_update(self: Optimizer, gradients: Any, u: int) -> None:
        update(self, {name: 1.01 * gradient for name, gradient in gradients.items()}, u)

    monkeypatch.setattr(Optimizer, "update", changed_update)


# Unchanged forks.


@pytest.mark.parametrize("step", quick([0, 23, 30, 50], [23, 50]))
@pytest.mark.parametrize("name", CONFIGS)
def test_unchanged_fork_is_its_origin_s_continuation(
    name: str, step: int, origin: Origin, saved: Read, tmp_path: Path
):
    path = origin(name)
    forked = fork(path, step, root=tmp_path)
    assert path_of(forked) == tmp_path / f"{path.name}-fork"
    content, expected = saved(path_of(forked)), content_from(saved(path), step)
    assert expected.items() <= content.items()
    # The first step is saved too, whether or not it is scheduled.
    additional = {key[:2] for key in set(content) - set(expected) if key[0] != "config"}
    assert additional <= {("checkpoint", step), ("log", step)}
    assert (int(forked.steps[0]), int(forked.log.steps[0])) == (step, step)
    assert damage_of(RunStore(path_of(forked))) == [] and forked.gaps == [] and len(forked.log["gaps"]) == 0
    initialization = Trajectory.open(path).at(0).parameters
    assert forked.initialization is not None
    assert all(torch.equal(tensor, initialization[name]) for name, tensor in forked.initialization.items())


def test_fork_starts_with_its_origin_s_parameters(run_copy: Path, tmp_path: Path):
    forked = fork(run_copy, 23, root=tmp_path)
    expected = training.densify(run_copy, 23, 23).at(23).parameters
    assert all(torch.equal(tensor, expected[name]) for name, tensor in forked.first.parameters.items())


def test_fork_of_a_fork_continues_exactly_and_records_both(run_copy: Path, saved: Read, tmp_path: Path):
    config = with_changes(make_tiny_config(), {"optimizer.weight_decay": 0.1})
    child = path_of(fork(run_copy, 20, config, "child", tmp_path))
    grandchild = fork(child, 37, run="grandchild", root=tmp_path)
    assert content_from(saved(child), 37).items() <= saved(tmp_path / "grandchild").items()
    record = Record.read(tmp_path / "grandchild")
    assert [(event["run"], event["step"]) for event in record.history] == [("copy", 20), ("child", 37)]
    assert record.history[0]["config_digest"] == make_tiny_config().digest
    assert (record.first_step, grandchild.steps[0]) == (37, 37)
    assert grandchild.initialization is not None
    initialization = Trajectory.open(run_copy).at(0).parameters
    assert all(torch.equal(tensor, initialization[name]) for name, tensor in grandchild.initialization.items())
    with pytest.raises(GrokscopeError, match=r"step: 19 is not a trained step of .*\. Allowed: 20 to 60"):
        prepare_fork(child, 19)


def test_replay_that_differs_from_saved_bits_raises(run_copy: Path, monkeypatch: pytest.MonkeyPatch):
    scale_gradients(monkeypatch)
    with pytest.raises(GrokscopeError, match="gives other bits at step 30"):
        prepare_fork(run_copy, 25)
    assert prepare_fork(run_copy, 40), "a step with a resume state needs no replay"


# Changed forks.


@pytest.mark.parametrize("name", quick(CHANGES, ["learning rate and length", "batches", "grokfast_ma"]))
def test_interrupted_fork_resumes_to_the_bit(name: str, run_copy: Path, saved: Read, tmp_path: Path):
    config = with_changes(make_tiny_config(), CHANGES[name])
    uninterrupted = fork(run_copy, 30, config, "uninterrupted", tmp_path)

    def interrupt(step: int, row: dict[str, float]) -> None:
        if step in (31, 43):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(InterruptedRunError):
        fork(run_copy, 30, config, "interrupted", tmp_path, observer=interrupt)
    with pytest.raises(InterruptedRunError):
        training.resume(tmp_path / "interrupted", observer=interrupt)
    resumed = training.resume(tmp_path / "interrupted")
    assert saved(tmp_path / "interrupted") == saved(tmp_path / "uninterrupted")
    assert resumed.digest == uninterrupted.digest and resumed.origin == uninterrupted.origin
    assert damage_of(RunStore(tmp_path / "interrupted")) == []
    assert resumed.origin is not None
    values = make_tiny_config().to_dict()
    assert set(resumed.origin["changed"]) == set(CHANGES[name])
    for setting, (before, after) in resumed.origin["changed"].items():
        table, _, leaf = setting.rpartition(".")
        assert before == (values[table] if table else values)[leaf] and after == CHANGES[name][setting]


def test_fork_changes_only_the_changed_setting(origin: Origin, tmp_path: Path):
    """The expected update is written out: AdamW with the absolute step's warm-up and the origin's own moments."""
    path = origin("long warm-up")
    config = with_changes(CONFIGS["long warm-up"], {"optimizer.weight_decay": 0.0, "checkpoints": "every 1"})
    forked = fork(path, 20, config, root=tmp_path)
    segment = next(segment for segment in RunStore(path).resume_points() if segment.resume_step == 20)
    state = {name: torch.from_numpy(array) for name, array in segment.resume_state().items()}
    setup = Setup(config)
    dataset, train = setup.dataset, setup.dataset.split.train
    parameters = {name: state[f"parameters/{name}"].clone().requires_grad_() for name in setup.model.shapes}
    logits = setup.model.logits(parameters, dataset.inputs[train]).double()
    loss = torch.nn.functional.cross_entropy(logits, dataset.labels[train])
    (gradient,) = torch.autograd.grad(loss, [parameters["embed.W_E"]])
    mean, square = (state[f"optimizer/embed.W_E/exp_avg{suffix}"].double() for suffix in ("", "_sq"))
    mean, square = 0.9 * mean + 0.1 * gradient, 0.98 * square + 0.02 * gradient.double() ** 2
    update = mean / (1 - 0.9**21) / ((square / (1 - 0.98**21)).sqrt() + 1e-8)
    expected = state["parameters/embed.W_E"] - 1e-2 * 20 / 50 * update
    torch.testing.assert_close(forked.at(21).parameters["embed.W_E"].double(), expected, rtol=1e-4, atol=1e-6)


def test_optimizer_state_is_kept_only_if_its_tensors_match(run_copy: Path):
    def emptied_parts(step: int = 30, **changes: Any) -> list[str]:
        prepared = prepare_fork(run_copy, step, changed_tiny_config(**changes))
        emptied = prepared.history[-1]["anew"]
        assert bool(emptied) == any("empty state" in sentence for sentence in prepared.describe())
        has_state = any(name.startswith("optimizer/") for name in prepared.resume_state)
        assert has_state == (step > 0 and "the optimizer" not in emptied and changes.get("name") != "sgd")
        return emptied

    assert emptied_parts(name="adam", weight_decay=0.0) == []
    assert emptied_parts(betas=(0.8, 0.9)) == emptied_parts(gradient_filter="orthogonal") == []
    assert emptied_parts(name="sgd", momentum=0.9) == ["the optimizer"]
    assert emptied_parts(name="sgd") == [], "sgd without momentum has no state"
    for name in ("grokfast_ma", "grokfast_ema"):
        assert emptied_parts(gradient_filter=name) == ["the gradient filter"]
    assert emptied_parts(0, gradient_filter="grokfast_ema", name="sgd", momentum=0.9) == []


def test_new_gradient_window_adds_nothing_until_it_is_full(run_copy: Path, tmp_path: Path):
    """The first updates are those of the plain optimizer; the update that fills the window differs."""
    dense = {"checkpoints": "every 1", "n_steps": 40}
    plain = fork(run_copy, 30, with_changes(make_tiny_config(), dense), "plain", tmp_path)
    with_filter = {**dense, "optimizer.gradient_filter": "grokfast_ma", "optimizer.filter_window": 5}
    filtered = fork(run_copy, 30, with_changes(make_tiny_config(), with_filter), "filtered", tmp_path)
    is_equal = [
        torch.equal(plain.at(step).parameters["embed.W_E"], filtered.at(step).parameters["embed.W_E"])
        for step in range(30, 36)
    ]
    assert is_equal == [True] * 5 + [False]


def test_changed_data_and_environment_are_recorded_and_described(run_copy: Path, monkeypatch: pytest.MonkeyPatch):
    describe = environment.describe
    monkeypatch.setattr(environment, "describe", lambda *arguments: {**describe(*arguments), "torch": "1.0.0"})
    changed = prepare_fork(run_copy, 30, with_changes(make_tiny_config(), {"split_seed": 5}))
    description = " ".join(changed.describe())
    assert changed.history[-1]["other_data"] and "train and test sets differ" in description
    assert any("torch" in clause for clause in changed.history[-1]["drift"]) and "torch was" in description
    assert "split_seed 0 → 5" in description
    assert not prepare_fork(run_copy, 30, changed_tiny_config(lr=1.0)).history[-1]["other_data"]


# Forks that are refused.


@pytest.mark.parametrize("name", REFUSED)
def test_setting_that_cannot_change_is_named(name: str, run_copy: Path, tmp_path: Path):
    config = with_changes(make_tiny_config(), {name: REFUSED[name], "optimizer.lr": 1e-3})
    with pytest.raises(GrokscopeError, match=rf"^{name}: .*{REFUSED[name]}.*Allowed in a fork: ") as raised:
        fork(run_copy, 30, config, root=tmp_path / "none")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "none").exists()


def test_other_group_of_the_same_order_is_refused(tmp_path: Path):
    task = TaskConfig(name="composition", group="S3", train_fraction=0.6)
    config = dataclasses.replace(make_tiny_config(), task=task, n_steps=10)
    training.train(config, "S3", tmp_path)
    with pytest.raises(GrokscopeError, match=r"^task.group: 'C6' changes the meaning of the tokens\. .*'S3'"):
        prepare_fork(tmp_path / "S3", 10, with_changes(config, {"task.group": "C6", "n_steps": 20}))
    assert prepare_fork(tmp_path / "S3", 10, with_changes(config, {"task.name": "aba", "n_steps": 20}))


@pytest.mark.parametrize(
    ("step", "n_steps", "message"),
    [
        (-1, 60, "step: -1 is not a trained step .*Allowed: 0 to 60"),
        (61, 90, "step: 61 is not a trained step .*Allowed: 0 to 60"),
        (60, 60, "n_steps: 60.*from 61"),
    ],
)
def test_invalid_step_is_refused(step: int, n_steps: int, message: str, run_copy: Path):
    with pytest.raises(GrokscopeError, match=message):
        prepare_fork(run_copy, step, with_changes(make_tiny_config(), {"n_steps": n_steps}))


# Forks as runs.


def test_fork_history_ends_at_its_step(run_copy: Path, tmp_path: Path):
    training.resume(run_copy, n_steps=70)
    assert Record.read(run_copy).history[0]["event"] == "lengthened"
    forked = fork(run_copy, 30, root=tmp_path)
    assert [event["event"] for event in Record.read(path_of(forked)).history] == ["forked"]


def test_fork_is_lengthened_densified_and_measured(run_copy: Path, tmp_path: Path):
    config = with_changes(make_tiny_config(), {"optimizer.weight_decay": 0.0})
    path = path_of(fork(run_copy, 25, config, "fork", tmp_path))
    lengthened = training.resume(path, n_steps=75)
    long = fork(run_copy, 25, with_changes(config, {"n_steps": 75}), "long", tmp_path)
    assert lengthened.select(long.steps).digest == long.digest
    denser = training.densify(path, 25, 33)
    assert set(range(25, 34)) <= set(denser.steps.tolist())
    with pytest.raises(GrokscopeError, match=r"Allowed: 25 <= start"):
        training.densify(path, 24, 33)
    assert damage_of(RunStore(path)) == []
    norms = measures.evaluate("weight_norm", denser)
    initialization = Trajectory.open(run_copy).at(0).parameters
    squares = [
        float((tensor - initialization[name]).double().square().sum())
        for name, tensor in denser.first.parameters.items()
        if name in denser.model.trained
    ]
    assert norms["distance_from_initialization"][0] == pytest.approx(sum(squares) ** 0.5)
    assert norms.steps[0] == 25 and np.isfinite(norms["distance_from_initialization"]).all()
    control = measures.evaluate("embedding", Trajectory.open(run_copy).select([0, 60]))
    for_fork = measures.evaluate("embedding", denser)
    assert for_fork["circularity_initialization"] == control["circularity_initialization"]


@pytest.mark.slow
def test_fork_after_grokking_has_a_report(run_copy: Path, tmp_path: Path):
    assert report.write(fork(run_copy, 55, root=tmp_path)).is_file()


def test_event_before_a_log_s_first_row_is_reported_as_such():
    accuracies = {"train_accuracy": np.array([1.0, 1.0, 1.0]), "test_accuracy": np.array([0.1, 0.5, 1.0])}
    log = Series("log", np.array([50, 60, 70]), accuracies)
    assert str(phases.memorization_step(log)) == "50 (or before)"
    assert str(phases.generalisation_step(log)) == "70 (after 60)"
    assert phases.stages(log) == [("memorized", 50, 70)]
    unlearned = Series("log", log.steps, {name: np.zeros(3) for name in accuracies})
    assert phases.stages(unlearned) == [("before memorization", 50, 70)]


def test_lost_first_segment_is_a_gap_at_the_fork_s_first_step(run_copy: Path, tmp_path: Path, short_segments: None):
    path = path_of(fork(run_copy, 30, root=tmp_path))
    min((path / "segments").glob("*")).unlink()
    trajectory = Trajectory.open(path)
    assert trajectory.gaps == [(30, 30)] and trajectory.initialization is None
    (fault,) = verify.faults(RunStore(path))
    assert "No readable resume state precedes step 30. To recompute everything, fork copy again at step 30" in (
        fault.remedy
    )


def test_damaged_log_is_a_gap_from_the_fork_s_first_step(tiny_run: Path, tmp_path: Path):
    path = path_of(fork(tiny_run, 20, run="fork", root=tmp_path))
    first = next(segment for segment in RunStore(path).segments if segment.coverage == (-1, 20))
    flip(first.path, 8 * place(first.path, "log")[0])
    assert RunStore(path).log.gaps == [(20, 20)]


def test_fork_s_format_is_that_of_any_run(run_copy: Path, tmp_path: Path):
    """A reader that does not know forks must meet neither an unknown key nor steps without a segment."""
    path = path_of(fork(run_copy, 30, root=tmp_path))
    values = json.loads((path / "config.json").read_bytes())
    expected = json.loads((run_copy / "config.json").read_bytes())
    assert set(values) == set(expected) and values["format"] == expected["format"] == 1
    covered = -1
    for begin, end in sorted(segment.coverage for segment in RunStore(path).segments if segment.coverage):
        assert begin <= covered
        covered = max(covered, end)
