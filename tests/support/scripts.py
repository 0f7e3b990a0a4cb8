"""Scripts outside the package as modules: analyses, benchmarks and those of continuous integration."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def import_script(path: Path) -> ModuleType:
    """Run a script as a new module, and return it."""
    name = f"script_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # A dataclass looks up its module.
    spec.loader.exec_module(module)
    return module
