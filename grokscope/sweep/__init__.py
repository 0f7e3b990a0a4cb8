"""Sweeps: many runs from one file, each a cell with its own name, and the state of each cell.

A cell is an ordinary run in the sweep's folder. Its name depends on its settings alone, so a sweep can grow. Its
progress is stored in the run itself, so the same command trains only the cells that are left.
"""
