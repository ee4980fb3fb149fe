"""One call of a verb: the run folder held, the other processes found, the outcome written down."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from curate.config import Recipe, dump_recipe
from curate.parallel import Heartbeat, Processes, wait_for
from curate.runs import RunFolder, replacing, write_json, write_text
from curate.scoring.batching import chunks_of_rank
from curate.types import CurateError

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int | None, str], None]  # stage, done, total if known, unit
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked for, where, by which of the processes, and whom to tell of progress."""

    recipe: Recipe
    folder: RunFolder
    processes: Processes
    heartbeat: Heartbeat
    progress: Progress

    def advance(self, stage: str, done: int, total: int | None, unit: str) -> None:
        """Show progress, to the person and to the other processes."""
        self.heartbeat.beat()
        self.progress(stage, done, total, unit)

    def lead(self, stage: str, prepare: Callable[[], Any]) -> Any:
        """What the main process prepares for a stage, a JSON value, handed to every process through a file.

        No process waits in a collective meanwhile, so the main one may read and tokenise as long as it takes.
        """
        path = self.folder.work / "launches" / f"{self.processes.launch}-{stage}.json"
        if self.processes.is_main:
            prepared = prepare()
            if self.processes.count > 1:
                write_json(path, prepared)
            return prepared
        self.wait(path.exists, ranks=[0], what=f"the main process to prepare {stage}")
        return json.loads(path.read_text(encoding="utf-8"))

    def wait(self, ready: Callable[[], bool], *, ranks: list[int], what: str) -> None:
        """Wait for other processes as long as they make progress; TimeoutError when they do not."""
        wait_for(
            ready,
            folder=self.folder.work,
            processes=self.processes,
            ranks=ranks,
            what=what,
            hang_timeout=self.recipe.run.hang_timeout,
            heartbeat=self.heartbeat,
        )

    def compute_chunks(
        self,
        folder: Path,
        num_chunks: int,
        compute: Callable[[int], Result],
        write: Callable[[Path, Result], None],
    ) -> list[Path]:
        """Compute the chunks of this process that are not there yet; the main process then waits for the others'.

        Chunk c is always computed by process c mod count, whatever is already finished, and a finished one is never
        written again. Returns the files of all chunks.
        """
        paths = [folder / f"{chunk:06d}.chunk" for chunk in range(num_chunks)]
        for chunk in chunks_of_rank(num_chunks, self.processes.rank, self.processes.count):
            if not paths[chunk].exists():
                with replacing(paths[chunk]) as temporary:
                    write(temporary, compute(chunk))
        if self.processes.is_main:
            others = list(range(1, self.processes.count))
            missing = [path for path in paths if not path.exists()]

            def all_there() -> bool:
                missing[:] = [path for path in missing if not path.exists()]
                return not missing

            self.wait(all_there, ranks=others, what=f"chunks of {folder.name} from other processes")
        return paths


@contextmanager
def open_job(recipe: Recipe, verb: str, processes: Processes, progress: Progress) -> Iterator[Job]:
    """Hold the run folder while a verb runs, and leave its outcome in status.json.

    SIGTERM is treated like Ctrl-C. Only the main process locks; what a killed run left half-written is removed.
    """
    folder = RunFolder(Path(recipe.run.dir))
    job = Job(recipe, folder, processes, Heartbeat(folder.work, processes), progress)
    with folder.lock() if processes.is_main else nullcontext():
        if processes.is_main:
            folder.clean()
            folder.status(verb, "running", None, "", launch=processes.launch)
        signal.signal(signal.SIGTERM, _interrupt)
        job.heartbeat.beat()
        try:
            yield job
        except BaseException as error:
            with suppress(OSError):  # the disk may be what is full
                _write_failure(folder, verb, processes, error)
            raise
        if processes.is_main:
            folder.status(verb, "done", 0, "", launch=processes.launch)


def log_stage(name: str, facts: Mapping[str, Any], more: str = "") -> None:
    """The closing line of a stage: in, out, dropped by reason, seconds."""
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in facts["dropped"].items())
    speed = f", {facts['tokens_per_second']:,} tokens/s" if "tokens_per_second" in facts else ""
    logger.info(
        "%s: %s in, %s out%s; %.1f s%s",
        name,
        f"{facts['in']:,}",
        f"{facts['out']:,}",
        f", dropped {dropped}" if dropped else "",
        facts["seconds"],
        speed or (more and f", {more}"),
    )


def log_finished(name: str) -> None:
    """The line of a stage that an earlier call finished."""
    logger.info("%s: finished before", name)


def save_recipe(folder: Path, recipe: Recipe) -> None:
    """Write the resolved recipe, which replays the run."""
    write_text(folder / "recipe.yaml", dump_recipe(recipe))


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _write_failure(folder: RunFolder, verb: str, processes: Processes, error: BaseException) -> None:
    where = f"process {processes.rank}: " if processes.count > 1 else ""
    if isinstance(error, KeyboardInterrupt):
        message = "interrupted; the same command continues"
        if processes.count > 1:
            message += " (by a person, by the launcher, or because another process of the launch ended)"
        if processes.is_main:
            folder.status(verb, "interrupted", 130, where + message, launch=processes.launch)
        return
    code = 2 if isinstance(error, CurateError) else 1
    folder.status(verb, "failed", code, f"{where}{type(error).__name__}: {error}", launch=processes.launch)
