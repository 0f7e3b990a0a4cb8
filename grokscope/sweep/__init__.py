"""Sweeps: many runs from one file, each a cell with a name of its own, and what has become of each.

A cell is a run like any other in the sweep's folder. What a cell is called depends on its settings alone, so a
sweep can grow; what it has reached stands in the cell's own run, so the same command does only what is left.
"""
