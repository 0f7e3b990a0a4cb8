"""Mutants: plausible mistakes in the code that saves and resumes; a test must notice each of them.

Each removes something that a guarantee needs: an fsync, a checksum, a lock, the position in a random stream.
Each is made in a copy of the repository, where the named tests run until the first one fails.

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
    """A file of the package, a text that occurs in it once, its replacement, and the tests that should notice."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTANTS = (
    # Writing bytes to the disk.
    Mutant(
        "disk/atomic",
        "            syscalls.disk.sync(file)\n",
        "            pass\n",
        (POWER, "tests/disk/test_atomic.py"),
    ),
    Mutant(
        "disk/atomic",
        '        operation = "fsync the folder of"\n        syscalls.disk.sync_folder(path.parent)\n',
        "        pass\n",
        (POWER, "tests/disk/test_atomic.py"),
    ),
    Mutant(
        "disk/atomic",
        "        syscalls.disk.replace(temporary, path)\n",
        "        shutil.copyfile(temporary, path)\n",
        (POWER, FAULTS, "tests/disk/test_atomic.py"),
    ),
    Mutant(
        "disk/atomic",
        "        with suppress(OSError):\n            syscalls.disk.remove(temporary)\n        if not",
        "        if not",
        ("tests/disk/test_atomic.py", FAULTS),
    ),
    Mutant(
        "disk/atomic",
        "            waiting[0] = waiting[0][n_written:]",
        "            pass",
        ("tests/disk/test_atomic.py", FAULTS),
    ),
    Mutant(
        "disk/atomic",
        "    try:\n        syscalls.disk.replace(path, target)\n",
        "    try:\n        syscalls.disk.replace(path, target.with_suffix('.kept'))\n",
        ("tests/training/test_densification.py", FAULTS),
    ),
    Mutant(
        "disk/atomic",
        "            syscalls.disk.sync_folder(folder.parent)\n",
        "            pass\n",
        (POWER, "tests/disk/test_atomic.py"),
    ),
    Mutant(
        "disk/atomic",
        "        syscalls.disk.rename_folder(temporary, path)\n        syscalls.disk.sync_folder(path.parent)\n",
        "        syscalls.disk.rename_folder(temporary, path)\n",
        (POWER, "tests/disk/test_atomic.py"),
    ),
    # The lock.
    Mutant(
        "disk/lock",
        "            return fcntl.flock(file, ",
        "            return bool(file) or fcntl.flock(file, ",
        (LOCKS, "tests/disk/test_lock.py"),
    ),
    Mutant("disk/lock", "os.register_at_fork(after", "dict(after", (LOCKS, "tests/disk/test_lock.py")),
    Mutant(
        "training/run",
        "    with Lock(folder):\n        atomic.remove",
        "    with suppress(ZeroDivisionError):\n        atomic.remove",
        ("tests/training/test_run.py", "tests/training/test_run_resume.py"),
    ),
    Mutant(
        "training/run", "        locks.enter_context(Lock(building))\n", "", ("tests/training/test_run.py", LOCKS)
    ),
    Mutant(
        "training/run",
        "        atomic.remove_temporary_files(segments_folder(folder))\n        # Opened",
        "        # Opened",
        ("tests/training/test_run_resume.py", "tests/harness/test_kills.py", FAULTS),
    ),
    # Checksums.
    Mutant(
        "disk/tensor_file",
        "                if stored[row] != crc:\n",
        "                if False:\n",
        ("tests/disk/test_tensor_file.py",),
    ),
    Mutant(
        "disk/tensor_file",
        "if structure.tolist() != [_structure(texts, layout, self._checksums)]:",
        "if False:",
        ("tests/disk/test_tensor_file.py", MUTATIONS),
    ),
    Mutant(
        "disk/tensor_file",
        "zlib.crc32(_bytes(row)) for",
        "zlib.crc32(_bytes(row)[:64]) for",
        ("tests/disk/test_tensor_file.py", "tests/store/test_run_store.py"),
    ),
    Mutant(
        "disk/tensor_file",
        "return zlib.crc32(checksums.tobytes(), zlib",
        "return zlib.crc32(b'', zlib",
        ("tests/disk/test_tensor_file.py", MUTATIONS),
    ),
    # What a store takes for its own.
    Mutant(
        "store/segment",
        '            and about.get("config_digest") == record.config.digest\n',
        "",
        ("tests/store/test_run_store.py", MUTATIONS),
    ),
    Mutant("store/run_store", "                if twin != path:\n", "                if False:\n", (MUTATIONS,)),
    Mutant(
        "store/run_store",
        "            if begin > reached:\n",
        "            if begin > reached + 10**9:\n",
        ("tests/store/test_run_store.py",),
    ),
    Mutant("store/verify", "in segment.file.damage():", "in ():", ("tests/store/test_run_store.py",)),
    Mutant(
        "store/run_store",
        "max(numbers, default=0) + 1:06d",
        "max(numbers, default=1):06d",
        ("tests/store/test_run_store.py",),
    ),
    # Resume.
    Mutant(
        "training/learner",
        "        require_resumable(resume_state, learner.config, learner.model)\n",
        "        pass\n",
        (SEGMENTS,),
    ),
    Mutant(
        "training/run",
        "    if drift and not allow_drift:\n",
        "    if False:\n",
        ("tests/training/test_run_resume.py",),
    ),
    Mutant(
        "training/learner",
        "        if (segment.resume_step or 0) <= step:\n",
        "        if True:\n",
        ("tests/training/test_densification.py",),
    ),
    Mutant(
        "training/checkpointer",
        "torch.tensor(self._reference, dtype=torch.float64)",
        "torch.tensor(1.0, dtype=torch.float64)",
        ("tests/training/test_run_resume.py",),
    ),
    Mutant(
        "training/checkpointer",
        "torch.tensor(self._n_adaptive),",
        "torch.tensor(0),",
        ("tests/training/test_checkpointer.py", "tests/training/test_run_resume.py", SEGMENTS),
    ),
    Mutant(
        "training/checkpointer",
        '            **{f"optimizer/{name}": tensor for name, tensor in state.optimizer.state().items()},\n',
        "",
        (SEGMENTS, "tests/training/test_run_resume.py"),
    ),
    Mutant(
        "training/checkpointer",
        "        self._require_finite(resume_state or {}, state.step)\n",
        "",
        ("tests/harness/test_not_finite.py",),
    ),
    Mutant(
        "training/checkpointer",
        "        self._writer.wait()\n",
        "        pass\n",
        ("tests/training/test_background_writer.py",),
    ),
    Mutant(
        "training/checkpointer",
        'tensor.detach().to("cpu", copy=True).numpy()',
        "tensor.detach().numpy()",
        ("tests/training/test_checkpointer.py", "tests/training/test_run.py"),
    ),
    Mutant(
        "training/background_writer",
        "        if self._failure:\n            raise self._failure",
        "        return",
        ("tests/training/test_background_writer.py",),
    ),
    Mutant(
        "training/dataset",
        'rng.permutation("batches", self._seed, epoch, n_train)',
        'rng.permutation("batches", self._seed, 0, n_train)',
        ("tests/training/test_dataset.py",),
    ),
    Mutant(
        "training/loop",
        'generator("dropout", config.training_seed, step, setup',
        'generator("dropout", config.training_seed, 0, setup',
        ("tests/training/test_loop_gradients.py", "tests/training/test_resume_parts.py"),
    ),
    Mutant(
        "training/optimizers",
        'generator("update noise", self._seed, u, device)',
        'generator("update noise", self._seed, 0, device)',
        ("tests/training/test_optimizers.py", "tests/training/test_resume_parts.py"),
    ),
    Mutant(
        "training/finiteness",
        "            self._find_fault()\n",
        "            pass\n",
        ("tests/harness/test_not_finite.py", "tests/training/test_finiteness.py"),
    ),
    Mutant(
        "training/replay",
        "                if array.tobytes() != saved[name].tobytes():",
        "                if False:",
        ("tests/training/test_densification.py",),
    ),
    Mutant(
        "training/signals",
        "            os._exit(128 + number)\n",
        "            pass\n",
        ("tests/training/test_signals.py",),
    ),
    Mutant(
        "trajectory",
        "        if not has_recorded_data(record, trajectory.task, trajectory.split_or_none):",
        "        if False:",
        ("tests/test_trajectory.py", "tests/training/test_run_resume.py"),
    ),
    Mutant(
        "measures/_cache",
        "sound.digest_of(series.steps) == series.digest",
        "True",
        ("tests/measures/test_cache.py",),
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
            return True  # It hangs, which counts as noticed.


def main(numbers: list[int]) -> list[int]:
    """Print a line for each mutant; return the numbers of those that live."""
    alive = []
    for number in numbers or range(len(MUTANTS)):
        mutant = MUTANTS[number]
        killed = is_killed(mutant)
        alive += [] if killed else [number]
        quote = " ".join(mutant.old.split())[:70]
        print(f"{number:3} {'killed' if killed else 'ALIVE '} {mutant.file}: {quote}", flush=True)
    n = len(numbers or MUTANTS)
    print(f"{n - len(alive)} of {n} mutants are killed")
    return alive


if __name__ == "__main__":
    sys.exit(len(main([int(number) for number in sys.argv[1:]])) > 0)
