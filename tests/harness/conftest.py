"""What the harnesses share: segments that end by count, one thread, and the process that forks children."""

from collections.abc import Iterator

import pytest
import torch

from grokscope.training import checkpointer, densification
from harness.forebear import Forebear


@pytest.fixture
def segments_by_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """End segments where no clock has a say: at every checkpoint, and every second one of densify's."""
    monkeypatch.setattr(checkpointer, "SEGMENT_SECONDS", 1e9)
    monkeypatch.setattr(checkpointer, "SEGMENT_CHECKPOINTS", 1)
    monkeypatch.setattr(densification, "SEGMENT_CHECKPOINTS", 2)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """A forked child has lost its parent's threads, and other threads are other bits: both sides take one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def live() -> Iterator[Forebear]:
    """The function that lets a child process live a part of a run's life."""
    with Forebear() as forebear:
        yield forebear
