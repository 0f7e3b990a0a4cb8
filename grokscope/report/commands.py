"""The commands that make a run again: exact ones, since a run is a function of its config and its environment."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from grokscope.config import RunConfig, from_dict, presets
from grokscope.errors import GrokscopeError
from grokscope.store.record import FORKED, Record
from grokscope.store.run_store import IS_NAME
from grokscope.training.fork import changes

_LONG = 400
"""A setting that takes more characters is no flag any more, but goes into a file."""


@dataclass(frozen=True)
class Again:
    """How a run is made again."""

    commands: tuple[str, ...]
    """What to type, in order."""
    file: str = ""
    """The text of the file that the first command reads, where it needs one."""
    file_name: str = ""
    remarks: tuple[str, ...] = ()
    """What the commands alone do not bring about."""


def again(record: Record, name: str) -> Again:
    """Return the commands that train a run again, its history of lengths and forks included.

    The first trains the preset that is nearest to the config, with what differs as flags; a config with a long table
    comes as a TOML file. A fork is made again from its origin, and so that is trained first. Checkpoints that
    `densify` added since are not among what they give. A history that makes no sense gives no commands.
    """
    remarks = tuple(
        f"Its environment changed at step {event['step']:,}: {'; '.join(map(str, event['drift']))}."
        for event in record.history
        if event.get("event") == "drift allowed"
    )
    try:
        return _again(record, name, remarks)
    except (GrokscopeError, KeyError, TypeError, ValueError, AttributeError) as error:
        return Again((), remarks=(*remarks, f"Its history cannot be read, so no command is known: {error}"))


def _again(record: Record, name: str, remarks: tuple[str, ...]) -> Again:
    new = f"{name}-again" if IS_NAME.fullmatch(f"{name}-again") else "again"
    first = _first(record)
    events = _events(record)
    n_forks = sum(event["event"] == FORKED for event in events)
    folders = [*(f"{new}-origin-{i + 1}" for i in range(n_forks)), new]
    preset = _nearest(first)
    changed = _changed(preset, first)
    in_file = any(len(str(value)) > _LONG for value in changed.values())
    source = [f"{new}.toml"] if in_file else [preset, *_flags(changed)]
    commands = [["grokscope", "train", *source, "--run", folders[0]]]
    for event in events:
        if event["event"] == FORKED:
            origin, *folders = folders
            flags = _flags({key: now for key, (_, now) in event["changed"].items()})
            commands.append(["grokscope", "fork", origin, "--step", str(event["step"]), *flags, "--run", folders[0]])
        else:
            commands.append(["grokscope", "resume", folders[0], "--n-steps", str(event["to"])])
    return Again(
        tuple(" ".join(map(shlex.quote, command)) for command in commands),
        toml(first) if in_file else "",
        f"{new}.toml" if in_file else "",
        remarks,
    )


def toml(config: RunConfig) -> str:
    """Return a config as a TOML file that `grokscope train` reads."""
    top, tables = [], []
    for key, value in config.to_dict().items():
        if isinstance(value, Mapping):
            tables += ["", f"[{key}]", *(f"{name} = {_literal(one)}" for name, one in value.items())]
        else:
            top.append(f"{key} = {_literal(value)}")
    return "\n".join([*top, *tables]) + "\n"


def _events(record: Record) -> list[Mapping[str, Any]]:
    return [event for event in record.history if event.get("event") in (FORKED, "lengthened")]


def _first(record: Record) -> RunConfig:
    """Return the config that the run, or the run it was forked from, began with: its history read backwards."""
    values = record.config.to_dict()
    for event in reversed(_events(record)):
        is_fork = event["event"] == FORKED
        before = {key: was for key, (was, _) in event["changed"].items()} if is_fork else {"n_steps": event["from"]}
        for key, was in before.items():
            *tables, leaf = key.split(".")
            reduce(lambda at, table: at[table], tables, values)[leaf] = was
    return from_dict(values)


def _nearest(config: RunConfig) -> str:
    """Return the name of the preset that differs from a config in the fewest settings, the first of several."""
    return min(presets.names(), key=lambda name: len(_changed(name, config)))


def _changed(preset: str, config: RunConfig) -> dict[str, Any]:
    return {name: now for name, (_, now) in changes(presets.get(preset), config).items()}


def _flags(changed: Mapping[str, Any]) -> Sequence[str]:
    flags: list[str] = []
    for name, value in changed.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            head, _, leaf = flag.rpartition(".")
            flags.append(f"--{flag}" if value else f"--{head}.no-{leaf}" if head else f"--no-{leaf}")
        elif isinstance(value, list):
            flags += [f"--{flag}", *map(str, value)]
        else:
            flags += [f"--{flag}", "none" if value is None else str(value)]
    return flags


def _literal(value: Any) -> str:
    return json.dumps("none" if value is None else value, ensure_ascii=False)
