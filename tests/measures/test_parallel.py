"""Measures in several processes: the numbers of one process, one message for a failure, and no process left.

The oracle is one process. The tests use one thread, as each of the processes does.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from support.shared import SMALL

from grokscope import Trajectory, measures
from grokscope.errors import GrokscopeError
from grokscope.measures import _parallel
from grokscope.series import Series

NAMES = ["embedding", "loss", "sharpness", "weight_norm"]


@pytest.fixture(autouse=True)
def one_thread():
    """Use one thread for torch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_two_processes_save_the_numbers_of_one(run_copy):
    trajectory = Trajectory.open(run_copy)
    parallel = list(_parallel.measure(NAMES, trajectory, 2))
    assert [series.measure for series in parallel] == NAMES
    for series in parallel:
        serial = measures.evaluate(series.measure, trajectory)
        assert (series.options, series.digest, series.version) == (serial.options, serial.digest, serial.version)
        assert series.steps.tolist() == serial.steps.tolist() and set(series.keys()) == set(serial.keys())
        for key in series.keys():  # noqa: SIM118
            if key == "sharpness":
                np.testing.assert_allclose(series[key], serial[key], rtol=1e-6)
            elif key != "sharpness_residual":
                assert (series[key].dtype, series[key].tobytes()) == (serial[key].dtype, serial[key].tobytes()), key
        saved = Series.load(measures.folder(run_copy) / f"{series.measure}.safetensors")
        assert saved.digest == series.digest


@pytest.mark.parametrize("name", measures.names())
def test_by_checkpoint_measure_needs_no_other_checkpoint(name, tiny_run):
    """The pieces are single checkpoints, and only one of them contains the last step."""
    trajectory = Trajectory.open(tiny_run).thin(3)
    pieces = _parallel._pieces(measures.MeasureRequest.of(name, trajectory, {}), 4)
    if len(pieces) == 1:
        return
    options = SMALL.get(name, {})
    whole = measures.evaluate(name, trajectory, **options)
    joined = Series.join([measures.evaluate(name, trajectory.select(piece), **options) for piece in pieces])
    for key in set(whole.arrays) - {"sharpness", "sharpness_residual"}:
        assert joined[key].tobytes() == whole[key].tobytes(), key


def test_pieces_contain_each_checkpoint_once_in_order(tiny_run):
    trajectory = Trajectory.open(tiny_run)
    loss, embedding = (measures.MeasureRequest.of(name, trajectory, {}) for name in ("loss", "embedding"))
    assert sum(_parallel._pieces(loss, 1), []) == trajectory.steps.tolist()
    assert len(_parallel._pieces(loss, 1)) == 4
    assert _parallel._pieces(embedding, 9) == [trajectory.steps.tolist()]


@pytest.mark.slow
def test_saved_series_is_not_measured_again(run_copy, monkeypatch):
    trajectory = Trajectory.open(run_copy)
    (first,) = _parallel.measure(["weight_norm"], trajectory, 2)
    monkeypatch.setattr(_parallel, "_evaluate", lambda *_: pytest.fail("measured again"))
    (second,) = _parallel.measure(["weight_norm"], trajectory, 2)
    assert second["weight_norm"].tobytes() == first["weight_norm"].tobytes()


def test_failure_names_measure_and_reason_and_ends_processes(run_copy):
    with pytest.raises(GrokscopeError, match="^sharpness: n_probes: 1"):
        list(_parallel.measure(["sharpness"], Trajectory.open(run_copy), 2, n_probes=1))
    assert not workers(os.getpid())


@pytest.mark.parametrize("n", [0, -1])
def test_fewer_than_one_process_is_rejected(run_copy, n):
    with pytest.raises(GrokscopeError, match=f"jobs: {n}; allowed: a whole number from 1"):
        list(_parallel.measure(["loss"], Trajectory.open(run_copy), n))


def start_measure(run: Path, *more: str) -> "subprocess.Popen[str]":
    """Start the command that measures for some seconds with two processes, and return it once both run."""
    program = "if __name__ == '__main__':\n import sys\n from grokscope.cli import main\n main(sys.argv[1:])\n"
    script = run.parent / "command.py"
    script.write_text(program)
    command = [sys.executable, str(script), "measure", str(run), "sharpness", "--set", "n_probes=20000", *more]
    process = subprocess.Popen(
        [*command, "--jobs", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    end = time.monotonic() + 60
    while len(workers(process.pid)) < 2:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    time.sleep(1)
    return process


def workers(pid: int) -> list[int]:
    """Return the process ids of the pool of a process."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if b"popen_loky" in Path(f"/proc/{child}/cmdline").read_bytes()]


def has_ended(pid: int) -> bool:
    """Return whether a process ends within 20 seconds."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            if " Z " in Path(f"/proc/{pid}/stat").read_text():
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


on_linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")


@pytest.mark.slow
@on_linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_signal_to_the_command_ends_its_processes(number, run_copy):
    """A terminal sends Ctrl-C to all processes; SIGKILL reaches the command alone."""
    process = start_measure(run_copy)
    pids = workers(process.pid)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert "Traceback" not in errors
    assert all(has_ended(pid) for pid in pids)


@pytest.mark.slow
@on_linux
def test_killed_process_gives_one_sentence(run_copy):
    process = start_measure(run_copy)
    os.kill(workers(process.pid)[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors.startswith("grokscope: sharpness: a process that measured it was killed")
    assert errors.count("\n") == 1
