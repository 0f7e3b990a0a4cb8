"""Durable writing to the disk, independent of runs."""
