"""How data reaches the disk; independent of runs."""
