"""The workers of a sweep: cells that are killed, crash, diverge or are in use; backends and numbers of jobs."""

import dataclasses
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from support.sweeps import SMALL, Probe, failure_records, statuses

from grokscope import training
from grokscope.disk.lock import Lock, is_locked
from grokscope.errors import GrokscopeError
from grokscope.store.run_store import Record
from grokscope.sweep import sweep_folder, workers
from grokscope.sweep.plan import Sweep, read_sweep
from grokscope.sweep.sweep_folder import BUSY, IO_ERROR

Read = Callable[[Path], dict[tuple[Any, ...], tuple[Any, ...]]]
WriteSweep = Callable[..., Path]

EVENTFUL = """
[[sweep.cells]]
init_seed = 1
[[sweep.cells]]
init_seed = 2
[[sweep.cells]]
optimizer.name = "sgd"
optimizer.lr = 100
model.init_scale = 100
"""
KILLED, DEAD, DIVERGED = "init_seed=1", "init_seed=2", "optimizer.name=sgd+lr=100+init_scale=100"
EVENTS = f"""
if cell == {DEAD!r}:
    die()
def observe(step, row):
    sys.modules["grokscope.training.checkpointer"].SEGMENT_SECONDS = 0.0
    if cell == {KILLED!r}:
        note("steps", f" {{step}}")
        if step == 25 and once("killed"):
            die()
"""


@pytest.fixture(scope="module")
def eventful(make_probe: Callable[[str], Probe], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Probe]:
    """The root and the probe of a finished sweep: a cell is killed once, one always crashes, one diverges. Shared."""
    root = tmp_path_factory.mktemp("eventful")
    (root / "eventful.toml").write_text(SMALL + EVENTFUL)
    plan, probe = read_sweep(root / "eventful.toml"), make_probe(EVENTS)
    sweep_folder.save(plan, root / "eventful")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in probe.environment.items():
            patch.setenv(name, value)
        workers.run_sweep(plan, root / "eventful", jobs=2)
    return root, probe


@pytest.fixture
def eventful_copy(eventful: tuple[Path, Probe], tmp_path: Path) -> tuple[Sweep, Path]:
    """The plan of the eventful sweep, and a copy of its folder that a test may change."""
    folder = shutil.copytree(eventful[0] / "eventful", tmp_path / "eventful")
    return read_sweep(eventful[0] / "eventful.toml"), folder


@pytest.mark.slow
def test_failing_cells_do_not_stop_the_others(eventful_copy: tuple[Sweep, Path]):
    plan, folder = eventful_copy
    assert statuses(plan, folder) == {
        KILLED: "finished",
        DEAD: "failed",
        DIVERGED: "failed",
    }
    assert failure_records(folder) == [DEAD, DIVERGED]
    assert not any(is_locked(folder / cell.name) for cell in plan.cells)


def test_killed_cell_resumes_and_ends_with_the_same_bits(
    eventful: tuple[Path, Probe], uninterrupted: Path, saved: Read
):
    root, probe = eventful
    assert probe.notes().count(KILLED) == 2
    steps = [int(line.split()[1]) for line in (probe.folder / "steps").read_text().splitlines()]
    assert steps[:25] == list(range(1, 26)), "it is killed at step 25"
    assert 20 < steps[25] <= 26 and steps[25:] == list(range(steps[25], 41)), "it resumes from its last commit"
    assert saved(root / "eventful" / KILLED) == saved(uninterrupted / KILLED)


def test_crashing_cell_is_tried_three_times(eventful: tuple[Path, Probe], eventful_copy: tuple[Sweep, Path]):
    plan, folder = eventful_copy
    assert eventful[1].notes().count(DEAD) == 3
    state = sweep_folder.cell_state(plan.cells[1], folder)
    assert (state.status, state.step) == ("failed", 0)
    assert re.match(r"Its process was killed 3 times, by signal 9\.", state.reason)


def test_diverging_cell_is_tried_once(eventful: tuple[Path, Probe], eventful_copy: tuple[Sweep, Path]):
    plan, folder = eventful_copy
    assert eventful[1].notes().count(DIVERGED) == 1
    state = sweep_folder.cell_state(plan.cells[2], folder)
    assert state.status == "failed"
    assert re.match(r"The .* is not finite at step \d+; the last finite step is \d+\.", state.reason)
    assert "Traceback" not in state.reason and "\n" not in state.reason


@pytest.mark.slow
def test_retry_trains_only_failed_cells(
    eventful_copy: tuple[Sweep, Path],
    make_probe: Callable[[str], Probe],
    install_probe: Callable[[Probe], None],
    uninterrupted: Path,
    saved: Read,
):
    plan, folder = dataclasses.replace(eventful_copy[0], cells=eventful_copy[0].cells[:2]), eventful_copy[1]
    install_probe(probe := make_probe(""))
    before = statuses(plan, folder)
    workers.run_sweep(plan, folder, jobs=2)
    assert (probe.notes(), statuses(plan, folder)) == ([], before)
    workers.run_sweep(plan, folder, jobs=2, retry=True)
    assert probe.notes() == [DEAD]
    assert statuses(plan, folder) == {**before, DEAD: "finished"}
    assert failure_records(folder) == [DIVERGED], "a cell outside the plan is unchanged"
    assert saved(folder / DEAD) == saved(uninterrupted / DEAD)


def test_cell_in_use_is_not_started(
    partial_sweep: tuple[Sweep, Path], make_probe: Callable[[str], Probe], install_probe: Callable[[Probe], None]
):
    plan, folder = partial_sweep
    install_probe(probe := make_probe(""))
    with Lock(folder / plan.cells[1].name):
        workers.run_sweep(plan.shard(2, 3), folder, jobs=1)
        assert statuses(plan, folder) == {"seed=0": "finished", "seed=1": "running", "seed=2": "new"}
    assert probe.notes() == [] and failure_records(folder) == []


@pytest.mark.parametrize(
    ("status", "errors", "reason", "recorded"),
    [
        # A record would make the cell fail once the file asks for more steps.
        (BUSY, "It is being write_sweep by process 1.", "", []),
        (IO_ERROR, "The disk is full.", "The disk is full.", []),
        (1, "It diverged.", "It diverged.", ["seed=2"]),
    ],
)
def test_only_a_lasting_failure_is_recorded(
    status: int,
    errors: str,
    reason: str,
    recorded: list[str],
    partial_sweep: tuple[Sweep, Path],
    monkeypatch: pytest.MonkeyPatch,
):
    plan, folder = partial_sweep
    attempts: list[Any] = []
    monkeypatch.setattr(workers, "_run_process", lambda *given: attempts.append(given) or (status, "", errors))
    assert workers.train_cells([plan.cells[2]], folder) == ({plan.cells[2].name: reason} if reason else {})
    assert (len(attempts), failure_records(folder)) == (1, recorded)


def test_checking_a_lock_never_blocks_its_owner(tmp_path: Path):
    with Lock(tmp_path):
        pass
    ended = threading.Event()

    def check() -> None:
        while not ended.is_set():
            is_locked(tmp_path)

    thread = threading.Thread(target=check)
    thread.start()
    refused = 0
    try:
        for _ in range(3000):
            try:
                with Lock(tmp_path):
                    pass
            except GrokscopeError:
                refused += 1
    finally:
        ended.set()
        thread.join()
    assert refused == 0


@pytest.mark.slow
def test_other_environment_needs_allow_drift(partial_sweep: tuple[Sweep, Path], tmp_path: Path):
    plan, folder = partial_sweep
    path = folder / "seed=1" / "config.json"
    record = Record.read(path.parent)
    environment = {**record.environment, "torch": "1.0"}
    Record(record.config, environment, record.data_digest, record.history).write(path.parent)
    shard = plan.shard(2, 3)
    workers.run_sweep(shard, folder, jobs=1)
    state = sweep_folder.cell_state(shard.cells[0], folder)
    assert state.status == "failed" and "--allow-drift" in state.reason and "torch" in state.reason
    workers.run_sweep(shard, folder, jobs=1, retry=True, allow_drift=True)
    assert statuses(shard, folder) == {"seed=1": "finished"}
    assert Record.read(path.parent).history[0]["event"] == "drift allowed"


RAY = """
import sys
import ray
from grokscope.cli import main
ray.init(
    num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=80_000_000, logging_level="ERROR"
)
try:
    main(sys.argv[1:])
finally:
    ray.shutdown()
"""


@pytest.mark.slow
def test_ray_gives_the_same_bits(
    write_sweep: WriteSweep, make_probe: Callable[[str], Probe], uninterrupted: Path, saved: Read
):
    pytest.importorskip("ray")
    diverging = 'optimizer.name = "sgd"\noptimizer.lr = 100\nmodel.init_scale = 100'
    path = write_sweep(f"[sweep]\nseeds = [0, 1]\n[[sweep.cells]]\n[[sweep.cells]]\n{diverging}")
    root = path.parent / "runs"
    process = subprocess.run(
        [sys.executable, "-c", RAY, "sweep", path, "--backend", "ray", "--root", root, "--jobs", "2"],
        capture_output=True,
        text=True,
        timeout=300,
        env=make_probe("").environment,
    )
    assert process.returncode == 1 and "grokscope: 2 cells failed" in process.stderr, process.stderr
    plan, folder = read_sweep(path), root / "small"
    assert list(statuses(plan, folder).values()) == ["finished", "finished", "failed", "failed"]
    assert "is not finite" in sweep_folder.cell_state(plan.cells[3], folder).reason
    for seed, cell in enumerate(plan.cells[:2]):
        assert saved(folder / cell.name) == saved(uninterrupted / f"seed={seed}")


def test_ray_uses_every_core_of_the_cluster_by_default(
    partial_sweep: tuple[Sweep, Path], monkeypatch: pytest.MonkeyPatch
):
    calls: list[Any] = []
    reasons = [None, {"seed=2": "So."}, None]

    def configured(backend: str) -> nullcontext[None]:
        calls.append(backend)
        return nullcontext()

    def parallel(n_jobs: int | None = None) -> Callable[..., list[Any]]:
        calls.append(n_jobs)
        return lambda tasks: reasons[: len(list(tasks))]

    monkeypatch.setattr(workers, "require_backend", calls.append)
    monkeypatch.setattr(workers.joblib, "parallel_config", configured)
    monkeypatch.setattr(workers.joblib, "Parallel", parallel)
    assert workers.run_sweep(*partial_sweep, backend="ray") == {"seed=2": "So."}
    workers.run_sweep(*partial_sweep, jobs=3, backend="ray")
    # -1 means every core to joblib; two cells remain.
    assert calls == ["ray", "ray", -1, "ray", "ray", 2]


def test_jobs_are_at_most_the_remaining_cells(partial_sweep: tuple[Sweep, Path], monkeypatch: pytest.MonkeyPatch):
    job_counts: list[int] = []

    def parallel(n_jobs: int, backend: str) -> Callable[..., list[Any]]:
        job_counts.append(n_jobs)
        return lambda tasks: [{} for _ in tasks]

    monkeypatch.setattr(workers.joblib, "Parallel", parallel)
    for jobs in (1, 10**6):
        workers.run_sweep(*partial_sweep, jobs=jobs)
    workers.run_sweep(partial_sweep[0].shard(1, 3), partial_sweep[1], jobs=4)
    assert job_counts == [1, 2, 1]


def test_damaged_cell_is_not_retried(
    partial_sweep: tuple[Sweep, Path], make_probe: Callable[[str], Probe], install_probe: Callable[[Probe], None]
):
    plan, folder = partial_sweep
    (folder / "seed=1" / "config.json").write_text("{")
    install_probe(probe := make_probe(""))
    assert sweep_folder.cell_state(plan.cells[1], folder).is_lost
    assert workers.run_sweep(plan.shard(2, 3), folder, jobs=1, retry=True) == {} and probe.notes() == []


def test_missing_ray_is_an_error(partial_sweep: tuple[Sweep, Path], monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "ray"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(GrokscopeError, match=r"'ray' is not installed; .*pip install 'grokscope\[ray\]'"):
        workers.run_sweep(*partial_sweep, backend="ray")
    assert statuses(*partial_sweep) == {"seed=0": "finished", "seed=1": "unfinished", "seed=2": "new"}


def test_sweep_with_an_unknown_backend_is_refused(partial_sweep: tuple[Sweep, Path]):
    with pytest.raises(GrokscopeError, match="backend: 'slurm'; allowed: 'local' or 'ray'"):
        workers.run_sweep(*partial_sweep, backend="slurm")


def test_cell_in_use_is_skipped_without_a_failure(two_cells: Sweep, tmp_path: Path):
    cell = two_cells.cells[0]
    training.train(dataclasses.replace(cell.config, n_steps=10), cell.name, tmp_path)
    with Lock(tmp_path / cell.name):
        assert sweep_folder.cell_state(cell, tmp_path).status == "running"
        assert workers.train_cells([cell], tmp_path) == {}
    assert sweep_folder.cell_state(cell, tmp_path) == sweep_folder.State("unfinished", 10)


@pytest.mark.slow
def test_io_error_is_a_reason_and_not_recorded(two_cells: Sweep, tmp_path: Path):
    """The next command may find room on the disk."""
    (tmp_path / "sweep").write_text("a file in place of the sweep's folder")
    reason = workers.train_cells(list(two_cells.cells[:1]), tmp_path / "sweep")[two_cells.cells[0].name]
    assert "Could not" in reason and str(tmp_path / "sweep") in reason
    assert not (tmp_path / "sweep" / "failures").exists()


def test_failure_that_cannot_be_recorded_keeps_its_reason(two_cells: Sweep, tmp_path: Path):
    (tmp_path / "failures").write_text("a file in place of the folder of failures")
    reason = workers._mark_failed(two_cells.cells[0], tmp_path, "The loss\x1b[31m is not finite.")
    assert reason.startswith("The loss?[31m is not finite. (Could not")


@pytest.mark.slow
def test_module_in_the_current_folder_is_not_imported(
    two_cells: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trap = tmp_path / "here"
    trap.mkdir()
    for name in ("random", "einops", "grokscope"):
        (trap / f"{name}.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w').close()\n")
    monkeypatch.chdir(trap)
    assert workers.train_cells(list(two_cells.cells[:1]), tmp_path / "sweep") == {}
    assert sweep_folder.cell_state(two_cells.cells[0], tmp_path / "sweep").status == "finished"
    assert not (tmp_path / "sprung").exists()


def test_unknown_backend_is_refused():
    with pytest.raises(GrokscopeError, match=r"backend: 'slurm'; allowed: 'local' or 'ray'\."):
        workers.require_backend("slurm")
