"""What the harnesses share: segments that end by count, so that the operations of a life are always the same."""

import pytest

from grokscope import recorder, training


@pytest.fixture
def segments_by_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """End segments where no clock has a say: at every checkpoint, and every second one of densify's."""
    monkeypatch.setattr(recorder, "SEGMENT_SECONDS", 1e9)
    monkeypatch.setattr(recorder, "SEGMENT_CHECKPOINTS", 1)
    monkeypatch.setattr(training, "SEGMENT_CHECKPOINTS", 2)
