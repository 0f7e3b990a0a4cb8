"""Pickles looked through, instruction by instruction, with none of them carried out."""

import io
import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grokscope.errors import GrokscopeError, quoted_value

MOST_INSTRUCTIONS = 1_000_000
"""About twice what 400 checkpoints of a transformer of one layer and their losses need."""
_ITEM_BYTES = {
    **{"DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8},
    **{"IntStorage": 4, "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1},
}
_HARMLESS = {
    *("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "collections OrderedDict"),
    *("torch device", "torch Size", *(f"torch {name}" for name in _ITEM_BYTES)),
    *(f"torch {name}" for name in ("float16", "bfloat16", "float32", "float64", "int32", "int64", "uint8", "bool")),
}
"""What a pickle may name, and torch calls."""
INERT = {
    *("numpy.core.multiarray scalar", "numpy._core.multiarray scalar", "numpy dtype", "_codecs encode"),
    "transformer_lens.HookedTransformerConfig HookedTransformerConfig",
    "transformer_lens.config.hooked_transformer_config HookedTransformerConfig",
    "transformer_lens.config.HookedTransformerConfig HookedTransformerConfig",
}
"""What a pickle may name, and an inert thing stands in for: TransformerLens' Grokking_Demo saves its config too."""
_OPEN = {"collections OrderedDict", *INERT}
"""What may be given a state after it is made: a tensor that is given one can become one of any size."""
_CONSTANTS = {
    *("NONE", "NEWTRUE", "NEWFALSE", "BINFLOAT", "BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"),
    *("SHORT_BINSTRING", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_SET"),
}
_CLOSING = {"TUPLE", "APPENDS", "SETITEMS"}
_TAKES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "APPEND": 1, "SETITEM": 2, "BUILD": 1, "REDUCE": 2, "NEWOBJ": 2}
_LARGEST_TUPLE = 10_000
"""In elements of elements: tuples of one tuple twice, 60 deep, take ages to hash, and are told by it."""
_MARK, _THING, _OPEN_THING = object(), object(), object()


@dataclass(frozen=True)
class _Name:
    """A name in a pickle, "module name": what it stands for is never looked up."""

    text: str


@dataclass(frozen=True)
class _Tuple:
    """A tuple in a pickle, with the number of elements of its elements."""

    items: tuple[Any, ...]
    size: int


def found(data: bytes, path: Path) -> Iterator[tuple[str, Any]]:
    """Yield ("name", "module name") and ("storage", (key, bytes)) for all that a pickle names and refers to.

    It is followed on a stack of what is known without carrying anything out: names, texts, numbers and tuples of
    them; all else is a thing. Raise GrokscopeError for what is not among `_HARMLESS` and `INERT`, and for an
    instruction that no saved tensor needs.
    """
    stack: list[Any] = []
    memo: dict[Any, Any] = {}

    def taken(n: int) -> list[Any]:
        if n > len(stack) or any(one is _MARK for one in stack[len(stack) - n :]):
            raise GrokscopeError(f"{path} is damaged: its pickle takes what is not there.")
        last = stack[len(stack) - n :]
        del stack[len(stack) - n :]
        return last

    for i, (instruction, argument, _) in enumerate(pickletools.genops(io.BytesIO(data))):
        name = instruction.name
        if i >= MOST_INSTRUCTIONS:
            raise GrokscopeError(f"{path} has a pickle of more than {MOST_INSTRUCTIONS:,} instructions; refused.")
        if name in _CONSTANTS:
            stack.append(argument if isinstance(argument, int | str) else _THING)
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1] if stack else _THING
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "EMPTY_TUPLE":
            stack.append(_Tuple((), 1))
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "GLOBAL":
            text = str(argument)
            if text not in _HARMLESS | INERT:
                raise GrokscopeError(
                    f"{path} holds {quoted_value(text.replace(' ', '.'))}, which is no tensor; nothing of it was run. "
                    f"Allowed: tensors, numbers, texts, lists and dicts."
                )
            yield "name", text
            stack.append(_Name(text))
        elif name == "BINPERSID":
            yield "storage", _storage(taken(1)[0], path)
            stack.append(_THING)
        elif name in _CLOSING or name in _TAKES:
            n = _TAKES[name] if name in _TAKES else len(stack) - 1 - _last_mark(stack, path)
            items = taken(n)
            if name in _CLOSING:
                stack.pop()
            if name.startswith("TUPLE"):
                size = sum(one.size if isinstance(one, _Tuple) else 1 for one in items)
                if size > _LARGEST_TUPLE:
                    raise GrokscopeError(f"{path} holds tuples within tuples without end; refused.")
                stack.append(_Tuple(tuple(items), size))
            elif name in ("REDUCE", "NEWOBJ"):
                _require_a_call(items, path)
                stack.append(_OPEN_THING if items[0].text in _OPEN else _THING)
            elif name == "BUILD" and (not stack or stack[-1] is not _OPEN_THING):
                raise GrokscopeError(f"{path} gives a state to what has none; nothing of it was run.")
        elif name not in ("PROTO", "STOP"):
            raise GrokscopeError(
                f"{path} has a pickle with {name}, which no saved tensor needs; nothing of it was run."
            )


def _last_mark(stack: list[Any], path: Path) -> int:
    for i in range(len(stack) - 1, -1, -1):
        if stack[i] is _MARK:
            return i
    raise GrokscopeError(f"{path} is damaged: its pickle closes what it never opened.")


def _storage(reference: Any, path: Path) -> tuple[str, int]:
    """Return the key and the bytes that a reference to numbers in the archive claims."""
    items = reference.items if isinstance(reference, _Tuple) else ()
    if len(items) == 5 and items[0] == "storage" and isinstance(items[1], _Name) and isinstance(items[2], str):
        n_item = _ITEM_BYTES.get(items[1].text.removeprefix("torch "))
        if n_item is not None and type(items[4]) is int and items[4] >= 0:
            return items[2], items[4] * n_item
    raise GrokscopeError(f"{path} refers to numbers in a way that torch.save does not; nothing of it was run.")


def _require_a_call(items: list[Any], path: Path) -> None:
    """Raise GrokscopeError unless what is called is one of the names, and the one codec is that of bytes."""
    called, given = items
    is_codec = isinstance(called, _Name) and called.text == "_codecs encode"
    if not isinstance(called, _Name) or (
        is_codec and not (isinstance(given, _Tuple) and given.items[1:] == ("latin1",))
    ):
        raise GrokscopeError(f"{path} calls what is no tensor; nothing of it was run.")
