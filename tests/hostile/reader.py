"""An independent reader of runs, written from checkpoints/README.md with json, hashlib, zlib and NumPy."""

import hashlib
import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

DTYPES = {"F32": "<f4", "F64": "<f8", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}


def read_file(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the metadata and the tensors of a .safetensors file, after checking every checksum."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    about = header.pop("__metadata__")
    arrays = {}
    for name, entry in header.items():
        first, last = (start + offset for offset in entry["data_offsets"])
        assert last - first == math.prod(entry["shape"]) * np.dtype(DTYPES[entry["dtype"]]).itemsize
        arrays[name] = np.frombuffer(data[first:last], DTYPES[entry["dtype"]]).reshape(entry["shape"])
    layout = sorted([name, entry["dtype"], entry["shape"]] for name, entry in header.items())
    text = json.dumps([dict(sorted(about.items())), layout])
    checksums, structure = arrays.pop("checksums"), arrays.pop("structure")
    assert structure.tolist() == [zlib.crc32(checksums.tobytes(), zlib.crc32(text.encode("ascii")))]
    by_row = json.loads(about["by_row"])
    computed = []
    for name, array in sorted(arrays.items()):
        computed += [zlib.crc32(row.tobytes()) for row in (array if name in by_row else [array])]
    assert checksums.tolist() == computed
    return json.loads(about["metadata"]), arrays


def read_run(run: Path) -> dict[str, Any]:
    """Return a run's record, checkpoints by step, log rows, latest resume state, gaps and measures."""
    record = json.loads((run / "config.json").read_text(encoding="utf-8"))
    assert record["format"] == 1
    digest = record.pop("digest")
    assert digest == hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    forked = [event["step"] for event in record["history"] if event["event"] == "forked"]
    checkpoints: dict[int, dict[str, np.ndarray]] = {}
    log, resume, covered = {}, (-1, {}), []
    for path in (run / "segments").glob("[!.]*.safetensors"):
        about, arrays = read_file(path)
        assert about["kind"] == "segment"
        for row, step in enumerate(about["steps"]):
            parameters = {name: array[row] for name, array in arrays.items() if name.startswith("checkpoints/")}
            checkpoints[step] = {name.removeprefix("checkpoints/"): array for name, array in parameters.items()}
        log |= {int(row[0]): row[1:].tolist() for row in arrays["log"]}
        if "resume/step" in arrays and about["end"] > resume[0]:
            state = {name: array for name, array in arrays.items() if name.startswith("resume/")}
            resume = about["end"], {name.removeprefix("resume/"): array for name, array in state.items()}
        covered += [] if about["end"] is None else [(about["begin"], about["end"])]
    gaps, reached = [], (forked[-1] if forked else 0) - 1
    for begin, end in sorted(covered):
        gaps += [(reached + 1, begin)] if begin > reached else []
        reached = max(reached, end)
    measures = {path.stem: read_file(path) for path in (run / "measures").glob("*.safetensors")}
    return {
        "record": record,
        "checkpoints": dict(sorted(checkpoints.items())),
        "log": dict(sorted(log.items())),
        "resume": resume[1],
        "gaps": gaps,
        "measures": measures,
    }
