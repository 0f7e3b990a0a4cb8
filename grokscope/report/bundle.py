"""Bundle the page's ES modules into one classic script.

The page is a single file that must work from disk, without network, under a policy that names its script by a hash.
Inline modules cannot import each other, because they have no address. An import map could give them `data:` or
`blob:` addresses. The policy would then have to allow such addresses, and an injected `<script src="data:…">` would
run as well. So the modules are joined when the page is rendered: each becomes a function that returns its exports.

The modules use a subset of the syntax, which `bundle` checks: imports and exports by name, at the start of a line.
"""

import re
from collections.abc import Callable, Sequence

_IMPORT = re.compile(r'^import \{([\w\s,]+)\} from "\./(\w+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:const|class|(?:async )?function) (\w+))", re.MULTILINE)
_OTHER = re.compile(r"^(?:import|export)\b.*|\bimport\(.*", re.MULTILINE)


def bundle(entries: Sequence[str], read: Callable[[str], str]) -> str:
    """Return one script that runs the entry modules in order, after the modules that they import.

    The same sources give the same script. Each module runs once, in strict mode and in a scope of its own.

    Args:
        entries: The names of the modules to run, without ".js".
        read: Returns the source of a module.

    Returns:
        The text of a classic script.

    Raises:
        ImportError: A module imports a name that its source does not export, modules import each other in a circle,
            or an import or export is written in a way that this bundler does not support.
    """
    exports: dict[str, list[str]] = {}
    parts: list[str] = []

    def add(name: str, importers: tuple[str, ...]) -> None:
        if name in importers:
            raise ImportError(f"Modules import each other in a circle: {' → '.join((*importers, name))}.")
        if name in exports:
            return
        source = read(name)
        bindings = []
        for names, module in _IMPORT.findall(source):
            add(module, (*importers, name))
            imported = names.replace(",", " ").split()
            missing = [item for item in imported if item not in exports[module]]
            if missing:
                raise ImportError(f"{name}.js imports {', '.join(missing)}, which {module}.js does not export.")
            bindings.append(f"const {{ {', '.join(imported)} }} = {module}_module;\n")
        body = _IMPORT.sub("", source)
        exports[name] = _EXPORT.findall(body)
        body = _EXPORT.sub("", body)
        if match := _OTHER.search(body):
            raise ImportError(f"{name}.js: this import or export is not supported: {match[0]}")
        result = f"return {{ {', '.join(exports[name])} }};\n"
        parts.append(f"const {name}_module = (() => {{\n{''.join(bindings)}{body}{result}}})();\n")

    for entry in entries:
        add(entry, ())
    return f'(() => {{\n"use strict";\n{"".join(parts)}}})();'
