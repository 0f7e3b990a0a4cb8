"""Objects of other programs in a checkpoint file: classes without code, and numpy's numbers and arrays.

Loading never imports a class. `Inert` replaces each of them and keeps the fields.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from grokscope.errors import GrokscopeError

_NUMPY_KINDS = {f"{kind}{size}" for kind in "iuf" for size in (1, 2, 4, 8)} - {"f1"} | {"b1"}
"""The types of numbers that are read, as numpy names them."""


class Inert:
    """An object without code, in place of an object of another program.

    Attributes:
        arguments: The arguments that created the object.
        fields: The fields of the object, by name.
    """

    arguments: tuple[Any, ...]
    fields: dict[Any, Any]

    def __new__(cls, *arguments: object) -> "Inert":
        """Return an object without fields for any arguments."""
        inert = super().__new__(cls)
        inert.arguments, inert.fields = arguments, {}
        return inert

    def __setstate__(self, state: object) -> None:
        # An object with __slots__ has a pair of states.
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.fields.update(part)

    @property
    def values(self) -> dict[str, str | int | float | bool | None]:
        """The fields that are numbers, texts, booleans or None, by name."""
        return {
            name: value
            for name, value in self.fields.items()
            if isinstance(name, str) and isinstance(value, str | int | float | bool | None)
        }

    @property
    def is_module(self) -> bool:
        """Whether the object is a torch.nn.Module."""
        return {"_parameters", "_modules"} <= self.fields.keys()


class InertDict:
    """The class of plain dicts, in place of a class of dicts such as Lightning's AttributeDict or defaultdict.

    torch adds items to plain dicts alone.
    """

    def __new__(cls, *arguments: object) -> dict[Any, Any]:  # pyright: ignore[reportInconsistentConstructor]
        """Return an empty dict for any arguments."""
        return {}


class InertBytes(Inert):
    """Bytes, which pickle stores as a text and the name of a codec."""

    @property
    def data(self) -> bytes:
        """The bytes; empty if the codec is not the one that pickle uses."""
        text, codec = (*self.arguments, None, None)[:2]
        if not isinstance(text, str) or codec != "latin1" or any(ord(letter) > 255 for letter in text):
            return b""
        return text.encode("latin1")


class InertDtype(Inert):
    """The type of the numbers of a numpy array."""

    order: Literal["<", ">", "="] = "="

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self.order = state[1]

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The type; None for one that is not a plain number."""
        name = self.arguments[0] if self.arguments else None
        return np.dtype(name).newbyteorder(self.order) if name in _NUMPY_KINDS else None


class InertArray(Inert):
    """A numpy array, whose numbers follow in its state."""

    array: np.ndarray | None = None

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) == 5:
            _, shape, dtype, is_fortran, data = state
            self.array = _array(shape, dtype, data, "F" if is_fortran is True else "C")


class InertScalar(Inert):
    """A numpy number."""

    @property
    def number(self) -> float | int | bool | None:
        """The number; None if it cannot be read."""
        dtype, data = (*self.arguments, None, None)[:2]
        array = _array((), dtype, data, "C")
        return None if array is None else array.item()


def with_numbers(content: Any) -> Any:
    """Return content with numbers and tensors in place of numpy's; its dicts and lists are changed in place.

    Args:
        content: The content of a file without endless nesting.
    """
    holder = [content]
    waiting: list[Any] = [holder]
    while waiting:
        container = waiting.pop()
        pairs = list(container.items()) if isinstance(container, dict) else list(enumerate(container))
        for key, value in pairs:
            if isinstance(value, InertScalar):
                container[key] = value.number
            elif isinstance(value, InertArray) and value.array is not None:
                container[key] = torch.from_numpy(value.array)
            elif isinstance(value, tuple) and any(isinstance(item, InertScalar) for item in value):
                container[key] = tuple(item.number if isinstance(item, InertScalar) else item for item in value)
            elif isinstance(value, Inert) and type(value) is Inert:
                waiting.append(value.fields)
            elif isinstance(value, dict | list):
                waiting.append(value)
    return holder[0]


def require_no_module(content: Any, path: Path) -> None:
    """Raise GrokscopeError if a file contains a whole torch.nn.Module, which only its own code can read."""
    pairs = [("", content)]
    pairs += [(f"[{key!r}]", value) for key, value in content.items()] if isinstance(content, Mapping) else []
    for key, value in pairs:
        if isinstance(value, Inert) and value.is_module:
            raise module_error(path, key)


def module_error(path: Path, key: str = "") -> GrokscopeError:
    """Return the error for a file with a whole module, with the two lines that convert it.

    Args:
        path: The file.
        key: The index of the module in the file's content, such as "['model']".
    """
    return GrokscopeError(
        f"{path} contains a whole module, which runs its own code when it is loaded; allowed: its state dict. "
        "Convert it where its classes can be imported, if you trust the file:\n"
        f"  model = torch.load({path.name!r}, weights_only=False, map_location='cpu'){key}\n"
        f"  torch.save(model.state_dict(), {path.stem + '_state.pt'!r})"
    )


def _array(shape: Any, dtype: Any, data: Any, order: Any) -> np.ndarray | None:
    """Return the array of some bytes, with the machine's byte order; None if they do not fit the shape."""
    kind = dtype.dtype if isinstance(dtype, InertDtype) else None
    is_shape = isinstance(shape, tuple) and all(type(axis) is int and axis >= 0 for axis in shape)
    if kind is None or not is_shape or not isinstance(data, InertBytes):
        return None
    raw = data.data
    if math.prod(shape) * kind.itemsize != len(raw) or len(shape) > 8:
        return None
    array = np.frombuffer(raw, kind).reshape(shape, order=order)
    return np.array(array, kind.newbyteorder("="), order="C")
