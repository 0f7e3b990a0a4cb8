"""The scenarios in which a run is broken, and the checks that every broken run must pass."""

import dataclasses
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from support.shared import Saved, damage_of, make_tiny_config, read_everything, writing
from torch import Tensor

from grokscope import Trajectory, training
from grokscope.config import ModelConfig, RunConfig, TaskConfig
from grokscope.disk import atomic
from grokscope.disk.lock import is_locked
from grokscope.store.run_store import RunStore
from grokscope.training import checkpointer, loop
from grokscope.training import fork as training_fork
from grokscope.training import run as training_run
from grokscope.training.evaluation import Evaluator, Row
from grokscope.training.fork import fork
from grokscope.training.signals import InterruptedRunError
from grokscope.training.state import State

SCENARIOS = ["train", "resume", "densify", "fork"]


def small_config() -> RunConfig:
    """Return a config of three segments that trains in about 20 milliseconds."""
    return dataclasses.replace(
        make_tiny_config(),
        task=TaskConfig(p=5, train_fraction=0.6),
        model=ModelConfig(d_model=8, n_heads=2, d_mlp=8),
        n_steps=6,
        checkpoints="every 3",
        evaluate_every=3,
    )


def fake_computation(patch: pytest.MonkeyPatch) -> None:
    """Replace the loss and its gradient by cheap functions of parameters, step and batch.

    A step then takes a millisecond. An error in a resume still changes the numbers, because every input counts.
    """

    def loss_and_gradients(setup: loop.Setup, state: State) -> tuple[Tensor, dict[str, Tensor]]:
        scale = 1e-3 * float(setup.dataset.batch_indices(state.step).sum()) + state.step
        gradients = {name: (state.parameters[name] * scale).cos().detach() for name in setup.model.trained}
        return torch.tensor(scale), gradients

    def evaluate(evaluator: Evaluator, state: State) -> Row:
        loss = float(sum(tensor.detach().double().square().sum() for tensor in state.parameters.values()))
        return {"train_loss": loss, "test_loss": loss + 1, "train_accuracy": 0.5, "test_accuracy": 0.25}

    patch.setattr(loop, "loss_and_gradients", loss_and_gradients)
    patch.setattr(Evaluator, "evaluate", evaluate)


def run_folder(root: Path) -> Path:
    """Return the folder of a scenario's run."""
    return root / "runs" / "run"


@dataclass
class Scenario:
    """One of SCENARIOS on the run root/runs/run, with the state before it and the expected state after it.

    A scenario that starts a new run also makes the folder `runs`.
    """

    name: str
    config: RunConfig
    whole: Path
    """An uninterrupted run of the config. Do not change it."""
    before: Path | None
    """The run before the scenario; None without a run."""
    expected: Saved
    """The saved states after the scenario."""

    @classmethod
    def make(cls, name: str, folder: Path) -> "Scenario":
        """Make the runs before and after a scenario in a folder. Requires the fixture `segments_by_count`."""
        config = small_config()
        whole = training.train(config, "whole", folder).path
        assert whole
        before = None
        if name == "resume":
            with pytest.raises(InterruptedRunError):
                training.train(config, "before", folder, observer=_stop_at_2)
            before = folder / "before"
        elif name == "densify":
            before = shutil.copytree(whole, folder / "before")
        scenario = cls(name, config, whole, before, {})
        scenario.prepare(folder / "expected")
        scenario.run(folder / "expected")
        scenario.expected = read_everything(run_folder(folder / "expected"))
        return scenario

    def prepare(self, root: Path) -> None:
        """Make the folder `root` with the state before the scenario."""
        root.mkdir()
        if self.before:
            shutil.copytree(self.before, run_folder(root))

    def run(self, root: Path) -> None:
        """Run the scenario, or the rest of it after an interruption."""
        run = run_folder(root)
        if self.name == "densify":
            training.densify(run, 1, 5)
        elif run.exists():
            training.resume(run)
        elif self.name == "fork":
            fork(self.whole, 2, run=run.name, root=run.parent)
        else:
            training.train(self.config, run.name, run.parent)

    def read_committed(self, root: Path) -> Saved:
        """Return the committed checkpoints and log of the run, which must be undamaged; empty without a run."""
        assert writing() == []
        run = run_folder(root)
        if not run.exists():
            return {}
        assert not is_locked(run)
        store = RunStore(run)
        assert store.damaged == [] and damage_of(store) == []
        assert Trajectory.open(run).first.step == store.record.first_step
        return {key: value for key, value in read_everything(run).items() if key[0] in ("checkpoint", "log")}

    def check_recovery(self, root: Path, acknowledged: set[int]) -> None:
        """Check a broken run, complete the scenario, and compare the result bit for bit."""
        committed = self.read_committed(root)
        steps = {key[1] for key in committed if key[0] == "checkpoint"}
        assert acknowledged <= steps, f"the checkpoints {acknowledged - steps} were committed and are lost"
        assert committed.items() <= self.expected.items(), "other data was committed"
        self.run(root)
        assert read_everything(run_folder(root)) == self.expected
        assert not list(run_folder(root).rglob(f"*{atomic.TEMPORARY_SUFFIX}"))


class AcknowledgedCommits:
    """Collects the steps of the checkpoints whose commit has returned, by wrapping the functions that commit."""

    def __init__(self, patch: pytest.MonkeyPatch, callback: Callable[[frozenset[int]], None] = lambda steps: None):
        self.steps: set[int] = set()
        self.callback = callback
        commit, reveal, create_run = RunStore.commit, RunStore.reveal, training_run.create_run

        def wrapped_commit(store: RunStore, steps: list[int], *arguments, **options) -> None:
            commit(store, steps, *arguments, **options)
            # A hidden folder or file is not acknowledged yet.
            if not store.folder.name.startswith(".") and not options.get("hidden"):
                self.add(steps)

        def wrapped_reveal(store: RunStore, steps: list[int]) -> None:
            reveal(store, steps)
            self.add(steps)

        def wrapped_create_run(*arguments, **options) -> checkpointer.Checkpointer:
            run_checkpointer = create_run(*arguments, **options)
            self.add([RunStore(run_checkpointer.folder).record.first_step])
            return run_checkpointer

        patch.setattr(RunStore, "commit", wrapped_commit)
        patch.setattr(RunStore, "reveal", wrapped_reveal)
        for module in (training_run, training_fork):
            patch.setattr(module, "create_run", wrapped_create_run)

    def add(self, steps: list[int]) -> None:
        """Add acknowledged checkpoints."""
        self.steps |= set(steps)
        self.callback(frozenset(self.steps))


def report(title: str, counts: Counter[str] | dict[str, int]) -> None:
    """Print the counts of a harness."""
    print(f"\n{title}: " + ", ".join(f"{name} {n:,}" for name, n in counts.items()))


def _stop_at_2(step: int, row: dict[str, float]) -> None:
    if step == 2:
        signal.raise_signal(signal.SIGINT)
