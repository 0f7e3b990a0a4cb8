"""`python -m grokscope` is the command `grokscope`."""

import os
import sys


def main() -> None:
    """Run the command line. Till it is read in there is nothing to save, and Ctrl-C ends the process at once."""
    try:
        import signal

        is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if is_heard:
            # What is being imported might take an exception for a fault of its own.
            signal.signal(signal.SIGINT, lambda *_: os._exit(130))

        from grokscope import cli

        if is_heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
