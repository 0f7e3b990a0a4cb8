"""The door: quick to open, and everything behind it is there."""

import subprocess
import sys

import pytest

import grokscope

HEAVY = ["torch", "transformer_lens", "numpy", "matplotlib", "pandas", "sklearn"]


def loaded_after(statement: str) -> set[str]:
    """Return which of the heavy packages a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_grokscope_loads_nothing_heavy():
    assert loaded_after("import grokscope; grokscope.__version__; dir(grokscope)") == set()


def test_a_config_and_its_presets_need_neither_torch_nor_transformer_lens():
    loaded = loaded_after("import grokscope; grokscope.presets.get('quick').validate(); grokscope.GrokscopeError")
    assert not loaded & {"torch", "transformer_lens", "matplotlib"}


def test_measuring_needs_neither_transformer_lens_nor_matplotlib():
    loaded = loaded_after("import grokscope; grokscope.measures.evaluate; grokscope.train; grokscope.Trajectory")
    assert "torch" in loaded
    assert not loaded & {"transformer_lens", "matplotlib"}


@pytest.mark.parametrize("name", grokscope.__all__)
def test_every_name_of_the_door_resolves(name):
    found = getattr(grokscope, name)
    assert getattr(found, "__name__", name).split(".")[-1] == name or name == "__version__"
    assert name in dir(grokscope)


def test_the_public_interface_is_behind_the_door():
    named = "presets train resume densify Trajectory measures Series RunConfig TaskConfig ModelConfig OptimizerConfig"
    assert set(named.split()) <= set(grokscope.__all__)


def test_a_name_that_is_not_behind_the_door_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        grokscope.trian  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
