"""The record of a run, ``config.json``: its config, its environment and its history. No torch here."""

import dataclasses
import errno
import hashlib
import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from grokscope._version import __version__
from grokscope.config import RunConfig, from_dict
from grokscope.disk import atomic
from grokscope.errors import GrokscopeError, quoted_name

FORMAT = 1
FORKED = "forked"
"""The event in the history of a fork."""
IMPORTED = "imported"
"""The event in the history of a run that was made from another program's checkpoints."""
_CONFIG = "config.json"


@dataclass(frozen=True)
class Record:
    """The content of ``config.json``: the config of a run, its environment and its history."""

    config: RunConfig
    environment: Mapping[str, str]
    """Everything apart from the config that determines the bits, as of the last training."""
    data_digest: str
    """The SHA-256 of the task's table and the split."""
    history: tuple[Mapping[str, Any], ...] = ()
    """The events that changed the run, in order: accepted drifts, new lengths, the fork or the import. A fork also
    has the events of its origin."""

    @property
    def origin(self) -> Mapping[str, Any] | None:
        """The event with the run and the step that a fork continues from; None if the run is not a fork."""
        return next((event for event in reversed(self.history) if event.get("event") == FORKED), None)

    @property
    def imported(self) -> Mapping[str, Any] | None:
        """The event with the files that a run was imported from; None for a run that was trained here.

        A fork of an imported run was trained here.
        """
        if self.origin:
            return None
        return next((event for event in self.history if event.get("event") == IMPORTED), None)

    @property
    def training_config(self) -> RunConfig:
        """The config, with the training set that the files of an imported run have named."""
        train_set = (self.imported or {}).get("train")
        if not train_set:
            return self.config
        return dataclasses.replace(self.config, task=dataclasses.replace(self.config.task, train_set=train_set))

    @property
    def has_split(self) -> bool:
        """Whether the training set is known; an import does not know it if neither the files nor the user name it."""
        return self.imported is None or "train" in self.imported

    def train(self, n_examples: int) -> Int[np.ndarray, " n_train"] | None:
        """Return the training examples that an imported run names; None for a run that names none.

        Raise GrokscopeError if they do not fit a task of `n_examples` examples.
        """
        bits = (self.imported or {}).get("train")
        if bits is None:
            return None
        try:
            is_train = np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8))
        except (TypeError, ValueError):
            is_train = np.empty(0, np.uint8)
        n_bits = math.ceil(n_examples / 8) * 8
        if len(is_train) != n_bits or is_train[n_examples:].any() or not 0 < is_train.sum() < n_examples:
            raise GrokscopeError(f"The training examples of the imported run do not fit its {n_examples:,} examples.")
        return np.flatnonzero(is_train)

    @property
    def first_step(self) -> int:
        """The first step of the run: 0, or for a fork the step that it continues from."""
        return int(self.origin["step"]) if self.origin else 0

    def write(self, folder: Path) -> None:
        """Write the record into a run's folder, atomically."""
        values = {
            "format": FORMAT,
            "grokscope": __version__,
            "config": self.config.to_dict(),
            "environment": dict(self.environment),
            "data_digest": self.data_digest,
            "history": list(self.history),
        }
        text = json.dumps({**values, "digest": _digest(values)}, indent=2, ensure_ascii=False)
        atomic.write_atomic(folder / _CONFIG, text.encode())

    @classmethod
    def read(cls, folder: Path) -> "Record":
        """Read a run's record.

        Raise GrokscopeError if the folder is not a run, or if the record is damaged or has a newer format.
        """
        path = folder / _CONFIG
        try:
            if not _is_folder(folder):
                raise GrokscopeError(
                    f"{quoted_name(str(folder))} is not a run: the folder does not exist. "
                    f"`grokscope list runs` lists the runs."
                )
            if (folder / "sweep.json").is_file():
                raise GrokscopeError(f"{folder} is a sweep; its runs are its subfolders, such as {folder}/CELL.")
            if not path.is_file():
                raise GrokscopeError(
                    f"{folder} is not a run: it has no {_CONFIG}. `grokscope list runs` lists the runs."
                )
            values = json.loads(path.read_bytes())
            if values["format"] > FORMAT:
                raise GrokscopeError(
                    f"{path} has format {values['format']}, written by grokscope {values['grokscope']}; this "
                    f"grokscope, {__version__}, reads formats up to {FORMAT}. Install a newer grokscope."
                )
            if values.pop("digest") != _digest(values):
                raise GrokscopeError(
                    f"{path} is damaged or was edited: it does not match its digest. A run's settings cannot "
                    f"change; `grokscope resume RUN --n-steps N` makes it longer."
                )
            config = from_dict(values["config"])
            record = cls(config, values["environment"], values["data_digest"], tuple(values["history"]))
            # A valid digest proves nothing about a forged file, so check the structure too.
            if not (
                isinstance(record.data_digest, str)
                and isinstance(record.environment, dict)
                and all(isinstance(value, str) for value in record.environment.values())
                and isinstance(values["history"], list)
                and all(_is_event(event) for event in record.history)
            ):
                raise ValueError("a part has the wrong type")
            return record
        except OSError as error:
            raise GrokscopeError(f"{path} cannot be read: {error.strerror}.") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise GrokscopeError(f"{path} is damaged: it is not the record of a run ({error}).") from error


def _is_folder(path: Path) -> bool:
    """Return whether the folder exists; raise OSError if a folder above it may not be read."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except ValueError:  # A null byte.
        return False
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
            return False
        raise


def _is_event(event: object) -> bool:
    """Return whether a value is an event with the fields that readers need."""
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return False
    step = event.get("step", None if event["event"] == FORKED else 0)
    return type(step) is int and 0 <= step < 2**53 and isinstance(event.get("run", ""), str)


def packed_indices(indices: Int[np.ndarray, " n_train"], n_examples: int) -> str:
    """Return a set of examples in hexadecimal: one bit per example, the first example in the highest bit."""
    bits = np.zeros(n_examples, np.uint8)
    bits[indices] = 1
    return np.packbits(bits).tobytes().hex()


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
