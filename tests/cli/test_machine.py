"""The examination of the machine: each finding against a planted fact."""

import multiprocessing
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from support.shared import Command

from grokscope import threads
from grokscope.cli import machine
from grokscope.disk import atomic
from grokscope.training import memory


def spin() -> None:
    while True:
        pass


def test_cores_name_a_busy_neighbour_and_its_remedy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(threads, "usable_cores", lambda: 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    neighbour = multiprocessing.get_context("spawn").Process(target=spin, daemon=True)
    neighbour.start()
    try:
        psutil.Process(neighbour.pid).cpu_percent(0.5)  # Wait until it runs.
        monkeypatch.setattr(psutil, "process_iter", lambda fields: [with_name(neighbour.pid)])
        finding = machine.cores(0.3)
    finally:
        neighbour.kill()
    assert f"process {neighbour.pid}" in finding.advice and "OMP_NUM_THREADS=1" in finding.advice


def with_name(pid: int | None) -> psutil.Process:
    process = psutil.Process(pid)
    process.info = {"name": "spinner"}  # pyright: ignore[reportAttributeAccessIssue]
    return process


def test_idle_cores_need_no_advice(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(psutil, "process_iter", lambda fields: [])
    n_cores = threads.usable_cores()
    finding = machine.cores(0)
    assert finding.fact.startswith(f"{n_cores} usable, about {n_cores}.0 free") and not finding.advice


@pytest.mark.parametrize(("times", "advice"), [((30.0, 10.0), "Add --threads 2 "), ((10.0, 30.0), "")])
def test_step_time_advises_the_fastest_number_of_threads(
    times: tuple[float, float], advice: str, monkeypatch: pytest.MonkeyPatch
):
    n_before, left = torch.get_num_threads(), iter(times)
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    monkeypatch.setattr(machine, "_median_milliseconds", lambda steps, n_steps: next(left))
    finding = machine.step_time()
    numbers = f"takes {times[0]:.0f} ms with 1 thread, {times[1]:.0f} ms with 2 threads; --threads auto chooses 1"
    assert finding.fact == f"a step of `quick` {numbers}"
    assert finding.advice.startswith(advice) and bool(finding.advice) == bool(advice)
    assert torch.get_num_threads() == n_before


def test_disk_without_room_or_rights_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    finding = machine.disk(tmp_path / "not" / "yet")
    assert str(tmp_path) in finding.fact and "durable write" in finding.fact and not list(tmp_path.iterdir())
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**8))
    assert "Less than 1 GB" in machine.disk(tmp_path).advice

    def refuse(path: Path, *parts: bytes) -> None:
        raise machine.GrokscopeError("the disk is read-only.")

    monkeypatch.setattr(atomic, "write_atomic", refuse)
    assert "read-only" in machine.disk(tmp_path).advice


@pytest.mark.parametrize(("free", "limit", "fact"), [(9e9, 1e9, "1.0 GB of 16.0"), (9e9, None, "9.0 GB of 16.0")])
def test_memory_is_at_most_the_limit_of_a_container(
    free: float, limit: float | None, fact: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free, total=16e9))
    monkeypatch.setattr(memory, "available_memory", lambda: limit)
    finding = machine.memory()
    assert finding.fact.startswith(fact) and bool(finding.advice) == (limit == 1e9)


@pytest.mark.parametrize(
    ("cuda", "mps", "words"),
    [(True, False, "cuda:0 H200"), (False, True, "float64"), (False, False, "none")],
)
def test_gpu_is_the_one_that_torch_reports(cuda: bool, mps: bool, words: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: "H200")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    finding = machine.gpu()
    assert words in finding.fact + finding.advice


def test_browser_needs_a_screen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine.sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert "no screen" in machine.browser().fact
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(machine.webbrowser, "get", lambda: SimpleNamespace(name="firefox"))
    assert machine.browser() == machine.Finding("browser", "firefox")


def test_absent_packages_come_with_their_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine.util, "find_spec", lambda name: None if name == "ray" else object())
    finding = machine.packages()
    assert (
        "ray " not in f"{finding.fact} ".replace("xarray ", "")
        and finding.advice == "To add ray: pip install 'grokscope[ray]'"
    )


def test_doctor_prints_findings_and_marks_advice(grokscope: Command, monkeypatch: pytest.MonkeyPatch):
    findings = [machine.Finding("cores", "2 usable"), machine.Finding("disk", "0 GB free", "Delete old runs.")]
    monkeypatch.setattr(machine, "examine", lambda root: iter(findings))
    assert grokscope("doctor")[1] == "cores     2 usable\ndisk      0 GB free\n          → Delete old runs.\n" \
        "Advice is marked by → (1).\n"  # fmt: skip
    monkeypatch.setattr(machine, "examine", lambda root: iter(findings[:1]))
    assert grokscope("doctor")[1].endswith("Nothing to improve.\n")


@pytest.mark.slow
def test_doctor_examines_this_machine(grokscope: Command):
    status, output, _ = grokscope("doctor")
    names = ("versions", "cores", "speed", "memory", "GPU", "disk", "browser", "extras")
    assert status == 0 and all(f"\n{name:<10}" in f"\n{output}" for name in names)
