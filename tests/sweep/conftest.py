"""Small sweeps, the bits that their cells must have, and a hand inside the cells' processes to slow and kill them."""

import dataclasses
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from support.shared import Command, command_line

from grokscope import training
from grokscope.config import ModelConfig, OptimizerConfig, RunConfig, TaskConfig
from grokscope.disk.lock import is_locked
from grokscope.sweep import sweep_folder
from grokscope.sweep.plan import Sweep, read_sweep
from grokscope.training.signals import InterruptedRunError

SMALL = """
n_steps = 40
checkpoints = "every 10"
evaluate_every = 10
[task]
p = 5
train_fraction = 0.6
[model]
d_model = 8
n_heads = 2
d_mlp = 12
[optimizer]
lr = 1e-2
warmup_steps = 4
"""
"""What every small sweep starts from, as TOML; `small_config` says the same by hand."""

HAND = '''
"""Runs in a process of a cell before anything else does: it holds a lock as long as the process lives."""
import importlib.abc, importlib.util, os, signal, sys, time
from pathlib import Path

if "grokscope.sweep.train_cell" in sys.orig_argv:
    import fcntl

    place = Path(__file__).parent
    cell = Path(next(one for one in sys.orig_argv if "=" in one and not one.startswith("-"))).name

    def once(name):
        """Whether nobody asked this before."""
        try:
            os.close(os.open(place / name, os.O_CREAT | os.O_EXCL))
            return True
        except FileExistsError:
            return False

    def wait_for(name):
        while not (place / name).exists():
            time.sleep(0.02)

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def note(name, more=""):
        with open(place / name, "a") as file:
            file.write(f"{cell}{more}\\n")

    (place / cell).mkdir(exist_ok=True)
    alive = os.open(place / cell / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(alive, fcntl.LOCK_EX)
    os.truncate(alive, 0)
    os.pwrite(alive, str(os.getpid()).encode(), 0)
    note("started")

    def observe(step, row):
        pass

    #HERE

    class Finder(importlib.abc.MetaPathFinder):
        """Gives `train` and `resume` the observer."""

        def find_spec(self, name, path, target=None):
            if name != "grokscope.training.run":
                return None
            sys.meta_path.remove(self)
            spec = importlib.util.find_spec(name)
            execute = spec.loader.exec_module

            def with_observer(module):
                execute(module)
                for called in ("train", "resume"):
                    function = getattr(module, called)
                    setattr(module, called, lambda *given, function=function: function(*given, observer=observe))

            spec.loader.exec_module = with_observer
            return spec

    sys.meta_path.insert(0, Finder())
'''


@dataclass(frozen=True)
class Hand:
    """A hand inside the cells' processes: a folder for PYTHONPATH whose files tell what happened."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which the cells' processes have the hand in them."""
        path = os.pathsep.join([str(self.folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}

    def noted(self, name: str = "started") -> list[str]:
        """Return the cells that left a note, in order, each as often as it did."""
        path = self.folder / name
        return path.read_text().split() if path.exists() else []

    def is_alive(self, cell: str) -> bool:
        """Return whether a process of the cell is alive; a zombie is not."""
        return is_locked(self.folder / cell)

    def is_idle(self) -> bool:
        """Return whether no cell's process is alive."""
        return not any(is_locked(path.parent) for path in self.folder.glob("*/lock"))

    def kill(self) -> None:
        """Kill the cells' processes that are still alive."""
        for path in self.folder.glob("*/lock"):
            if is_locked(path.parent):
                os.kill(int(path.read_text()), signal.SIGKILL)


def wait_for(is_so: Callable[[], object], what: str, seconds: float = 120) -> None:
    """Wait until something is so; fail, saying what it is, if that never comes."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.02)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, as the cells' processes do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def small_config(**changes: Any) -> RunConfig:
    """The config that SMALL says, with changes at its top."""
    return RunConfig(
        **{
            "task": TaskConfig(p=5, train_fraction=0.6),
            "model": ModelConfig(d_model=8, n_heads=2, d_mlp=12),
            "optimizer": OptimizerConfig(lr=1e-2, warmup_steps=4),
            "n_steps": 40,
            "checkpoints": "every 10",
            "evaluate_every": 10,
            **changes,
        }
    )


@pytest.fixture(scope="session")
def small() -> str:
    """What every small sweep starts from, as TOML."""
    return SMALL


@pytest.fixture(scope="session")
def make_hand(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Hand]:
    """The function that makes a hand that does what some lines of Python say, before the cell's own imports.

    They may define `observe(step, row)`, called after every step.
    """

    def make(body: str) -> Hand:
        folder = tmp_path_factory.mktemp("hand")
        indented = "".join(f"    {line}\n" for line in body.splitlines())
        (folder / "sitecustomize.py").write_text(HAND.replace("    #HERE\n", indented))
        return Hand(folder)

    return make


@pytest.fixture
def hold(monkeypatch: pytest.MonkeyPatch) -> Callable[[Hand], None]:
    """The function that lays a hand on the cells that this process starts."""

    def lay(hand: Hand) -> None:
        for name, value in hand.environment.items():
            monkeypatch.setenv(name, value)

    return lay


@pytest.fixture
def grokscope(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """The function that runs one command here, in an empty folder; it returns status, output and errors."""
    return command_line(capsys, monkeypatch, tmp_path / "here")


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """The function that writes a sweep file: lines at its top, the small settings, and what varies."""

    def write(varies: str, name: str = "small.toml", top: str = "", small: str = SMALL) -> Path:
        path = tmp_path / name
        path.write_text(f"{top}\n{small}\n{varies}\n", encoding="utf-8")
        return path

    return write


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """The function that waits until something is so."""
    return wait_for


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that nothing interrupted, trained here one by one with one thread, without any sweep or its processes."""
    root = tmp_path_factory.mktemp("whole")
    configs = {f"init_seed={seed}": small_config(init_seed=seed) for seed in range(3)}
    for seed in range(3):
        seeds = {"split_seed": seed, "init_seed": seed, "training_seed": seed}
        configs[f"seed={seed}"] = small_config(**seeds)
    configs["long"] = dataclasses.replace(configs["seed=0"], n_steps=60)
    with one_thread():
        for name, config in configs.items():
            training.train(config, name, root)
    return root


@pytest.fixture
def trained(written: Callable[..., Path], tmp_path: Path) -> Iterator[tuple[Sweep, Path]]:
    """A sweep of three seeds trained here: the first is finished, the second stopped at step 15, the third new."""
    plan, folder = read_sweep(written("[sweep]\nseeds = [0, 1, 2]")), tmp_path / "runs" / "small"
    sweep_folder.save(plan, folder)

    def stop(step: int, row: dict[str, float]) -> None:
        if step == 15:
            signal.raise_signal(signal.SIGTERM)

    with one_thread():
        training.train(plan.cells[0].config, plan.cells[0].name, folder)
        with pytest.raises(InterruptedRunError):
            training.train(plan.cells[1].config, plan.cells[1].name, folder, observer=stop)
        yield plan, folder
