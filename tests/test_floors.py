"""The floors of the house: an import goes down only, and some things have one place alone."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import grokscope

ROOT = Path(grokscope.__file__).parent
FLOORS = (
    "errors disk display files tensors fields algebra streams config presets series phases plugins schedule fourier "
    "waves "
    "curvature environment interrupts pca writer options mix equations clusters representations subgroups isotypic "
    "characters controls scan clock_and_pizza forward components langevin splits archives pickles "
    "foreign layouts",
    "tasks",
    "model losses filters optimizers grid key_frequencies",
    "snapshot record segment damage store trajectory pair_logits objective",
    "optimize recorder witnesses training forks ensemble together measures interventions landscape stability exports "
    "wandb importing",
    "sweep figures jobs",
    "report gallery",
    "pictures progress watch cli",
    "__main__",
)
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names.split()}
TRAINING = {"optimize", "recorder", "training", "forks", "sweep", "stability"}
WRITING = {"write_text", "write_bytes", "touch", "mkdir", "makedirs", "unlink", "rmtree", "mkstemp", "mkdtemp"}
FILES = {path.relative_to(ROOT).with_suffix("").as_posix(): path.read_text() for path in ROOT.rglob("*.py")}


def imports(source: str) -> set[str]:
    """Return every module that a source imports, also inside functions, dotted; those for type checkers are none."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            waiting += ast.iter_child_nodes(node)
    return found


def own(source: str) -> set[str]:
    """Return which of the package's own modules a source imports, such as "files" or "measures/loss"."""
    modules = {name.removesuffix("/__init__") for name in FILES} - {"__init__"}
    found = set()
    for dotted in imports(source):
        name = "/".join(dotted.split(".")[1:]) if dotted.startswith("grokscope.") else ""
        found |= {name, name.rpartition("/")[0]} & modules if name not in modules else {name}
    return found


def faults(name: str, source: str) -> list[str]:
    """Say which rules of the house a source breaks that lies at `name`."""
    top = name.split("/")[0]
    outside = {one.split(".")[0] for one in imports(source)}
    allowed = {"transformer_lens": {"model"}, "matplotlib": {"figures"}, "analyses": set()}
    found = [f"imports {what}" for what, places in allowed.items() if what in outside and top not in places]
    if top != "__init__":
        found += [f"imports {one} above it" for one in own(source) if FLOOR[one.split("/")[0]] > FLOOR[top]]
    if "disk" in own(source) and name != "files":
        found.append("writes behind the back of files")
    for one in own(source):
        if "measures" in (top, one.split("/")[0]) and {top, one.split("/")[0]} & TRAINING:
            found.append(f"imports its sibling {one}")
        if name.startswith("measures/") and one.startswith("measures"):
            found.append(f"imports the measure {one}")
        if top == "figures" and one.split("/")[0] not in ("series", "scan", "phases", "files", "figures"):
            found.append(f"computes with {one}")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            texts = [a.value for a in [*node.args, *(k.value for k in node.keywords)] if isinstance(a, ast.Constant)]
            writes = called == "open" and any(
                isinstance(a, str) and set(a) & set("wax+") and len(a) < 4 for a in texts
            )
            if (called in WRITING or writes) and top != "disk":
                found.append(f"writes a file with {called}")
            if isinstance(node.func, ast.Name) and called == "print" and top != "cli":
                found.append("prints")
        elif isinstance(node, ast.ImportFrom) and node.level:
            found.append("imports relatively, which the other rules do not see")
    return found


@pytest.mark.parametrize("name", sorted(FILES))
def test_the_package_keeps_to_its_floors(name):
    assert name == "__init__" or name.split("/")[0] in FLOOR, "a new module needs a floor"
    assert faults(name, FILES[name]) == []


def test_no_import_goes_round_in_a_circle():
    graph = {name.removesuffix("/__init__"): own(source) for name, source in FILES.items() if name != "__init__"}
    assert graph["training"] >= {"recorder", "store", "trajectory"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(str(error))


@pytest.mark.parametrize(
    ("name", "source", "fault"),
    [
        ("fourier", "from grokscope import model", "imports model above it"),
        ("series", "def f():\n    from grokscope.trajectory import Trajectory", "imports trajectory above it"),
        ("measures/loss", "from grokscope.measures.embedding import align", "imports the measure measures/embedding"),
        ("measures/loss", "from grokscope.training import train", "imports its sibling training"),
        ("optimize", "import grokscope.measures", "imports its sibling measures"),
        ("figures/circles", "from grokscope import fourier", "computes with fourier"),
        ("trajectory", "from transformer_lens import HookedTransformer", "imports transformer_lens"),
        ("cli", "import matplotlib.pyplot", "imports matplotlib"),
        ("report/__init__", "from analyses import sharpness", "imports analyses"),
        ("series", "from . import model", "imports relatively, which the other rules do not see"),
        ("training", "print('step')", "prints"),
        ("store", "open(path, 'wb')", "writes a file with open"),
        ("store", "from grokscope.disk import Disk", "writes behind the back of files"),
        ("store", "path.open(mode='a')", "writes a file with open"),
        ("report/__init__", "path.write_text(page)", "writes a file with write_text"),
    ],
)  # fmt: skip
def test_a_source_that_breaks_a_rule_is_found(name, source, fault):
    assert fault in faults(name, source)
