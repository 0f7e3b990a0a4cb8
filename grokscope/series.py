"""The two result types: Series over the steps of a trajectory, and LabelledArrays over any named axes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from grokscope import notebook
from grokscope.disk import tensor_file
from grokscope.errors import GrokscopeError, MissingArrayError
from grokscope.variable import ROLES as ROLES
from grokscope.variable import Variable as Variable
from grokscope.variable import with_companions as with_companions

if TYPE_CHECKING:
    import pandas
    import xarray


@dataclass(frozen=True, eq=False)
class Series:
    """Arrays over the steps of a trajectory, with their descriptions and their origin.

    `series[name]` is an array whose first axis is the step, or a constant without a step axis; `series.keys()` names
    both. The constant `gaps` has the (first, last) steps of each stretch whose checkpoints are lost.
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
    """The options of the measure, the defaults included."""
    digest: str = ""
    """The digest of the trajectory that was measured (config, steps and every parameter's checksum)."""
    version: int = 1
    """The version of the measure's formula."""
    variables: Mapping[str, Variable] = field(default_factory=dict)
    """Name → description; `variable` completes it for an array that the measure does not describe."""
    loss: str = ""
    """The run's loss function, "softmax" or "stablemax", which the labels of losses state; empty if unknown."""

    def __post_init__(self):
        wrong = [name for name, array in self.arrays.items() if len(array) != len(self.steps)]
        if wrong or set(self.arrays) & set(self.constants):
            raise ValueError(f"{self.measure}: an array lacks the step axis, or a name occurs twice: {wrong}")

    def __getitem__(self, name: str) -> np.ndarray:
        if name in self.arrays:
            return self.arrays[name]
        if name in self.constants:
            return self.constants[name]
        message = f"The series {self.measure!r} has no {name!r}; it has: {', '.join(self.keys())}."
        raise MissingArrayError(message, name)

    def __contains__(self, name: object) -> bool:
        return name in self.arrays or name in self.constants

    def __len__(self) -> int:
        return len(self.steps)

    def keys(self) -> list[str]:
        """Return the names of all arrays and constants."""
        return [*self.arrays, *self.constants]

    def __repr__(self) -> str:
        span = f"steps {self.steps[0]:,} to {self.steps[-1]:,}" if len(self) else "no step"
        shapes = _shapes({**self.arrays, **self.constants})
        return f"Series {self.measure!r}: {len(self):,} rows, {span}; {shapes}"

    def _repr_html_(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        span = f"steps {self.steps[0]:,} to {self.steps[-1]:,}" if len(self) else "no step"
        # The log has a row for each evaluation, also between checkpoints.
        rows_name = "rows" if self.measure == "log" else "checkpoints"
        rows_name = rows_name if len(self) != 1 else rows_name.removesuffix("s")
        title = f"{self.measure}{options} · {len(self):,} {rows_name}, {span}"
        rows = [
            [name, notebook.format_number(array[0]), notebook.format_number(array[-1]), self._curve(name)]
            for name, array in (self.arrays.items() if len(self) else ())
        ]
        rows += [[f"{name} (constant)", "", self._constant(name), ""] for name in self.constants]
        return notebook.html_table(title, ["", "first step", "last step", "over the steps"], rows)

    def _curve(self, name: str) -> notebook.Html:
        array = self.arrays[name]
        return notebook.sparkline(self.steps, array) if array.ndim == 1 else notebook.Html("")

    def _constant(self, name: str) -> str:
        constant = self.constants[name]
        if constant.dtype.kind == "U":
            return ", ".join(self.words(name)) or notebook.format_shape([0])
        return notebook.format_number(constant)

    def words(self, name: str) -> list[str]:
        """Return the strings of a text constant, such as the names of components."""
        return self[name].tolist()

    def variable(self, name: str) -> Variable:
        """Return the description of an array or constant; raise GrokscopeError for an unknown name."""
        array = self[name]
        n_dims = array.ndim - (name in self.arrays)
        described = self.variables.get(name, Variable()).with_loss(self.loss)
        if len(described.dims) != n_dims:
            described = replace(described, dims=tuple(f"{name}_axis_{i + 1}" for i in range(n_dims)))
        return described if described.label else replace(described, label=name.replace("_", " "))

    def companion(self, name: str, role: str) -> str | None:
        """Return the name of the companion of an array that has a role, such as "stderr"; None if there is none."""
        for key in self.keys():
            described = self.variables.get(key)
            if described is not None and (described.of, described.role) == (name, role):
                return key
        return None

    def coordinate(self, dim: str) -> str | None:
        """Return the name of the constant that labels a dimension; None if there is none."""
        for key in self.constants:
            described = self.variables.get(key)
            if described is not None and described.role == "coordinate" and described.dims == (dim,):
                return key
        return None

    def to_frame(self) -> "pandas.DataFrame":
        """Return a pandas DataFrame with one row per step and one column per number.

        An array with more axes than the step gives the columns `name.i`, `name.i.j`, … Constants are left out. The
        attribute `attrs` of the frame has the description of each array.
        """
        import pandas

        columns = {}
        for name, array in self.arrays.items():
            for index in np.ndindex(*array.shape[1:]):
                columns[".".join([name, *map(str, index)])] = array[(slice(None), *index)]
        frame = pandas.DataFrame(columns, index=pandas.Index(self.steps, name="step"))
        frame.attrs = {name: asdict(self.variable(name)) for name in self.arrays}
        return frame

    def to_xarray(self) -> "xarray.Dataset":
        """Return an xarray Dataset with the dimensions, coordinates, labels and units of every array and constant.

        Raises:
            GrokscopeError: xarray is not installed.
        """
        try:
            import xarray
        except ModuleNotFoundError as error:
            raise GrokscopeError("to_xarray needs xarray: pip install xarray.") from error
        data: dict[str, Any] = {}
        coordinates: dict[str, Any] = {"step": self.steps}
        for name in self.keys():
            described = self.variable(name)
            dims = ("step", *described.dims) if name in self.arrays else described.dims
            attributes = {"long_name": described.label, "units": described.unit}
            if described.role == "coordinate" and len(dims) == 1:
                coordinates[dims[0]] = xarray.Variable(dims, self[name], attributes)
            else:
                data[name] = xarray.Variable(dims, self[name], attributes)
        return xarray.Dataset(data, coordinates, {"measure": self.measure, **self.options})

    def save(self, path: Path | str) -> None:
        """Write the series to a safetensors file with checksums; raise GrokscopeError for an I/O error."""
        arrays = {f"arrays/{name}": array for name, array in self.arrays.items()}
        texts = [name for name, array in self.constants.items() if array.dtype.kind == "U"]
        constants = {
            f"constants/{name}": _as_bytes(array) if name in texts else array
            for name, array in self.constants.items()
        }
        about = {
            "kind": "series",
            "measure": self.measure,
            "options": self.options,
            "digest": self.digest,
            "version": self.version,
            "texts": texts,
            "loss": self.loss,
            "variables": {name: asdict(variable) for name, variable in self.variables.items() if name in self},
        }
        tensor_file.write(Path(path), {"steps": self.steps, **arrays, **constants}, about)

    @classmethod
    def load(cls, path: Path | str) -> "Series":
        """Read a series that `save` wrote; raise GrokscopeError if the file is not a series or is damaged."""
        file = tensor_file.TensorFile(Path(path))
        if file.metadata.get("kind") != "series":
            raise GrokscopeError(f"{path} is not a series.")
        tensors = {name: file.read(name) for name in file.shapes}
        about = file.metadata
        try:
            # A file keeps its tensors sorted by name, not in the measure's order.
            groups: dict[str, dict[str, np.ndarray]] = {"arrays": {}, "constants": {}}
            steps = tensors.pop("steps")
            if steps.ndim != 1 or steps.dtype != np.int64:
                raise ValueError("its steps are not a vector of whole numbers")
            for name, array in tensors.items():
                group, _, key = name.partition("/")
                is_text = group == "constants" and (
                    key in about["texts"] if "texts" in about else _is_legacy_text(array)
                )
                groups[group][key] = _as_text(array) if is_text else array
            return cls(
                about["measure"],
                steps,
                **groups,
                options=dict(about["options"]),
                digest=about["digest"],
                version=about.get("version", 1),  # The first files have no version.
                variables={
                    name: Variable(**{**fields, "dims": tuple(fields["dims"])})
                    for name, fields in about.get("variables", {}).items()
                },
                loss=str(about.get("loss", "")),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise GrokscopeError(f"{path} is damaged: it is not a series ({error}).") from error

    @classmethod
    def of_rows(
        cls,
        measure: str,
        steps: Int[np.ndarray, " steps"],
        rows: Sequence[Mapping[str, Any]],
        constants: Mapping[str, Any] | None = None,
    ) -> "Series":
        """Return a series from one mapping per step.

        Args:
            measure: The measure's name.
            steps: The steps, increasing.
            rows: For each step, the value of each array: a number, an array or a tensor, of one shape at all steps.
            constants: The constants, of the same types.
        """
        arrays = {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}
        return cls(measure, steps, arrays, {name: np.asarray(value) for name, value in (constants or {}).items()})

    @classmethod
    def join(cls, parts: "Sequence[Series]") -> "Series":
        """Return the series of consecutive pieces of a trajectory as one series, without a digest."""
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0].arrays}
        return replace(parts[0], steps=np.concatenate([part.steps for part in parts]), arrays=arrays, digest="")


@dataclass(frozen=True, eq=False)
class LabelledArrays:
    """Arrays that all have the same named axes, in the order of `axes`."""

    axes: Mapping[str, np.ndarray]
    """Name → the coordinates along the axis, such as steps, frequencies or names of components."""
    arrays: Mapping[str, np.ndarray]
    """Name → array of the shape that the axes have."""
    loss: str = ""
    """The loss function of the losses among the arrays, "softmax" or "stablemax"; empty without losses."""

    def __post_init__(self):
        shape = tuple(len(coordinates) for coordinates in self.axes.values())
        wrong = [name for name, array in self.arrays.items() if array.shape != shape]
        if wrong or set(self.axes) & set(self.arrays):
            raise ValueError(f"the axes have shape {shape}; these arrays have not, or a name occurs twice: {wrong}")

    def __getitem__(self, name: str) -> np.ndarray:
        both = {**self.axes, **self.arrays}
        if name not in both:
            raise GrokscopeError(f"There is no array {name!r}; there are: {', '.join(both)}.")
        return both[name]

    def __repr__(self) -> str:
        return f"LabelledArrays over {_shapes(self.axes)}: {', '.join(self.arrays)}"


def with_variables(series: Series, variables: Mapping[str, Variable]) -> Series:
    """Return a series with the descriptions that its measure declares, where it has none of its own."""
    declared = {name: variable for name, variable in variables.items() if name in series}
    return replace(series, variables={**declared, **series.variables})


def _shapes(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the name and shape of each array, without its values."""
    return ", ".join(f"{name} {np.shape(array)}" for name, array in arrays.items())


def _as_bytes(text: np.ndarray) -> np.ndarray:
    """Return a text constant as UTF-8 bytes, one string per line."""
    return np.frombuffer("\n".join(text.tolist()).encode(), np.uint8)


def _as_text(data: np.ndarray) -> np.ndarray:
    text = data.tobytes().decode()
    return np.array(text.split("\n") if text else [], dtype=np.str_)


def _is_legacy_text(array: np.ndarray) -> bool:
    """Return whether a constant of an old file is text; old files store nothing else as a vector of bytes."""
    return array.dtype == np.uint8 and array.ndim == 1
