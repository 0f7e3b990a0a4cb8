"""LabelledArrays: numbers over named axes, for what is no Series over the steps of one trajectory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from jaxtyping import Int, UInt8

from grokscope import notebook
from grokscope.disk import tensor_file
from grokscope.errors import GrokscopeError

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class LabelledArrays:
    """Arrays that all have the same named axes, in the order of `axes`."""

    axes: Mapping[str, np.ndarray]
    """Name → the coordinates along the axis, such as steps, frequencies or names of components."""
    arrays: Mapping[str, np.ndarray]
    """Name → array of the shape that the axes have."""

    def __post_init__(self):
        shape = tuple(len(one) for one in self.axes.values())
        wrong = [name for name, array in self.arrays.items() if array.shape != shape]
        if wrong or set(self.axes) & set(self.arrays):
            raise ValueError(f"the axes have shape {shape}; another has, or a name stands twice: {wrong}")

    def __getitem__(self, name: str) -> np.ndarray:
        both = {**self.axes, **self.arrays}
        if name not in both:
            raise GrokscopeError(f"The scan has no {name!r}; it has: {', '.join(both)}.")
        return both[name]


_Measure = TypeVar("_Measure", bound=Callable[..., "Series"])


@dataclass(frozen=True, eq=False)
class Series:
    """Arrays over the steps of a trajectory, with what is needed to say where they come from.

    `series[name]` is an array whose first axis is the step, or a constant without one; `series.keys()` names
    both. `gaps`, always among the constants, holds (first, last) steps of stretches whose checkpoints are lost.
    """

    measure: str
    """The measure's name; "log" for a run's own log."""
    steps: Int[np.ndarray, " steps"]
    """The training steps, increasing."""
    arrays: Mapping[str, np.ndarray]
    """Name → array whose first axis is the step."""
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Name → array without a step axis: frequencies, tokens, control bands, gaps."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The options that the measure was given, defaults included."""
    digest: str = ""
    """The digest of the trajectory that was measured (config, steps and every parameter's checksum)."""
    version: int = 1
    """The version of the measure's formula, which a formula that changes raises."""

    def __post_init__(self):
        wrong = [name for name, array in self.arrays.items() if len(array) != len(self.steps)]
        if wrong or set(self.arrays) & set(self.constants):
            raise ValueError(f"{self.measure}: first axis is no step axis, or a name stands twice: {wrong}")

    def __getitem__(self, name: str) -> np.ndarray:
        if name in self.arrays:
            return self.arrays[name]
        if name in self.constants:
            return self.constants[name]
        raise GrokscopeError(f"The series {self.measure!r} has no {name!r}; it has: {', '.join(self.keys())}.")

    def __contains__(self, name: object) -> bool:
        return name in self.arrays or name in self.constants

    def __len__(self) -> int:
        return len(self.steps)

    def keys(self) -> list[str]:
        """Return the names of all arrays and constants."""
        return [*self.arrays, *self.constants]

    def _repr_html_(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        span = f"steps {self.steps[0]:,} to {self.steps[-1]:,}" if len(self) else "no step"
        # The log has a row for each evaluation, also between checkpoints.
        what = "rows" if self.measure == "log" else "checkpoints"
        title = f"{self.measure}{options} · {len(self):,} {what}, {span}"
        rows = [
            [name, notebook.number(array[0]), notebook.number(array[-1]), self._curve(name)]
            for name, array in (self.arrays.items() if len(self) else ())
        ]
        rows += [[f"{name} (constant)", "", self._constant(name), ""] for name in self.constants]
        return notebook.table(title, ["", "first step", "last step", "over the steps"], rows)

    def _curve(self, name: str) -> notebook.Html:
        array = self.arrays[name]
        return notebook.sparkline(self.steps, array) if array.ndim == 1 else notebook.Html("")

    def _constant(self, name: str) -> str:
        constant = self.constants[name]
        if constant.dtype == np.uint8 and constant.ndim == 1:
            text = constant.tobytes().decode(errors="replace")
            if text.replace("\n", "").isprintable():
                return ", ".join(self.words(name)) or notebook.shape([0])
        return notebook.number(constant)

    def words(self, name: str) -> list[str]:
        """Return the words that a constant made by `spelled` holds."""
        text = self[name].tobytes().decode()
        return text.split("\n") if text else []

    def to_frame(self) -> "pandas.DataFrame":
        """Return a pandas DataFrame indexed by step, one column for each number that a step has.

        An array with more axes than the step gives columns `name.i`, `name.i.j`, … Constants are left out.
        """
        import pandas

        columns = {}
        for name, array in self.arrays.items():
            for index in np.ndindex(*array.shape[1:]):
                columns[".".join([name, *map(str, index)])] = array[(slice(None), *index)]
        return pandas.DataFrame(columns, index=pandas.Index(self.steps, name="step"))

    def save(self, path: Path | str) -> None:
        """Write the series to a safetensors file with checksums; raise GrokscopeError for an I/O error."""
        arrays = {f"arrays/{name}": array for name, array in self.arrays.items()}
        constants = {f"constants/{name}": array for name, array in self.constants.items()}
        about = {
            "kind": "series",
            "measure": self.measure,
            "options": self.options,
            "digest": self.digest,
            "version": self.version,
        }
        tensor_file.write(Path(path), {"steps": self.steps, **arrays, **constants}, about)

    @classmethod
    def load(cls, path: Path | str) -> "Series":
        """Read what `save` wrote; raise GrokscopeError that names the file if it is none or is damaged."""
        file = tensor_file.TensorFile(Path(path))
        if file.metadata.get("kind") != "series":
            raise GrokscopeError(f"{path} holds no series.")
        found = {name: file.read(name) for name in file.shapes}
        try:
            # A file keeps its tensors sorted by name; the order in which a measure gave them is not kept.
            groups: dict[str, dict[str, np.ndarray]] = {"arrays": {}, "constants": {}}
            steps, about = found.pop("steps"), file.metadata
            if steps.ndim != 1 or steps.dtype != np.int64:
                raise ValueError("its steps are no whole numbers in a row")
            for name, array in found.items():
                group, _, key = name.partition("/")
                groups[group][key] = array
            return cls(
                about["measure"],
                steps,
                **groups,
                options=dict(about["options"]),
                digest=about["digest"],
                # A file of before formulas had versions.
                version=about.get("version", 1),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise GrokscopeError(f"{path} is damaged: it is no series ({error}).") from error

    @classmethod
    def of_rows(
        cls,
        measure: str,
        steps: Int[np.ndarray, " steps"],
        rows: Sequence[Mapping[str, Any]],
        constants: Mapping[str, Any] | None = None,
    ) -> "Series":
        """Return a series from what was measured at each step: name → number, array or tensor, in every row alike.

        Each becomes an array with a step axis before its own axes; constants may be of the same kinds.
        """
        arrays = {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}
        return cls(measure, steps, arrays, {name: np.asarray(one) for name, one in (constants or {}).items()})

    @classmethod
    def join(cls, parts: "Sequence[Series]") -> "Series":
        """Return as one the series of consecutive pieces of a trajectory; its digest is left empty, for it is new."""
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0].arrays}
        return replace(parts[0], steps=np.concatenate([part.steps for part in parts]), arrays=arrays, digest="")


def spelled(words: Sequence[str]) -> UInt8[np.ndarray, " bytes"]:
    """Return words as an array, a constant that a file can hold: UTF-8, one word a line; `Series.words` reads it."""
    return np.frombuffer("\n".join(words).encode(), np.uint8)


def by_checkpoint(measure: _Measure) -> _Measure:
    """Declare that a measure's value at a checkpoint needs that checkpoint alone, or step 0 besides.

    It may then be measured in pieces of the trajectory, side by side, and `Series.join` puts them together.
    """
    measure.by_checkpoint = True  # pyright: ignore[reportFunctionMemberAccess]
    return measure
