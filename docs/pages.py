"""Pages that are made of what stands elsewhere: READMEs and their figures, a notebook, the measures' docstrings."""

import json
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from grokscope import plugins
from grokscope.measures import declaration_of
from grokscope.series import ROLES

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


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Return a page with its links as the site needs them: in the repository, docs/ is one folder further down."""
    folder = "../" * page.file.src_uri.count("/")
    if page.file.src_uri.startswith("analyses/"):
        return markdown.replace("](../docs/", "](../")
    return re.sub(rf"\]\(\.\./{folder}(analyses|checkpoints)/", rf"]({folder}\1/", markdown)


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
    """Return the page on which mkdocstrings shows each built-in measure, with a table of its arrays."""
    places = sorted(plugins.BUILT_IN["measures"].items())
    directive = (
        "\n::: {place}\n    options:\n      heading: {name}\n      toc_label: {name}\n      heading_level: 2\n"
    )
    parts = [directive.format(name=name, place=place.replace(":", ".")) + arrays_of(name) for name, place in places]
    return ABOUT + "".join(parts)


def arrays_of(measure: str) -> str:
    """Return a table of the arrays that a measure declares, with their dimensions, units and companions."""
    variables = declaration_of(measure).variables
    rows = []
    for name, variable in variables.items():
        if variable.role not in ("value", "coordinate"):
            continue
        companions = ", ".join(
            other.role for other in variables.values() if other.of == name and other.role in ROLES[2:]
        )
        dims = ", ".join(variable.dims)
        label = variable.with_loss("run's").label
        rows.append(f"| `{name}` | {label} | {dims} | {variable.unit} | {companions} |")
    return (
        "\n| array | meaning | dimensions | unit | errors and controls |\n|---|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )
