"""Code that the circuit measures share."""
