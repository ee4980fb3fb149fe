"""Runs the command line: the command `curate`, and `python -m curate`, which `accelerate launch -m curate` needs."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Run the command line on the arguments of this process, and exit with its code."""
    # Importing takes seconds, and Ctrl-C meanwhile would show a traceback. While a run folder is locked, `runs.launch`
    # handles signals; before and after that, this does.
    signal.signal(signal.SIGINT, _interrupted)
    _open_standard_streams()
    from curate.cli import main as run
    from curate.runs.launcher import forget_empty

    forget_empty()  # before torch is loaded: it reads OMP_NUM_THREADS
    code = run(sys.argv[1:])
    if code == 130:
        # Not by sys.exit: if the signal came while a library ran `exec`, Python would end by the signal instead.
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        os._exit(code)
    sys.exit(code)


def _open_standard_streams() -> None:
    """Open closed standard streams (`2>&-`) to the null device.

    Otherwise the next file that is opened gets the free number 2, and libraries print their warnings into it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the system gives the lowest free number, which is this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - open to the end
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - open to the end


def _interrupted(number: int, frame: FrameType | None) -> None:
    """End with 130 and a message, without cleaning up: no run folder is locked."""
    bar = b"\r\x1b[2K\x1b[?25h" if os.isatty(2) else b""  # takes its line away, and shows the cursor that it hid
    os.write(2, bar + b"curate: interrupted; the same command starts again, and goes on from what is finished\n")
    os._exit(130)


if __name__ == "__main__":
    main()
