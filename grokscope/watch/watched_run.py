"""The state of a run at the last look: what is committed, and whether a process is training it."""

from pathlib import Path

from grokscope import measures
from grokscope.disk.lock import is_locked
from grokscope.errors import GrokscopeError
from grokscope.opened_run import open_store
from grokscope.store.run_store import segments_folder
from grokscope.trajectory import Trajectory

_Fingerprint = list[tuple[str, int, int, int]]


class WatchedRun:
    """A run's folder that is read repeatedly. It is never written, and its lock is never held.

    Attributes:
        folder: The run's folder.
        store: The run's files, as of the last successful look.
        trajectory: The run's checkpoints and log, as of the last successful look.
        fault: Why the last look failed; empty if it succeeded.

    Raises:
        GrokscopeError: The folder is not a run, or its log cannot be read. Later failures are stored in `fault`.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.fault = ""
        self._fingerprint = self._read_fingerprint()
        self._open()
        self._state = self._read_state()

    def refresh(self) -> bool:
        """Read the folder if it has changed or the last look failed; return whether it was read."""
        fingerprint = self._read_fingerprint()
        is_changed = bool(self.fault) or fingerprint != self._fingerprint
        if is_changed:
            self._fingerprint, self.fault = fingerprint, ""
            try:
                self._open()
            except GrokscopeError as error:
                self.fault = str(error)
        self._state = self._read_state()
        return is_changed and not self.fault

    def record_fault(self, error: GrokscopeError) -> None:
        """Store an error from reading a checkpoint, so that the next look reads the folder again."""
        self.fault, self._state = str(error), "unreadable"

    @property
    def step(self) -> int:
        """The last committed step with a log row."""
        return int(self.trajectory.log.steps[-1])

    @property
    def is_over(self) -> bool:
        """Whether no process is training the run, because it is complete, stopped or unreadable."""
        return self._state != "training"

    @property
    def status(self) -> str:
        """The state of the run, in one sentence."""
        step, n_steps = f"{self.step:,}", f"{self.trajectory.config.n_steps:,}"
        return {
            "unreadable": f"The run can no longer be read; this is its state at step {step}. {self.fault}",
            "imported": f"An imported run with checkpoints up to step {step}.",
            "finished": f"Training has finished at its last step, {step}.",
            "ended": f"Training has {self.trajectory.stopped}.",
            "training": f"Training is in progress: committed up to step {step} of {n_steps}.",
            "stopped": f"Training stopped at step {step} of {n_steps}: no process is training this run.",
        }[self._state]

    @property
    def steps_per_second(self) -> float | None:
        """The training speed between the last two commits, by their file times; None before two commits."""
        times: dict[int, float] = {}
        for segment in self.store.segments:
            try:
                if segment.coverage:
                    times[segment.coverage[1]] = segment.path.stat().st_mtime
            except OSError:
                continue  # The segment has been removed since.
        if len(times) < 2:
            return None
        (previous_step, previous_time), (step, time) = sorted(times.items())[-2:]
        return (step - previous_step) / (time - previous_time) if time > previous_time else None

    def _open(self) -> None:
        store = open_store(self.folder)
        trajectory = Trajectory.of_store(store)
        if not len(trajectory.log):
            raise GrokscopeError(f"{self.folder} has no readable log. {' '.join(trajectory.damaged)}".strip())
        self.store, self.trajectory = store, trajectory

    def _read_state(self) -> str:
        if self.fault:
            return "unreadable"
        if self.store.record.imported:
            return "imported"
        if self.step >= self.trajectory.end_step:
            return "finished" if self.step >= self.trajectory.config.n_steps else "ended"
        return "training" if is_locked(self.folder) else "stopped"

    def _read_fingerprint(self) -> _Fingerprint:
        """Return the names, sizes and times of the run's files, which differ when one was written or removed."""
        paths = [
            *self.folder.glob("config.json"),
            *segments_folder(self.folder).glob("[!.]*.safetensors"),
            *measures.folder(self.folder).glob("[!.]*.safetensors"),
        ]
        fingerprint: _Fingerprint = []
        for path in paths:
            try:
                status = path.stat()
            except OSError:
                continue  # The file has been removed since.
            fingerprint.append((str(path), status.st_ino, status.st_size, status.st_mtime_ns))
        return sorted(fingerprint)
