"""A run on disk: a folder with ``config.json`` and segments; `checkpoints/README.md` has the format. No torch here.

A segment is the unit of commit: one file, written once, atomically, and never touched again. Readers merge
segments by step, never by file name, and see what was committed and nothing else.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from grokscope import damage, files, tensors
from grokscope.errors import Damaged, GrokscopeError, Unreadable
from grokscope.record import FORMAT as FORMAT
from grokscope.record import Record as Record
from grokscope.segment import CHECKPOINTS, INITIALIZATION, RESUME
from grokscope.segment import LOG_COLUMNS as LOG_COLUMNS
from grokscope.segment import Segment as Segment

IS_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]{0,99}")
"""What a run may be called: a name that is no path and hides no folder."""

_SEGMENTS = "segments"


def checked_name(name: str) -> str:
    """Return a run's name; raise GrokscopeError if it is none: a name is no path and hides no folder."""
    if not IS_NAME.fullmatch(name):
        raise GrokscopeError(
            f"{name[:120]!r} is no name for a run; allowed: up to 100 letters, digits and _ . + = -, the first a "
            f"letter, digit or _."
        )
    return name


def free_name(base: str, root: Path) -> str:
    """Return `base`, or the first of base-2, base-3, … that is nothing in `root`, if that can be known."""
    name, number = base, 1
    while files.is_there(root / name):
        number += 1
        name = f"{base}-{number}"
    return name


class Store:
    """A run's folder as it stood when it was opened. Reading needs no lock; writing is its lock's holder's."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.record = Record.read(folder)
        self.segments: list[Segment] = []
        self.log_gaps: list[tuple[int, int]] = []
        """The stretches (first, last) of training whose log `log` found damaged, their checkpoints perhaps not."""
        self.damaged: list[str] = []
        """Segments that cannot be read, one sentence each; the others are as readable as ever."""
        self.refused: list[str] = []
        """Those of `damaged` that the system refuses to read: they need not be damaged."""
        self.lost: dict[int, str] = {}
        """The checkpoints that were found damaged since, left out of `steps`: a sentence for each by its step."""
        known: dict[int, Path] = {}
        for path in self._paths():
            try:
                segment = Segment(tensors.TensorFile(path))
                if not segment.belongs_to(self.record):
                    raise GrokscopeError(f"{path} is no segment of this run.")
                twin = known.setdefault(segment.file.structure, path)
                if twin != path:
                    raise GrokscopeError(f"{path} is a copy of {twin.name}; what was in it before is lost.")
                self.segments.append(segment)
            except GrokscopeError as error:
                self.damaged.append(str(error))
                self.refused += [str(error)] * isinstance(error, Unreadable)
        self._find_steps()

    def _paths(self) -> list[Path]:
        """Return the files of the segments; raise GrokscopeError if their folder cannot be listed."""
        folder = self.folder / _SEGMENTS
        try:
            found = sorted(path for path in folder.iterdir() if re.fullmatch(r"[^.].*\.safetensors", path.name))
        except (FileNotFoundError, NotADirectoryError):
            self.damaged.append(f"{folder} is gone, where every run has the segment of its first step.")
            return []
        except OSError as error:
            raise Unreadable(f"{folder} cannot be listed: {error.strerror}.") from error
        if not found:
            self.damaged.append(f"{folder} is empty, where every run has the segment of its first step.")
        return found

    def _find_steps(self) -> None:
        # A step in two segments has the same bits in both, since training is deterministic: either will do.
        self._where = {step: (segment, row) for segment in self.segments for row, step in enumerate(segment.steps)}
        self.steps: Int[np.ndarray, " steps"] = np.array(sorted(self._where.keys() - self.lost.keys()), np.int64)

    def expect(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Leave out, as damaged, the segments whose checkpoints are not of these parameters, a model's."""
        strange = [segment for segment in self.segments if not segment.holds(shapes)]
        if strange:
            self.damaged += [
                f"{one.path} is damaged: its checkpoints are not of this run's model." for one in strange
            ]
            self.segments = [segment for segment in self.segments if segment not in strange]
            self.__dict__.pop("gaps", None)
            self._find_steps()

    @property
    def last_step(self) -> int:
        """The last step that training can go on from, a checkpoint or not."""
        return max((segment.resume_step or 0 for segment in self.segments), default=0)

    @cached_property
    def gaps(self) -> list[tuple[int, int]]:
        """The stretches (first, last) of training that no readable segment covers: a segment is lost."""
        gaps, reached = [], self.record.first_step - 1
        for begin, end in sorted(segment.coverage for segment in self.segments if segment.coverage):
            if begin > reached:
                gaps.append((reached + 1, begin))
            reached = max(reached, end)
        # A run has its first step, and training has passed whatever `densify` has added.
        last = max([self.record.first_step, *self._where])
        return [*gaps, (reached + 1, last)] if last > reached else gaps

    def read(self, names: Iterable[str], steps: Iterable[int]) -> dict[str, np.ndarray]:
        """Return each named parameter over the given steps, stacked along a leading step axis.

        A few large reads: one opening a segment. Raise Damaged that names a checkpoint that is damaged, and the
        command that helps; from then on it is left out of `steps`. Where another segment has it whole, that is read.
        """
        names, steps = list(names), list(steps)
        for _ in range(2):
            if lost := [step for step in steps if step in self.lost]:
                raise Damaged(self.lost[lost[0]])
            try:
                return self._read(names, steps)
            except Damaged:
                self.check(steps, names)
        return self._read(names, steps)

    def check(self, steps: Iterable[int], names: Iterable[str] | None = None) -> list[int]:
        """Read checkpoints, or of them these parameters, leave out those that are damaged, and return their steps.

        Where another segment has one whole, it is taken from there from now on.
        """
        names = None if names is None else list(names)
        rows: dict[Path, tuple[Segment, list[int]]] = {}
        for step in sorted(set(steps) - self.lost.keys()):
            segment, row = self._where[step]
            rows.setdefault(segment.path, (segment, []))[1].append(row)
        found = []
        for segment, some in rows.values():
            for row, name in segment.damaged_rows(some, names).items():
                step = segment.steps[row]
                if twin := self._twin(step, segment):
                    self._where[step] = twin
                    continue
                found.append(step)
                self.lost[step] = (
                    f"{segment.path} is damaged: {CHECKPOINTS}{name} (step {step}) does not match its checksum. "
                    f"{damage.again(self, [step])}"
                )
        self.steps = self.steps[~np.isin(self.steps, found)]
        return found

    def _twin(self, step: int, damaged: Segment) -> tuple[Segment, int] | None:
        """Return where else a checkpoint lies that is damaged in one segment, whole."""
        for segment in self.segments:
            if segment is not damaged and step in segment.steps:
                row = segment.steps.index(step)
                with suppress(GrokscopeError):
                    if not segment.damaged_rows([row]):
                        return segment, row
        return None

    def _read(self, names: list[str], steps: list[int]) -> dict[str, np.ndarray]:
        wanted: dict[Path, tuple[Segment, list[int], list[int]]] = {}
        for position, step in enumerate(steps):
            segment, row = self._where[step]
            _, rows, positions = wanted.setdefault(segment.path, (segment, [], []))
            rows.append(row)
            positions.append(position)
        stacked: dict[str, np.ndarray] = {}
        for segment, rows, positions in wanted.values():
            parts = segment.file.read_all([CHECKPOINTS + name for name in names], rows)
            for name in names:
                part = parts[CHECKPOINTS + name]
                if name not in stacked:
                    stacked[name] = np.empty((len(steps), *part.shape[1:]), part.dtype)
                stacked[name][positions] = part
        return stacked

    def initialization(self) -> dict[str, np.ndarray]:
        """Return the parameters of step 0 that a fork keeps of its origin; empty where there are none."""
        for segment in self.segments:
            names = [name for name in segment.file.shapes if name.startswith(INITIALIZATION)]
            if names:
                read = segment.file.read_all(names)
                return {name.removeprefix(INITIALIZATION): array for name, array in read.items()}
        return {}

    def checksums(self, step: int) -> dict[str, int]:
        """Return the stored checksum of each parameter of a checkpoint."""
        segment, row = self._where[step]
        return {
            name.removeprefix(CHECKPOINTS): segment.file.checksums(name)[row]
            for name in segment.file.shapes
            if name.startswith(CHECKPOINTS)
        }

    def log(self) -> Float[np.ndarray, "rows columns"]:
        """Return all readable log rows in order of their step, in the columns of LOG_COLUMNS."""
        parts = []
        for segment in self.segments:
            try:
                parts.append(segment.log())
            except GrokscopeError as error:
                if str(error) not in self.damaged:
                    self.damaged.append(str(error))
                    begin, end = segment.coverage or (0, -1)
                    # Of a fork, nothing before its first step was ever there.
                    self.log_gaps.append((max(begin + 1, self.record.first_step), end))
        rows = np.concatenate([np.empty((0, len(LOG_COLUMNS))), *parts])
        return rows[np.unique(rows[:, 0], return_index=True)[1]]

    def resume_points(self) -> list[Segment]:
        """Return the segments that have a resume state, the latest last."""
        return sorted(
            (segment for segment in self.segments if segment.resume_step is not None),
            key=lambda segment: segment.resume_step or 0,
        )

    def damage(self) -> Iterable[str]:
        """Read everything and yield a sentence for everything that is damaged or lost."""
        return (fault.sentence for fault in damage.faults(self))

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
    ) -> None:
        """Write one segment, durably; a `hidden` one is none before it is revealed. It is for the lock's holder."""
        stacked = {
            CHECKPOINTS + name: np.stack([one[name] for one in checkpoints])
            for name in (checkpoints[0] if checkpoints else ())
        }
        state = {RESUME + name: array for name, array in (resume or {}).items()}
        state |= {INITIALIZATION + name: array for name, array in (initialization or {}).items()}
        rows = np.array(log, np.float64).reshape(-1, len(LOG_COLUMNS))
        begin, end = coverage or (None, None)
        about = {
            "kind": "segment",
            "format": FORMAT,
            "config_digest": self.record.config.digest,
            "steps": steps,
            "begin": begin,
            "end": end,
        }
        if coverage is None and (damaged := [one.path.name for one in self.segments if {*one.steps} & {*steps}]):
            # So that no second mending of the same checkpoint is taken for a copy of the first.
            about["instead_of"] = damaged
        path = self._hidden_path(steps) if hidden else self._next_path()
        tensors.write(path, {**stacked, **state, "log": rows}, about, by_row=(CHECKPOINTS,))

    def reveal(self, steps: list[int]) -> None:
        """Make a segment of the one that was written, hidden, for these steps."""
        files.reveal(self._hidden_path(steps), self._next_path())

    def _hidden_path(self, steps: list[int]) -> Path:
        # As a file that a writer who died left half written is called: the next one removes it.
        return self.folder / _SEGMENTS / f".{steps[0]}-{steps[-1]}{files.TEMPORARY}"

    def _next_path(self) -> Path:
        folder = self.folder / _SEGMENTS
        numbers = [int(path.stem) for path in folder.glob("*.safetensors") if path.stem.isdecimal()]
        return folder / f"{max(numbers, default=0) + 1:06d}.safetensors"


def create(folder: Path, record: Record) -> Store:
    """Write a new run's record into an empty folder and return its store, which has no segment yet."""
    files.make_folder(folder / _SEGMENTS)
    record.write(folder)
    started = Store(folder)
    started.damaged.clear()  # That there is no segment yet is no damage.
    return started


def segments_folder(folder: Path) -> Path:
    """Return where a run's segments lie."""
    return folder / _SEGMENTS
