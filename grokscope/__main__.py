"""The command `grokscope`, also as `python -m grokscope`."""

import os
import sys


def main() -> None:
    """Run the command line. Until it is imported there is nothing to save, so Ctrl-C ends the process at once."""
    try:
        import signal

        has_default_handler = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if has_default_handler:
            # A module that is being imported might catch KeyboardInterrupt as an error of its own.
            signal.signal(signal.SIGINT, lambda *_: os._exit(130))

        from grokscope import cli

        if has_default_handler:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
