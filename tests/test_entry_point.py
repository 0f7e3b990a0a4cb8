"""The public names of grokscope: they resolve, and importing them loads no heavy package."""

import subprocess
import sys

import pytest

import grokscope

HEAVY = ["torch", "transformer_lens", "numpy", "matplotlib", "pandas", "sklearn"]


def loaded_after(statement: str) -> set[str]:
    """Return the heavy packages that a new interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys; print(*(name for name in {HEAVY} if name in sys.modules))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(process.stdout.split())


def test_import_loads_no_heavy_package():
    assert loaded_after("import grokscope; grokscope.__version__; dir(grokscope)") == set()


def test_configs_and_presets_do_not_import_torch():
    loaded = loaded_after("import grokscope; grokscope.presets.get('quick').validate(); grokscope.GrokscopeError")
    assert not loaded & {"torch", "transformer_lens", "matplotlib"}


def test_measures_do_not_import_transformer_lens():
    loaded = loaded_after("import grokscope; grokscope.measures.evaluate; grokscope.train; grokscope.Trajectory")
    assert "torch" in loaded
    assert not loaded & {"transformer_lens", "matplotlib"}


@pytest.mark.parametrize("name", grokscope.__all__)
def test_public_name_resolves(name):
    value = getattr(grokscope, name)
    assert getattr(value, "__name__", name).split(".")[-1] == name or name == "__version__"
    assert name in dir(grokscope)


def test_documented_names_are_public():
    names = "presets train resume densify Trajectory measures Series RunConfig TaskConfig ModelConfig OptimizerConfig"
    assert set(names.split()) <= set(grokscope.__all__)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        grokscope.trian  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
