"""Strangers' files: what makes them, and what judges how they are met."""
