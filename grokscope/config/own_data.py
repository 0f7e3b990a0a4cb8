"""The user's own examples as one text, so that a run's config contains them. No torch here, except to read .pt files.

The text is a zip archive of .npy arrays (NumPy's .npz), in base64. It needs about a byte per token or less.
"""

import base64
import binascii
import csv
import errno
import io
import stat
import zipfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Int

from grokscope.errors import GrokscopeError

NO_TARGET = -100
"""The target of a position without one."""
LARGEST_TEXT = 2**25
"""The most characters of the text, about 24 MB of compressed examples."""
LARGEST_ARRAYS = 2**31
"""The most bytes of the arrays in memory."""
ALLOWED = "@FILE with a .npz, .pt or .csv file, or the text that Task.to_config returns"
_ABOUT = ("formula", "n_elements", "d_vocab", "d_vocab_out", "circle_sign", "is_commutative", "circle", "names")
_TARGETS = ("targets", "labels", "target", "label", "answers", "answer", "y")
_INPUTS = ("inputs", "input", "tokens", "x")


def encode(inputs: np.ndarray, labels: np.ndarray, **about: np.ndarray | int | str) -> str:
    """Return examples as text.

    Args:
        inputs: The tokens (n_examples, n_ctx).
        labels: The targets (n_examples), or (n_examples, n_ctx) with −100 where there is no target.
        about: Further arrays, numbers or texts, which `decode` returns too.

    Raises:
        GrokscopeError: The examples are invalid, or too large for a config.
    """
    arrays = {"inputs": inputs, "labels": labels, **{name: np.asarray(value) for name, value in about.items()}}
    if faults := array_faults(arrays):
        raise GrokscopeError(f"The examples are invalid: {'; '.join(faults)}.")
    arrays = {name: _smallest(array) for name, array in arrays.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    text = base64.b64encode(buffer.getvalue()).decode()
    if len(text) > LARGEST_TEXT:
        raise GrokscopeError(
            f"The examples take {len(text):,} characters. Allowed: up to {LARGEST_TEXT:,}, because the run's config "
            f"contains them. Use fewer examples."
        )
    return text


def data_faults(text: str) -> list[str]:
    """Return the faults that make a text invalid as examples, one clause each."""
    if not text:
        return [f"no examples; allowed: {ALLOWED}"]
    try:
        arrays = decode(text)
        return array_faults(arrays) or _about_faults(arrays)
    except GrokscopeError as error:
        return [str(error).rstrip(".")]


@lru_cache(maxsize=4)
def decode(text: str) -> dict[str, np.ndarray]:
    """Return the arrays in a text that `encode` returned: `inputs`, `labels`, and further ones.

    Raises:
        GrokscopeError: The text does not contain examples.
    """
    if not text:
        raise GrokscopeError(f"task.data: no examples; allowed: {ALLOWED}.")
    try:
        file = io.BytesIO(base64.b64decode(text, validate=True))
        with zipfile.ZipFile(file) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > LARGEST_ARRAYS:
                raise ValueError("too large")
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (binascii.Error, zipfile.BadZipFile, ValueError, OSError, KeyError, EOFError, MemoryError) as error:
        raise GrokscopeError(f"{text[:40]!r} does not contain examples; allowed: {ALLOWED}.") from error


def read_file(path: Path) -> str:
    """Return the examples in a file as text.

    - A .npz or .pt file contains the arrays `inputs` and `targets` (or `labels`).
    - A .csv table has a header. The targets are the columns whose names begin with "target", "label" or "answer", or
      else the last column. If every entry is a whole number from 0, it is the token; otherwise the different entries
      become tokens in alphabetical order, and the task keeps their names. An empty target means no target.

    Raises:
        GrokscopeError: The file cannot be read, or its content is not a set of examples. The error names the file.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError(errno.EINVAL, "it is a directory or a device, not a file")
        readers = {".npz": _read_npz, ".pt": _read_pt, ".pth": _read_pt, ".csv": _read_csv}
        if path.suffix.lower() not in readers:
            raise GrokscopeError(f"its name ends in {path.suffix!r}; allowed: .npz, .pt or .csv")
        return readers[path.suffix.lower()](path)
    except OSError as error:
        raise GrokscopeError(f"task.data: {path} cannot be read: {error.strerror}.") from error
    except GrokscopeError as error:
        raise GrokscopeError(f"task.data: {path}: {str(error).rstrip('.')}.") from error


def _read_npz(path: Path) -> str:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return _encode_named({name: arrays[name] for name in arrays.files})
    except (ValueError, zipfile.BadZipFile, EOFError, KeyError, AttributeError) as error:
        raise GrokscopeError(f"it is not a .npz file of arrays ({error})") from error


def _read_pt(path: Path) -> str:
    import torch

    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds of errors for a damaged or unsafe file.
        raise GrokscopeError(f"torch cannot load it safely ({type(error).__name__})") from error
    if not isinstance(values, Mapping):
        raise GrokscopeError(
            f"it contains a {type(values).__name__}; allowed: a dict of the tensors inputs and targets"
        )
    return _encode_named({str(name): value.numpy() for name, value in values.items() if torch.is_tensor(value)})


def _encode_named(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the examples among named arrays as text."""
    inputs, labels = _first_of(arrays, _INPUTS), _first_of(arrays, _TARGETS)
    if inputs is None or labels is None:
        raise GrokscopeError(f"it has the arrays {', '.join(sorted(arrays)) or 'none'}; allowed: inputs and targets")
    return encode(inputs, labels)


def _first_of(arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray | None:
    return next((arrays[name] for name in names if name in arrays), None)


def _read_csv(path: Path) -> str:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise GrokscopeError(f"it is not a CSV table in UTF-8 ({error})") from error
    if len(rows) < 3 or len({len(row) for row in rows}) != 1 or len(rows[0]) < 2:
        raise GrokscopeError(
            f"it has {len(rows)} rows of {min(map(len, rows), default=0)} to {max(map(len, rows), default=0)} "
            f"entries; allowed: a header and two or more rows, all with the same number of entries, from 2"
        )
    header = [name.strip() for name in rows[0]]
    if all(entry.strip().isdecimal() for entry in header):
        raise GrokscopeError("its first row is a row of numbers; allowed: a header with the names of the columns")
    is_target = [name.lower().startswith(("target", "label", "answer")) for name in header]
    if not any(is_target):
        is_target[-1] = True
    if all(is_target):
        raise GrokscopeError(f"all its columns ({', '.join(header)[:60]}) are targets; allowed: at least one input")
    table = np.array([[entry.strip() for entry in row] for row in rows[1:]], dtype=object)
    targets, inputs = table[:, is_target], table[:, [not target for target in is_target]]
    if (inputs == "").any():
        raise GrokscopeError("an input is empty; allowed: an entry in every input column")
    entries = sorted({str(entry) for entry in table.flatten() if entry != ""})
    if all(entry.isascii() and entry.isdecimal() for entry in entries):
        tokens, about = {entry: int(entry) for entry in entries}, {}
    else:
        tokens, about = {entry: i for i, entry in enumerate(entries)}, {"names": np.array(entries)}
    tokens[""] = NO_TARGET
    labels = np.vectorize(tokens.__getitem__, otypes=[np.int64])(targets)
    if labels.shape[1] == 1 and (inputs.shape[1] > 1 or NO_TARGET not in labels):
        labels = labels[:, 0]
    return encode(np.vectorize(tokens.__getitem__, otypes=[np.int64])(inputs), labels, **about)


def array_faults(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Return the faults of the examples: kinds, shapes and ranges."""
    faults = [f"{name} is missing" for name in ("inputs", "labels") if name not in arrays]
    if faults:
        return faults
    inputs, labels = arrays["inputs"], arrays["labels"]
    for name, array in (("inputs", inputs), ("targets", labels)):
        if array.dtype.kind not in "iub":
            faults.append(f"{name} has the type {array.dtype}; allowed: whole numbers")
    if inputs.ndim != 2 or 0 in inputs.shape:
        faults.append(f"inputs has the shape {inputs.shape}; allowed: (examples, positions)")
    elif labels.shape not in (inputs.shape[:1], inputs.shape):
        faults.append(
            f"targets has the shape {labels.shape}; allowed: {inputs.shape[:1]}, or the inputs' {inputs.shape}"
        )
    if faults:
        return faults
    if len(inputs) < 2:
        faults.append(f"{len(inputs)} example; allowed: at least 2, to train and to test")
    has_target = labels != NO_TARGET
    if labels.ndim == 1 and not has_target.all():
        faults.append("an example has the target -100; allowed with targets of the inputs' shape only")
    if not has_target.reshape(len(labels), -1).any(1).all():
        faults.append("an example has no target; allowed: at least one target per example")
    for name, values in (("inputs", inputs), ("targets", labels[has_target])):
        if values.size and (values.min() < 0 or values.max() >= 2**20):
            faults.append(f"{name} has {values.min()} to {values.max()}; allowed: tokens from 0 to {2**20 - 1}")
    return faults


def _about_faults(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Return the faults of what `encode` stores next to the examples."""
    inputs, labels = arrays["inputs"], arrays["labels"]
    unknown = sorted(arrays.keys() - {"inputs", "labels", *_ABOUT})
    if unknown:
        return [f"it has unknown arrays {', '.join(unknown)[:60]}; allowed: {ALLOWED}"]
    d_vocab, d_vocab_out, n_elements = (
        int(arrays.get(name, default))
        for name, default in (
            ("d_vocab", int(inputs.max()) + 1),
            ("d_vocab_out", int(labels.max()) + 1),
            ("n_elements", 0),
        )
    )
    if not (
        int(inputs.max()) < d_vocab < 2**21 and int(labels.max()) < d_vocab_out < 2**21 and 0 <= n_elements <= d_vocab
    ):
        return ["its sizes do not fit its tokens"]
    circle = arrays.get("circle", np.arange(1))
    if (
        circle.dtype.kind not in "iu"
        or circle.ndim != 1
        or not circle.size
        or circle.min() < 0
        or circle.max() >= d_vocab
        or len(np.unique(circle)) < len(circle)
    ):
        return ["its circle is not a list of different tokens"]
    return []


def _smallest(array: np.ndarray) -> np.ndarray:
    """Return an integer array in the smallest signed type that holds it."""
    if array.dtype.kind not in "iub" or not array.size:
        return array
    low, high = int(array.min()), int(array.max())
    kinds = (np.int8, np.int16, np.int32, np.int64)
    return array.astype(next(kind for kind in kinds if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max))


def as_tokens(array: np.ndarray) -> Int[np.ndarray, "..."]:
    """Return an array of tokens as int64."""
    return np.asarray(array).astype(np.int64)
