"""One line on each task, model, optimizer, measure and figure, read from the source; listing imports no torch."""

import ast
from functools import cache
from pathlib import Path

import grokscope
from grokscope import plugins


def lines(kind: str) -> list[str]:
    """Return a line for each name of a kind: the name, and the first line of its docstring.

    A name that another package adds has no description, because reading it would import the package.

    Args:
        kind: "tasks", "models", "optimizers", "measures" or "figures".
    """
    names = plugins.names(kind)
    width = max(map(len, names)) + 2
    return [f"{name:<{width}}{_description(kind, name)}".rstrip() for name in names]


def _description(kind: str, name: str) -> str:
    place = plugins.BUILT_IN[kind].get(name)
    if place is None:
        return "of another package"
    module, _, function = place.partition(":")
    path = module.removeprefix("grokscope.").replace(".", "/")
    docstrings = _figure_docstrings() if kind == "figures" else _docstrings(f"{path}.py")
    return docstrings[function].removeprefix("Return ").removeprefix("Compute ").removesuffix(".")


def _source(path: str) -> ast.Module:
    return ast.parse((Path(grokscope.__file__).parent / path).read_text(encoding="utf-8"))


@cache
def _docstrings(path: str) -> dict[str, str]:
    """Return the first line of the docstring of each function in a file of the package."""
    functions = [node for node in _source(path).body if isinstance(node, ast.FunctionDef)]
    return {node.name: (ast.get_docstring(node) or "").partition("\n")[0] for node in functions}


@cache
def _figure_docstrings() -> dict[str, str]:
    """Return the first line of the docstring of the function that draws each built-in figure."""
    folder = Path(grokscope.__file__).parent / "figures"
    drawn = {name: text for path in folder.glob("*.py") for name, text in _docstrings(f"figures/{path.name}").items()}
    pictures = [node for node in _source("gallery/builtin.py").body if isinstance(node, ast.Assign)]
    return {
        ast.unparse(node.targets[0]): drawn[f"figure_{ast.literal_eval(node.value.args[0])}"]
        for node in pictures
        if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "_picture"
    }
