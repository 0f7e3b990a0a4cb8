"""The estimate of memory, and the refusal of a run that does not fit."""

import dataclasses
from pathlib import Path

import pytest

from grokscope import training
from grokscope.config import RunConfig
from grokscope.errors import GrokscopeError
from grokscope.training import memory
from grokscope.training.loop import Setup


def test_estimate_counts_logits_and_neurons(tiny_config: RunConfig):
    n_train, n_answers, model = 29, 7, tiny_config.model
    neurons = 3 * 4 * model.n_layers * model.d_mlp
    double = dataclasses.replace(tiny_config, loss_dtype="float64")
    assert memory.estimate_memory(Setup(double)) == n_train * (20 * n_answers + neurons)
    single = dataclasses.replace(tiny_config, loss_dtype="float32", batch_size=8)
    assert memory.estimate_memory(Setup(single)) == 8 * (12 * n_answers + neurons)


def test_run_that_does_not_fit_is_refused_before_writing(
    tiny_config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(memory, "available_memory", lambda: 1000)
    with pytest.raises(GrokscopeError, match=r"29 equations needs about 0\.0 GB .* Set batch_size"):
        training.train(tiny_config, "large", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("limit", "available"), [("1000", 1000), ("max", 3072), (None, 3072)])
def testavailable_memory_is_at_most_the_limit(
    limit: str | None, available: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   2 kB\nSwapFree: 1 kB\n")
    if limit:
        (tmp_path / "limit").write_text(limit)
    monkeypatch.setattr(memory, "_MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_LIMIT", tmp_path / "limit")
    assert memory.available_memory() == available
    monkeypatch.setattr(memory, "_MEMORY", tmp_path / "absent")
    assert memory.available_memory() is None
