"""The script of docs/clusters.md, on submitit's local executor: a stopped job is requeued, and the bits stay."""

import dataclasses
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from grokscope import training
from grokscope.sweep.plan import read_sweep

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent.parent

STOP_EACH_JOB = """
import signal
import time
from pathlib import Path

import psutil

cells = set()
while len(cells) < 2:
    assert not any(job.done() for job in jobs), "a job ended before it was stopped"
    cells = {path.parent.parent for path in Path("runs").rglob("segments/*.safetensors")}
    time.sleep(0.05)
for job in jobs:
    (task,) = psutil.Process(job._process.pid).children()
    task.send_signal(signal.SIGUSR2)
for job in jobs:
    job.result()
"""
"""What the test adds to the script: once both cells have committed, each job gets submitit's signal."""


def documented_script() -> str:
    text = (ROOT / "docs" / "clusters.md").read_text("utf-8")
    lines = text.partition("save this as submit.py")[2].partition("\n")[2].splitlines()
    block = lines[1 : next(i for i, line in enumerate(lines) if line and not line.startswith("    ") and i)]
    return textwrap.dedent("\n".join(block)) + "\n"


def test_stopped_submitit_jobs_end_with_undisturbed_bits(tiny_config, toml, saved, tmp_path):
    pytest.importorskip("submitit")
    config = dataclasses.replace(tiny_config, n_steps=3000, checkpoints="every 20", evaluate_every=20)
    values = {**config.to_dict(), "sweep": {"grid": {"init_seed": [0, 1]}}}
    (tmp_path / "my.toml").write_text(toml(values))
    script = documented_script()
    for text, replacement in {
        "/scratch/runs --jobs 4": "runs --jobs 1",
        'folder="slurm"': 'folder="slurm", cluster="local"',
        "parallelism=8, cpus_per_task=4": "parallelism=2, cpus_per_task=1",
        '"{i}/8" for i in range(1, 9)': '"{i}/2" for i in range(1, 3)',
    }.items():
        assert text in script
        script = script.replace(text, replacement)
    (tmp_path / "submit.py").write_text(script + STOP_EACH_JOB)
    (tmp_path / "grokscope").write_text(f'#!/bin/sh\nexec {sys.executable} -m grokscope "$@"\n')
    (tmp_path / "grokscope").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "submit.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    logs = [path.read_text() for path in (tmp_path / "slurm").glob("*.out")]
    assert len(logs) == 2 and all("Requeued job" in log and "1 unfinished" in log for log in logs)
    for cell in read_sweep(tmp_path / "my.toml").cells:
        training.train(cell.config, cell.name, tmp_path / "undisturbed")
        assert saved(tmp_path / "runs" / "my" / cell.name) == saved(tmp_path / "undisturbed" / cell.name)
