"""The bundler: modules run once, after their imports, each in its own scope; every mistake raises ImportError."""

import re
import shutil
import subprocess
from importlib.resources import files

import pytest

from grokscope.report.bundle import bundle

ASSETS = {
    path.name.removesuffix(".js"): path.read_text(encoding="utf-8")
    for path in (files("grokscope.report") / "assets").iterdir()
    if path.name.endswith(".js")
}
ENTRIES = ["run", "live", "comparison"]
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")


def read(sources: dict[str, str], *entries: str) -> str:
    return bundle(entries, lambda name: sources[name])


def run(script: str) -> list[str]:
    """Return the lines that a script prints under Node.js."""
    return subprocess.run(["node", "-e", script], check=True, capture_output=True, text=True).stdout.splitlines()


@needs_node
def test_modules_run_once_in_the_order_of_their_imports():
    sources = {
        "a": 'import { b } from "./b.js";\nimport { c } from "./c.js";\nconsole.log("a", b, c());\n',
        "b": 'import { c } from "./c.js";\nexport const b = c() + 1;\nconsole.log("b");\n',
        "c": 'export function c() { return 1; }\nconsole.log("c");\n',
    }
    assert run(read(sources, "a", "b")) == ["c", "b", "a 2 1"]
    assert read(sources, "a") == read(sources, "a")


@needs_node
def test_modules_do_not_share_names_and_are_strict():
    sources = {
        "a": 'import {\n  A,\n  later,\n} from "./b.js";\n'
        "const hidden = 2;\nconsole.log(hidden, new A().hidden());\nlater();\n",
        "b": "const hidden = 1;\nexport class A { hidden() { return hidden; } }\n"
        "export async function later() { console.log(this === undefined); }\n",
    }
    assert run(read(sources, "a")) == ["2 1", "true"]


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"a": 'import { b } from "./b.js";\n', "b": "const b = 1;\n"}, "a.js imports b, which b.js does not export"),
        ({"a": 'import { b } from "./b.js";\n', "b": 'import { a } from "./a.js";\n'}, "circle: a → b → a"),
        ({"a": "export default 1;\n"}, "a.js: this import or export is not supported: export default 1;"),
        ({"a": 'import b from "./b.js";\n', "b": ""}, "not supported"),
        ({"a": 'import { b as c } from "./b.js";\n', "b": "export const b = 1;\n"}, "imports as, c"),
        ({"a": 'const b = await import("./b.js");\n', "b": ""}, "not supported"),
    ],
)  # fmt: skip
def test_module_that_cannot_be_bundled_raises(sources, message):
    with pytest.raises(ImportError, match=re.escape(message)):
        read(sources, "a")


@needs_node
@pytest.mark.parametrize("entry", ENTRIES)
def test_bundle_of_a_page_parses(entry, tmp_path):
    (tmp_path / "bundle.js").write_text(read(ASSETS, entry), encoding="utf-8")
    subprocess.run(["node", "--check", str(tmp_path / "bundle.js")], check=True)


def test_every_module_and_every_export_is_used():
    imports = re.findall(r'^import \{([^}]+)\} from "\./(\w+)\.js";', "\n".join(ASSETS.values()), re.MULTILINE)
    assert {module for _, module in imports} == ASSETS.keys() - set(ENTRIES)
    used = {(module, name) for names, module in imports for name in re.findall(r"\w+", names)}
    exported = {
        (module, name)
        for module, source in ASSETS.items()
        for name in re.findall(r"^export (?:async )?(?:const|class|function) (\w+)", source, re.MULTILINE)
    }
    assert exported == used
