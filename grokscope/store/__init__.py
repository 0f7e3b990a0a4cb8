"""A run as stored on disk."""
