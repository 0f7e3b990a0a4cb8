"""Cells in processes of their own: killed, dying always, diverging, stopped with their sweep, and in two sweeps."""

import dataclasses
import io
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from support.shared import Command, refuse

from grokscope.disk.lock import Lock, is_locked
from grokscope.errors import GrokscopeError
from grokscope.store.run_store import Record, RunStore
from grokscope.sweep import sweep_folder, train_cell, workers
from grokscope.sweep.plan import Sweep, read_sweep
from grokscope.sweep.sweep_folder import BUSY, IO_ERROR

Hand = Any
Read = Callable[[Path], dict[tuple[Any, ...], tuple[Any, ...]]]
Written = Callable[..., Path]

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
    sys.modules["grokscope.recorder"].SEGMENT_SECONDS = 0.0
    if cell == {KILLED!r}:
        note("steps", f" {{step}}")
        if step == 25 and once("killed"):
            die()
"""
SLOW = """
def observe(step, row):
    if step == 10:
        note("reached")
    if step >= 10:
        time.sleep(0.5)
"""


def statuses(plan: Sweep, folder: Path) -> dict[str, str]:
    return {cell.name: sweep_folder.state(cell, folder).status for cell in plan.cells}


def marks(folder: Path) -> list[str]:
    """Return the cells that are marked as failed, whatever their state is."""
    return sorted(path.stem for path in (folder / "failures").glob("*"))


@pytest.fixture(scope="module")
def eventful(
    small: str, make_hand: Callable[[str], Hand], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Hand]:
    """A sweep in which one cell is killed once, one dies always and one diverges, at its end; read it only."""
    root = tmp_path_factory.mktemp("eventful")
    (root / "eventful.toml").write_text(small + EVENTFUL)
    plan, hand = read_sweep(root / "eventful.toml"), make_hand(EVENTS)
    sweep_folder.save(plan, root / "eventful")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in hand.environment.items():
            patch.setenv(name, value)
        workers.run(plan, root / "eventful", jobs=2)
    return root, hand


@pytest.fixture
def again(eventful: tuple[Path, Hand], tmp_path: Path) -> tuple[Sweep, Path]:
    """The plan of the eventful sweep and a copy of its folder that a test may change."""
    folder = shutil.copytree(eventful[0] / "eventful", tmp_path / "eventful")
    return read_sweep(eventful[0] / "eventful.toml"), folder


def test_whatever_befalls_a_cell_the_others_finish(again: tuple[Sweep, Path]):
    plan, folder = again
    assert statuses(plan, folder) == {
        KILLED: "finished",
        DEAD: "failed",
        DIVERGED: "failed",
    }
    assert marks(folder) == [DEAD, DIVERGED]
    assert not any(is_locked(folder / cell.name) for cell in plan.cells)


def test_a_cell_whose_process_is_killed_goes_on_and_ends_the_same(
    eventful: tuple[Path, Hand], whole: Path, saved: Read
):
    root, hand = eventful
    assert hand.noted().count(KILLED) == 2
    steps = [int(line.split()[1]) for line in (hand.folder / "steps").read_text().splitlines()]
    assert steps[:25] == list(range(1, 26)), "it is killed at step 25"
    assert 20 < steps[25] <= 26 and steps[25:] == list(range(steps[25], 41)), "it goes on from its last commit"
    assert saved(root / "eventful" / KILLED) == saved(whole / KILLED)


def test_a_cell_whose_process_always_dies_is_tried_three_times_and_marked_with_how(
    eventful: tuple[Path, Hand], again: tuple[Sweep, Path]
):
    plan, folder = again
    assert eventful[1].noted().count(DEAD) == 3
    state = sweep_folder.state(plan.cells[1], folder)
    assert (state.status, state.step) == ("failed", 0)
    assert re.match(r"Its process died 3 times, by signal 9\.", state.reason)


def test_a_cell_that_diverges_is_tried_once_and_marked_with_its_own_sentence(
    eventful: tuple[Path, Hand], again: tuple[Sweep, Path]
):
    plan, folder = again
    assert eventful[1].noted().count(DIVERGED) == 1
    state = sweep_folder.state(plan.cells[2], folder)
    assert state.status == "failed"
    assert re.match(r"The .* is not finite at step \d+; the last finite step is \d+\.", state.reason)
    assert "Traceback" not in state.reason and "\n" not in state.reason


def test_a_second_run_leaves_what_has_ended_and_a_retry_tries_what_has_failed(
    again: tuple[Sweep, Path],
    make_hand: Callable[[str], Hand],
    hold: Callable[[Hand], None],
    whole: Path,
    saved: Read,
):
    plan, folder = dataclasses.replace(again[0], cells=again[0].cells[:2]), again[1]
    hold(hand := make_hand(""))
    before = statuses(plan, folder)
    workers.run(plan, folder, jobs=2)
    assert (hand.noted(), statuses(plan, folder)) == ([], before)
    workers.run(plan, folder, jobs=2, retry=True)
    assert hand.noted() == [DEAD]
    assert statuses(plan, folder) == {**before, DEAD: "finished"}
    assert marks(folder) == [DIVERGED], "what is no part of the plan is left as it was"
    assert saved(folder / DEAD) == saved(whole / DEAD)


# Stopped with their sweep.


@contextmanager
def a_sweep(path: Path, hand: Hand, *more: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a `grokscope sweep` in a process of its own; whatever it leaves running is killed in the end."""
    start = [sys.executable, "-c", "import sys; from grokscope.cli import main; main(sys.argv[1:])"]
    process = subprocess.Popen(
        [*start, "sweep", *map(str, (path, "--root", path.parent / "runs", "--jobs", "2", *more))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=hand.environment,
    )
    try:
        yield process
    finally:
        hand.kill()
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("number", "n_training", "seeds"),
    [(signal.SIGTERM, 1, [0, 1]), pytest.param(signal.SIGINT, 2, [0, 1, 2], marks=pytest.mark.slow)],
)
def test_a_signal_to_the_sweep_commits_every_cell_and_the_command_it_prints_does_the_rest(
    number: signal.Signals,
    n_training: int,
    seeds: list[int],
    written: Written,
    grokscope: Command,
    make_hand: Callable[[str], Hand],
    wait_until: Callable[..., None],
    whole: Path,
    saved: Read,
):
    # The others of the two that are begun still import.
    path = written(f"[sweep]\nseeds = {seeds}")
    hand = make_hand(f'if int(cell[-1]) >= {n_training}:\n    wait_for("never")\n{SLOW}')
    plan, folder = read_sweep(path), path.parent / "runs" / "mine"
    with a_sweep(path, hand, "--run", "mine") as process:
        wait_until(lambda: len(hand.noted("reached")) == n_training, "the cells train")
        wait_until(lambda: len(hand.noted()) == 2, "two cells have begun")
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    assert f"{folder} was stopped by {number.name} and is saved" in errors
    assert not any(hand.is_alive(cell.name) for cell in plan.cells), "a cell outlives its sweep"
    found = [sweep_folder.state(cell, folder) for cell in plan.cells]
    assert [state.status for state in found] == ["unfinished"] * n_training + ["new"] * (len(seeds) - n_training)
    assert all(10 <= state.step < 40 for state in found[:n_training]) and marks(folder) == []

    again = shlex.split(errors.splitlines()[-1])
    assert again[:2] == ["grokscope", "sweep"]
    assert grokscope(*again[1:])[0] == 0
    assert set(statuses(plan, folder).values()) == {"finished"}
    assert [saved(folder / f"seed={seed}") == saved(whole / f"seed={seed}") for seed in seeds] == [True] * len(seeds)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_cells_still_import_marks_none_of_them(
    number: signal.Signals, written: Written, make_hand: Callable[[str], Hand], wait_until: Callable[..., None]
):
    path, hand = written("[sweep]\nseeds = [0, 1, 2]"), make_hand('wait_for("never")')
    with a_sweep(path, hand) as process:
        wait_until(lambda: len(hand.noted()) == 2, "two cells have begun")
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    folder = path.parent / "runs" / "small"
    assert (process.returncode, "Traceback" in errors) == (128 + number, False)
    assert set(statuses(sweep_folder.load(folder), folder).values()) == {"new"}
    assert len(hand.noted()) == 2, "the third cell is not begun any more"


def test_the_cells_of_a_sweep_that_is_killed_commit_and_stop_even_while_they_import(
    written: Written, make_hand: Callable[[str], Hand], wait_until: Callable[..., None]
):
    path, hand = written("[sweep]\nseeds = [0, 1]"), make_hand(f'if cell == "seed=1": wait_for("orphaned")\n{SLOW}')
    plan, folder = read_sweep(path), path.parent / "runs" / "small"
    with a_sweep(path, hand) as process:
        wait_until(lambda: hand.noted("reached") == ["seed=0"], "the first cell trains")
        wait_until(lambda: len(hand.noted()) == 2, "the other has begun")
        process.kill()
        process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL
        wait_until(lambda: not hand.is_alive("seed=0"), "the cell that trains stops")
        (hand.folder / "orphaned").touch()
        wait_until(lambda: not hand.is_alive("seed=1"), "the cell that imported stops")
    assert not any(is_locked(folder / cell.name) for cell in plan.cells if (folder / cell.name).is_dir())
    first, other = (sweep_folder.state(cell, folder) for cell in plan.cells)
    assert first.status == "unfinished" and 10 <= first.step < 40
    assert other.status in ("new", "unfinished") and other.step < 10, "it went on as an orphan"
    assert marks(folder) == [] and list(RunStore(folder / "seed=0").damage()) == []


@pytest.mark.slow
def test_signals_at_any_instant_to_a_sweep_or_to_a_cell_once_or_twice_leave_cells_that_end_the_same(
    written: Written,
    make_hand: Callable[[str], Hand],
    wait_until: Callable[..., None],
    whole: Path,
    saved: Read,
):
    choose, counts, n_rounds = random.Random(0), Counter[str](), 20
    for i in range(n_rounds):
        path = written("[sweep]\nseeds = [0, 1, 2]", f"round{i}.toml")
        plan, folder = read_sweep(path), path.parent / "runs" / f"round{i}"
        hand = make_hand("def observe(step, row):\n    time.sleep(0.05)")
        with a_sweep(path, hand) as process:
            time.sleep(choose.uniform(0.2, 11))
            pids = [int(lock.read_text() or 0) for lock in hand.folder.glob("*/lock") if is_locked(lock.parent)]
            hits_cell = i % 2 and any(pids)
            for _ in range(choose.choice([1, 2])):
                with suppress(ProcessLookupError):
                    os.kill(
                        choose.choice([pid for pid in pids if pid]) if hits_cell else process.pid,
                        choose.choice([signal.SIGINT, signal.SIGTERM]),
                    )
                time.sleep(choose.uniform(0, 0.05))
            _, errors = process.communicate(timeout=120)
            # A second signal ends the command at once; its cells notice that, commit and stop.
            wait_until(hand.is_idle, "every cell stops", 20)
        # Before it hears signals, and after, the command ends as any process does.
        allowed = (
            {0} if hits_cell else {0, 128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM}
        )
        assert process.returncode in allowed, errors
        counts["to a cell" if hits_cell else "to the sweep"] += 1
        for cell in plan.cells:
            if (folder / cell.name).is_dir():
                assert list(RunStore(folder / cell.name).damage()) == []
        with a_sweep(path, make_hand("")) as process:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
        assert set(statuses(plan, folder).values()) == {"finished"} and marks(folder) == []
        assert [cell.name for cell in plan.cells if saved(folder / cell.name) != saved(whole / cell.name)] == []
    print(f"\nsignals to a sweep of three cells, 0 lost, 0 differ: {dict(counts)}")


# Two at once.


def test_a_cell_that_another_process_trains_is_left_alone(
    trained: tuple[Sweep, Path], make_hand: Callable[[str], Hand], hold: Callable[[Hand], None]
):
    plan, folder = trained
    hold(hand := make_hand(""))
    with Lock(folder / plan.cells[1].name):
        workers.run(plan.shard(2, 3), folder, jobs=1)
        assert statuses(plan, folder) == {"seed=0": "finished", "seed=1": "running", "seed=2": "new"}
    assert hand.noted() == [] and marks(folder) == []


@pytest.mark.parametrize(
    ("status", "said", "reason", "marked"),
    [
        # A mark would come to light when the file asks for more steps.
        (BUSY, "It is being written by process 1.", "", []),
        (IO_ERROR, "The disk is full.", "The disk is full.", []),
        (1, "It diverged.", "It diverged.", ["seed=2"]),
    ],
)
def test_only_what_would_be_the_same_again_is_marked(
    status: int,
    said: str,
    reason: str,
    marked: list[str],
    trained: tuple[Sweep, Path],
    monkeypatch: pytest.MonkeyPatch,
):
    plan, folder = trained
    tried: list[Any] = []
    monkeypatch.setattr(workers, "_process", lambda *given: tried.append(given) or (status, "", said))
    assert workers.run_cells([plan.cells[2]], folder) == ({plan.cells[2].name: reason} if reason else {})
    assert (len(tried), marks(folder)) == (1, marked)


@pytest.mark.parametrize("is_taken", [True, False])
def test_a_cell_s_process_says_by_its_status_that_another_trains_it(
    is_taken: bool, trained: tuple[Sweep, Path], monkeypatch: pytest.MonkeyPatch
):
    plan, folder = trained
    monkeypatch.setattr(train_cell, "_stop_with", lambda parent: None)
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(plan.cells[1].config.to_dict())))
    with Lock(folder / "seed=1") if is_taken else nullcontext():
        assert train_cell.main([str(folder / "seed=1"), "1"]) == (BUSY if is_taken else 0)


def test_to_look_whether_a_cell_is_running_never_keeps_its_process_from_its_lock(tmp_path: Path):
    with Lock(tmp_path):
        pass
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            is_locked(tmp_path)

    thread = threading.Thread(target=look)
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
def test_two_sweeps_of_the_same_file_at_once_finish_every_cell_and_damage_nothing(
    written: Written, make_hand: Callable[[str], Hand], whole: Path, saved: Read
):
    path, hand = written("[sweep]\nseeds = [0, 1, 2]"), make_hand("")
    plan, folder = read_sweep(path), path.parent / "runs" / "small"
    with a_sweep(path, hand) as one, a_sweep(path, hand) as other:
        for process in (one, other):
            _, errors = process.communicate(timeout=300)
            assert (process.returncode, "Traceback" in errors, "failed" in errors) == (0, False, False)
    assert len(hand.noted()) > 3, "they are meant to meet at some cell"
    assert set(statuses(plan, folder).values()) == {"finished"} and marks(folder) == []
    for cell in plan.cells:
        assert list(RunStore(folder / cell.name).damage()) == []
        assert saved(folder / cell.name) == saved(whole / cell.name)
    assert sweep_folder.load(folder) == plan


# Elsewhere.


@pytest.mark.slow
def test_a_cell_begun_in_another_environment_says_so_and_goes_on_only_if_drift_is_allowed(
    trained: tuple[Sweep, Path], tmp_path: Path
):
    plan, folder = trained
    path = folder / "seed=1" / "config.json"
    record = Record.read(path.parent)
    there = {**record.environment, "torch": "1.0"}
    Record(record.config, there, record.data_digest, record.history).write(path.parent)
    shard = plan.shard(2, 3)
    workers.run(shard, folder, jobs=1)
    state = sweep_folder.state(shard.cells[0], folder)
    assert state.status == "failed" and "--allow-drift" in state.reason and "torch" in state.reason
    workers.run(shard, folder, jobs=1, retry=True, allow_drift=True)
    assert statuses(shard, folder) == {"seed=1": "finished"}
    assert Record.read(path.parent).history[0]["event"] == "drift allowed"


# Backends.


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
def test_ray_finishes_the_same_file_with_the_same_bits(
    written: Written, make_hand: Callable[[str], Hand], whole: Path, saved: Read
):
    pytest.importorskip("ray")
    diverging = 'optimizer.name = "sgd"\noptimizer.lr = 100\nmodel.init_scale = 100'
    path = written(f"[sweep]\nseeds = [0, 1]\n[[sweep.cells]]\n[[sweep.cells]]\n{diverging}")
    root = path.parent / "runs"
    ended = subprocess.run(
        [sys.executable, "-c", RAY, "sweep", path, "--backend", "ray", "--root", root, "--jobs", "2"],
        capture_output=True,
        text=True,
        timeout=300,
        env=make_hand("").environment,
    )
    assert ended.returncode == 1 and "grokscope: 2 cells failed" in ended.stderr, ended.stderr
    plan, folder = read_sweep(path), root / "small"
    assert list(statuses(plan, folder).values()) == ["finished", "finished", "failed", "failed"]
    assert "is not finite" in sweep_folder.state(plan.cells[3], folder).reason
    for seed, cell in enumerate(plan.cells[:2]):
        assert saved(folder / cell.name) == saved(whole / f"seed={seed}")


def test_on_ray_there_is_by_default_a_job_for_each_core_of_the_cluster_not_of_this_machine(
    trained: tuple[Sweep, Path], monkeypatch: pytest.MonkeyPatch
):
    asked: list[Any] = []
    reasons = [None, {"seed=2": "So."}, None]

    def configured(backend: str) -> nullcontext[None]:
        asked.append(backend)
        return nullcontext()

    def parallel(n_jobs: int | None = None) -> Callable[..., list[Any]]:
        asked.append(n_jobs)
        return lambda tasks: reasons[: len(list(tasks))]

    monkeypatch.setattr(workers, "require", asked.append)
    monkeypatch.setattr(workers.joblib, "parallel_config", configured)
    monkeypatch.setattr(workers.joblib, "Parallel", parallel)
    assert workers.run(*trained, backend="ray") == {"seed=2": "So."}
    workers.run(*trained, jobs=3, backend="ray")
    # -1 is what joblib calls as many as there are; two cells are left.
    assert asked == ["ray", "ray", -1, "ray", "ray", 2]


def test_there_are_no_more_jobs_than_cells(trained: tuple[Sweep, Path], monkeypatch: pytest.MonkeyPatch):
    asked: list[Any] = []

    def parallel(n_jobs: int, backend: str) -> Callable[..., list[Any]]:
        asked.append(n_jobs)
        return lambda tasks: [{} for _ in tasks]

    monkeypatch.setattr(workers.joblib, "Parallel", parallel)
    for jobs in (1, 10**6):
        workers.run(*trained, jobs=jobs)
    workers.run(trained[0].shard(1, 3), trained[1], jobs=4)
    assert asked == [1, 2, 1]


def test_a_cell_whose_record_is_damaged_is_not_tried_again(
    trained: tuple[Sweep, Path], make_hand: Callable[[str], Hand], hold: Callable[[Hand], None]
):
    plan, folder = trained
    (folder / "seed=1" / "config.json").write_text("{")
    hold(hand := make_hand(""))
    assert sweep_folder.state(plan.cells[1], folder).is_lost
    assert workers.run(plan.shard(2, 3), folder, jobs=1, retry=True) == {} and hand.noted() == []


def test_a_cell_s_process_says_by_its_status_that_its_folder_may_not_be_read(
    trained: tuple[Sweep, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    plan, folder = trained
    monkeypatch.setattr(train_cell, "_stop_with", lambda parent: None)
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(plan.cells[1].config.to_dict())))
    refuse(monkeypatch, folder / "seed=1")
    assert train_cell.main([str(folder / "seed=1"), "1"]) == IO_ERROR
    assert "Permission denied" in capsys.readouterr().err


def test_without_ray_there_is_one_clear_error(trained: tuple[Sweep, Path], monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "ray"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(GrokscopeError, match=r"'ray' is not installed; .*pip install 'grokscope\[ray\]'"):
        workers.run(*trained, backend="ray")
    assert statuses(*trained) == {"seed=0": "finished", "seed=1": "unfinished", "seed=2": "new"}


def test_a_backend_that_nobody_knows_is_refused(trained: tuple[Sweep, Path]):
    with pytest.raises(GrokscopeError, match="backend: 'slurm'; allowed: 'local' or 'ray'"):
        workers.run(*trained, backend="slurm")
