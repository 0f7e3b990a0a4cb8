"""The documentation: it builds without a broken link, asks nothing of the network, and its code runs."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import grokscope
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


@pytest.mark.parametrize("page", [ROOT / "README.md", *WITH_PYTHON], ids=lambda page: page.stem)
def test_every_block_of_python_can_be_pasted(page):
    for number, code in enumerate(blocks(page, "python"), 1):
        compile(code, f"{page.name}, block {number}", "exec")


def test_own_module_of_the_networks_page_trains(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for code in blocks(ROOT / "docs" / "networks.md", "python"):
        exec(compile(code, "networks.md", "exec"), names)
    assert len(names["trajectory"]) == 3 and names["circle"]["circularity"].shape == (3,)
    assert "no attention" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:HookedTransformer is deprecated")
def test_the_first_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(ROOT / "README.md", "python")[:1]
    assert "n_steps=3500" in code
    names: dict[str, Any] = {}
    exec(compile(code.replace("n_steps=3500", "n_steps=60"), "README.md", "exec"), names)
    assert names["trajectory"].steps.tolist() == [0, 20, 40, 60] and names["W_E"].shape[0] == 4
    assert names["logits"].shape[0] == 5


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
    plugins._registered.cache_clear()
    yield package
    plugins._registered.cache_clear()


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


def test_documented_rule_stops_at_its_accuracy(tmp_path, monkeypatch, tiny_config):
    (code,) = [block for block in blocks(ROOT / "docs" / "index.md", "python") if "stop=rule" in block]
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"grokscope": grokscope, "config": tiny_config}
    # The tiny run does not grok, so a lower accuracy takes the place of 99%.
    exec(code.replace("test_accuracy >= 0.99 for 100", "train_accuracy >= 0.2"), names)
    log, stopped = names["trajectory"].log, names["trajectory"].stopped
    assert stopped.step == log.steps[-1] < tiny_config.n_steps
    assert log["train_accuracy"][-1] >= 0.2 and (log["train_accuracy"][:-1] < 0.2).all()
    assert (tmp_path / "checkpoints" / "until-grokking").is_dir()


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
def test_site_has_no_broken_link_and_fetches_nothing(tmp_path):
    pytest.importorskip("mkdocs")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    site = tmp_path / "site"
    pages = {path.relative_to(site).as_posix(): path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    for name, html in pages.items():
        fetched = re.findall(r'<(?:script|img|iframe)[^>]*\ssrc="([^"]*)"|<link[^>]*\shref="([^"]*)"', html)
        assert not any(url.startswith(("http", "//")) for pair in fetched for url in pair)
        # From the disk, a link to a folder would list its files. Page 404 belongs to the server and has its paths.
        links = {link.partition("#")[0] for link in re.findall(r'<a[^>]*\shref="([^"]*)"', html)} - {""}
        inside = [link for link in links if ":" not in link and name != "404.html"]
        assert [link for link in inside if not (site / name).parent.joinpath(link).is_file()] == []
    # Each measure occurs once in the table of contents, and so on the page.
    contents = pages["measures.html"].rpartition("md-nav--secondary")[2].partition("</nav>")[0]
    named = [re.sub(r"<.*?>", "", heading).strip() for heading in re.findall(r"<a href=.*?</a>", contents, re.DOTALL)]
    assert sorted(heading for heading in named if heading != "Measures") == sorted(plugins.BUILT_IN["measures"])
    # One sentence of a docstring, of each README that is included, and a figure of one of them.
    assert "Compute the Fourier norms of the rows of W_E" in pages["measures.html"]
    assert "segment" in pages["checkpoints/index.html"]
    assert "figures/nanda2023_circuit.png" in pages["papers/nanda2023.html"]
    assert (site / "analyses" / "figures" / "nanda2023_circuit.png").exists()
    # The notebook is a page, its code without the notebook's own commands, and a link to the file.
    assert (
        "<title>From training to a hook" in pages["tutorial.html"]
        and 'href="tutorial.ipynb"' in pages["tutorial.html"]
    )
    assert "accuracy_without" in pages["tutorial.html"] and "matplotlib" not in pages["tutorial.html"]
    assert 'href="tutorial.html"' in pages["grokking.html"]


@pytest.mark.slow
def test_colab_notebook_installs_and_runs_the_package(tmp_path):
    """Run every cell in an environment that has the dependencies of the package, but not the package itself."""
    nbclient = pytest.importorskip("nbclient")
    shutil.copytree(
        ROOT, tmp_path / "grokscope-main", ignore=shutil.ignore_patterns(".*", "checkpoints", "build", "dist")
    )
    book = json.loads((ROOT / "docs" / "colab.ipynb").read_text("utf-8"))
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert code[0]["source"] == ["%pip install --quiet ./grokscope-main"]
    for cell in code:
        cell["source"] = "".join(cell["source"]).replace("N_STEPS = 3500", "N_STEPS = 60")
    code[-1]["source"] += (
        "\nprint(grokscope.__file__, len(trajectory), tuple(cache['blocks.0.attn.hook_pattern'].shape))"
    )
    (tmp_path / "colab.ipynb").write_text(json.dumps(book))
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    dependencies = Path(nbclient.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(dependencies), "OMP_NUM_THREADS": "1"}
    program = "from nbclient.cli import main; main()"
    command = [tmp_path / "venv" / "bin" / "python", "-c", program, "--inplace", "--timeout=600", "colab.ipynb"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    cells = json.loads((tmp_path / "colab.ipynb").read_text("utf-8"))["cells"]
    printed = "".join("".join(output.get("text", "")) for output in cells[-1]["outputs"])
    (place, *numbers) = printed.split(maxsplit=1)
    assert Path(place).is_relative_to(tmp_path / "venv") and numbers == ["4 (5, 4, 3, 3)\n"]
    assert (tmp_path / "checkpoints" / "first" / "report.html").is_file()


MARIMO_NOTEBOOK = """
import marimo

app = marimo.App()


@app.cell
def train():
    import grokscope
    from grokscope import ModelConfig, RunConfig, TaskConfig

    config = RunConfig(
        task=TaskConfig(p=7), model=ModelConfig(d_model=16, n_heads=2, d_mlp=24), n_steps=60, checkpoints="every 20"
    )
    run = grokscope.train(config, "first")
    return grokscope, run


@app.cell
def series(grokscope, run):
    grokscope.measures.evaluate("weight_norm", run)
    return


@app.cell
def page(grokscope, run):
    grokscope.report.show(run)
    return


if __name__ == "__main__":
    app.run()
"""


@pytest.mark.slow
def test_marimo_shows_progress_series_and_report(tmp_path):
    pytest.importorskip("marimo")
    (tmp_path / "notebook.py").write_text(MARIMO_NOTEBOOK)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    folder = tmp_path / "checkpoints" / "first"
    command = [sys.executable, "-m", "marimo", "export", "html", "notebook.py", "-o", "page.html"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    outputs = (tmp_path / "page.html").read_text("utf-8")
    assert "step 60/60 " in outputs, "the progress of the training"
    assert "weight_norm \\u00b7 4 checkpoints" in outputs or "weight_norm · 4 checkpoints" in outputs
    assert "srcdoc=" in outputs and (folder / "report.html").is_file()
    shutil.rmtree(folder)
    # The same file is a program.
    done = subprocess.run(
        [sys.executable, "notebook.py"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and (folder / "report.html").is_file(), done.stderr
