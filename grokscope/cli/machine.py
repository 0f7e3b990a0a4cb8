"""What `grokscope doctor` examines: versions, cores, speed, memory, GPU, disk, browser and optional packages."""

import dataclasses
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
import webbrowser
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, util
from itertools import islice
from pathlib import Path

import psutil

from grokscope.disk import atomic
from grokscope.disk.lock import Lock
from grokscope.errors import GrokscopeError

BUSY_SHARE = 0.2
"""A process is busy if it uses more than this share of one core."""
_PACKAGES = {
    "wandb": "wandb",
    "trackio": "trackio",
    "tensorboard": "tensorboard",
    "ray": "ray",
    "devinterp": "llc",
    "xarray": "xarray",
}
"""The optional packages, and the extra that installs each."""


@dataclass(frozen=True)
class Finding:
    """A fact about this machine, and what to do about it."""

    name: str
    """The part of the machine."""
    fact: str
    """What was found."""
    advice: str = ""
    """What to do; empty if nothing needs to be done."""


def examine(root: Path) -> Iterator[Finding]:
    """Yield the findings one by one; the whole examination takes some seconds.

    Args:
        root: The folder for runs, whose disk is tested.
    """
    yield versions()
    yield cores()
    yield step_time()
    yield memory()
    yield gpu()
    yield disk(root)
    yield browser()
    yield packages()


def versions() -> Finding:
    """Return the versions of Python and of the packages that determine results, and the time to import torch."""
    started = time.perf_counter()
    import torch

    seconds = time.perf_counter() - started
    names = ("grokscope", "torch", "transformer-lens", "numpy")
    installed = [f"{name} {_version(name)}" for name in names]
    fact = f"Python {platform.python_version()}, {', '.join(installed)}; {sys.platform}, {platform.machine()}"
    if seconds < 10:
        return Finding("versions", fact)
    advice = f"Importing torch {torch.__version__} took {seconds:.0f} s. Install Python on a local disk."
    return Finding("versions", fact, advice)


def cores(seconds: float = 0.5) -> Finding:
    """Return the number of cores, the load on them, and the processes that use them.

    Args:
        seconds: The time for which the load is observed.
    """
    import torch

    from grokscope import threads

    n_cores, n_threads = threads.usable_cores(), torch.get_num_threads()
    processes = [process for process in psutil.process_iter(["name"]) if process.pid != os.getpid()]
    for process in processes:
        _share(process)  # The first call starts the measurement.
    time.sleep(seconds)
    shares = {process: _share(process) for process in processes}
    busy = sorted((process for process in processes if shares[process] > BUSY_SHARE), key=lambda p: -shares[p])
    n_free = max(0.0, n_cores - sum(shares.values()))
    fact = f"{n_cores} usable, about {n_free:.1f} free; torch uses {n_threads} threads"
    if not busy:
        return Finding("cores", fact)
    names = ", ".join(f"{p.info['name']} (process {p.pid}, {shares[p]:.0%} of a core)" for p in busy[:3])
    advice = f"Busy: {names}. "
    if n_threads > max(1, n_free):
        n_best = max(1, int(n_free))
        advice += f"Wait for them, or set OMP_NUM_THREADS={n_best}: threads without a free core slow each other down."
    return Finding("cores", fact, advice.strip())


def step_time(n_steps: int = 8) -> Finding:
    """Return the median time of a training step of the preset `quick`, with one thread and with all.

    Args:
        n_steps: The number of timed steps for each number of threads.
    """
    import torch

    from grokscope import threads
    from grokscope.config import presets
    from grokscope.training.loop import Setup, optimize

    config, n_before = presets.get("quick"), torch.get_num_threads()
    n_chosen, milliseconds = Setup(config).threads.n, {}
    try:
        for n_threads in sorted({1, n_chosen, threads.usable_cores()}):
            setup = Setup(dataclasses.replace(config, threads=n_threads))
            steps = optimize(setup, setup.learner.initial_state())
            next(steps)
            milliseconds[n_threads] = _median_milliseconds(steps, n_steps)
    finally:
        torch.set_num_threads(n_before)
    times = ", ".join(f"{t:.0f} ms with {n} thread{'s' * (n > 1)}" for n, t in milliseconds.items())
    best = min(milliseconds, key=lambda n: milliseconds[n])
    fact = f"a step of `quick` takes {times}; --threads auto chooses {n_chosen}"
    if milliseconds[n_chosen] < 1.2 * milliseconds[best]:
        return Finding("speed", fact)
    return Finding(
        "speed", fact, f"Add --threads {best} to new runs. A resumed run keeps the number that it began with."
    )


def memory() -> Finding:
    """Return the memory of the machine, and its free part or the limit of its container."""
    from grokscope.training.memory import available_memory

    state = psutil.virtual_memory()
    available = min(state.available, available_memory() or state.available)
    fact = f"{available / 1e9:.1f} GB of {state.total / 1e9:.1f} GB available"
    scarce = "Close other programs, or train with a smaller task.p or batch_size." if available < 2e9 else ""
    return Finding("memory", fact, scarce)


def gpu() -> Finding:
    """Return the GPUs that torch can use."""
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Finding("GPU", ", ".join(f"cuda:{i} {name}" for i, name in enumerate(names)), "Use --device cuda.")
    if torch.backends.mps.is_available():
        return Finding("GPU", "Apple MPS", "MPS has no float64, which losses need, so training uses the CPU.")
    return Finding("GPU", "none; training uses the CPU, for which grokscope is tuned")


def disk(root: Path) -> Finding:
    """Return the free space for runs, the time of a durable write, and whether the file system has locks.

    Args:
        root: The folder for runs. Without it, the disk of its nearest existing parent is tested.
    """
    folder = next((path for path in (root.absolute(), *root.absolute().parents) if path.is_dir()), Path.cwd())
    fact = f"{shutil.disk_usage(folder).free / 1e9:,.0f} GB free in {folder}"
    try:
        with tempfile.TemporaryDirectory(prefix=".grokscope-doctor-", dir=folder) as temporary, Lock(Path(temporary)):
            started = time.perf_counter()
            atomic.write_atomic(Path(temporary) / "segment", bytes(10**6))
            milliseconds = 1000 * (time.perf_counter() - started)
    except (OSError, GrokscopeError) as error:
        return Finding("disk", fact, f"Runs cannot be written there: {error} Choose another folder by --root.")
    fact += f"; a durable write of 1 MB takes {milliseconds:.0f} ms"
    slow = "The disk is slow. Choose a folder on a local disk by --root." if milliseconds > 200 else ""
    full = "Less than 1 GB is free. Delete old runs, or choose another disk by --root." * (
        shutil.disk_usage(folder).free < 1e9
    )
    return Finding("disk", fact, f"{slow} {full}".strip())


def browser() -> Finding:
    """Return whether `report --open` can show a page."""
    if not (sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        advice = "Copy report.html to another computer; the file is complete. Or use `grokscope watch --terminal`."
        return Finding("browser", "this machine has no screen", advice)
    try:
        return Finding("browser", f"{webbrowser.get().name}")  # pyright: ignore[reportAttributeAccessIssue]
    except (webbrowser.Error, AttributeError):
        return Finding("browser", "none", "Install a browser, or open report.html on another computer.")


def packages() -> Finding:
    """Return the optional packages that are installed, and how to add the others."""
    absent = [name for name in _PACKAGES if util.find_spec(name) is None]
    fact = ", ".join(f"{name} {_version(name)}" for name in _PACKAGES if name not in absent) or "none installed"
    extras = ",".join(sorted({_PACKAGES[name] for name in absent}))
    return Finding("extras", fact, f"To add {', '.join(absent)}: pip install 'grokscope[{extras}]'" if absent else "")


def _share(process: psutil.Process) -> float:
    """Return the share of one core that a process has used since the last call; 0 if it has ended."""
    try:
        return process.cpu_percent() / 100
    except psutil.Error:
        return 0.0


def _median_milliseconds(steps: Iterator[object], n_steps: int) -> float:
    """Return the median time between the next steps, in milliseconds."""
    times = [time.perf_counter(), *(time.perf_counter() for _ in islice(steps, n_steps))]
    return 1000 * statistics.median(after - before for before, after in zip(times, times[1:], strict=False))


def _version(package: str) -> str:
    """Return a package's version, or "(version unknown)"."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(version unknown)"
