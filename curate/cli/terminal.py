"""Prints lines, warnings, progress bars and error messages, and ends with exit codes. The only module that prints.

Exit codes: 0 done; 2 a person's mistake or a limit of the machine (one or two lines on stderr); 1 a fault of this
package (with a traceback); 130 interrupted, with the command that continues.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from curate.cli.notebook import cell_bar, in_notebook
from curate.types import CurateError

Show = Callable[[str, int, int | None, str], None]  # stage, done, total if known, unit

_NOBODY_THERE = (errno.EPIPE, errno.EIO, errno.EBADF)  # a closed pipe, a closed terminal, a closed stream


def say(text: str = "", *, end: str = "\n") -> None:
    """Print text to stdout. If its reader has gone, the work goes on without one."""
    try:
        print(text, end=end, flush=True)
    except OSError as error:
        if error.errno not in _NOBODY_THERE:
            raise
        # As in `curate score ... | head`. Python flushes stdout once more when it ends, and would fail then.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open to the end of the process


def warn(text: str) -> None:
    """Print text to stderr. If its reader has gone, the work goes on without one."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def printable(text: str) -> str:
    r"""Return text in which control characters are visible; line ends stay.

    A record or a file name could otherwise send escape sequences to the terminal.

    >>> printable("a\x1b[31m")
    'a\\x1b[31m'
    """
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


@contextmanager
def outcome() -> Iterator[None]:
    """Give a block for the work of a command; its errors become a message and an exit code.

    Errors that are nobody's mistake pass, and end with a traceback.
    """
    from curate.runs.atomic import DISK_FULL, NO_RIGHTS, UNUSABLE_PATH

    prepare_terminal()
    try:
        yield
    except (CurateError, TimeoutError) as error:
        fail(str(error), 2)
    except KeyboardInterrupt:
        interrupted()
    except OSError as error:
        if error.errno in NO_RIGHTS:
            fail(
                f"{NO_RIGHTS[error.errno]} for {_place(error)}: expected that it can be read and written; change its "
                "rights",
                2,
            )
        if error.errno in UNUSABLE_PATH:
            fail(
                f"cannot use {_place(error)}: {UNUSABLE_PATH[error.errno]}; give another path, or remove what is there",
                2,
            )
        if error.errno not in DISK_FULL:
            raise
        what = f"{DISK_FULL[error.errno]} ({error.filename or error})"
        fail(f"{what}; what is finished is kept. Make room, and the same command continues", 2)


def _place(error: OSError) -> str:
    """Return the path that an error is about. Instead of a temporary file it is the folder that was to hold it."""
    place = str(error.filename or " ".join(str(error).split()))
    return os.path.dirname(place) if place.endswith((".curate-tmp", ".curate-old")) else place


def interrupted() -> NoReturn:
    """End the command with 130, and say how it is continued."""
    command = shlex.join(["curate", *sys.argv[1:]])
    launched = os.environ.get("WORLD_SIZE", "1") != "1"
    how = " the same accelerate launch, or on one process" if launched else ""
    fail(f"interrupted; what is finished is kept. Continue with{how}:\n  {command}", 130)


def fail(message: str, code: int) -> NoReturn:
    """End the command with a message on stderr and an exit code."""
    rank = os.environ.get("RANK", "0")
    who = "" if rank == "0" else f" (process {rank})"
    warn(f"curate{who}: {printable(_short(message))}")
    raise typer.Exit(code)


def _short(message: str) -> str:
    """Return a message without its middle if it is very long: it may quote a value of any length."""
    return message if len(message) <= 1_500 else f"{message[:1_000]} ... {message[-400:]}"


class _Lines(logging.Handler):
    """Prints what the package logs: lines of stages to stdout, warnings to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        text = printable(record.getMessage())
        if record.levelno >= logging.WARNING:
            warn(f"warning: {text}")
        else:
            say(text)


class _HubSilent(logging.Filter):
    """Replaces the dozen warnings of huggingface_hub about its tries by one that says the hub does not answer."""

    said = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Return false for a warning about a failed try, true for everything else."""
        words = record.getMessage()
        if "thrown while requesting" not in words and not words.startswith("Retrying in "):
            return True
        if not self.said:
            self.said = True
            warn("warning: the Hugging Face hub does not answer; trying again (HF_HUB_OFFLINE=1 does without it)")
        return False


def prepare_terminal() -> None:
    """Send what the package logs to the terminal. A terminal with only ASCII shows other characters as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # bitsandbytes warns of optional kernels as soon as anything imports it, also where nothing is quantised.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    hub = logging.getLogger("huggingface_hub.utils._http")
    if not hub.filters:
        hub.addFilter(_HubSilent())
    logger = logging.getLogger("curate")
    if not logger.handlers:
        logger.addHandler(_Lines())
        logger.setLevel(logging.INFO)
        logger.propagate = False


@contextmanager
def progress() -> Iterator[Show]:
    """Give a function that shows progress: a bar for each stage in a terminal or notebook, else a line at times.

    The function takes stage, done, total (None if unknown) and unit. In other processes than the main one it does
    nothing.
    """
    if os.environ.get("RANK", "0") != "0":
        yield lambda stage, done, total, unit: None
    elif in_notebook():
        with cell_bar() as show:
            yield show
    else:
        from curate.cli.bars import bar, lines

        with bar() if sys.stderr.isatty() else lines(warn) as show:
            yield show
