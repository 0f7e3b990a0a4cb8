"""A run as it was last looked at: what is committed, and whether it is being trained."""

from pathlib import Path

from grokscope import measures
from grokscope.disk.lock import is_locked
from grokscope.errors import GrokscopeError
from grokscope.store.run_store import segments_folder
from grokscope.trajectory import Trajectory, open_store

_Signature = list[tuple[str, int, int, int]]


class Watched:
    """A run's folder that is looked at again and again; it is only read, and its lock is never held.

    `trajectory` is what was readable when it was last looked at, and `store` what it reads. Raise GrokscopeError if
    that is nothing at first; what goes wrong later is its `fault`, and `trajectory` stays what it was.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.fault = ""
        self._signature = self._signed()
        self._open()
        self._status = self._found_status()

    def look(self) -> bool:
        """Look at the folder; return whether it was read, for something was committed, measured or lost since."""
        signature = self._signed()
        is_changed = bool(self.fault) or signature != self._signature
        if is_changed:
            self._signature, self.fault = signature, ""
            try:
                self._open()
            except GrokscopeError as error:
                self.fault = str(error)
        self._status = self._found_status()
        return is_changed and not self.fault

    def fail(self, error: GrokscopeError) -> None:
        """Take note of a fault that showed when more was read than `look` does; the next look tries again."""
        self.fault, self._status = str(error), "unreadable"

    @property
    def step(self) -> int:
        """The last step that was committed and evaluated."""
        return int(self.trajectory.log.steps[-1])

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to come: the last step is reached, or nobody trains the run at this moment."""
        return self._status != "training"

    @property
    def sentence(self) -> str:
        """How the run stands, in one sentence."""
        step, n_steps = f"{self.step:,}", f"{self.trajectory.config.n_steps:,}"
        return {
            "unreadable": f"The run cannot be read any more; this is what it was at step {step}. {self.fault}",
            "imported": f"An imported run, of checkpoints to step {step}.",
            "finished": f"Training has ended: it has reached its last step, {step}.",
            "training": f"Training goes on: committed to step {step} of {n_steps}.",
            "stopped": f"Training has stopped at step {step} of {n_steps}: nobody trains this run at the moment.",
        }[self._status]

    @property
    def steps_per_second(self) -> float | None:
        """The speed of training between the last two commits, by their files' times; None where there are not two."""
        ends: dict[int, float] = {}
        for segment in self.store.segments:
            try:
                if segment.coverage:
                    ends[segment.coverage[1]] = segment.path.stat().st_mtime
            except OSError:
                continue  # It was removed since.
        if len(ends) < 2:
            return None
        (before, then), (step, now) = sorted(ends.items())[-2:]
        return (step - before) / (now - then) if now > then else None

    def _open(self) -> None:
        opened = open_store(self.folder)
        trajectory = Trajectory.of_store(opened)
        if not len(trajectory.log):
            raise GrokscopeError(f"{self.folder} has no readable log. {' '.join(trajectory.damaged)}".strip())
        self.store, self.trajectory = opened, trajectory

    def _found_status(self) -> str:
        if self.fault:
            return "unreadable"
        if self.store.record.imported:
            return "imported"
        if self.step >= self.trajectory.config.n_steps:
            return "finished"
        return "training" if is_locked(self.folder) else "stopped"

    def _signed(self) -> _Signature:
        """Return what tells a folder that has changed from one that has not, without opening a file in it."""
        places = [
            self.folder.glob("config.json"),
            segments_folder(self.folder).glob("[!.]*.safetensors"),
            measures.folder(self.folder).glob("[!.]*.safetensors"),
        ]
        found: _Signature = []
        for path in (path for place in places for path in place):
            try:
                about = path.stat()
            except OSError:
                continue  # It was removed since.
            found.append((str(path), about.st_ino, about.st_size, about.st_mtime_ns))
        return sorted(found)
