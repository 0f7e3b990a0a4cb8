"""A run's record, ``config.json``: its config, where it ran, and what was done to it since. No torch here."""

import errno
import hashlib
import json
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
"""The event in a record's history by which a run is a fork."""
IMPORTED = "imported"
"""The event in a record's history by which a run was made of another program's checkpoints."""
_CONFIG = "config.json"


@dataclass(frozen=True)
class Record:
    """What ``config.json`` holds: the config, where it ran, and what was done to the run since."""

    config: RunConfig
    environment: Mapping[str, str]
    """What decides the bits besides the config, as it was when the run was last trained."""
    data_digest: str
    """The SHA-256 of the task's table and the split."""
    history: tuple[Mapping[str, Any], ...] = ()
    """What changed the run since: accepted drifts and new lengths, in order; of a fork, also what went before it."""

    @property
    def origin(self) -> Mapping[str, Any] | None:
        """The event that says which run, and which step of it, a fork goes on from; None if it is no fork."""
        return next((event for event in reversed(self.history) if event.get("event") == FORKED), None)

    @property
    def imported(self) -> Mapping[str, Any] | None:
        """The event that says of which files a run was made that was never trained here; None for any other."""
        return next((event for event in self.history if event.get("event") == IMPORTED), None)

    def train(self, n_examples: int) -> Int[np.ndarray, " n_train"] | None:
        """Return the training examples that an imported run names; None where they are those of its config.

        Raise GrokscopeError if they are none of a task of `n_examples`.
        """
        bits = (self.imported or {}).get("train")
        if bits is None:
            return None
        try:
            found = np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8))
        except (TypeError, ValueError):
            found = np.empty(0, np.uint8)
        if len(found) != -(-n_examples // 8) * 8 or found[n_examples:].any() or not 0 < found.sum() < n_examples:
            raise GrokscopeError(f"An imported run names training examples that are none of its {n_examples:,}.")
        return np.flatnonzero(found)

    @property
    def first_step(self) -> int:
        """The step at which the run begins: 0, or that of its origin."""
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
        """Read a run's record; raise GrokscopeError if the folder is no run, or the record damaged or too new."""
        path = folder / _CONFIG
        try:
            if not _is_folder(folder):
                raise GrokscopeError(
                    f"{quoted_name(str(folder))} is no folder, so no run; `grokscope list runs` shows those there are."
                )
            if (folder / "sweep.json").is_file():
                raise GrokscopeError(f"{folder} is a sweep; its runs are the folders in it, such as {folder}/CELL.")
            if not path.is_file():
                raise GrokscopeError(
                    f"{folder} is no run: it has no {_CONFIG}; `grokscope list runs` shows those there are."
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
            found = cls(config, values["environment"], values["data_digest"], tuple(values["history"]))
            # Its digest may be right and the file still be none: whoever forges one works it out anew.
            if not (
                isinstance(found.data_digest, str)
                and isinstance(found.environment, dict)
                and all(isinstance(value, str) for value in found.environment.values())
                and isinstance(values["history"], list)
                and all(_is_event(event) for event in found.history)
            ):
                raise ValueError("its parts are not what they are to be")
            return found
        except OSError as error:
            raise GrokscopeError(f"{path} cannot be read: {error.strerror}.") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise GrokscopeError(f"{path} is damaged: it is no record of a run ({error}).") from error


def _is_folder(path: Path) -> bool:
    """Whether there is a folder of that name; raise OSError if that cannot be known, as behind a closed folder."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except ValueError:  # A null byte.
        return False
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
            return False
        raise


def _is_event(event: object) -> bool:
    """Whether something is an event, and has what others read of it."""
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return False
    step = event.get("step", None if event["event"] == FORKED else 0)
    return type(step) is int and 0 <= step < 2**53 and isinstance(event.get("run", ""), str)


def packed(indices: Int[np.ndarray, " n_train"], n_examples: int) -> str:
    """Return which of `n_examples` are among the indices, a bit for each, the first the highest, in hexadecimal."""
    bits = np.zeros(n_examples, np.uint8)
    bits[indices] = 1
    return np.packbits(bits).tobytes().hex()


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
