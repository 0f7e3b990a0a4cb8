"""What a run is doing when it is broken, and what must be so afterwards, whatever broke it."""

import dataclasses
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from support.shared import Saved, make_tiny_config, read_everything, writing
from torch import Tensor

from grokscope import Trajectory, training
from grokscope.config import ModelConfig, RunConfig, TaskConfig
from grokscope.disk import atomic
from grokscope.disk.lock import is_locked
from grokscope.store.run_store import RunStore
from grokscope.training import checkpointer, fork, loop
from grokscope.training import run as training_run
from grokscope.training.fork import fork
from grokscope.training.signals import InterruptedRunError

LIVES = ["train", "resume", "densify", "fork"]


def small_config() -> RunConfig:
    """Return a config whose run, with three segments, takes some 20 milliseconds."""
    return dataclasses.replace(
        make_tiny_config(),
        task=TaskConfig(p=5, train_fraction=0.6),
        model=ModelConfig(d_model=8, n_heads=2, d_mlp=8),
        n_steps=6,
        checkpoints="every 3",
        evaluate_every=3,
    )


def compute_little(patch: pytest.MonkeyPatch) -> None:
    """Let a step take a millisecond: its loss and gradient are made up, out of parameters, step and batch.

    For harnesses that look at the writing: whatever a resume did otherwise would still be another number.
    """

    def loss_and_gradients(setup: loop.Setup, state: loop.State) -> tuple[Tensor, dict[str, Tensor]]:
        push = 1e-3 * float(setup.chosen(state.step).sum()) + state.step
        gradients = {name: (state.parameters[name] * push).cos().detach() for name in setup.model.trained}
        return torch.tensor(push), gradients

    def evaluate(setup: loop.Setup, state: loop.State) -> loop.Row:
        loss = float(sum(one.detach().double().square().sum() for one in state.parameters.values()))
        return {"train_loss": loss, "test_loss": loss + 1, "train_accuracy": 0.5, "test_accuracy": 0.25}

    patch.setattr(loop, "loss_and_gradients", loss_and_gradients)
    patch.setattr(loop.Setup, "evaluate", evaluate)


def run_in(root: Path) -> Path:
    """Return where a life has its run."""
    return root / "runs" / "run"


@dataclass
class Life:
    """One of LIVES over the run root/runs/run, from what is there before it to what must be there after it.

    What has to begin a run makes its folder `runs` too.
    """

    name: str
    config: RunConfig
    whole: Path
    """An uninterrupted run of the config, read-only."""
    before: Path | None
    """What is there before it begins; None for nothing."""
    expected: Saved

    @classmethod
    def make(cls, name: str, folder: Path) -> "Life":
        """Make the runs that it begins with and ends with in a folder; segments are to end by count alone."""
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
        life = cls(name, config, whole, before, {})
        life.begin(folder / "expected")
        life.go_on(folder / "expected")
        life.expected = read_everything(run_in(folder / "expected"))
        return life

    def begin(self, root: Path) -> None:
        """Make the folder `root` with what is there before."""
        root.mkdir()
        if self.before:
            shutil.copytree(self.before, run_in(root))

    def go_on(self, root: Path) -> None:
        """Do what this life does, or what is left of it."""
        run = run_in(root)
        if self.name == "densify":
            training.densify(run, 1, 5)
        elif run.exists():
            training.resume(run)
        elif self.name == "fork":
            fork(self.whole, 2, run=run.name, root=run.parent)
        else:
            training.train(self.config, run.name, run.parent)

    def look(self, root: Path) -> Saved:
        """Return what the run has committed, which must open and be sound; nothing if there is no run."""
        assert writing() == []
        run = run_in(root)
        if not run.exists():
            return {}
        assert not is_locked(run)
        opened = RunStore(run)
        assert opened.damaged == [] and list(opened.damage()) == []
        assert Trajectory.open(run).first.step == opened.record.first_step
        return {key: value for key, value in read_everything(run).items() if key[0] in ("checkpoint", "log")}

    def check(self, root: Path, acknowledged: set[int]) -> None:
        """Check a run that was broken, go on with it, and compare what comes of it to the bit."""
        found = self.look(root)
        steps = {key[1] for key in found if key[0] == "checkpoint"}
        assert acknowledged <= steps, f"the checkpoints {acknowledged - steps} were committed and are lost"
        assert found.items() <= self.expected.items(), "something else was committed"
        self.go_on(root)
        assert read_everything(run_in(root)) == self.expected
        assert not list(run_in(root).rglob(f"*{atomic.TEMPORARY}"))


class Acknowledged:
    """Notes the checkpoints whose commit has returned, by standing before what commits."""

    def __init__(self, patch: pytest.MonkeyPatch, told: Callable[[frozenset[int]], None] = lambda steps: None):
        self.steps: set[int] = set()
        self.told = told
        commit, reveal, begun = RunStore.commit, RunStore.reveal, training_run.begun

        def committed(store: RunStore, steps: list[int], *given, **named) -> None:
            commit(store, steps, *given, **named)
            # While the folder is built its name is hidden, and nobody has been told of it.
            if not store.folder.name.startswith(".") and not named.get("hidden"):
                self.note(steps)

        def revealed(store: RunStore, steps: list[int]) -> None:
            reveal(store, steps)
            self.note(steps)

        def has_begun(*given, **named) -> checkpointer.Recorder:
            begins = begun(*given, **named)
            self.note([RunStore(begins.folder).record.first_step])
            return begins

        patch.setattr(RunStore, "commit", committed)
        patch.setattr(RunStore, "reveal", revealed)
        for module in (training_run, fork):
            patch.setattr(module, "begun", has_begun)

    def note(self, steps: list[int]) -> None:
        """Note more checkpoints."""
        self.steps |= set(steps)
        self.told(frozenset(self.steps))


def said(what: str, counts: Counter[str] | dict[str, int]) -> None:
    """Print a harness's figure."""
    print(f"\n{what}: " + ", ".join(f"{name} {n:,}" for name, n in counts.items()))


def _stop_at_2(step: int, row: dict[str, float]) -> None:
    if step == 2:
        signal.raise_signal(signal.SIGINT)
