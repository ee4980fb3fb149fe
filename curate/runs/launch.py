"""One call of a verb: the run folder is locked, the processes find each other, and status.json gets the outcome."""

from __future__ import annotations

import json
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TypeVar
from zipfile import BadZipFile

from pydantic import TypeAdapter

from curate.runs.atomic import exit_code, replacing, write_json
from curate.runs.folder import RunFolder
from curate.runs.launcher import forget_empty, is_launched, launcher_rank
from curate.runs.processes import Heartbeat, Processes, chunks_of_rank, join_launch, wait_for

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int | None, str], None]  # stage, done, total if known, unit
Result = TypeVar("Result")

_ECHO_SECONDS = 3.0
_UNREADABLE = (OSError, ValueError, LookupError, EOFError, BadZipFile)  # what numpy raises for damaged .npz files


@dataclass(frozen=True, slots=True)
class Launch:
    """One call of a verb, in this process: where it runs, on which processes, and who is told of progress.

    verb          what was called
    folder        the run folder, locked by the main process
    processes     this process among those of the launch
    heartbeat     how other processes see that this one makes progress
    progress      called with stage, done, total (None if unknown) and unit ("" of what cannot be counted)
    hang_timeout  seconds without progress of another process after which this one ends with TimeoutError
    interrupted   set once a signal has asked to stop
    """

    verb: str
    folder: RunFolder
    processes: Processes
    heartbeat: Heartbeat
    progress: Progress
    hang_timeout: float
    interrupted: threading.Event = field(default_factory=threading.Event)

    def advance(self, stage: str, done: int, total: int | None, unit: str) -> None:
        """Show progress to the person and to the other processes, or end if a signal has asked to stop."""
        if self.interrupted.is_set():
            # The signal handler raised this already, but Python ignores exceptions that are raised in a destructor.
            raise KeyboardInterrupt
        self.heartbeat.beat()
        self.progress(stage, done, total, unit)

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Within it, say what is at work that cannot be counted (a library call), and show life to other processes."""
        self.advance(what, 0, None, "")
        with self.heartbeat.kept_up():
            yield

    def from_main(self, stage: str, prepare: Callable[[], Result], kind: type[Result]) -> Result:
        """Return what the main process prepares for a stage; every process gets the same value.

        The value travels through a JSON file in the run folder, not through a collective operation of
        torch.distributed: those time out, and the main process may need hours to read and tokenise.

        Args:
            stage: its name; used once in a launch.
            prepare: called by the main process only.
            kind: the type of the value: a plain value, or a frozen dataclass of plain values.

        Raises:
            TimeoutError: the main process made no progress for `hang_timeout` seconds.
        """
        path = self.folder.work / "launches" / f"{self.processes.launch}-{stage.replace('/', '-')}.json"
        if self.processes.is_main:
            prepared = prepare()
            if self.processes.count > 1:
                write_json(path, TypeAdapter(kind).dump_python(prepared, mode="json"))
            return prepared
        self.wait(path.exists, rank=0, what=f"the main process to prepare {stage}")
        return TypeAdapter(kind).validate_python(json.loads(path.read_text(encoding="utf-8")))

    def wait(self, ready: Callable[[], bool], *, rank: int, what: str) -> None:
        """Wait until `ready` returns true, as long as process `rank` makes progress.

        Raises:
            TimeoutError: it made none for `hang_timeout` seconds; `what` is named as what was waited for.
        """
        wait_for(
            ready,
            folder=self.folder.work,
            processes=self.processes,
            rank=rank,
            what=what,
            hang_timeout=self.hang_timeout,
            heartbeat=self.heartbeat,
        )

    def compute_chunks(
        self,
        folder: Path,
        num_chunks: int,
        compute: Callable[[int], Result],
        write: Callable[[Path, Result], None],
        *,
        finished: Collection[int] = (),
    ) -> list[Path]:
        """Compute the chunks of this process that are not finished, and return the files of all chunks.

        Chunk c belongs to process c mod count. The main process then waits for the chunks of the other processes.

        Args:
            folder: where the files of the chunks are.
            num_chunks: how many there are, of all processes.
            compute: from the number of a chunk to its content.
            write: writes that content to a file.
            finished: numbers of the chunks to skip, as `finished_chunks` found them in the main process.
        """
        # `finished` is an argument, and not looked up here: the main process may already have published the chunks
        # and removed the folder when a slow process comes to this line.
        paths = [folder / f"{chunk:06d}.chunk" for chunk in range(num_chunks)]
        for chunk in chunks_of_rank(num_chunks, self.processes.rank, self.processes.count):
            if chunk not in finished:
                with replacing(paths[chunk]) as temporary:
                    write(temporary, compute(chunk))
        if self.processes.is_main:  # chunk by chunk, so that a process that is done need not beat any more
            for chunk, path in enumerate(paths):
                self.wait(path.exists, rank=chunk % self.processes.count, what=f"chunk {chunk} of {folder.name}")
        return paths

    def finished_chunks(self, folder: Path, read: Callable[[Path], object]) -> list[int]:
        """Return the numbers of the chunks that an earlier call finished, for `compute_chunks`.

        A chunk that cannot be read (a bad disk, another version of this package) is removed, and so computed again.

        Args:
            folder: where the files of the chunks are.
            read: reads the file of a chunk; it raises where the file is damaged or not the chunk that was planned.
        """
        finished = []
        for path in sorted(folder.glob("*.chunk")):
            self.heartbeat.beat()
            try:
                read(path)
            except _UNREADABLE:
                logger.warning("%s is damaged and computed again", path)
                path.unlink()
            else:
                finished.append(int(path.stem))
        return finished


@contextmanager
def open_launch(
    folder: RunFolder, verb: str, *, begin: bool, progress: Progress, hang_timeout: float
) -> Iterator[Launch]:
    """Lock the run folder while a verb runs on the processes of this launch, and leave its outcome in status.json.

    Args:
        folder: the run folder.
        verb: for status.json.
        begin: whether the verb may begin a run; else the folder must be that of a run.
        progress: see `Launch`.
        hang_timeout: see `Launch`.

    Raises:
        CurateError: the folder is refused, or another run works in it.
        TimeoutError: the processes of the launch did not meet within `hang_timeout` seconds.
    """
    forget_empty()
    processes, path = Processes(launcher_rank()), folder.path
    fresh = processes.is_main and not folder.holds_run()
    made = [p for p in (path, *path.parents) if not p.exists()]
    before = [p.name for p in path.iterdir()] if path.is_dir() else []
    if processes.is_main:
        folder.claim(begin=begin)
    met = False
    with folder.lock() if processes.is_main else nullcontext(), _interruptible() as interrupted:
        try:
            if processes.is_main:
                folder.clean()  # before the processes meet: none of them has begun to write
            processes = join_launch(hang_timeout)
            met = True
            if processes.is_main:
                folder.write_status(verb, "running", None, "", launch=processes.launch)
            heartbeat = Heartbeat(folder.work, processes)
            heartbeat.beat()
            yield Launch(verb, folder, processes, heartbeat, progress, hang_timeout, interrupted)
        except BaseException as error:
            with suppress(OSError):  # the error may be that the disk is full; it must not be hidden by another one
                _write_failure(folder, verb, processes, error)
                # Under a launcher the folder stays, because the real exit code is only in its status.json.
                if fresh and processes.count == 1 and (met or not is_launched()):
                    folder.undo_start(before, made)
            raise
        if processes.is_main:
            folder.write_status(verb, "done", 0, "", launch=processes.launch)


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Raise KeyboardInterrupt on SIGINT and SIGTERM; the event that is given is set when one came.

    A terminal sends Ctrl-C to all processes, and a launcher then sends a signal to its children as well. The second
    signal is ignored for a few seconds: it would interrupt the cleaning up after the first.
    """
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # Python handles signals in the main thread only
        yield interrupted
        return
    last = -math.inf

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal last
        if time.monotonic() - last > _ECHO_SECONDS:
            last = time.monotonic()
            interrupted.set()
            raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: the handler was not set by Python


def _write_failure(folder: RunFolder, verb: str, processes: Processes, error: BaseException) -> None:
    """Write to status.json that a verb was interrupted or failed, in which process and why."""
    where = f"process {processes.rank}: " if processes.count > 1 else ""
    if isinstance(error, KeyboardInterrupt):
        message = "interrupted; the same command continues"
        if processes.count > 1:
            message += " (by a person, by the launcher, or because another process of the launch ended)"
        folder.write_status(verb, "interrupted", 130, where + message, launch=processes.launch)
        return
    folder.write_status(
        verb, "failed", exit_code(error), f"{where}{type(error).__name__}: {error}", launch=processes.launch
    )
