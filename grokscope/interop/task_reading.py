"""The task of an import whose caller describes none: its size from shapes, its operation from a config."""

import dataclasses
import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from grokscope.algebra import groups
from grokscope.config import TaskConfig, validation
from grokscope.errors import GrokscopeError

_OPERATIONS = {
    "addition": r"add(ition)?|sum|plus|\+|x\s?\+\s?y|a\s?\+\s?b|mod(ular)?_?add(ition)?",
    "subtraction": r"sub(tract(ion)?)?|minus|-|x\s?-\s?y|a\s?-\s?b|mod(ular)?_?sub(traction)?",
    "multiplication": r"(mod(ular)?_?)?mul(t(iply|iplication)?)?|prod(uct)?|times|\*|x\s?\*\s?y|a\s?\*\s?b",
    "division": r"div(ision|ide)?|/|x\s?/\s?y|a\s?/\s?b|mod(ular)?_?div(ision)?",
}
_LAMBDA = re.compile(r"lambda (\w): \(?\1\[0\]\s*([-+*])\s*\1\[1\]\)?\s*%\s*(\d+)")
_SIGNS = {"+": "addition", "-": "subtraction", "*": "multiplication"}
_GROUPS = {"symmetricgroup": "S", "alternatinggroup": "A", "dihedralgroup": "D", "cyclicgroup": "C"}
_EXPRESSIONS = {"addition": "a + b", "subtraction": "a - b", "multiplication": "a*b"}
"""The operations as expressions, of which each operand may have tokens of its own."""
_FORMS = {2: "a b", 3: "a b =", 4: "a ∘ b ="}
"""The number of tokens → the form of an equation."""


def read(
    config: TaskConfig,
    parameters: Mapping[str, Any],
    facts: Mapping[str, Any],
    given: Collection[str],
    operands: tuple[int, int] | None = None,
) -> tuple[TaskConfig, list[str]]:
    """Return the task that shapes and a config determine, and sentences on how it was read.

    Settings that the user gave stay as they are. The number of answers gives the modulus, and the number of positions
    the form of the equations. The operation is the config's, or else the default.

    Args:
        config: The task with the user's settings and defaults.
        parameters: The first state dict, under TransformerLens' names.
        facts: The properties that the config of the file names.
        given: The dotted names of the settings that the user gave.
        operands: The number of values of each operand, and of operands, of a network without tokens for signs.

    Raises:
        GrokscopeError: The sizes are not those of an equation, or the config of the file names a task that grokscope
            does not have.
    """
    values: dict[str, Any] = {}
    notes: list[str] = []
    n_elements, n_tokens = operands or _sizes(parameters)
    has_vocabularies = n_elements is not None and n_tokens not in (None, *_FORMS) and n_tokens - n_elements in _FORMS
    if has_vocabularies and n_tokens is not None and n_elements is not None:
        n_tokens -= n_elements
    is_named = not {"task.name", "task.group", "task.table"}.isdisjoint(given)
    if not is_named and n_tokens not in (None, *_FORMS) and operands is None:
        d_vocab, d_vocab_out = (parameters[name].shape[axis] for name, axis in (("embed.W_E", 0), ("unembed.W_U", 1)))
        raise GrokscopeError(
            f"it has {d_vocab} tokens and {d_vocab_out} outputs, so its task is not an equation with two operands. "
            "Name its examples with --task.name data --task.data @FILE, a .npz, .pt or .csv file with inputs and "
            "targets."
        )
    if group := _group(facts):
        values |= {"name": "composition", "group": group}
        notes.append(f"The task is the product in {group}, as the config of the file says.")
    else:
        p = facts.get("p") if isinstance(facts.get("p"), int) else n_elements
        if p is not None:
            values["p"] = p
        name = _operation(facts)
        values |= {"name": name} if name else {}
        if has_vocabularies and (name or config.name) in _EXPRESSIONS:
            values |= {"name": "expression", "expression": _EXPRESSIONS[name or config.name]}
            values["sizes"] = f"{n_elements} {n_elements}"
            notes.append("Each operand has tokens of its own, because there are twice as many tokens as answers.")
        source = (
            "as the config of the file says" if name else "which the files do not name; --task.name names another"
        )
        notes.append(f"The operation is {name or config.name!r}, {source}.")
    if operands is not None and operands[1] > 2:
        values["n_operands"] = operands[1]
    form = _FORMS.get(n_tokens or 0)
    if form and _is_valid("form", form):
        values["form"] = form
    fraction = facts.get("train_fraction")
    if isinstance(fraction, float) and 0 < fraction < 1:
        values["train_fraction"] = fraction
    chosen = {name: value for name, value in values.items() if f"task.{name}" not in given}
    if is_named:
        chosen = {name: value for name, value in chosen.items() if name not in ("name", "group")}
        notes = []
    return dataclasses.replace(config, **chosen), notes


def _sizes(parameters: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return the number of elements and of tokens in an equation that the shapes determine."""
    W_E, W_U, W_pos = (parameters.get(name) for name in ("embed.W_E", "unembed.W_U", "pos_embed.W_pos"))
    if not isinstance(W_E, Tensor) or not isinstance(W_U, Tensor) or W_E.ndim != 2 or W_U.ndim != 2:
        return None, None
    d_vocab, d_vocab_out = len(W_E), W_U.shape[1]
    n_ctx = len(W_pos) if isinstance(W_pos, Tensor) and W_pos.ndim == 2 else None
    n_signs = d_vocab - d_vocab_out
    if n_signs > 0:
        return d_vocab_out, n_signs + 2
    # An output for every token: the positions tell the signs. A program may have one more, for the answer.
    n_signs = 1 if n_ctx is None else min(max(n_ctx - 2, 0), 2)
    return d_vocab_out - n_signs, n_signs + 2


def _operation(facts: Mapping[str, Any]) -> str | None:
    """Return our name of the operation in a config; None without one."""
    text = facts.get("operation")
    if not isinstance(text, str):
        return None
    if match := _LAMBDA.fullmatch(text.strip()):
        return _SIGNS[match[2]]
    words = re.sub(r"\s*(\(?mod \w+\)?|%.*)$", "", text.strip().lower())
    name = next((name for name, pattern in _OPERATIONS.items() if re.fullmatch(pattern, words)), None)
    if name is None:
        raise GrokscopeError(
            f"The config of the file names the operation {text[:60]!r}, which has no name here. Name the task with "
            "--task.name; `grokscope list tasks` prints the names."
        )
    return name


def _group(facts: Mapping[str, Any]) -> str | None:
    """Return our name of the group in a config, such as "S5"; None without one."""
    text, parameter = facts.get("group"), facts.get("group_parameter")
    if not isinstance(text, str):
        return None
    letter = _GROUPS.get(text.lower().replace("_", ""))
    name = f"{letter}{parameter}" if letter and isinstance(parameter, int) else text
    return name if groups.is_group_name(name) else None


def _is_valid(setting: str, value: Any) -> bool:
    config = dataclasses.replace(TaskConfig(), **{setting: value})
    return not any(message.startswith(f"{setting}:") for message in validation.faults(config))
