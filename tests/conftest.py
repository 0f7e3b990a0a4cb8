"""Fixtures of all tests: types checked at run time, tiny configs, and a finished tiny run to copy."""

import json
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typechecking  # noqa: F401, as it must precede the hook
from hypothesis import settings
from jaxtyping import install_import_hook

PACKAGE = Path(__file__).parent.parent / "grokscope"

# A config's construction never raises, so nothing that holds a user's unchecked values is checked by type. The
# hook takes modules by prefix, so the door itself, `grokscope`, is not among them.
UNCHECKED = {"__init__", "config", "cli"}

install_import_hook(
    [
        f"grokscope.{path.stem}"
        for path in PACKAGE.iterdir()
        if path.stem not in UNCHECKED and (path.suffix == ".py" or (path / "__init__.py").exists())
    ],
    "typechecking.typechecked",
)

from support.planting import plant as plant  # noqa: E402
from support.planting import plant_once as plant_once  # noqa: E402
from support.shared import Saved, make_tiny_config, read_everything  # noqa: E402

from grokscope import rng, training  # noqa: E402
from grokscope.config import RunConfig  # noqa: E402
from grokscope.disk import atomic  # noqa: E402
from grokscope.training import checkpointer  # noqa: E402

settings.register_profile("grokscope", deadline=None, derandomize=True, database=None)
settings.load_profile("grokscope")


def pytest_configure() -> None:
    """Hear Ctrl-C, and let the commands under test hear it: a shell's background jobs are born deaf to it."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip fsync, which takes most of the time: no test cuts the power. tests/disk/test_atomic.py calls fsync."""
    monkeypatch.setattr(atomic.os, "fsync", lambda descriptor: None)


@pytest.fixture
def tiny_config() -> RunConfig:
    """A config that trains in a blink."""
    return make_tiny_config()


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the tiny config in a few segments. It is shared: read it, or take `run_copy`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpointer, "SEGMENT_CHECKPOINTS", 2)
        training.train(make_tiny_config(), "tiny", tmp_path_factory.mktemp("runs"))
    return next(tmp_path_factory.getbasetemp().glob("runs*/tiny"))


@pytest.fixture
def run_copy(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the tiny run that a test may change."""
    return shutil.copytree(tiny_run, tmp_path / "copy")


@pytest.fixture
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every step commit a segment."""
    monkeypatch.setattr(checkpointer, "SEGMENT_SECONDS", 0.0)


@pytest.fixture
def permuted() -> Callable[..., np.ndarray]:
    """Another order than `rng.permutation` draws, as a later version of a task or of its split might."""
    draw = rng.permutation
    return lambda *arguments: draw(*arguments)[::-1].copy()


@pytest.fixture
def saved() -> Callable[[Path], Saved]:
    """The function that reads everything a run has saved, as raw bytes by what it is."""
    return read_everything


@pytest.fixture
def toml() -> Callable[[dict[str, Any]], str]:
    """The function that writes nested plain values as TOML; none becomes the text "none"."""
    return write_toml


def write_toml(values: dict[str, Any]) -> str:
    top = [item for item in values.items() if not isinstance(item[1], dict)]
    lines = [f"{_key(key)} = {_literal(value)}" for key, value in top]
    tables = {_key(name): table for name, table in values.items() if isinstance(table, dict)}
    while tables:
        name, table = next(iter(tables.items()))
        tables |= {f"{name}.{_key(key)}": item for key, item in table.items() if isinstance(item, dict)}
        plain = {key: item for key, item in tables.pop(name).items() if not isinstance(item, dict)}
        lines += [f"[{name}]", *(f"{_key(key)} = {_literal(item)}" for key, item in plain.items())]
    return "\n".join(lines) + "\n"


def _key(key: str) -> str:
    return json.dumps(key)


def _literal(value: Any) -> str:
    return json.dumps("none" if value is None else value, ensure_ascii=False)
