"""MeasureRequest: one measure of one trajectory, with its options completed and its checkpoints chosen once."""

import dataclasses
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int

from grokscope import environment, plugins
from grokscope.errors import BusyError, DamagedError, GrokscopeError, UnreadableError, quoted_value
from grokscope.measures._declaration import Declaration, declaration_of
from grokscope.measures._options import complete
from grokscope.series import Series, with_variables
from grokscope.store import verify
from grokscope.trajectory import Trajectory

_MOST_NAMED = 10
"""The most damaged checkpoints that a warning names."""


@dataclass(frozen=True)
class MeasureRequest:
    """One measure of one trajectory.

    Build it once with `of` (all checkpoints) or `thinned` (the default number of a costly measure), and pass it on:
    `measures.saved`, the parallel evaluation, the gallery and the live page share it.
    """

    name: str
    options: Mapping[str, Any]
    """All options of the measure, the defaults included."""
    trajectory: Trajectory
    """The trajectory that the checkpoints are chosen from."""
    n_checkpoints: int | None = None
    """The most checkpoints to measure; None stands for all."""
    is_exact: bool = True
    """Whether only these very checkpoints will do; otherwise a saved series with more of them will do too."""

    @classmethod
    def of(cls, name: str, trajectory: Trajectory, options: Mapping[str, Any]) -> "MeasureRequest":
        """Return the request for all checkpoints of a trajectory.

        Raises:
            GrokscopeError: The measure or an option is unknown, or the value of an option is of the wrong type.
        """
        return cls(name, completed_options(name, options), trajectory)

    @classmethod
    def thinned(
        cls, name: str, trajectory: Trajectory, options: Mapping[str, Any], n_checkpoints: int | None = None
    ) -> "MeasureRequest":
        """Return the request for at most `n_checkpoints`; without it, for the default number of the measure.

        Raises:
            GrokscopeError: As `of`.
        """
        is_exact = n_checkpoints is not None
        number = n_checkpoints if is_exact else declaration_of(name).n_checkpoints
        return cls(name, completed_options(name, options), trajectory, number, is_exact)

    @cached_property
    def declaration(self) -> Declaration:
        """The declaration of the measure."""
        return declaration_of(self.name)

    @cached_property
    def checkpoints(self) -> Trajectory:
        """The chosen checkpoints."""
        return self.trajectory if self.n_checkpoints is None else self.trajectory.thin(self.n_checkpoints)

    @property
    def digest(self) -> str:
        """The digest of the chosen checkpoints."""
        return self.checkpoints.digest

    @cached_property
    def options_text(self) -> str:
        """The options as one text, the same before and after a file."""
        return options_text(self.options)

    @cached_property
    def has_default_options(self) -> bool:
        """Whether all options are at their defaults."""
        return self.options_text == options_text(completed_options(self.name, {}))

    def evaluate(self) -> Series:
        """Return the series of the chosen checkpoints; damaged checkpoints are left out, with a warning.

        Raises:
            GrokscopeError: The measure refuses the task or an option.
            DamagedError: No undamaged checkpoint is left.
        """
        environment.keep_memory()
        try:
            return self.evaluate_undamaged()
        except DamagedError as error:
            return self.without_damaged(error).evaluate_undamaged()

    def evaluate_undamaged(self) -> Series:
        """Return the series of the chosen checkpoints; raise DamagedError if one of them is damaged."""
        series = plugins.call("measures", self.name, self.checkpoints, **self.options)
        if not isinstance(series, Series):
            subject = plugins.described("measures", self.name)
            raise GrokscopeError(
                f"{subject[0].upper()}{subject[1:]} returned {quoted_value(series)}; allowed: a grokscope.Series."
            )
        return self.labelled(series)

    def labelled(self, series: Series) -> Series:
        """Return a measured series with the gaps of the trajectory, the options, the digest and the version."""
        return dataclasses.replace(
            with_variables(series, self.declaration.variables),
            constants={**series.constants, "gaps": gaps_of(self.trajectory)},
            options=self.options,
            digest=self.digest,
            version=self.declaration.version,
            loss=self.trajectory.config.loss,
        )

    def without_damaged(self, error: DamagedError) -> "MeasureRequest":
        """Return the request without the damaged checkpoints, and warn; raise `error` if none of them is damaged."""
        sound = self.trajectory.without_damaged()
        if sound is self.trajectory:
            raise error
        steps = sorted(sound.lost)
        named = ", ".join(f"{step:,}" for step in steps[:_MOST_NAMED]) + (" …" if len(steps) > _MOST_NAMED else "")
        warnings.warn(
            f"Damaged and left out: the checkpoint{'s' if len(steps) > 1 else ''} at step {named}. "
            f"{verify.explained(error)}",
            stacklevel=4,
        )
        return dataclasses.replace(self, trajectory=sound)


def completed_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options of the measure `name`, the given ones checked and the others at their defaults."""
    return complete(plugins.load("measures", name), name, options)


def options_text(options: Mapping[str, Any]) -> str:
    """Return options as a text that is the same before and after a file, which stores a tuple as a list."""
    return json.dumps(dict(options), sort_keys=True)


def gaps_of(trajectory: Trajectory) -> Int[np.ndarray, "gaps 2"]:
    """Return the gaps of a trajectory as the constant `gaps` of a series."""
    return np.array(trajectory.gaps, np.int64).reshape(-1, 2)


def is_refusal(error: GrokscopeError) -> bool:
    """Return whether an error concerns one measure only, so that the other measures can still be evaluated."""
    is_of_the_run = isinstance(error, DamagedError | UnreadableError | BusyError)
    return not is_of_the_run and not isinstance(error.__cause__, OSError)
