"""Where a trajectory's checkpoints come from: one contract for a run on disk and for checkpoints in memory."""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from grokscope.config.stop_rule import Stop
from grokscope.errors import DamagedError, GrokscopeError


@dataclass(frozen=True, eq=False)
class Log:
    """The log of a run as far as it can be read."""

    rows: Float[np.ndarray, "rows columns"]
    """One row per evaluated step, in order of step."""
    columns: tuple[str, ...]
    """The name of each column, those of `segment.LOG_COLUMNS` first."""
    gaps: list[tuple[int, int]] = field(default_factory=list)
    """The stretches (first, last) of training whose rows are damaged; their checkpoints may be readable."""
    damaged: list[str] = field(default_factory=list)
    """A sentence for each damaged log."""


@runtime_checkable
class Source(Protocol):
    """The contract of everything that a trajectory reads its checkpoints from. Reading never changes a source.

    Implemented by `RunStore` (a folder) and by `Memory`.
    """

    @property
    def steps(self) -> Int[np.ndarray, " steps"]:
        """The steps of its checkpoints, increasing, whether or not they turn out to be damaged."""
        ...

    @property
    def folder(self) -> Path | None:
        """The run's folder; None for a source in memory."""
        ...

    @property
    def origin(self) -> Mapping[str, Any] | None:
        """The run and the step that a fork continues from; None for any other source."""
        ...

    @property
    def stopped(self) -> Stop | None:
        """The step at which the run's rule ended it, and the reason; None if no rule did."""
        ...

    @property
    def damaged(self) -> Sequence[str]:
        """A sentence for each part that cannot be read."""
        ...

    @property
    def gaps(self) -> Sequence[tuple[int, int]]:
        """The stretches (first, last) of training that no readable part covers."""
        ...

    @property
    def log(self) -> Log | None:
        """The log; None for a source without one."""
        ...

    def read(self, names: Iterable[str], steps: Iterable[int]) -> dict[str, np.ndarray]:
        """Return each named parameter over the given steps, stacked along a leading step axis.

        Raises:
            DamagedError: A checkpoint does not match its checksum; the error names file, step and parameter.
        """
        ...

    def damage(self, steps: Iterable[int]) -> dict[int, DamagedError]:
        """Read the checkpoints of these steps, and return the error of each damaged one by its step."""
        ...

    def checksums(self, step: int) -> dict[str, int]:
        """Return the CRC-32 of the bytes of each parameter of a checkpoint."""
        ...

    def initialization(self) -> dict[str, np.ndarray]:
        """Return the parameters of step 0 that a fork keeps of its origin; empty for any other source."""
        ...


class Memory:
    """Checkpoints that are already loaded: a parameter's array by its name, by step."""

    folder = None
    origin = None
    stopped = None
    log = None
    damaged: Sequence[str] = ()
    gaps: Sequence[tuple[int, int]] = ()

    def __init__(self, checkpoints: Mapping[int, Mapping[str, np.ndarray]]):
        self._checkpoints = checkpoints
        self.steps = np.array(sorted(checkpoints), np.int64)

    def read(self, names: Iterable[str], steps: Iterable[int]) -> dict[str, np.ndarray]:
        """Return each named parameter over the given steps, as `Source` specifies."""
        steps = list(steps)
        if missing := [step for step in steps if step not in self._checkpoints]:
            raise GrokscopeError(f"There is no checkpoint at step {missing[0]}.")
        return {name: np.stack([self._checkpoints[step][name] for step in steps]) for name in names}

    def damage(self, steps: Iterable[int]) -> dict[int, DamagedError]:
        """Return no damage: memory has no checksums to compare with."""
        return {}

    def checksums(self, step: int) -> dict[str, int]:
        """Return the CRC-32 of each parameter of a checkpoint, as `Source` specifies."""
        return {name: zlib.crc32(array.tobytes()) for name, array in self._checkpoints[step].items()}

    def initialization(self) -> dict[str, np.ndarray]:
        """Return nothing: checkpoints in memory are not a fork."""
        return {}
