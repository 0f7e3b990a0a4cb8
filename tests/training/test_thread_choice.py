"""The number of threads of a training: sizes decide, records are kept, and cores limit it."""

import dataclasses

import pytest

from grokscope.config import ModelConfig, RunConfig, TaskConfig, presets
from grokscope.errors import GrokscopeError
from grokscope.training import thread_choice
from grokscope.training.ensemble import Ensemble
from grokscope.training.loop import Setup

TINY = RunConfig(task=TaskConfig(p=7), model=ModelConfig(d_model=8, n_heads=2, d_mlp=8))


@pytest.fixture
def n_cores(monkeypatch: pytest.MonkeyPatch):
    """Return a function that sets the number of available cores."""

    def set_cores(n: int) -> None:
        monkeypatch.setattr(thread_choice, "available_cores", lambda: n)

    return set_cores


@pytest.mark.parametrize(
    ("preset", "cores", "n"),
    [("nanda2023", 1, 1), ("nanda2023", 2, 2), ("quick", 2, 1), ("power2022", 2, 1), ("power2022-full-batch", 2, 2)],
)
def test_auto_uses_a_second_thread_only_for_large_steps(n_cores, preset: str, cores: int, n: int):
    n_cores(cores)
    assert Setup(presets.get(preset)).threads.n == n


def test_auto_stops_where_further_threads_gain_nothing(n_cores):
    n_cores(64)
    assert 2 <= Setup(presets.get("nanda2023")).threads.n <= 8
    assert Setup(TINY).threads.n == 1 and Ensemble([TINY]).threads.n == 1


def test_auto_keeps_the_recorded_number_up_to_the_cores(n_cores):
    n_cores(2)
    assert Setup(TINY, recorded={"threads": "2"}).threads.n == 2
    assert Setup(TINY, recorded={"threads": "4"}).threads.n == 2
    assert Setup(TINY, recorded={}).threads.n == 1


def test_a_number_is_used_as_it_is(n_cores):
    n_cores(2)
    assert Setup(dataclasses.replace(TINY, threads=3), recorded={"threads": "1"}).threads.n == 3


@pytest.mark.parametrize("threads", [0, 1025, 1.5, True, "two", None])
def test_other_settings_are_refused(threads):
    with pytest.raises(GrokscopeError, match="threads: .*allowed: 'auto' or a whole number from 1 to 1024"):
        dataclasses.replace(TINY, threads=threads).validate()


def test_default_keeps_the_digest_of_old_runs():
    assert dataclasses.replace(TINY, threads=2).digest != TINY.digest
    assert "threads" in TINY.to_dict()
