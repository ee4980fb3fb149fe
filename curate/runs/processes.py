"""Several processes on one run: which one this is, waiting for a file, noticing a process that hangs.

Processes communicate through files in the run folder, which all machines must share. torch.distributed is used only by
the Trainer, and once at the start, to agree on a name for the launch. So nothing times out while the main process reads
the input and the others wait, and a process that has no more work may end.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from curate.runs.launcher import asked_of_launcher, number_from_launcher
from curate.types import CurateError

_POLL_SECONDS = 0.1
_BEAT_SECONDS = 2.0
_ON_CPUS = (
    "On CPUs say: accelerate launch --multi_gpu --num_processes N --num_machines 1 --mixed_precision no "
    "--dynamo_backend no -m curate ..."
)


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those of the launch.

    rank    from 0; process 0 is the main one: it alone reads the input, publishes results and locks the folder
    count   number of processes
    launch  a name that all processes of this launch share and no earlier launch had
    """

    rank: int = 0
    count: int = 1
    launch: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def is_main(self) -> bool:
        """Whether this is process 0."""
        return self.rank == 0


def join_launch(hang_timeout: float) -> Processes:
    """Return this process among those of the launch. It is alone unless a launcher set WORLD_SIZE.

    Raises:
        CurateError: N processes were asked for with `accelerate launch --cpu --num_processes N`, which starts one;
            FSDP or DeepSpeed without a GPU; an environment variable of a launcher was set by hand.
        TimeoutError: the others did not come within `hang_timeout` seconds.
    """
    if number_from_launcher("WORLD_SIZE", 1) == 1:
        # Scoring by one process where four were meant would only be noticed by its time.
        asked = asked_of_launcher()
        if asked > 1:
            raise CurateError(
                f"accelerate was asked for {asked} processes and started one (its --cpu does that). {_ON_CPUS}"
            )
        return Processes()
    import torch
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    from curate.models.device import sharded_by_launcher

    if sharded_by_launcher() and not torch.cuda.is_available():
        raise CurateError(f"FSDP and DeepSpeed need GPUs: here every process would train by itself. {_ON_CPUS}")
    try:
        state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(seconds=hang_timeout))
        launch = broadcast_object_list([secrets.token_hex(8)])[0]
    except ValueError as error:  # WORLD_SIZE was set by hand
        raise CurateError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']} says that a launcher started this process, and what else it sets "
            f"is missing ({' '.join(str(error).split())[:120]}): start with accelerate launch, or unset WORLD_SIZE"
        ) from None
    except RuntimeError as error:
        if not lost_process(error):
            raise
        raise TimeoutError(
            f"the {os.environ['WORLD_SIZE']} processes of this launch did not all meet within {hang_timeout:.0f} s "
            f"({str(error).strip().splitlines()[0][:200]}); run.hang_timeout sets the wait"
        ) from error
    return Processes(state.process_index, state.num_processes, launch)


def lost_process(error: BaseException) -> bool:
    """Say whether an error of torch.distributed means that another process ended or hangs."""
    import torch.distributed

    # The gloo backend raises a plain RuntimeError, which only its text tells from others.
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


class Heartbeat:
    """Shows the other processes that this one makes progress: it touches a file every few seconds.

    `beat` is called from the work itself and not from a thread, so that a process that is stuck stops beating.
    """

    def __init__(self, folder: Path, processes: Processes) -> None:
        self._path = heartbeat_path(folder, processes, processes.rank)
        self._last = -_BEAT_SECONDS
        self._alone = processes.count == 1

    def beat(self) -> None:
        """Show that work was done. It is cheap enough to call for every record."""
        now = time.monotonic()
        if self._alone or now - self._last < _BEAT_SECONDS:
            return
        self._last = now
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch()

    @contextmanager
    def kept_up(self) -> Iterator[None]:
        """Beat from a thread as long as the block runs: for calls into libraries, which cannot beat (k-means)."""
        if self._alone:
            yield
            return
        over = threading.Event()

        def keep_up() -> None:
            while not over.wait(_BEAT_SECONDS):
                self.beat()

        thread = threading.Thread(target=keep_up, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def heartbeat_path(folder: Path, processes: Processes, rank: int) -> Path:
    """Return the file that process `rank` touches."""
    return folder / "heartbeats" / f"{processes.launch}-{rank}"


def wait_for(
    ready: Callable[[], bool],
    *,
    folder: Path,
    processes: Processes,
    rank: int,
    what: str,
    hang_timeout: float,
    heartbeat: Heartbeat,
) -> None:
    """Wait until `ready` returns true, as long as process `rank`, which has to do the work, makes progress.

    Args:
        ready: asked ten times a second.
        folder: the scratch folder of the run.
        processes: this process among those of the launch.
        rank: the process that has to do the work.
        what: what is waited for, for the message.
        hang_timeout: seconds.
        heartbeat: of this process, which shows that it is alive while it waits.

    Raises:
        TimeoutError: the heartbeat of `rank` did not change for `hang_timeout` seconds.
    """
    path = heartbeat_path(folder, processes, rank)
    # Clocks of several machines may differ. So the time of a heartbeat is only compared with its earlier value, and
    # how long it did not change is measured by the clock of this process.
    seen, since = _modified(path), time.monotonic()
    while not ready():
        heartbeat.beat()
        modified = _modified(path)
        if modified != seen:
            seen, since = modified, time.monotonic()
        elif time.monotonic() - since > hang_timeout:
            raise TimeoutError(
                f"waited {hang_timeout:.0f} s for {what} without a sign of life from process {rank}; every process "
                "ends. "
                "If the processes run on several machines, all must see the same run.dir. "
                "The same command continues with what is finished; run.hang_timeout sets the wait."
            )
        time.sleep(_POLL_SECONDS)


def _modified(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def chunks_of_rank(num_chunks: int, rank: int, num_processes: int) -> range:
    """Return the chunks that a process computes: every num_processes-th one.

    Neighbouring chunks cost almost the same (they are sorted by length), so the processes finish together.

    >>> list(chunks_of_rank(7, 1, 3))
    [1, 4]
    """
    # Of the whole plan, and never of the chunks that are still missing: processes that start at different moments see
    # different ones missing, and some chunks would then be nobody's.
    return range(rank, num_chunks, num_processes)
