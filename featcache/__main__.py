"""The command's entry point: Ctrl-C ends it with one line, from the first import to the last.

Only the standard library is imported before the handler of Ctrl-C is set. The start of Python itself, before
that, cannot be caught.
"""

import os
import signal
import sys
from types import FrameType
from typing import Any

STOPPED = "featcache: stopped; what was computed is kept\n"


class _Interrupts:
    """Handles Ctrl-C: the first one raises KeyboardInterrupt, the second ends the process at once."""

    def __init__(self) -> None:
        self.seen = False

    def handle(self, _: int, __: FrameType | None) -> None:
        if self.seen:
            _stop_now()
        self.seen = True
        raise KeyboardInterrupt

    def swallowed(self, unraisable: Any) -> None:
        """Stop where Python would print and forget a KeyboardInterrupt: in callbacks and destructors."""
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            _stop_now()
        sys.__unraisablehook__(unraisable)


def _stop_now() -> None:
    os.write(2, STOPPED.encode())
    os._exit(130)


def main() -> int:
    """Run the command line and return its exit status, see `featcache.cli.main`."""
    interrupts = _Interrupts()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background jobs ignore it
        signal.signal(signal.SIGINT, interrupts.handle)
        sys.unraisablehook = interrupts.swallowed
    try:
        from featcache.cli import main as run

        status = run()
    except BaseException:
        # compiled modules turn an interrupted import into errors of their own
        if not interrupts.seen:
            raise
        _stop_now()
        raise
    # what Ctrl-C would meet from here on are the handlers of Python's own end
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if interrupts.seen:
        # Python would end with the signal where an exec() somewhere saw the interrupt, and wait for threads
        os._exit(status)
    return status


if __name__ == "__main__":
    sys.exit(main())
