"""Where an imported run comes from: its files, what was found in them, and what the import asserted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grokscope.report.commands import format_toml
from grokscope.store.record import Record

_WITHOUT_MEANING = {
    *("checkpoints", "max_checkpoints", "n_steps", "evaluate_every", "device", "matrix_products"),
    *("split_seed", "training_seed"),
}
"""The settings that describe a training by grokscope, which an imported run did not have."""


@dataclass(frozen=True)
class Provenance:
    """The origin of an imported run."""

    files: tuple[tuple[str, str], ...]
    """The name and the SHA-256 of each file."""
    properties: tuple[tuple[str, str], ...]
    """Each property that was found in the files, with its value."""
    asserted: str
    """The settings that the files do not contain, as TOML: from flags, the preset and defaults."""
    split: str
    """Where the training set comes from, or "unknown"."""
    answers_only: bool
    """Whether the columns of tokens that are never an answer were dropped from the unembedding."""
    notes: tuple[str, ...]
    """Sentences on how the files were read."""
    doubts: tuple[str, ...]
    """Sentences that cast doubt on the import."""

    @classmethod
    def of(cls, record: Record) -> "Provenance | None":
        """Return the provenance of an imported run; None for a run that grokscope trained.

        Runs that grokscope 0.2.0 imported have files only.
        """
        event = record.imported
        if event is None:
            return None
        properties = _mapping(event.get("found"))
        default = "named by the files" if record.has_split else "unknown"
        return cls(
            files=tuple(
                (str(file.get("name")), str(file.get("sha256")))
                for file in _list(event.get("files"))
                if isinstance(file, Mapping)
            ),
            properties=tuple((str(name), _text(value)) for name, value in properties.items()),
            asserted=format_toml(record.config, without={*properties, *_WITHOUT_MEANING}),
            split=str(event.get("split", default)),
            answers_only=bool(event.get("answers_only")),
            notes=tuple(map(str, _list(event.get("notes")))),
            doubts=tuple(map(str, _list(event.get("doubts")))),
        )


def _text(value: Any) -> str:
    return "none" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
