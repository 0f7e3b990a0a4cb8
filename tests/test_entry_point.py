"""The public names of grokscope: they resolve, and importing them loads no heavy package."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import grokscope

ROOT = Path(__file__).parent.parent
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


def test_names_that_documents_use_are_public():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "docs" / "tutorial.ipynb"]
    # mkdocs reads the path after ":::" as that of a file.
    texts = [re.sub(r"^:::.*$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE) for page in pages]
    names = {name for text in texts for name in re.findall(r"(?<!from )(?<!/)\bgrokscope\.([A-Za-z_]\w*)", text)}
    imported = re.findall(r"from grokscope import ([\w, ]+)", "\n".join(texts))
    names |= {name.strip() for line in imported for name in line.split(",")}
    assert {"algebra", "gallery", "measures", "Trajectory"} <= names
    assert names <= {*grokscope.__all__, "optimizers", "models"}


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        grokscope.trian  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
