"""A run on disk: a folder with ``config.json`` and segments; `checkpoints/README.md` has the format. No torch here.

A segment is the unit of commit: one file, written once, atomically, and never touched again. Readers merge
segments by step, never by file name, and see what was committed and nothing else.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from grokscope import files, tensors
from grokscope.errors import GrokscopeError
from grokscope.record import FORMAT as FORMAT
from grokscope.record import Record as Record

IS_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]{0,99}")
"""What a run may be called: a name that is no path and hides no folder."""
LOG_COLUMNS = ("step", "train_loss", "test_loss", "train_accuracy", "test_accuracy")

_SEGMENTS = "segments"
_LATEST = 2**53
"""Beyond this float64, in which the log has them, cannot tell one step from the next."""
_CHECKPOINTS, _RESUME, _INITIALIZATION = "checkpoints/", "resume/", "initialization/"


@dataclass(frozen=True)
class Segment:
    """One committed file: checkpoints, log rows and perhaps a resume state, after training (`begin`, `end`]."""

    file: tensors.TensorFile

    def belongs_to(self, record: Record) -> bool:
        """Whether it is a segment, and of this run; one with the right checksums may still be a stranger's."""
        about, shapes, dtypes = self.file.metadata, self.file.shapes, self.file.dtypes
        steps, ends = about.get("steps"), (about.get("begin"), about.get("end"))
        between = [-1, *(end for end in ends if type(end) is int), _LATEST - 1]
        checkpoints = [name for name in shapes if name.startswith(_CHECKPOINTS)]
        return (
            about.get("kind") == "segment"
            and about.get("config_digest") == record.config.digest
            and isinstance(steps, list)
            and all(type(step) is int and 0 <= step < _LATEST for step in steps)
            and all(one < other for one, other in pairwise(steps))
            and (ends == (None, None) or (len(between) == 4 and between == sorted(between)))
            and (dtypes.get("log"), shapes.get("log", ())[1:]) == ("F64", (len(LOG_COLUMNS),))
            and (f"{_RESUME}step" not in shapes or (ends[1] is not None and shapes[f"{_RESUME}step"] == ()))
            and bool(checkpoints) == bool(steps)
            and all(shapes[name][:1] == (len(steps),) for name in checkpoints)
            and all(dtypes[name] in ("F32", "F64") and self.file.is_by_row(name) for name in checkpoints)
        )

    def holds(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Whether its checkpoints, if it has any, are of these parameters."""
        names = [name for name in self.file.shapes if name.startswith(_CHECKPOINTS)]
        found = {name.removeprefix(_CHECKPOINTS): self.file.shapes[name][1:] for name in names}
        return not found or found == dict(shapes)

    @property
    def path(self) -> Path:
        """The segment's file."""
        return self.file.path

    @cached_property
    def steps(self) -> list[int]:
        """The steps of its checkpoints, increasing."""
        return self.file.metadata["steps"]

    @property
    def coverage(self) -> tuple[int, int] | None:
        """The steps (begin, end] whose training it records, or None for one that was added by densify."""
        begin, end = self.file.metadata["begin"], self.file.metadata["end"]
        return None if end is None else (begin, end)

    @property
    def resume_step(self) -> int | None:
        """The step of its resume state, or None if it has none."""
        return self.file.metadata["end"] if f"{_RESUME}step" in self.file.shapes else None

    def log(self) -> Float[np.ndarray, "rows columns"]:
        """Return its log rows, in the columns of LOG_COLUMNS."""
        rows = self.file.read("log")
        if not ((rows[:, 0] >= 0) & (rows[:, 0] < _LATEST) & (rows[:, 0] % 1 == 0)).all():
            raise GrokscopeError(f"{self.path} is damaged: its log has steps that are none.")
        return rows

    def resume_state(self) -> dict[str, np.ndarray]:
        """Return its resume state: step, parameters, optimizer state, the adaptive schedule's reference."""
        names = [name for name in self.file.shapes if name.startswith(_RESUME)]
        state = {name.removeprefix(_RESUME): array for name, array in self.file.read_all(names).items()}
        step = state.get("step")
        if step is None or step.tolist() != self.resume_step:
            raise GrokscopeError(f"{self.path} has a resume state of another step than that at which it ends.")
        return state

    def damage(self) -> Iterable[str]:
        """Read everything and yield a sentence for each damaged tensor, naming segment, step and tensor."""
        for name, row in self.file.damage():
            step = "" if row is None else f"step {self.steps[row]}, "
            yield f"{self.path.name}: {step}{name.removeprefix(_CHECKPOINTS)} does not match its checksum"


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
        known: dict[int, Path] = {}
        for path in sorted((folder / _SEGMENTS).glob("[!.]*.safetensors")):
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
        self._find_steps()

    def _find_steps(self) -> None:
        # A step in two segments has the same bits in both, since training is deterministic: either will do.
        self._where = {step: (segment, row) for segment in self.segments for row, step in enumerate(segment.steps)}
        self.steps: Int[np.ndarray, " steps"] = np.array(sorted(self._where), np.int64)

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
        return gaps

    def read(self, names: Iterable[str], steps: Iterable[int]) -> dict[str, np.ndarray]:
        """Return each named parameter over the given steps, stacked along a leading step axis.

        A few large reads: one opening a segment. Raise GrokscopeError that names what is damaged.
        """
        names, steps = list(names), list(steps)
        wanted: dict[Path, tuple[Segment, list[int], list[int]]] = {}
        for position, step in enumerate(steps):
            segment, row = self._where[step]
            _, rows, positions = wanted.setdefault(segment.path, (segment, [], []))
            rows.append(row)
            positions.append(position)
        stacked: dict[str, np.ndarray] = {}
        for segment, rows, positions in wanted.values():
            parts = segment.file.read_all([_CHECKPOINTS + name for name in names], rows)
            for name in names:
                part = parts[_CHECKPOINTS + name]
                if name not in stacked:
                    stacked[name] = np.empty((len(steps), *part.shape[1:]), part.dtype)
                stacked[name][positions] = part
        return stacked

    def initialization(self) -> dict[str, np.ndarray]:
        """Return the parameters of step 0 that a fork keeps of its origin; empty where there are none."""
        for segment in self.segments:
            names = [name for name in segment.file.shapes if name.startswith(_INITIALIZATION)]
            if names:
                read = segment.file.read_all(names)
                return {name.removeprefix(_INITIALIZATION): array for name, array in read.items()}
        return {}

    def checksums(self, step: int) -> dict[str, int]:
        """Return the stored checksum of each parameter of a checkpoint."""
        segment, row = self._where[step]
        return {
            name.removeprefix(_CHECKPOINTS): segment.file.checksums(name)[row]
            for name in segment.file.shapes
            if name.startswith(_CHECKPOINTS)
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
        yield from self.damaged
        for segment in self.segments:
            yield from segment.damage()
        for first, last in self.gaps:
            yield f"steps {first} to {last}: no readable segment covers them"

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
            _CHECKPOINTS + name: np.stack([one[name] for one in checkpoints])
            for name in (checkpoints[0] if checkpoints else ())
        }
        state = {_RESUME + name: array for name, array in (resume or {}).items()}
        state |= {_INITIALIZATION + name: array for name, array in (initialization or {}).items()}
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
        path = self._hidden_path(steps) if hidden else self._next_path()
        tensors.write(path, {**stacked, **state, "log": rows}, about, by_row=(_CHECKPOINTS,))

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
    return Store(folder)


def segments_folder(folder: Path) -> Path:
    """Return where a run's segments lie."""
    return folder / _SEGMENTS
