"""Settings by dotted name: from a config to one mapping, and back."""

from grokscope.config import RunConfig
from grokscope.config.dotted_settings import flatten_settings, with_settings


def test_nested_settings_are_named_with_dots():
    assert flatten_settings({"a": 1, "b": {"c": {"d": 2}, "e": [3]}}) == {"a": 1, "b.c.d": 2, "b.e": [3]}


def test_settings_of_every_depth_are_changed_and_others_kept():
    before = RunConfig()
    settings = {"n_steps": 7, "model.family": "mlp", "model.mlp.d_hidden": 9, "model.mlp.act_fn": "tanh"}
    after = flatten_settings(with_settings(before, settings).to_dict())
    assert after == flatten_settings(with_settings(before, {"model.family": "mlp"}).to_dict()) | settings
    assert before == RunConfig()
