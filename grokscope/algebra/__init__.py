"""Finite groups and tables of binary operations, independent of training."""

from grokscope.algebra.groups import Group, group
from grokscope.algebra.tables import read_table, tabulate

__all__ = ["Group", "group", "read_table", "tabulate"]
