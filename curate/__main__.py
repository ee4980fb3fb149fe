"""`python -m curate`, so that `accelerate launch -m curate ...` works."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command line on the words given to this process; Ctrl-C is answered from the first moment."""
    signal.signal(signal.SIGINT, _interrupted)  # until a run folder is held, and again after that
    _open_standard_streams()
    from curate.cli import main as run

    code = run(sys.argv[1:])
    if code == 130:
        # Python ends by the signal instead where it came while a library was running a text as code.
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        os._exit(code)
    sys.exit(code)


def _open_standard_streams() -> None:
    """Lead closed streams (`2>&-`) to nowhere: else the next file that is opened is what libraries print into."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - open to the end
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - open to the end


def _interrupted(number: int, frame: FrameType | None) -> None:
    """Say so and end at once: no run folder is held, so there is nothing to clean up."""
    cursor = b"\x1b[?25h" if os.isatty(2) else b""  # a progress bar hides it
    os.write(2, cursor + b"curate: interrupted; the same command starts again, and goes on from what is finished\n")
    os._exit(130)


if __name__ == "__main__":
    main()
