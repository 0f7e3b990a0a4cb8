"""The one exception that a user's input can cause."""


class GrokscopeError(Exception):
    """What is wrong, where, what is allowed and what to do, in words meant for the person who reads them.

    Everything that a user can cause (a wrong value, a damaged file, a full disk) ends in this exception, and
    the command line prints its message without a traceback. Any other exception is a fault of grokscope's own.
    """


class Damaged(GrokscopeError):
    """Numbers on the disk do not match their checksum; what else lies there is as readable as ever."""


class Unreadable(GrokscopeError):
    """The system refuses to read a file; what is in it need not be damaged."""


class Busy(GrokscopeError):
    """Somebody else was faster: a run is being written, or its name was taken; nothing is wrong with it."""
