"""The documentation: it builds without a broken link, asks nothing of the network, and its code runs."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from grokscope import plugins

ROOT = Path(__file__).parent.parent
PAGES = sorted(path for path in (ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [code for kind, code in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]


WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]
WITH_SHELL = [page for page in PAGES if blocks(page, "bash")]


def test_every_block_of_code_is_of_a_kind_that_is_run():
    kinds = {kind for page in PAGES for kind, _ in BLOCK.findall(page.read_text(encoding="utf-8"))}
    assert kinds == {"python", "bash", "toml"}
    assert len(WITH_PYTHON) >= 3 and len(WITH_SHELL) >= 2


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The package that the page on one's own tasks writes, found by the entry points that its TOML declares."""
    import tomllib

    package = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "my_package", package)
    (text,) = blocks(ROOT / "docs" / "extending.md", "toml")
    declared = tomllib.loads(text)["project"]["entry-points"]
    monkeypatch.setattr(
        plugins,
        "entry_points",
        lambda group: [EntryPoint(name, place, group) for name, place in declared.get(group, {}).items()],
    )
    plugins._table.cache_clear()
    yield package
    plugins._table.cache_clear()


@pytest.mark.filterwarnings("ignore:HookedTransformer is deprecated")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(
    # Those that import TransformerLens take seconds.
    "page",
    [
        pytest.param(page, id=page.stem, marks=[] if page.stem == "extending" else [pytest.mark.slow])
        for page in WITH_PYTHON
    ],
)
def test_the_python_on_a_page_runs_from_top_to_bottom(page, installed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = installed.__dict__
    names["__name__"] = "my_package"
    for number, code in enumerate(blocks(page, "python"), 1):
        exec(compile(code, f"{page.name}, block {number}", "exec"), names)


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_SHELL, ids=lambda page: page.stem)
def test_the_commands_on_a_page_run_from_top_to_bottom(page, tmp_path):
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "grokscope").write_text(f'#!/bin/sh\nexec {sys.executable} -m grokscope "$@"\n')
    (bin_folder / "grokscope").chmod(0o755)
    environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    for code in blocks(page, "bash"):
        done = subprocess.run(
            ["bash", "-euc", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_notebook_runs_and_groks(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    book = nbformat.read(ROOT / "docs" / "tutorial.ipynb", 4)
    client = nbclient.NotebookClient(book, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    shown = [output["data"] for cell in book.cells for output in cell.get("outputs", []) if "data" in output]
    assert any("<b>Trajectory" in data.get("text/html", "") for data in shown)
    assert sum("image/png" in data for data in shown) == 2


def test_the_notebook_is_kept_without_outputs():
    cells = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text(encoding="utf-8"))["cells"]
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)


@pytest.mark.slow
def test_the_site_has_no_broken_link_and_asks_nothing_of_the_network(tmp_path):
    pytest.importorskip("mkdocs")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {path.parent.name: path.read_text(encoding="utf-8") for path in (tmp_path / "site").rglob("index.html")}
    for html in pages.values():
        fetched = re.findall(r'<(?:script|img|iframe)[^>]*\ssrc="([^"]*)"|<link[^>]*\shref="([^"]*)"', html)
        assert not any(url.startswith(("http", "//")) for pair in fetched for url in pair)
    for name in plugins.BUILT_IN["measures"]:
        assert f'id="{name}"' in pages["measures"] or f">{name}<" in pages["measures"]
    # One sentence of a docstring, of each README that is included, and a figure of one of them.
    assert "Measure how few frequencies the weights hold" in pages["measures"] and "segment" in pages["checkpoints"]
    assert "figures/nanda2023_circuit.png" in pages["analyses"]
    assert (tmp_path / "site" / "analyses" / "figures" / "nanda2023_circuit.png").exists()
