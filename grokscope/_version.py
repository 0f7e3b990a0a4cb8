"""The version of grokscope."""

__version__ = "0.2.0"
