"""A segment: one committed file of a run. No torch here."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float

from grokscope.config.stop_rule import StopWatch, parse
from grokscope.disk import tensor_file
from grokscope.errors import GrokscopeError
from grokscope.store.record import Record

LOG_COLUMNS = ("step", "train_loss", "test_loss", "train_accuracy", "test_accuracy")
"""The first columns of every log. A task may have more, such as the share of sequences that are right."""
CHECKPOINTS, RESUME, INITIALIZATION = "checkpoints/", "resume/", "initialization/"
"""The prefixes of the tensor names in a segment."""
_LATEST = 2**53
"""The log stores steps as float64, which is exact only below 2**53."""


@dataclass(frozen=True)
class Segment:
    """One committed file with the checkpoints, the log rows and perhaps a resume state of the steps (begin, end]."""

    file: tensor_file.TensorFile

    def belongs_to(self, record: Record) -> bool:
        """Return whether the file is a segment of this run; valid checksums do not prove that."""
        about, shapes, dtypes = self.file.metadata, self.file.shapes, self.file.dtypes
        steps, ends = about.get("steps"), (about.get("begin"), about.get("end"))
        between = [-1, *(end for end in ends if type(end) is int), _LATEST - 1]
        checkpoints = [name for name in shapes if name.startswith(CHECKPOINTS)]
        return (
            about.get("kind") == "segment"
            and about.get("config_digest") == record.config.digest
            and isinstance(steps, list)
            and all(type(step) is int and 0 <= step < _LATEST for step in steps)
            and all(step < following for step, following in pairwise(steps))
            and (ends == (None, None) or (len(between) == 4 and between == sorted(between)))
            and self._has_valid_columns()
            and (dtypes.get("log"), shapes.get("log", ())[1:]) == ("F64", (len(self.columns),))
            and (f"{RESUME}step" not in shapes or (ends[1] is not None and shapes[f"{RESUME}step"] == ()))
            and bool(checkpoints) == bool(steps)
            and all(shapes[name][:1] == (len(steps),) for name in checkpoints)
            and all(dtypes[name] in ("F32", "F64") and self.file.is_by_row(name) for name in checkpoints)
        )

    def holds(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Return whether its checkpoints have exactly these parameters; True without checkpoints."""
        names = [name for name in self.file.shapes if name.startswith(CHECKPOINTS)]
        own_shapes = {name.removeprefix(CHECKPOINTS): self.file.shapes[name][1:] for name in names}
        return not own_shapes or own_shapes == dict(shapes)

    @property
    def path(self) -> Path:
        """The segment's file."""
        return self.file.path

    @cached_property
    def steps(self) -> list[int]:
        """The steps of its checkpoints, increasing."""
        return self.file.metadata["steps"]

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns of its log."""
        return (*LOG_COLUMNS, *self.file.metadata.get("log_columns", ()))

    def _has_valid_columns(self) -> bool:
        """Return whether the metadata name the further columns of the log as different texts."""
        names = self.file.metadata.get("log_columns", [])
        return (
            isinstance(names, list)
            and all(isinstance(name, str) for name in names)
            and len({*LOG_COLUMNS, *names}) == len(LOG_COLUMNS) + len(names)
        )

    @property
    def coverage(self) -> tuple[int, int] | None:
        """The steps (begin, end] whose training it records; None for a segment that `densify` added."""
        begin, end = self.file.metadata["begin"], self.file.metadata["end"]
        return None if end is None else (begin, end)

    @property
    def resume_step(self) -> int | None:
        """The step of its resume state; None without one."""
        return self.file.metadata["end"] if f"{RESUME}step" in self.file.shapes else None

    def log(self) -> Float[np.ndarray, "rows columns"]:
        """Return its log rows, in the columns of `columns`."""
        rows = self.file.read("log")
        if not ((rows[:, 0] >= 0) & (rows[:, 0] < _LATEST) & (rows[:, 0] % 1 == 0)).all():
            raise GrokscopeError(f"{self.path} is damaged: its log contains invalid step numbers.")
        return rows

    def resume_state(self) -> dict[str, np.ndarray]:
        """Return its resume state: step, parameters, optimizer state, the adaptive schedule's reference."""
        names = [name for name in self.file.shapes if name.startswith(RESUME)]
        state = {name.removeprefix(RESUME): array for name, array in self.file.read_all(names).items()}
        step = state.get("step")
        if step is None or step.tolist() != self.resume_step:
            raise GrokscopeError(f"{self.path} is damaged: its resume state has another step than its end.")
        return state

    def stop_watch(self, rule: str) -> StopWatch | None:
        """Return the state of a run's rule from its resume state; None if that has none, or a damaged one."""
        names = (f"{RESUME}stop/since", f"{RESUME}stop/step")
        # Valid checksums do not prove that the shapes are right.
        if [self.file.shapes.get(name) for name in names] == [(len(parse(rule)),), ()]:
            with suppress(GrokscopeError):
                since, step = (self.file.read(name).astype(np.int64).tolist() for name in names)
                return StopWatch(rule, since, step)
        return None

    def damaged_rows(self, rows: list[int], names: Iterable[str] | None = None) -> dict[int, str]:
        """Read some checkpoints, and return one damaged parameter for each damaged row.

        Args:
            rows: The rows of the checkpoints in this file.
            names: The parameters to read; by default all of them.
        """
        if names is None:
            tensors = [name for name in self.file.shapes if name.startswith(CHECKPOINTS)]
        else:
            tensors = [CHECKPOINTS + name for name in names]
        mismatches = self.file.mismatches(tensors, rows)
        return {row: name.removeprefix(CHECKPOINTS) for name, row in mismatches if row is not None}
