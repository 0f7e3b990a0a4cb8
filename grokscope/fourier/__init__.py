"""Harmonic analysis on cyclic groups and on finite groups, independent of training."""
