"""A run on disk: a folder with ``config.json`` and segments; `checkpoints/README.md` has the format. No torch here.

A segment is the unit of commit: one file, written once, atomically, and never changed. Readers merge segments by
step, never by file name, and see only what was committed.
"""

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from grokscope.config.stop_rule import Stop, end_step
from grokscope.disk import atomic, tensor_file
from grokscope.errors import DamagedError, GrokscopeError, UnreadableError
from grokscope.store.places import Place, read_stacked, undamaged_places
from grokscope.store.record import FORMAT as FORMAT
from grokscope.store.record import Record as Record
from grokscope.store.segment import CHECKPOINTS, INITIALIZATION, RESUME
from grokscope.store.segment import LOG_COLUMNS as LOG_COLUMNS
from grokscope.store.segment import Segment as Segment
from grokscope.store.source import Log


class RunStore:
    """A run's folder as it was when it was opened, the `Source` of a run's trajectory.

    Reading needs no lock and never changes the store. `commit` and `reveal` are for the holder of the run's lock.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.record = Record.read(folder)
        self.segments: list[Segment] = []
        """The readable segments."""
        self.faults: list[GrokscopeError] = []
        """An error for each segment that cannot be read; UnreadableError where the system refuses to read it."""
        paths: dict[int, Path] = {}
        for path in self._paths():
            try:
                segment = Segment(tensor_file.TensorFile(path))
                if not segment.belongs_to(self.record):
                    raise GrokscopeError(f"{path} is not a segment of this run.")
                twin = paths.setdefault(segment.file.structure, path)
                if twin != path:
                    raise GrokscopeError(f"{path} is a copy of {twin.name}; its own content is lost.")
                self.segments.append(segment)
            except GrokscopeError as error:
                self.faults.append(error)

    def _paths(self) -> list[Path]:
        """Return the files of the segments; raise UnreadableError if their folder cannot be listed."""
        folder = segments_folder(self.folder)
        try:
            paths = sorted(path for path in folder.iterdir() if re.fullmatch(r"[^.].*\.safetensors", path.name))
        except (FileNotFoundError, NotADirectoryError):
            self.faults.append(
                GrokscopeError(f"{folder} is missing; every run has the segment of its first step there.")
            )
            return []
        except OSError as error:
            raise UnreadableError(f"{folder} cannot be listed: {error.strerror}.") from error
        if not paths:
            self.faults.append(
                GrokscopeError(f"{folder} is empty; every run has the segment of its first step there.")
            )
        return paths

    def limited_to(self, shapes: Mapping[str, tuple[int, ...]]) -> "RunStore":
        """Return this store without the segments whose parameters do not have a model's names and shapes.

        Those segments count as damaged.
        """
        strange = [segment for segment in self.segments if not segment.holds(shapes)]
        if not strange:
            return self
        limited = copy.copy(self)
        for name in ("places", "_steps", "_gaps", "_log", "_stopped"):
            limited.__dict__.pop(name, None)
        limited.segments = [segment for segment in self.segments if segment not in strange]
        limited.faults = self.faults + [
            GrokscopeError(f"{segment.path} is damaged: its checkpoints do not belong to this run's model.")
            for segment in strange
        ]
        return limited

    @cached_property
    def places(self) -> dict[int, Place]:
        """The segment and the row of each checkpoint, by its step."""
        # Training is deterministic, so a step in two segments has the same bits in both.
        return {step: (segment, row) for segment in self.segments for row, step in enumerate(segment.steps)}

    @property
    def steps(self) -> Int[np.ndarray, " steps"]:
        """The steps of its checkpoints, increasing, whether or not they turn out to be damaged."""
        return self._steps

    @cached_property
    def _steps(self) -> Int[np.ndarray, " steps"]:
        return np.array(sorted(self.places), np.int64)

    @property
    def origin(self) -> Mapping[str, Any] | None:
        """The run and the step that a fork continues from; None for any other run."""
        return self.record.origin

    @property
    def damaged(self) -> list[str]:
        """A sentence for each segment that cannot be read, and for each damaged log."""
        return [*map(str, self.faults), *self.log.damaged]

    @property
    def last_step(self) -> int:
        """The last step that training can resume from; it need not be a checkpoint."""
        return max((segment.resume_step or 0 for segment in self.segments), default=0)

    @property
    def stopped(self) -> Stop | None:
        """The step at which the run's rule ended it, and the reason; None if no rule did."""
        return self._stopped

    @cached_property
    def _stopped(self) -> Stop | None:
        rule = self.record.config.stop
        watches = (segment.stop_watch(rule) for segment in reversed(self.resume_points() if rule else []))
        return next((watch.stop for watch in watches if watch), None)

    @property
    def end_step(self) -> int:
        """The step at which training is complete: `n_steps`, or the last step if the run's rule ended it there."""
        return end_step(self.stopped, self.last_step, self.record.config.n_steps)

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """The stretches (first, last) of training that no readable segment covers."""
        return self._gaps

    @cached_property
    def _gaps(self) -> list[tuple[int, int]]:
        gaps, reached = [], self.record.first_step - 1
        for begin, end in sorted(segment.coverage for segment in self.segments if segment.coverage):
            if begin > reached:
                gaps.append((reached + 1, begin))
            reached = max(reached, end)
        # Every run has its first step, and training has passed every step that `densify` added.
        last = max([self.record.first_step, *self.places])
        return [*gaps, (reached + 1, last)] if last > reached else gaps

    @property
    def log(self) -> Log:
        """All readable log rows, the gaps that damaged logs leave, and a sentence for each damaged log."""
        return self._log

    @cached_property
    def _log(self) -> Log:
        logs: list[tuple[tuple[str, ...], np.ndarray]] = []
        gaps, damaged = [], []
        for segment in self.segments:
            try:
                rows = segment.log()
                if len(rows):
                    logs.append((segment.columns, rows))
            except GrokscopeError as error:
                damaged.append(str(error))
                begin, end = segment.coverage or (0, -1)
                # A fork has no rows before its first step.
                gaps.append((max(begin + 1, self.record.first_step), end))
        columns = max((names for names, _ in logs), key=len, default=LOG_COLUMNS)
        # All segments of a run have the same columns; those of another number are from a forged file.
        rows = np.concatenate([np.empty((0, len(columns))), *(rows for names, rows in logs if names == columns)])
        return Log(rows[np.unique(rows[:, 0], return_index=True)[1]], columns, gaps, damaged)

    def read(self, names: Iterable[str], steps: Iterable[int]) -> dict[str, np.ndarray]:
        """Return each named parameter over the given steps, stacked along a leading step axis.

        Each segment is opened once. A checkpoint that is damaged in one segment is read from another that has it.

        Raises:
            DamagedError: A checkpoint is damaged in every segment that has it.
        """
        names, steps = list(names), list(steps)
        if missing := [step for step in steps if step not in self.places]:
            raise GrokscopeError(f"{self.folder} has no checkpoint at step {missing[0]}.")
        try:
            return read_stacked(names, steps, self.places)
        except DamagedError:
            undamaged, damage = undamaged_places(self.segments, self.places, steps, names)
            if damage:
                raise min(damage.items())[1] from None
            return read_stacked(names, steps, undamaged)

    def damage(self, steps: Iterable[int]) -> dict[int, DamagedError]:
        """Read the checkpoints of these steps, and return the error of each damaged one by its step."""
        return undamaged_places(self.segments, self.places, steps)[1]

    def initialization(self) -> dict[str, np.ndarray]:
        """Return the parameters of step 0 that a fork keeps of its origin; empty for any other run."""
        for segment in self.segments:
            names = [name for name in segment.file.shapes if name.startswith(INITIALIZATION)]
            if names:
                arrays = segment.file.read_all(names)
                return {name.removeprefix(INITIALIZATION): array for name, array in arrays.items()}
        return {}

    def checksums(self, step: int) -> dict[str, int]:
        """Return the stored checksum of each parameter of a checkpoint."""
        segment, row = self.places[step]
        return {
            name.removeprefix(CHECKPOINTS): segment.file.checksums(name)[row]
            for name in segment.file.shapes
            if name.startswith(CHECKPOINTS)
        }

    def resume_points(self) -> list[Segment]:
        """Return the segments that have a resume state, the latest last."""
        return sorted(
            (segment for segment in self.segments if segment.resume_step is not None),
            key=lambda segment: segment.resume_step or 0,
        )

    def commit(
        self,
        steps: list[int],
        checkpoints: list[Mapping[str, np.ndarray]],
        *,
        coverage: tuple[int, int] | None,
        log: Sequence[tuple[float, ...]] = (),
        resume: Mapping[str, np.ndarray] | None = None,
        initialization: Mapping[str, np.ndarray] | None = None,
        hidden: bool = False,
        log_columns: Sequence[str] = (),
    ) -> None:
        """Write one segment, durably.

        Args:
            steps: The steps of the checkpoints, increasing.
            checkpoints: The parameters at each step.
            coverage: The steps (begin, end] whose training the segment records; None for added checkpoints.
            log: Log rows in the columns of LOG_COLUMNS, and then of `log_columns`.
            resume: The resume state at `end`.
            initialization: The parameters of step 0, for a fork.
            hidden: Whether readers ignore the segment until `reveal` is called.
            log_columns: The names of the further columns of the log.
        """
        stacked = {
            CHECKPOINTS + name: np.stack([checkpoint[name] for checkpoint in checkpoints])
            for name in (checkpoints[0] if checkpoints else ())
        }
        state = {RESUME + name: array for name, array in (resume or {}).items()}
        state |= {INITIALIZATION + name: array for name, array in (initialization or {}).items()}
        rows = np.array(log, np.float64).reshape(-1, len(LOG_COLUMNS) + len(log_columns))
        begin, end = coverage or (None, None)
        about = {
            "kind": "segment",
            "format": FORMAT,
            "config_digest": self.record.config.digest,
            "steps": steps,
            "begin": begin,
            "end": end,
        }
        if log_columns:
            about["log_columns"] = list(log_columns)
        replaced = [segment.path.name for segment in self.segments if {*segment.steps} & {*steps}]
        if coverage is None and replaced:
            # Without this, a second recovery of the same checkpoint would look like a copy of the first.
            about["instead_of"] = replaced
        path = self._hidden_path(steps) if hidden else self._next_path()
        tensor_file.write(path, {**stacked, **state, "log": rows}, about, by_row=(CHECKPOINTS,))

    def reveal(self, steps: list[int]) -> None:
        """Make the hidden segment of these steps visible to readers."""
        atomic.reveal(self._hidden_path(steps), self._next_path())

    def _hidden_path(self, steps: list[int]) -> Path:
        # The suffix of an unfinished file: if this process dies, the next writer removes it.
        return segments_folder(self.folder) / f".{steps[0]}-{steps[-1]}{atomic.TEMPORARY_SUFFIX}"

    def _next_path(self) -> Path:
        folder = segments_folder(self.folder)
        numbers = [int(path.stem) for path in folder.glob("*.safetensors") if path.stem.isdecimal()]
        return folder / f"{max(numbers, default=0) + 1:06d}.safetensors"


def create(folder: Path, record: Record) -> RunStore:
    """Write a new run's record into an empty folder, and return its store, still without segments."""
    atomic.make_folder(segments_folder(folder))
    record.write(folder)
    started = RunStore(folder)
    started.faults.clear()  # A new run has no segment yet.
    return started


def segments_folder(folder: Path) -> Path:
    """Return the folder of a run's segments."""
    return folder / "segments"
