"""Plug-ins: built-ins and entry points under one roof."""

from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest

from grokscope import plugins
from grokscope.errors import GrokscopeError
from grokscope.gallery import registry

KINDS = ["tasks", "optimizers", "measures", "figures"]


@pytest.fixture
def strangers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another package that registers a task of its own, and one that bears a built-in's name."""

    def entry_points(group: str) -> list[EntryPoint]:
        if group != "grokscope.tasks":
            return []
        return [EntryPoint("zzz", "json:dumps", group), EntryPoint("addition", "json:loads", group)]

    monkeypatch.setattr(plugins, "entry_points", entry_points)
    plugins._table.cache_clear()
    yield
    plugins._table.cache_clear()


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_that_is_listed_can_be_loaded(kind: str):
    assert plugins.names(kind) == sorted(plugins.names(kind)) != []
    loaded = [plugins.load(kind, name) for name in plugins.names(kind)]
    assert all(isinstance(one, registry.Picture) if kind == "figures" else callable(one) for one in loaded)


def test_what_the_documentation_promises_is_built_in():
    assert {"addition", "subtraction", "multiplication", "division"} <= set(plugins.names("tasks"))
    assert "adamw" in plugins.names("optimizers")
    assert {"loss", "weight_norm", "embedding", "sharpness"} <= set(plugins.names("measures"))


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_name_is_refused_with_what_there_is(kind: str):
    with pytest.raises(GrokscopeError) as refusal:
        plugins.load(kind, "no such thing")
    assert "'no such thing'" in str(refusal.value)
    assert all(name in str(refusal.value) for name in plugins.names(kind))
    assert "Did you mean" not in str(refusal.value)


def test_a_typing_error_suggests_the_right_name():
    with pytest.raises(GrokscopeError, match="Did you mean 'division'"):
        plugins.load("tasks", "divison")


@pytest.mark.usefixtures("strangers")
def test_an_entry_point_is_listed_and_loaded_like_a_built_in():
    import json

    assert plugins.names("tasks")[-1] == "zzz"
    assert plugins.load("tasks", "zzz") is json.dumps


@pytest.mark.usefixtures("strangers")
def test_an_entry_point_cannot_take_a_built_in_name():
    import json

    assert plugins.names("tasks").count("addition") == 1
    assert plugins.load("tasks", "addition") is not json.loads
