"""Watching a run while it trains: a page that renews itself, served to this machine alone, or the terminal.

Nothing here writes: a run is opened as any reader opens it, and what is measured stays in memory. Whoever watches may
come, go or fail without the training's noticing.
"""

from grokscope.watch.background import Beside
from grokscope.watch.server import Server
from grokscope.watch.terminal import Screen
from grokscope.watch.view import View
from grokscope.watch.watched_run import Watched

__all__ = ["Beside", "Screen", "Server", "View", "Watched"]
