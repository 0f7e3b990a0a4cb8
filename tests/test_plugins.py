"""Built-ins and entry points of tasks, optimizers, measures and figures."""

from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from grokscope import plugins
from grokscope.errors import GrokscopeError
from grokscope.gallery import registry

KINDS = ["tasks", "optimizers", "measures", "figures"]


@pytest.fixture
def foreign_tasks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Register two tasks of another package: a new one, and one with the name of a built-in."""

    def entry_points(group: str) -> list[EntryPoint]:
        if group != "grokscope.tasks":
            return []
        return [EntryPoint("zzz", "json:dumps", group), EntryPoint("addition", "json:loads", group)]

    monkeypatch.setattr(plugins, "entry_points", entry_points)
    plugins._registered.cache_clear()
    yield
    plugins._registered.cache_clear()


@pytest.mark.parametrize("kind", KINDS)
def test_every_listed_name_can_be_loaded(kind: str):
    assert plugins.names(kind) == sorted(plugins.names(kind)) != []
    for name in plugins.names(kind):
        loaded = plugins.load(kind, name)
        assert isinstance(loaded, registry.Picture) if kind == "figures" else callable(loaded)


def test_documented_names_are_built_in():
    assert {"addition", "subtraction", "multiplication", "division"} <= set(plugins.names("tasks"))
    assert "adamw" in plugins.names("optimizers")
    assert {"loss", "weight_norm", "embedding", "sharpness"} <= set(plugins.names("measures"))


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_name_lists_the_registered_ones(kind: str):
    with pytest.raises(GrokscopeError) as refusal:
        plugins.load(kind, "no such thing")
    assert "'no such thing'" in str(refusal.value)
    assert all(name in str(refusal.value) for name in plugins.names(kind))
    assert "Did you mean" not in str(refusal.value)


def test_mistyped_name_suggests_the_closest():
    with pytest.raises(GrokscopeError, match="Did you mean 'division'"):
        plugins.load("tasks", "divison")


@pytest.mark.usefixtures("foreign_tasks")
def test_entry_point_is_listed_and_loaded_like_a_built_in():
    import json

    assert plugins.names("tasks")[-1] == "zzz"
    assert plugins.load("tasks", "zzz") is json.dumps


@pytest.mark.usefixtures("foreign_tasks")
def test_entry_point_cannot_replace_a_built_in():
    import json

    assert plugins.names("tasks").count("addition") == 1
    assert plugins.load("tasks", "addition") is not json.loads


class BrokenEntryPoint:
    """An entry point whose module raises while it is imported."""

    def load(self) -> None:
        raise ImportError("no module named 'knots'")


class Loaded:
    """An entry point of a function."""

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def load(self) -> Callable[..., Any]:
        return self._function


@pytest.mark.parametrize("kind", KINDS)
def test_entry_point_that_cannot_be_loaded_is_named(kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(plugins._registered(kind), "twist", BrokenEntryPoint())
    noun = kind.removesuffix("s")
    with pytest.raises(GrokscopeError, match=f"^The {noun} 'twist' cannot be loaded: ImportError: no module named"):
        plugins.load(kind, "twist")


def test_failure_of_an_entry_point_names_its_line(monkeypatch: pytest.MonkeyPatch):
    def twist() -> None:
        raise KeyError("left")

    monkeypatch.setitem(plugins._registered("measures"), "twist", Loaded(twist))
    with pytest.raises(GrokscopeError, match=r"'twist' failed: KeyError: 'left' \(test_plugins\.py, line \d+\)\.$"):
        plugins.call("measures", "twist")


def test_failure_of_a_built_in_is_not_hidden(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plugins, "load", lambda kind, name: dict)
    with pytest.raises(TypeError):
        plugins.call("measures", "loss", 3)
