"""Fixtures of the harnesses: deterministic segments, one thread, and the process that forks children."""

from collections.abc import Iterator

import pytest
import torch

from grokscope.training import checkpointer, densification
from harness.fork_server import ForkServer


@pytest.fixture
def segments_by_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """End segments independently of the clock: at every checkpoint, and at every second one in densify."""
    monkeypatch.setattr(checkpointer, "SEGMENT_SECONDS", 1e9)
    monkeypatch.setattr(checkpointer, "SEGMENT_CHECKPOINTS", 1)
    monkeypatch.setattr(densification, "SEGMENT_CHECKPOINTS", 2)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Use one thread here, as forked children do: the number of threads changes the bits."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="package")
def run_child() -> Iterator[ForkServer]:
    """The function that trains, resumes, densifies or forks a run in a child process."""
    with ForkServer() as server:
        yield server
