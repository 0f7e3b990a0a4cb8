"""Pages that are made of what stands elsewhere: READMEs and their figures, a notebook, the measures' docstrings."""

import json
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from grokscope import plugins

ROOT = Path(__file__).parent.parent
INCLUDED = ("checkpoints/README.md", "analyses/README.md", "analyses/figures/*.png")
ABOUT = """\
# Measures

Each is `measure(trajectory, *, option=…) -> Series`; `grokscope measure RUN NAME --set option=value` saves it with
the run, and `grokscope.measures.evaluate("NAME", trajectory)` returns it. What follows are the docstrings:
definition, source, what the extremes mean, controls and cost.
"""
NOTEBOOK = """\
*This page is the notebook [tutorial.ipynb](tutorial.ipynb), without what its cells print and draw.*
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add to the site's files those that lie elsewhere in the repository, and the pages of notebook and measures."""
    for pattern in INCLUDED:
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    files.append(File.generated(config, "tutorial.md", content=tutorial()))
    files.append(File.generated(config, "measures.md", content=measures()))
    return files


def tutorial() -> str:
    """Return the notebook as a page: its text as it stands, its code without the notebook's own commands (`%`)."""
    cells = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        lines = "".join(cell["source"]).splitlines()
        if cell["cell_type"] == "code":
            lines = ["```python", *(line for line in lines if not line.startswith("%")), "```"]
        parts.append("\n".join(lines))
    # The link stands below the title, which the first cell begins with.
    return "\n\n".join([parts[0], NOTEBOOK, *parts[1:]])


def measures() -> str:
    """Return the page that has mkdocstrings show each built-in measure."""
    places = sorted(plugins.BUILT_IN["measures"].items())
    shown = "\n::: {place}\n    options:\n      heading: {name}\n      toc_label: {name}\n      heading_level: 2\n"
    return ABOUT + "".join(shown.format(name=name, place=place.replace(":", ".")) for name, place in places)
