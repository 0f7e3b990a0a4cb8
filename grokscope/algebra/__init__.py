"""Finite groups and tables of binary operations, independent of training.

The names are imported when they are first used, so that a config does not import NumPy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grokscope.algebra.groups import Group as Group
    from grokscope.algebra.groups import group as group
    from grokscope.algebra.table_text import tabulate as tabulate
    from grokscope.algebra.tables import read_table as read_table

_MODULES = {"Group": "groups", "group": "groups", "read_table": "tables", "tabulate": "table_text"}
__all__ = [*_MODULES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
