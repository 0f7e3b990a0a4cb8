"""The commands that retrain a run exactly: a run is a function of its config and its environment."""

import json
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from grokscope.config import RunConfig, from_dict, presets, unused
from grokscope.errors import GrokscopeError
from grokscope.store.record import FORKED, IMPORTED, Record
from grokscope.store.run_names import IS_NAME
from grokscope.training.fork_settings import compare_settings

_LONGEST_FLAG = 400
"""A setting of more characters does not fit on a command line, so the config is written to a TOML file."""


@dataclass(frozen=True)
class Recipe:
    """The commands that retrain a run."""

    commands: tuple[str, ...]
    """The shell commands, in order; empty if the run's history cannot be read."""
    file: str = ""
    """The text of the TOML file that the first command reads; empty if it reads none."""
    file_name: str = ""
    """The name of that file."""
    remarks: tuple[str, ...] = ()
    """Sentences about the run that the commands do not reproduce."""
    is_exact: bool = True
    """Whether the commands give the same bits in the same environment."""


def retraining_recipe(record: Record, name: str) -> Recipe:
    """Return the commands that retrain a run, including the forks and extensions of its history.

    The first command trains the preset nearest to the config, with the differences as flags. A config with a long
    table is written to a TOML file instead. A fork starts from its origin, so the origin is trained first. The
    commands do not give the checkpoints that `densify` added later.

    An imported run has no commands. The commands of a run that was trained in an ensemble, or that changed its
    environment, train it alone in one environment, which gives other bits.

    Args:
        record: The run's config, environment and history.
        name: The run's name. The new run is called NAME-again.
    """
    if record.imported:
        return Recipe((), remarks=("grokscope imported this run and never trained it.",), is_exact=False)
    remarks: tuple[str, ...] = ()
    try:
        remarks = tuple(_remarks(record))
        return _recipe(record, name, remarks)
    except (GrokscopeError, KeyError, TypeError, ValueError, AttributeError) as error:
        remark = f"No command can be given, because the run's history cannot be read: {error}"
        return Recipe((), remarks=(*remarks, remark))


def _remarks(record: Record) -> Iterator[str]:
    """Yield a sentence for each reason why the commands give other bits."""
    if ensemble := record.environment.get("ensemble"):
        yield (
            f"The run was trained in an ensemble ({ensemble}); training it alone gives other bits. The same cells "
            "in the same order, in a sweep with the same --ensemble, give the same bits."
        )
    if _is_of_import(record):
        yield "Its origin was imported, so import the same files first."
    for event in record.history:
        if event.get("event") in ("drift allowed", FORKED) and event["drift"]:
            yield f"Its environment changed at step {event['step']:,}: {'; '.join(map(str, event['drift']))}."


def format_toml(config: RunConfig, without: Collection[str] = ()) -> str:
    """Return a config as the text of a TOML file that `grokscope train` reads.

    Args:
        config: The config.
        without: The dotted names of settings to leave out.
    """
    return "\n".join(_toml_lines(config.to_dict(), "", without)) + "\n"


def _toml_lines(table: Mapping[str, Any], prefix: str, without: Collection[str]) -> Iterator[str]:
    """Yield the lines of a table's own settings, and then those of the tables in it."""
    settings = {name: value for name, value in table.items() if f"{prefix}{name}" not in without}
    lines = [f"{name} = {_literal(value)}" for name, value in settings.items() if not isinstance(value, Mapping)]
    if prefix and lines:
        yield from ("", f"[{prefix.removesuffix('.')}]")
    yield from lines
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _toml_lines(value, f"{prefix}{name}.", without)


def _recipe(record: Record, name: str, remarks: tuple[str, ...]) -> Recipe:
    new_name = f"{name}-again" if IS_NAME.fullmatch(f"{name}-again") else "again"
    config = _initial_config(record)
    preset = _nearest_preset(config)
    changes = {key: value for key, value in _changes(preset, config).items() if key != "initialization"}
    # A flag without effect is refused.
    useless = unused.unused_settings(config, changes)
    changes = {key: value for key, value in changes.items() if key not in useless}
    needs_file = any(len(str(value)) > _LONGEST_FLAG for value in changes.values())
    file_name = f"{new_name}.toml" if needs_file else ""
    initial = ["--init-from", f"{name}@0"] if config.initialization else []
    source = [*([file_name] if needs_file else [preset, *_flags(changes)]), *initial]
    return Recipe(
        tuple(map(shlex.join, _commands(record, source, new_name))),
        format_toml(config, without={"initialization"}) if needs_file else "",
        file_name,
        remarks,
        is_exact=not remarks,
    )


def _commands(record: Record, source: Sequence[str], new_name: str) -> Iterator[Sequence[str]]:
    """Yield the commands as lists of words: one that trains, then one for each fork and extension."""
    events = _lineage(record)
    n_forks = sum(event["event"] == FORKED for event in events)
    folder, *later_folders = [*(f"{new_name}-origin-{i + 1}" for i in range(n_forks)), new_name]
    if _is_of_import(record):
        folder = next(event["run"] for event in events if event["event"] == FORKED)
    else:
        yield ["grokscope", "train", *source, "--run", folder]
    for event in events:
        if event["event"] == FORKED:
            origin, (folder, *later_folders) = folder, later_folders
            flags = _flags({key: new for key, (_, new) in event["changed"].items()})
            fresh = ["--fresh-optimizer"] if event.get("fresh_optimizer") else []
            yield ["grokscope", "fork", origin, "--step", str(event["step"]), *fresh, *flags, "--run", folder]
        else:
            yield ["grokscope", "resume", folder, "--n-steps", str(event["to"])]


def _is_of_import(record: Record) -> bool:
    """Return whether a run is a fork of an imported run."""
    return any(event.get("event") == IMPORTED for event in record.history)


def _lineage(record: Record) -> list[Mapping[str, Any]]:
    return [event for event in record.history if event.get("event") in (FORKED, "lengthened")]


def _initial_config(record: Record) -> RunConfig:
    """Return the config of the first training in a run's history, by undoing every fork and extension."""
    values = record.config.to_dict()
    for event in reversed(_lineage(record)):
        is_fork = event["event"] == FORKED
        previous = {key: old for key, (old, _) in event["changed"].items()} if is_fork else {"n_steps": event["from"]}
        for key, old in previous.items():
            *tables, leaf = key.split(".")
            reduce(lambda table, name: table[name], tables, values)[leaf] = old
    return from_dict(values)


def _nearest_preset(config: RunConfig) -> str:
    """Return the name of the preset that differs from a config in the fewest settings, the first of equals."""
    return min(presets.names(), key=lambda name: len(_changes(name, config)))


def _changes(preset: str, config: RunConfig) -> dict[str, Any]:
    return {name: new for name, (_, new) in compare_settings(presets.get(preset), config).items()}


def _flags(changes: Mapping[str, Any]) -> Sequence[str]:
    flags: list[str] = []
    for name, value in changes.items():
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
