"""Mutants: faults that somebody might make in the code that saves and resumes, each of which some test must notice.

Each takes away one thing that promises 1 to 6 stand on: an fsync, a checksum, a lock, the place in a random stream.
It is made in a copy of the repository, and the tests named beside it are run there until the first one fails.

How to run: python tests/mutants.py [NUMBER …]; `make test-all` does it too.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
FAULTS, POWER = "tests/harness/test_faults.py", "tests/harness/test_power.py"
SEGMENTS, LOCKS = "tests/harness/test_segments.py", "tests/harness/test_locks.py"
MUTATIONS = "tests/hostile/test_mutations.py"


class Mutant(NamedTuple):
    """A file of the package, what stands there once, what a mutant has instead, and the tests that should notice."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTANTS = (
    # The way of bytes to the disk.
    Mutant("files", "            disk.sync(file)\n", "            pass\n", (POWER, "tests/test_files.py")),
    Mutant(
        "files",
        '        operation = "fsync the folder of"\n        disk.sync_folder(path.parent)\n',
        "        pass\n",
        (POWER, "tests/test_files.py"),
    ),
    Mutant(
        "files",
        "        disk.replace(temporary, path)\n",
        "        shutil.copyfile(temporary, path)\n",
        (POWER, FAULTS, "tests/test_files.py"),
    ),
    Mutant(
        "files",
        "        with suppress(OSError):\n            disk.remove(temporary)\n        if not",
        "        if not",
        ("tests/test_files.py", FAULTS),
    ),
    Mutant(
        "files",
        "            waiting[0] = waiting[0][n_written:]",
        "            pass",
        ("tests/test_files.py", FAULTS),
    ),
    Mutant(
        "files",
        "    try:\n        disk.replace(path, target)\n",
        "    try:\n        disk.replace(path, target.with_suffix('.kept'))\n",
        ("tests/test_densify.py", FAULTS),
    ),
    Mutant(
        "files", "            disk.sync_folder(folder.parent)\n", "            pass\n", (POWER, "tests/test_files.py")
    ),
    Mutant(
        "files",
        "        disk.rename_folder(temporary, path)\n        disk.sync_folder(path.parent)\n",
        "        disk.rename_folder(temporary, path)\n",
        (POWER, "tests/test_files.py"),
    ),
    # The lock.
    Mutant(
        "files",
        "            return fcntl.flock(file, ",
        "            return bool(file) or fcntl.flock(file, ",
        (LOCKS, "tests/test_files.py"),
    ),
    Mutant("files", "os.register_at_fork(after", "dict(after", (LOCKS, "tests/test_files.py")),
    Mutant(
        "training",
        "    with files.Lock(folder):\n        files.remove",
        "    with suppress(ZeroDivisionError):\n        files.remove",
        ("tests/test_training.py",),
    ),
    Mutant("training", "        held.enter_context(files.Lock(building))\n", "", ("tests/test_training.py", LOCKS)),
    Mutant(
        "training",
        "        files.remove_temporary(store.segments_folder(folder))\n        # Opened",
        "        # Opened",
        ("tests/test_training.py", "tests/harness/test_kills.py", FAULTS),
    ),
    # Checksums.
    Mutant(
        "tensors",
        "                if stored[row] != crc:\n",
        "                if False:\n",
        ("tests/test_tensors.py",),
    ),
    Mutant(
        "tensors",
        "if structure.tolist() != [_structure(about, layout, self._checksums)]:",
        "if False:",
        ("tests/test_tensors.py", MUTATIONS),
    ),
    Mutant(
        "tensors",
        "zlib.crc32(_bytes(row)) for",
        "zlib.crc32(_bytes(row)[:64]) for",
        ("tests/test_tensors.py", "tests/test_store.py"),
    ),
    Mutant(
        "tensors",
        "return zlib.crc32(checksums.tobytes(), zlib",
        "return zlib.crc32(b'', zlib",
        ("tests/test_tensors.py", MUTATIONS),
    ),
    # What a store takes for its own.
    Mutant(
        "segment",
        '            and about.get("config_digest") == record.config.digest\n',
        "",
        ("tests/test_store.py", MUTATIONS),
    ),
    Mutant("store", "                if twin != path:\n", "                if False:\n", (MUTATIONS,)),
    Mutant(
        "store",
        "            if begin > reached:\n",
        "            if begin > reached + 10**9:\n",
        ("tests/test_store.py",),
    ),
    Mutant("damage", "in segment.file.damage():", "in ():", ("tests/test_store.py",)),
    Mutant("store", "max(numbers, default=0) + 1:06d", "max(numbers, default=1):06d", ("tests/test_store.py",)),
    # Resume.
    Mutant("training", "        setup.require_resumable(resumed)\n", "        pass\n", (SEGMENTS,)),
    Mutant("training", "    if drift and not allow_drift:\n", "    if False:\n", ("tests/test_training.py",)),
    Mutant(
        "training",
        "        if (segment.resume_step or 0) <= step:\n",
        "        if True:\n",
        ("tests/test_densify.py",),
    ),
    Mutant(
        "recorder",
        "torch.tensor(self._reference, dtype=torch.float64)",
        "torch.tensor(1.0, dtype=torch.float64)",
        ("tests/test_training.py",),
    ),
    Mutant(
        "recorder",
        "torch.tensor(self._n_adaptive),",
        "torch.tensor(0),",
        ("tests/test_recorder.py", "tests/test_training.py", SEGMENTS),
    ),
    Mutant(
        "recorder",
        '            **{f"optimizer/{name}": tensor for name, tensor in state.optimizer.state().items()},\n',
        "",
        (SEGMENTS, "tests/test_training.py"),
    ),
    Mutant(
        "recorder",
        "        self._require_finite(resume or {}, state.step)\n",
        "",
        ("tests/harness/test_not_finite.py",),
    ),
    Mutant("recorder", "        self._writer.wait()\n", "        pass\n", ("tests/test_writer.py",)),
    Mutant(
        "recorder",
        'tensor.detach().to("cpu", copy=True).numpy()',
        "tensor.detach().numpy()",
        ("tests/test_recorder.py", "tests/test_training.py"),
    ),
    Mutant(
        "writer",
        "        if self._failure:\n            raise self._failure",
        "        return",
        ("tests/test_writer.py",),
    ),
    Mutant(
        "optimize",
        'streams.permutation("batches", self.config.training_seed, epoch, n_train)',
        'streams.permutation("batches", self.config.training_seed, 0, n_train)',
        ("tests/test_optimize.py",),
    ),
    Mutant(
        "optimize",
        'generator("dropout", config.training_seed, step, setup',
        'generator("dropout", config.training_seed, 0, setup',
        ("tests/test_optimize.py", "tests/test_resume_parts.py"),
    ),
    Mutant(
        "optimizers",
        'generator("update noise", self._seed, u, device)',
        'generator("update noise", self._seed, 0, device)',
        ("tests/test_optimizers.py", "tests/test_optimize.py"),
    ),
    Mutant(
        "optimize",
        "        _require_finite(state.step, weights, resumable=False)\n",
        "",
        ("tests/harness/test_not_finite.py", "tests/test_optimize.py"),
    ),
    Mutant(
        "witnesses",
        "                if array.tobytes() != saved[name].tobytes():",
        "                if False:",
        ("tests/test_densify.py",),
    ),
    Mutant("interrupts", "            os._exit(128 + number)\n", "            pass\n", ("tests/test_interrupts.py",)),
    Mutant(
        "trajectory",
        "        if data_digest(trajectory.task, trajectory.split) != store.record.data_digest:",
        "        if False:",
        ("tests/test_trajectory.py", "tests/test_training.py"),
    ),
    Mutant(
        "measures/__init__",
        "trajectory.digest_of(series.steps) == series.digest",
        "True",
        ("tests/measures/test_contract.py",),
    ),
)


def is_killed(mutant: Mutant) -> bool:
    """Return whether a test notices the mutant, made in a copy of the repository."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        ignored = shutil.ignore_patterns(".venv", ".git", "__pycache__", "figures", "site", "build")
        for part in ("grokscope", "tests", "analyses"):
            # The package has figures of its own, which are code.
            shutil.copytree(ROOT / part, copy / part, ignore=ignored if part == "analyses" else None)
        shutil.copy(ROOT / "pyproject.toml", copy)
        path = copy / "grokscope" / f"{mutant.file}.py"
        path.write_text(path.read_text(encoding="utf-8").replace(mutant.old, mutant.new), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", *mutant.tests]
        environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
        for name in ("PYTEST_XDIST_WORKER", "PYTEST_CURRENT_TEST", "PYTEST_ADDOPTS"):
            environment.pop(name, None)
        try:
            return (
                subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=600).returncode == 1
            )
        except subprocess.TimeoutExpired:
            return True  # It hangs: nobody would take that for right.


def main(numbers: list[int]) -> list[int]:
    """Print a line for each mutant; return the numbers of those that live."""
    alive = []
    for number in numbers or range(len(MUTANTS)):
        mutant = MUTANTS[number]
        killed = is_killed(mutant)
        alive += [] if killed else [number]
        said = " ".join(mutant.old.split())[:70]
        print(f"{number:3} {'killed' if killed else 'ALIVE '} {mutant.file}: {said}", flush=True)
    n = len(numbers or MUTANTS)
    print(f"{n - len(alive)} of {n} mutants are killed")
    return alive


if __name__ == "__main__":
    sys.exit(len(main([int(one) for one in sys.argv[1:]])) > 0)
