"""The layers of the package: imports go down only, nothing is circular, and some actions have a single home."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import grokscope

ROOT = Path(grokscope.__file__).parent
FLOORS = (
    "_version environment errors notebook rng thinning threads variable",
    "plugins disk algebra curvature",
    "config fourier series",
    "tasks store crossings",
    "model phases",
    "snapshot opened_run run_log circuits figures",
    "trajectory",
    "training",
    "landscape sweep",
    "measures interventions",
    "gallery interop report",
    "watch hub",
    "cli",
    "__main__",
)
"""The packages and single files, from the bottom up; those on one floor do not import each other."""
FLOOR = {unit: floor for floor, units in enumerate(FLOORS) for unit in units.split()}
ONLY_IMPORTERS = {
    "transformer_lens": {"model/hooked_form", "model/bridge"},
    "matplotlib": {"figures"},
    "analyses": set(),
}
"""Packages that one part alone may import: a package of ours, or a file."""
FIGURES_MAY_IMPORT = {"series", "phases", "thinning", "disk", "figures"}
MAY_SHARE_A_NAME = (["figures", "measures"], ["figures", "landscape"])
"""The pairs of packages of which the first draws what the second measures."""
WRITE_MODE = re.compile(r"[wax]b?\+?|r\+b?|[wax]\+?b")
FILE_WRITERS = {"write_text", "write_bytes", "touch", "mkdir", "makedirs", "unlink", "rmtree", "mkstemp", "mkdtemp"}
FILES = {path.relative_to(ROOT).with_suffix("").as_posix(): path.read_text() for path in ROOT.rglob("*.py")}
MODULES = {name.removesuffix("/__init__") for name in FILES} - {"__init__"}


def unit(name: str) -> str:
    """Return the package or single file that a module belongs to."""
    return name.split("/")[0]


def imports(source: str, with_types: bool = True) -> set[str]:
    """Return every module or name that a source imports, dotted, including imports in functions.

    `with_types` includes the imports under TYPE_CHECKING.
    """
    names: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif with_types or not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            waiting += ast.iter_child_nodes(node)
    return names


def own_imports(source: str) -> set[str]:
    """Return the package's own modules that a source imports, such as "errors" or "measures/loss"."""
    modules = set()
    for dotted in imports(source):
        if dotted.startswith("grokscope."):
            name = "/".join(dotted.split(".")[1:])
            modules |= {name} if name in MODULES else {name.rpartition("/")[0]} & MODULES
    return modules


def faults(name: str, source: str) -> list[str]:
    """Return the rules that a source at `name` breaks."""
    home = unit(name)
    packages = {dotted.split(".")[0] for dotted in imports(source, with_types=False)}
    messages = [
        f"imports {package}"
        for package, homes in ONLY_IMPORTERS.items()
        if package in packages and not {home, name} & homes
    ]
    for module in own_imports(source) if name != "__init__" else ():
        other = unit(module)
        if other != home and FLOOR[other] >= FLOOR[home]:
            messages.append(f"imports {module}, which is not below it")
        if home == "figures" and other not in FIGURES_MAY_IMPORT:
            messages.append(f"computes with {module}")
        if module == "disk/syscalls" and home != "disk":
            messages.append("bypasses disk/atomic")
        if name.startswith("measures/") and module.startswith("measures") and not module.startswith("measures/_"):
            messages.append(f"imports the measure {module}")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            texts = [a.value for a in [*node.args, *(k.value for k in node.keywords)] if isinstance(a, ast.Constant)]
            writes = called == "open" and any(isinstance(text, str) and WRITE_MODE.fullmatch(text) for text in texts)
            if (called in FILE_WRITERS or writes) and home != "disk":
                messages.append(f"writes a file with {called}")
            if isinstance(node.func, ast.Name) and called == "print" and home != "cli":
                messages.append("prints")
        elif isinstance(node, ast.ImportFrom) and node.level:
            messages.append("imports relatively, which the other rules do not see")
    return messages


@pytest.mark.parametrize("name", sorted(FILES))
def test_file_keeps_to_its_floor(name):
    assert name == "__init__" or unit(name) in FLOOR, "a new package or single file needs a floor"
    assert faults(name, FILES[name]) == []


def test_floors_name_only_what_exists():
    assert set(FLOOR) == {unit(name) for name in FILES} - {"__init__"}


def test_picture_shows_every_floor_from_top_to_bottom():
    picture = (ROOT.parent / "docs" / "architecture.svg").read_text(encoding="utf-8")
    shown = [name for name in re.findall(r'font-weight="bold"[^>]*>([\w]+)</text>', picture) if name in FLOOR]
    assert shown == " ".join(reversed(FLOORS)).split()


def test_no_file_imports_in_a_circle():
    graph = {
        name.removesuffix("/__init__"): own_imports(source) for name, source in FILES.items() if name != "__init__"
    }
    assert graph["training/run"] >= {"training/checkpointer", "trajectory"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(str(error))


def test_modules_share_a_name_only_as_measure_and_figure():
    homes: dict[str, list[str]] = {}
    for name in MODULES - {package for package in MODULES if f"{package}/__init__" in FILES}:
        homes.setdefault(name.rpartition("/")[2], []).append(unit(name))
    shared = {stem: sorted(units) for stem, units in homes.items() if len(units) > 1}
    assert {stem: units for stem, units in shared.items() if units not in MAY_SHARE_A_NAME} == {}


@pytest.mark.parametrize(
    ("name", "source", "fault"),
    [
        ("fourier/cyclic", "from grokscope.model import losses", "imports model/losses, which is not below it"),
        ("series", "def f():\n    from grokscope.trajectory import T", "imports trajectory, which is not below it"),
        ("series", "if TYPE_CHECKING:\n    from grokscope import model", "imports model, which is not below it"),
        ("tasks/table", "from grokscope import store", "imports store, which is not below it"),
        ("measures/loss", "from grokscope.measures.path import path", "imports the measure measures/path"),
        ("training/loop", "import grokscope.measures", "imports measures, which is not below it"),
        ("measures/loss", "from grokscope.measures import evaluate", "imports the measure measures"),
        ("figures/embedding", "from grokscope.fourier import cyclic", "computes with fourier/cyclic"),
        ("trajectory", "from transformer_lens import HookedTransformer", "imports transformer_lens"),
        ("model/losses", "import transformer_lens", "imports transformer_lens"),
        ("cli/guard", "import matplotlib.pyplot", "imports matplotlib"),
        ("report/__init__", "from analyses import sharpness", "imports analyses"),
        ("series", "from . import model", "imports relatively, which the other rules do not see"),
        ("training/run", "print('step')", "prints"),
        ("store/run_store", "open(path, 'wb')", "writes a file with open"),
        ("store/run_store", "from grokscope.disk.syscalls import Disk", "bypasses disk/atomic"),
        ("store/run_store", "path.open(mode='a')", "writes a file with open"),
        ("report/__init__", "path.write_text(page)", "writes a file with write_text"),
    ],
)  # fmt: skip
def test_source_that_breaks_a_rule_is_reported(name, source, fault):
    assert fault in faults(name, source)
