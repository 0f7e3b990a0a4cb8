"""Pages that are made of what stands elsewhere: two READMEs with their figures, and the measures' docstrings."""

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


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add to the site's files those that lie elsewhere in the repository, and the page of measures."""
    for pattern in INCLUDED:
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    files.append(File.generated(config, "measures.md", content=measures()))
    return files


def measures() -> str:
    """Return the page that has mkdocstrings show each built-in measure."""
    places = sorted(plugins.BUILT_IN["measures"].items())
    return ABOUT + "".join(f"\n## {name}\n\n::: {place.replace(':', '.')}\n" for name, place in places)
