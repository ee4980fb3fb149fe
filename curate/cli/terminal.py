"""What a person sees: lines, warnings, bars, error messages, exit codes. The only module that prints.

Exit 0 done; 2 a person's mistake or a limit of the machine (one or two lines on stderr); 1 a fault of ours (with
traceback); 130 interrupted, with the command that resumes.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from curate.cli.notebook import cell_bar, in_notebook
from curate.cli.rates import Rates, speed_of
from curate.types import CurateError

Show = Callable[[str, int, int | None, str], None]  # stage, done, total if known, unit

_SECONDS_BETWEEN_LINES = 30.0
_NOBODY_THERE = (errno.EPIPE, errno.EIO, errno.EBADF)  # a pipe, a terminal, a stream that was closed


def say(text: str = "", *, end: str = "\n") -> None:
    """Print text to stdout; whoever reads it may have gone, which is no reason to stop."""
    try:
        print(text, end=end, flush=True)
    except OSError as error:
        if error.errno not in _NOBODY_THERE:
            raise
        # curate score ... | head: go on without a reader. Python itself flushes stdout once more when it ends.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open to the end of the process


def warn(text: str) -> None:
    """Print text to stderr; nobody there to read it is no reason to stop."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Return text without terminal escapes: control characters become visible, line ends stay."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


@contextmanager
def outcome() -> Iterator[None]:
    """Turn the ways a command can end into lines and exit codes."""
    from curate.runs.atomic import DISK_FULL, NO_RIGHTS

    prepare_terminal()
    try:
        yield
    except (CurateError, TimeoutError) as error:
        fail(str(error), 2)
    except KeyboardInterrupt:
        interrupted()
    except OSError as error:
        if error.errno in NO_RIGHTS:
            where = error.filename or " ".join(str(error).split())
            fail(
                f"{NO_RIGHTS[error.errno]} for {where}: expected that it can be read and written; change its rights", 2
            )
        if error.errno not in DISK_FULL:
            raise
        what = f"{DISK_FULL[error.errno]} ({error.filename or error})"
        fail(f"{what}; what is finished is kept. Make room, and the same command continues", 2)


def _place(error: OSError) -> str:
    """What an error is about: a file, or of our temporary ones the folder that it should be in."""
    place = str(error.filename or " ".join(str(error).split()))
    return os.path.dirname(place) if place.endswith((".curate-tmp", ".curate-old")) else place


def interrupted() -> NoReturn:
    """Say how an interrupted command is continued, and end with 130."""
    command = shlex.join(["curate", *sys.argv[1:]])
    launched = os.environ.get("WORLD_SIZE", "1") != "1"
    how = " the same accelerate launch, or on one process" if launched else ""
    fail(f"interrupted; what is finished is kept. Continue with{how}:\n  {command}", 130)


def fail(message: str, code: int) -> NoReturn:
    """Print a message to stderr and end with an exit code."""
    rank = os.environ.get("RANK", "0")
    who = "" if rank == "0" else f" (process {rank})"
    warn(f"curate{who}: {printable(message)}")
    raise typer.Exit(code)


class _Lines(logging.Handler):
    """Stage lines to stdout, warnings to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        text = printable(record.getMessage())
        if record.levelno >= logging.WARNING:
            warn(f"warning: {text}")
        else:
            say(text)


class _HubSilent(logging.Filter):
    """Says once that the hub does not answer, where its library would at each of a dozen tries."""

    said = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Let everything pass but the words of a failed try."""
        words = record.getMessage()
        if "thrown while requesting" not in words and not words.startswith("Retrying in "):
            return True
        if not self.said:
            self.said = True
            warn("warning: the Hugging Face hub does not answer; trying again (HF_HUB_OFFLINE=1 does without it)")
        return False


def prepare_terminal() -> None:
    """Send what the package logs to the terminal; a terminal that knows only ASCII shows the rest as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # It warns, when anything imports it, of optional kernels that are not installed.
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
    """Give a function that shows progress: one bar per stage in a terminal or notebook, else a line now and then.

    Only the main process shows any.
    """
    if os.environ.get("RANK", "0") != "0":
        yield lambda stage, done, total, unit: None
    elif in_notebook():
        with cell_bar() as show:
            yield show
    elif sys.stderr.isatty():
        with _bars() as show:
            yield show
    else:
        yield _now_and_then()


@contextmanager
def _bars() -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[share]:>4}"),
        TextColumn("{task.fields[count]}"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, tuple[TaskID, float]] = {}
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:

        def show(stage: str, done: int, total: int | None, unit: str) -> None:
            if stage not in tasks:
                for task, _ in tasks.values():
                    bars.remove_task(task)
                tasks.clear()
                task = bars.add_task(stage, total=total, share="", count="", rate="")
                tasks[stage] = (task, time.monotonic())
            task, started = tasks[stage]
            seconds = time.monotonic() - started
            bars.update(
                task,
                completed=done,
                total=total,
                share=f"{done / total:.0%}" if total else "",
                count=f"{done:,}/{total:,} {unit}" if total else f"{done:,} {unit}" if done else "",
                rate=speed_of(done / seconds, unit) if seconds > 1 and done else "",
            )

        show("starting", 0, None, "")
        yield show


def _now_and_then() -> Show:
    """A line to stderr every 30 seconds, with a rate and the time that is left."""
    rates, last = Rates(), time.monotonic()

    def show(stage: str, done: int, total: int | None, unit: str) -> None:
        nonlocal last
        line, now = rates.line(stage, done, total, unit), time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LINES:
            last = now
            warn(line)

    return show
