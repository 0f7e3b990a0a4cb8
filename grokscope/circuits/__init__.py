"""Formulas and controls of the circuit measures."""
