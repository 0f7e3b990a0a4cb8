"""Watch a run while it trains: on a page that updates itself, served to this machine only, or in the terminal.

Nothing here writes: a run is opened like any reader opens it, and measured series stay in memory. Watchers can start,
stop or fail without any effect on the training.
"""

from grokscope.watch.background import BackgroundTracker, BackgroundWatcher
from grokscope.watch.server import Server
from grokscope.watch.terminal import Screen
from grokscope.watch.view import View
from grokscope.watch.watched_run import WatchedRun

__all__ = ["BackgroundTracker", "BackgroundWatcher", "Screen", "Server", "View", "WatchedRun"]
