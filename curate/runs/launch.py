"""One call of a verb: the run folder held, the other processes found, the outcome written down."""

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
from curate.runs.processes import Heartbeat, Processes, chunks_of_rank, join_launch, launcher_rank, wait_for

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int | None, str], None]  # stage, done, total if known, unit
Result = TypeVar("Result")

_ECHO_SECONDS = 3.0
_UNREADABLE = (OSError, ValueError, LookupError, EOFError, BadZipFile)


@dataclass(frozen=True, slots=True)
class Launch:
    """Where a verb runs, which of the processes this is, and whom to tell of progress.

    verb          what is done
    folder        the run folder, locked by the main process
    processes     this process among those of the launch
    heartbeat     how the others see that this process works
    progress      called with stage, done, total (None if unknown) and unit
    hang_timeout  seconds without progress of another process after which all end
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
        """Show progress to the person and to the other processes; an interruption is heard here at the latest."""
        if self.interrupted.is_set():  # and yet we go on: Python drops what a signal raises in a destructor
            raise KeyboardInterrupt
        self.heartbeat.beat()
        self.progress(stage, done, total, unit)

    def lead(self, stage: str, prepare: Callable[[], Result], kind: type[Result]) -> Result:
        """Return what the main process prepares for a stage, handed to every process through a file.

        No process waits in a collective meanwhile, so the main one may read and tokenise as long as it takes.

        Args:
            stage: its name, once a launch.
            prepare: called by the main process only.
            kind: the type of what is prepared: a frozen dataclass of plain values.
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
        """Wait for another process as long as it makes progress; TimeoutError when it does not."""
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
        """Compute the chunks of this process that are not `finished`; the main process then waits for the others'.

        Chunk c is always computed by process c mod count. What is finished was asked once, when the main process
        prepared the stage: one that comes late need not find the folder any more. Returns the files of all chunks.
        """
        paths = [folder / f"{chunk:06d}.chunk" for chunk in range(num_chunks)]
        for chunk in chunks_of_rank(num_chunks, self.processes.rank, self.processes.count):
            if chunk not in finished:
                with replacing(paths[chunk]) as temporary:
                    write(temporary, compute(chunk))
        if self.processes.is_main:  # in order, so that only the process whose turn it is must show life
            for chunk, path in enumerate(paths):
                self.wait(path.exists, rank=chunk % self.processes.count, what=f"chunk {chunk} of {folder.name}")
        return paths

    def finished_chunks(self, folder: Path, read: Callable[[Path], object]) -> list[int]:
        """The numbers of the chunks that are there, for `compute_chunks`.

        Those that cannot be read (a bad disk, a stranger's hand, another version) are removed and so computed again.
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
    """Hold the run folder while a verb runs on the processes of this launch, and leave its outcome in status.json.

    SIGTERM is treated like Ctrl-C. Only the main process locks, and removes what a killed run left half-written; the
    processes meet after that, so that none has begun to write.

    Args:
        folder: of the run.
        verb: for status.json.
        begin: the verb may begin a run; the others go on with one.
        progress: see `Launch`.
        hang_timeout: see `Launch`.
    """
    processes, path = Processes(launcher_rank()), folder.path
    fresh = processes.is_main and not folder.is_ours()
    made = [p for p in (path, *path.parents) if not p.exists()]
    before = [p.name for p in path.iterdir()] if path.is_dir() else []
    if processes.is_main:
        folder.claim(begin=begin)
    met = False
    with folder.lock() if processes.is_main else nullcontext(), _interruptible() as interrupted:
        try:
            if processes.is_main:
                folder.clean()
            processes = join_launch(hang_timeout)
            met = True
            if processes.is_main:
                folder.status(verb, "running", None, "", launch=processes.launch)
            heartbeat = Heartbeat(folder.work, processes)
            heartbeat.beat()
            yield Launch(verb, folder, processes, heartbeat, progress, hang_timeout, interrupted)
        except BaseException as error:
            with suppress(OSError):  # the disk may be what is full
                _write_failure(folder, verb, processes, error)
                if fresh and met and processes.count == 1:  # who uses a launcher reads status.json
                    folder.abandon(before, made)
            raise
        if processes.is_main:
            folder.status(verb, "done", 0, "", launch=processes.launch)


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """SIGINT and SIGTERM interrupt, once; the event says that they did.

    A launcher repeats moments later what the terminal sent; that echo is not heard, it would cut short the cleaning up.
    """
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # where Python hears no signals
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
            signal.signal(number, handler or signal.SIG_DFL)


def _write_failure(folder: RunFolder, verb: str, processes: Processes, error: BaseException) -> None:
    where = f"process {processes.rank}: " if processes.count > 1 else ""
    if isinstance(error, KeyboardInterrupt):
        message = "interrupted; the same command continues"
        if processes.count > 1:
            message += " (by a person, by the launcher, or because another process of the launch ended)"
        folder.status(verb, "interrupted", 130, where + message, launch=processes.launch)
        return
    folder.status(verb, "failed", exit_code(error), f"{where}{type(error).__name__}: {error}", launch=processes.launch)
