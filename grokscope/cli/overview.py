"""The texts of `grokscope` and `grokscope --help`. They are printed without importing the commands."""

import ast
from collections.abc import Mapping
from pathlib import Path

INTRODUCTION = """\
grokscope trains small transformers until they grok, and shows how.

    config ──► train ──► checkpoints ──► measure ──► figure
                 ▲            │             │
              resume          └── watch     └──► report

Three commands to try, one after the other (the first takes about a minute):

    grokscope train quick --run first    train a + b mod 59 until the network generalises
    grokscope report first --open        measure the run, and open its page in the browser
    grokscope doctor                     what is slow on this machine, and what helps

`grokscope --help` lists all commands."""


def command_list(commands: Mapping[str, str]) -> str:
    """Return the usage, with the first line of each command's docstring.

    Args:
        commands: The module in this folder and the function of each command, such as "training:train". The modules
            are parsed and not imported, because their imports take most of the time of `--help`.
    """
    parts = {name: place.partition(":") for name, place in commands.items()}
    places = {name: (module, function) for name, (module, _, function) in parts.items()}
    sources = {module: (Path(__file__).parent / f"{module}.py").read_text("utf-8") for module, _ in places.values()}
    functions = {
        (module, node.name): (ast.get_docstring(node) or "").partition("\n")[0]
        for module, source in sources.items()
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef)
    }
    width = max(map(len, commands)) + 2
    lines = [f"  {name:<{width}}{functions[place]}" for name, place in places.items()]
    return "\n".join(
        [
            "usage: grokscope COMMAND …",
            "",
            "Train small transformers to grokking, keep dense checkpoints, and watch the circuit form.",
            "",
            *lines,
            "",
            "`grokscope COMMAND --help` explains a command. RUN is a folder, or its name under --root (checkpoints).",
        ]
    )
