"""Small sweeps, uninterrupted runs of their cells, and a probe that observes and kills the cells' processes."""

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

from grokscope import training
from grokscope.config import ModelConfig, OptimizerConfig, RunConfig, TaskConfig
from grokscope.disk.lock import is_locked
from grokscope.sweep import sweep_folder
from grokscope.sweep.plan import Cell, Sweep, read_sweep
from grokscope.training.signals import InterruptedRunError
from support.shared import Command, command_line

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
"""The settings of every small sweep, as TOML; `small_config` repeats them in Python."""

PROBE = '''
"""Runs in a cell's process before any other code, and holds a lock while the process lives."""
import importlib.abc, importlib.util, os, signal, sys, time
from pathlib import Path

if "grokscope.sweep.train_cell" in sys.orig_argv:
    import fcntl

    folder = Path(__file__).parent
    cell = Path(next(text for text in sys.orig_argv if "=" in text and not text.startswith("-"))).name

    def once(name):
        """Return True for the first call with a name, in any process."""
        try:
            os.close(os.open(folder / name, os.O_CREAT | os.O_EXCL))
            return True
        except FileExistsError:
            return False

    def wait_for(name):
        while not (folder / name).exists():
            time.sleep(0.02)

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def note(name, suffix=""):
        with open(folder / name, "a") as file:
            file.write(f"{cell}{suffix}\\n")

    (folder / cell).mkdir(exist_ok=True)
    lock = os.open(folder / cell / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.truncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    note("started")

    def observe(step, row):
        pass

    #HERE

    class Finder(importlib.abc.MetaPathFinder):
        """Passes the observer to `train` and `resume`."""

        def find_spec(self, name, path, target=None):
            if name != "grokscope.training.run":
                return None
            sys.meta_path.remove(self)
            spec = importlib.util.find_spec(name)
            execute = spec.loader.exec_module

            def with_observer(module):
                execute(module)
                for name in ("train", "resume"):
                    function = getattr(module, name)

                    def observed(*given, function=function, **options):
                        return function(*given, observer=observe, **options)

                    setattr(module, name, observed)

            spec.loader.exec_module = with_observer
            return spec

    sys.meta_path.insert(0, Finder())
'''


@dataclass(frozen=True)
class Probe:
    """Code that runs in the cells' processes: a folder for PYTHONPATH, in which the processes leave notes."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of a process whose cells run the probe."""
        path = os.pathsep.join([str(self.folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}

    def notes(self, name: str = "started") -> list[str]:
        """Return the cells that left a note, in order, with repetitions."""
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


def wait_for(is_so: Callable[[], object], event: str, seconds: float = 120) -> None:
    """Wait until a condition holds; fail with the event's name after some seconds."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"waited in vain until {event}"
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


def statuses(plan: Sweep, folder: Path) -> dict[str, str]:
    """Return the status of every cell, by name."""
    return {cell.name: sweep_folder.cell_state(cell, folder).status for cell in plan.cells}


def failure_records(folder: Path) -> list[str]:
    """Return the cells with a recorded failure, in any state."""
    return sorted(path.stem for path in (folder / "failures").glob("*"))


def small_config(**changes: Any) -> RunConfig:
    """Return the config of SMALL with some fields replaced."""
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
def make_probe(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Probe]:
    """The function that makes a probe from lines of Python, which run before the cell's own imports.

    The lines may define `observe(step, row)`, which is called after every step.
    """

    def make(body: str) -> Probe:
        folder = tmp_path_factory.mktemp("probe")
        indented = "".join(f"    {line}\n" for line in body.splitlines())
        (folder / "sitecustomize.py").write_text(PROBE.replace("    #HERE\n", indented))
        return Probe(folder)

    return make


@pytest.fixture
def install_probe(monkeypatch: pytest.MonkeyPatch) -> Callable[[Probe], None]:
    """The function that installs a probe in the cells that this process starts."""

    def install(probe: Probe) -> None:
        for name, value in probe.environment.items():
            monkeypatch.setenv(name, value)

    return install


@pytest.fixture
def grokscope(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """The function that runs one command in an empty folder, and returns its status, output and errors."""
    return command_line(capsys, monkeypatch, tmp_path / "here")


@pytest.fixture
def write_sweep(tmp_path: Path) -> Callable[..., Path]:
    """The function that writes a sweep file: top lines, the small settings, and the table of what varies."""

    def write(varies: str, name: str = "small.toml", top: str = "", small: str = SMALL) -> Path:
        path = tmp_path / name
        path.write_text(f"{top}\n{small}\n{varies}\n", encoding="utf-8")
        return path

    return write


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """The function that waits until a condition holds."""
    return wait_for


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of uninterrupted runs of the cells, trained in this process with one thread, without a sweep."""
    root = tmp_path_factory.mktemp("uninterrupted")
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
def two_cells(tiny_config: RunConfig) -> Sweep:
    """A sweep of two seeds of the tiny config, without a folder."""
    cells = [
        Cell(f"seed={seed}", {"seed": seed}, dataclasses.replace(tiny_config, init_seed=seed, n_steps=20))
        for seed in (0, 1)
    ]
    return Sweep(tuple(cells), "Two cells.")


@pytest.fixture
def partial_sweep(write_sweep: Callable[..., Path], tmp_path: Path) -> Iterator[tuple[Sweep, Path]]:
    """A sweep of three seeds: the first cell is finished, the second stopped at step 15, the third new."""
    plan, folder = read_sweep(write_sweep("[sweep]\nseeds = [0, 1, 2]")), tmp_path / "runs" / "small"
    sweep_folder.save(plan, folder)

    def stop(step: int, row: dict[str, float]) -> None:
        if step == 15:
            signal.raise_signal(signal.SIGTERM)

    with one_thread():
        training.train(plan.cells[0].config, plan.cells[0].name, folder)
        with pytest.raises(InterruptedRunError):
            training.train(plan.cells[1].config, plan.cells[1].name, folder, observer=stop)
        yield plan, folder
