"""Harmonic analysis on cyclic and finite groups; independent of training."""
