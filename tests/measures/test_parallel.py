"""Measures by several processes: the numbers of one, one message where something fails, and nobody left behind.

What one process gives is the truth here; the tests have one thread, as each of the processes has.
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
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_two_processes_give_the_numbers_of_one_and_save_them(run_copy):
    trajectory = Trajectory.open(run_copy)
    found = list(_parallel.measure(NAMES, trajectory, 2))
    assert [series.measure for series in found] == NAMES
    for series in found:
        serial = measures.evaluate(series.measure, trajectory)
        assert (series.options, series.digest, series.version) == (serial.options, serial.digest, serial.version)
        assert series.steps.tolist() == serial.steps.tolist() and set(series.keys()) == set(serial.keys())
        for key in series.keys():  # noqa: SIM118
            if key == "sharpness":
                np.testing.assert_allclose(series[key], serial[key], rtol=1e-6)
            elif key != "sharpness_residual":
                assert (series[key].dtype, series[key].tobytes()) == (serial[key].dtype, serial[key].tobytes()), key
        kept = Series.load(measures.folder(run_copy) / f"{series.measure}.safetensors")
        assert kept.digest == series.digest


@pytest.mark.parametrize("name", measures.names())
def test_a_measure_that_is_declared_by_checkpoint_needs_no_other(name, tiny_run):
    """Also in pieces of one checkpoint, and without the last step in any but one."""
    trajectory = Trajectory.open(tiny_run).thin(3)
    pieces = _parallel._pieces(measures.MeasureRequest.of(name, trajectory, {}), 4)
    if len(pieces) == 1:
        return
    options = SMALL.get(name, {})
    whole = measures.evaluate(name, trajectory, **options)
    joined = Series.join([measures.evaluate(name, trajectory.select(piece), **options) for piece in pieces])
    for key in set(whole.arrays) - {"sharpness", "sharpness_residual"}:
        assert joined[key].tobytes() == whole[key].tobytes(), key


def test_each_checkpoint_is_in_one_piece_and_in_order(tiny_run):
    trajectory = Trajectory.open(tiny_run)
    loss, embedding = (measures.MeasureRequest.of(name, trajectory, {}) for name in ("loss", "embedding"))
    assert sum(_parallel._pieces(loss, 1), []) == trajectory.steps.tolist()
    assert len(_parallel._pieces(loss, 1)) == 4
    assert _parallel._pieces(embedding, 9) == [trajectory.steps.tolist()]


def test_what_is_saved_is_not_measured_again(run_copy, monkeypatch):
    trajectory = Trajectory.open(run_copy)
    (first,) = _parallel.measure(["weight_norm"], trajectory, 2)
    monkeypatch.setattr(_parallel, "_evaluate", lambda *_: pytest.fail("was measured again"))
    (second,) = _parallel.measure(["weight_norm"], trajectory, 2)
    assert second["weight_norm"].tobytes() == first["weight_norm"].tobytes()


def test_a_failure_names_the_measure_and_the_reason_and_leaves_no_process(run_copy):
    with pytest.raises(GrokscopeError, match="^sharpness: n_probes: 1"):
        list(_parallel.measure(["sharpness"], Trajectory.open(run_copy), 2, n_probes=1))
    assert not workers(os.getpid())


@pytest.mark.parametrize("n", [0, -1])
def test_fewer_than_one_process_is_refused(run_copy, n):
    with pytest.raises(GrokscopeError, match=f"jobs: {n}; allowed: a whole number from 1"):
        list(_parallel.measure(["loss"], Trajectory.open(run_copy), n))


def started(run: Path, *more: str) -> "subprocess.Popen[str]":
    """Start a measure of some seconds by two processes, as a command of its own; return it when they are there."""
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
    """Return the processes that a process has started for its pool."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(one) for one in children if b"popen_loky" in Path(f"/proc/{one}/cmdline").read_bytes()]


def is_gone(pid: int) -> bool:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            if " Z " in Path(f"/proc/{pid}/stat").read_text():
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


on_linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at processes in /proc")


@on_linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_whatever_ends_the_command_ends_its_processes(number, run_copy):
    """Ctrl-C reaches all of them at once, as a terminal sends it; SIGKILL the command alone."""
    process = started(run_copy)
    pids = workers(process.pid)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert "Traceback" not in errors
    assert all(is_gone(pid) for pid in pids)


@on_linux
def test_a_process_that_is_killed_is_one_sentence(run_copy):
    process = started(run_copy)
    os.kill(workers(process.pid)[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors.startswith("grokscope: sharpness: a process that measured it was killed")
    assert errors.count("\n") == 1
