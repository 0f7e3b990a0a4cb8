"""Messages for unknown names: the suggestion, case and tables ignored."""

import pytest

from grokscope.config import RunConfig, from_dict, validation
from grokscope.errors import MOST_LISTED, GrokscopeError, unknown_name

SETTINGS = [name for name, _ in validation.leaves(RunConfig())]


@pytest.mark.parametrize(
    ("name", "allowed", "suggestion"),
    [
        ("adamW", ["adam", "adamw", "sgd"], "adamw"),
        ("ADAM", ["adam", "adamw", "sgd"], "adam"),
        ("admw", ["adam", "adamw", "sgd"], "adamw"),
        ("lr", SETTINGS, "optimizer.lr"),
        ("task.LR", SETTINGS, "optimizer.lr"),
        ("betas", SETTINGS, "optimizer.betas"),
        ("model.n_head", SETTINGS, "model.n_heads"),
        ("s5", ["A5", "S5"], "S5"),
    ],
)
def test_unknown_name_suggests_the_closest(name: str, allowed: list[str], suggestion: str):
    message = unknown_name("name", name, allowed)
    assert message.endswith(f"Did you mean {suggestion!r}?")
    assert all(candidate in message for candidate in allowed) or len(allowed) > MOST_LISTED


def test_suggestion_replaces_a_list_of_many_names():
    allowed = [f"name{i}" for i in range(MOST_LISTED + 1)]
    assert unknown_name("name", "nmae3", allowed) == "Unknown name 'nmae3'. Did you mean 'name3'?"
    assert "name7" in unknown_name("name", "xyz", allowed), "without a suggestion, all are listed"


def test_distant_name_gets_no_suggestion():
    assert unknown_name("name", "xyz", ["adam", "sgd"]) == "Unknown name 'xyz'; allowed: adam, sgd."
    assert unknown_name("name", "xyz", []) == "Unknown name 'xyz'; allowed: none."


@pytest.mark.parametrize("values", [{"lr": 0.1}, {"task": {"lr": 0.1}}])
def test_setting_in_another_table_is_suggested(values: dict[str, object]):
    with pytest.raises(GrokscopeError, match=r"Did you mean 'optimizer\.lr'\?"):
        from_dict(values)


@pytest.mark.parametrize("p", [2, 4, 12, 1000])
def test_modulus_need_not_be_prime(p: int):
    assert from_dict({"task": {"p": p, "train_fraction": 0.5}}).task.p == p


@pytest.mark.parametrize("p", [-5, 0, 1, 2011, True, "12", 12.0])
def test_modulus_out_of_range_names_the_range(p: object):
    with pytest.raises(GrokscopeError, match="a whole number from 2 to 2003.$"):
        from_dict({"task": {"p": p}})
