"""The text of a mixture."""

import pytest

from grokscope.config import TaskConfig, mixtures


def test_members_take_fraction_and_form_from_the_mixture():
    text = "addition p=59; multiplication p=31 train_fraction=0.5 zero_divisors=false;"
    config = TaskConfig(name="mixture", mixture=text, train_fraction=0.4, form="a ∘ b =")
    first, second = mixtures.members(config)
    assert first == TaskConfig(name="addition", p=59, train_fraction=0.4, form="a ∘ b =")
    assert (second.p, second.train_fraction, second.zero_divisors) == (31, 0.5, False)
    assert mixtures.mixture_faults(config) == []


def test_repeated_tasks_get_numbers():
    config = TaskConfig(name="mixture", mixture="addition p=5; division p=5; addition p=7")
    assert mixtures.member_names(config) == ["addition_1", "division", "addition_2"]


@pytest.mark.parametrize(
    "text",
    ["", "addition", "addition; mixture", "addition; nothing", "addition p; division", "addition p=x; division"]
    + ["addition q=1; division", "addition p=1; division", "addition fresh=true; division"],
)
def test_invalid_mixture_is_a_fault(text: str):
    assert mixtures.mixture_faults(TaskConfig(name="mixture", mixture=text))
