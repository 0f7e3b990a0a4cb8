"""Mutations of a run's files: damage that breaks checksums, and forgeries with valid checksums."""

import hashlib
import json
import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

Forge = Callable[[dict[str, Any], dict[str, np.ndarray], list[str], random.Random], None]


def damage(data: bytes, others: list[bytes], choose: random.Random) -> tuple[str, bytes]:
    """Return a random kind of damage without valid checksums, and the damaged bytes."""
    kinds = ["flip", "flips", "run", "cut", "grown", "swapped", "spliced", "moved", "zeroed"]
    kinds += ["header"] * 3
    kind, changed = choose.choice(kinds), bytearray(data)
    at, length = choose.randrange(len(data)), choose.choice([1, 2, 8, 64, 1024])
    # Half of the damage hits the first bytes, because a header misleads a reader most.
    at = at if choose.random() < 0.5 else choose.randrange(min(len(data), 4096))
    if kind == "flip":
        changed[at] ^= 1 << choose.randrange(8)
    elif kind == "flips":
        for _ in range(choose.randrange(2, 50)):
            changed[choose.randrange(len(data))] ^= 1 << choose.randrange(8)
    elif kind == "run":
        changed[at : at + length] = choose.choice([choose.randbytes(length), bytes(length), b"\xff" * length])
    elif kind == "cut":
        changed = changed[:at]
    elif kind == "grown":
        changed[at:at] = choose.choice([choose.randbytes(length), bytes(length), data[:length]])
    elif kind == "swapped":
        changed = bytearray(choose.choice(others))
    elif kind == "spliced":
        changed[at:] = choose.choice(others)[at:]
    elif kind == "moved":
        target = choose.randrange(len(data))
        changed[at : at + length], changed[target : target + length] = (
            changed[target : target + length],
            changed[at : at + length],
        )
    elif kind == "zeroed":
        changed = bytearray(len(data))
    else:
        changed = bytearray(with_other_header(data, choose))
    return kind, bytes(changed)


def with_other_header(data: bytes, choose: random.Random) -> bytes:
    """Return a safetensors or JSON file with one to three changed values in its header, which stays valid JSON."""
    size = int.from_bytes(data[:8], "little")
    is_json = data[:1] == b"{"
    values = json.loads(data) if is_json else json.loads(data[8 : 8 + size])
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            places.append((value, key))
            if isinstance(inner, dict | list):
                walk(inner)

    walk(values)
    for _ in range(choose.choice([1, 1, 1, 3])):
        holder, key = choose.choice(places)
        if isinstance(holder, list) and key >= len(holder) or isinstance(holder, dict) and key not in holder:
            continue
        odd = [
            0,
            -1,
            1,
            2**31,
            2**63,
            10**30,
            1.5,
            None,
            True,
            "",
            "F64",
            "I64",
            "BOOL",
            "BF16",
            [],
            {},
            [1],
            [-1, 5],
        ]
        action = choose.choice(["set", "set", "nudge", "drop", "double"])
        if action == "set":
            holder[key] = choose.choice(odd)
        elif action == "nudge" and isinstance(holder[key], int):
            holder[key] += choose.choice([-8, -4, -1, 1, 4, 8])
        elif action == "drop":
            del holder[key]
        elif isinstance(holder, dict) and isinstance(key, str):
            holder[key + choose.choice(["x", "\u202e", "/../x", "\0"])] = holder[key]
    text = json.dumps(values).encode()
    if is_json:
        return text
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def forged(data: bytes, forge: Forge, choose: random.Random) -> bytes:
    """Return a file of tensors that `forge` has changed, with valid checksums.

    The code follows `checkpoints/README.md` and does not call grokscope, as an attacker would.
    """
    arrays = safetensors.numpy.load(data)
    size = int.from_bytes(data[:8], "little")
    about = json.loads(data[8 : 8 + size])["__metadata__"]
    metadata, by_row = json.loads(about["metadata"]), json.loads(about["by_row"])
    del arrays["checksums"], arrays["structure"]
    forge(metadata, arrays, by_row, choose)
    return sealed(metadata, arrays, by_row)


def sealed(metadata: Any, arrays: dict[str, np.ndarray], by_row: Any) -> bytes:
    """Return a file of these arrays with valid checksums."""
    about = {"metadata": json.dumps(metadata, sort_keys=True), "by_row": json.dumps(by_row)}
    names = {np.float32: "F32", np.float64: "F64", np.int64: "I64", np.int32: "I32", np.bool_: "BOOL"}
    names |= {np.uint8: "U8", np.float16: "F16", np.int16: "I16"}
    if "checksums" not in arrays:
        sums = []
        for name, array in sorted(arrays.items()):
            rows = array if isinstance(by_row, list) and name in by_row and array.ndim else [array]
            sums += [zlib.crc32(np.ascontiguousarray(row).tobytes()) for row in rows]
        arrays = {**arrays, "checksums": np.array(sums, np.int64)}
    layout = [[name, names[array.dtype.type], list(array.shape)] for name, array in arrays.items()]
    text = json.dumps([dict(sorted(about.items())), sorted([*layout, ["structure", "I64", [1]]])])
    structure = zlib.crc32(arrays["checksums"].tobytes(), zlib.crc32(text.encode()))
    return safetensors.numpy.save({**arrays, "structure": np.array([structure], np.int64)}, about)


def resealed_record(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """Return a config.json that `change` has changed, with a valid digest."""
    values = json.loads(data)
    del values["digest"]
    change(values)
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    return json.dumps({**values, "digest": digest}).encode()


def _set(key: str, *values: Any) -> Forge:
    def forge(metadata: Any, arrays: Any, by_row: Any, choose: random.Random) -> None:
        metadata[key] = choose.choice(values)

    return forge


def _array(prefix: str, change: Callable[[np.ndarray], np.ndarray | None]) -> Forge:
    """Return a forgery of one tensor whose name starts with a prefix; a `change` to None removes it."""

    def forge(metadata: Any, arrays: Any, by_row: Any, choose: random.Random) -> None:
        names = sorted(name for name in arrays if name.startswith(prefix))
        # The first segment has no optimizer state.
        name = choose.choice(names or ["resume/schedule/reference"])
        changed = change(arrays[name])
        if changed is None:
            del arrays[name]
            by_row[:] = [other for other in by_row if other != name]
        else:
            arrays[name] = changed

    return forge


def _rows(*values: Any) -> Forge:
    def forge(metadata: Any, arrays: Any, by_row: Any, choose: random.Random) -> None:
        by_row[:] = choose.choice(values)

    return forge


def _flat(array: np.ndarray) -> np.ndarray:
    return array.reshape(len(array), -1) if array.ndim > 2 else array[..., None]


def _not_a_step(rows: np.ndarray) -> np.ndarray:
    rows = rows.copy()
    rows[:1, 0] = np.nan
    return rows


# A reader must not accept any of these as a segment of the run, although all checksums are valid.
INVALID_SEGMENTS: dict[str, Forge] = {
    "invalid steps": _set("steps", None, [-1], [0, 0], [5, 3], ["0"], [0.5], [True], [10**400], [2**60], {}, 7),
    "more steps than rows": _set("steps", list(range(50))),
    "begin without end": _set("begin", None, "x", -7, 10**300),
    "an invalid end": _set("end", "60", -1, 2**80, [], None),
    "another kind": _set("kind", "series", None, 5, []),
    "another config": _set("config_digest", "", None, "0" * 64),
    "a missing parameter": _array("checkpoints/", lambda array: None),
    "a parameter of another shape": _array("checkpoints/", _flat),
    "an integer parameter": _array("checkpoints/", lambda array: array.astype(np.int64)),
    "a float16 parameter": _array("checkpoints/", lambda array: array.astype(np.float16)),
    "a parameter of one row": _array("checkpoints/", lambda array: array[0]),
    "a parameter without rows": _array("checkpoints/", lambda array: array[:0]),
    "no log": _array("log", lambda array: None),
    "a log of other columns": _array("log", lambda array: array[:, :3]),
    "an integer log": _array("log", lambda array: array.astype(np.int64)),
    "a log of one axis": _array("log", lambda array: array.ravel()),
    "a log of invalid steps": _array("log", _not_a_step),
    "by_row empty": _rows([]),
    "by_row of missing tensors": _rows(["x"], ["checkpoints/", 3], [[]], [None]),
    "by_row of a single number": _rows(["resume/step"]),
    "a state of another step": _array("resume/step", lambda array: np.asarray(array + 1)),
    "a resume step with axes": _array("resume/step", lambda array: array.reshape(1, 1)),
    "a state without schedule": _array("resume/schedule/", lambda array: None),
    "a state without a parameter": _array("resume/parameters/", lambda array: None),
    "a state of another shape": _array("resume/parameters/", lambda array: array[:1]),
    "an optimizer of another shape": _array("resume/optimizer/embed.W_E/exp", lambda array: array.reshape(-1)[:1]),
    "an optimizer without a moment": _array("resume/optimizer/unembed.W_U/exp", lambda array: None),
    "a float16 optimizer": _array("resume/optimizer/blocks", lambda array: array.astype(np.float16)),
}

INVALID_SERIES: dict[str, Forge] = {
    "another kind": _set("kind", "segment", None, []),
    "an invalid name": _set("measure", None, 5, "embedding"),
    "invalid options": _set("options", None, 5, [1], "x"),
    "another run": _set("digest", "", None, 5),
    "another version": _set("version", 7, None, "x"),
    "no steps": _array("steps", lambda array: None),
    "steps in float64": _array("steps", lambda array: array.astype(np.float64)),
    "steps of another run": _array("steps", lambda array: array + 1),
    "a missing row": _array("arrays/", lambda array: array[:-1]),
    "an array without axes": _array("arrays/", lambda array: array[:1].reshape(())),
}


def _nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


INVALID_RECORDS: dict[str, Callable[[dict[str, Any]], None]] = {
    "a newer format": lambda values: values.update(format=2),
    "an invalid format": lambda values: values.update(format="1"),
    "an invalid environment": lambda values: values.update(environment=[]),
    "an environment of lists": lambda values: values.update(environment={"torch": [1]}),
    "an invalid data digest": lambda values: values.update(data_digest=5),
    "an invalid history": lambda values: values.update(history={"event": "x"}),
    "invalid events": lambda values: values.update(history=["x"]),
    "a fork without a run": lambda values: values.update(history=[{"event": "forked"}]),
    "a fork without a step": lambda values: values.update(history=[{"event": "forked", "run": "x", "step": "5"}]),
    "an import without examples": lambda values: values.update(history=[{"event": "imported", "train": "zz"}]),
    "an import of all examples": lambda values: values.update(history=[{"event": "imported", "train": "ff" * 7}]),
    "an import of a huge number": lambda values: values.update(history=[{"event": "imported", "train": 10**40}]),
    "another config": lambda values: values["config"].update(init_seed=9),
    "an invalid config": lambda values: values.update(config=5),
    "a config of nulls": lambda values: values.update(config=dict.fromkeys(values["config"])),
    "a deeply nested setting": lambda values: values["config"].update(checkpoints=_nested(90)),
    "too many checkpoints": lambda values: values["config"].update(checkpoints="log 9" + "9" * 13),
    "too many steps": lambda values: values["config"].update(n_steps=10**300),
    "no history": lambda values: values.pop("history"),
}


def files_of(run: Path) -> list[Path]:
    """Return the files of a run that a reader reads: its record, segments and saved measures."""
    return [run / "config.json", *sorted((run / "segments").iterdir()), *sorted((run / "measures").iterdir())]
