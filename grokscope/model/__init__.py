"""The network: one pure function of its parameters."""
