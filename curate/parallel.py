"""Many processes on one run: who am I, wait for a file, notice a process that hangs.

Processes meet only through files in the run folder (which all machines must share); torch.distributed is used once,
at the start, to agree on a name for the launch, and by the Trainer. So nothing times out while one process reads
and the others wait, and a process that has nothing to do just ends.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from curate.types import CurateError

_POLL_SECONDS = 0.1
_BEAT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those of the launch.

    rank    from 0; rank 0 is the main process, the only one that reads the input, publishes and locks
    count   number of processes
    launch  a name all processes of this launch share and no earlier launch had
    """

    rank: int = 0
    count: int = 1
    launch: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0


def join_launch(hang_timeout: float) -> Processes:
    """Find the other processes of this launch; alone unless a launcher set WORLD_SIZE.

    Raises:
        CurateError: `accelerate launch --cpu --num_processes N`, which starts one process and says nothing.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        asked = _asked_of_launcher()
        if asked > 1:
            raise CurateError(
                f"accelerate was asked for {asked} processes and started one (its --cpu does that). On CPUs say: "
                f"accelerate launch --multi_gpu --num_processes {asked} --num_machines 1 --mixed_precision no "
                "--dynamo_backend no -m curate ..."
            )
        return Processes()
    import torch
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(seconds=hang_timeout))
    launch = broadcast_object_list([secrets.token_hex(8)])[0]
    return Processes(state.process_index, state.num_processes, launch)


class Heartbeat:
    """Tells the other processes that this one makes progress, by touching a file every few seconds.

    `beat` is called from the work itself, not from a thread, so that a process that is stuck falls silent.
    """

    def __init__(self, folder: Path, processes: Processes) -> None:
        self._path = heartbeat_path(folder, processes, processes.rank)
        self._last = -_BEAT_SECONDS
        self._alone = processes.count == 1

    def beat(self) -> None:
        """Say that work was done; cheap enough to call for every record."""
        now = time.monotonic()
        if self._alone or now - self._last < _BEAT_SECONDS:
            return
        self._last = now
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch()

    @contextmanager
    def kept_up(self) -> Iterator[None]:
        """Beat from a thread while a library call works that cannot (loading a model, k-means)."""
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
    """The file that a rank touches."""
    return folder / "heartbeats" / f"{processes.launch}-{rank}"


def wait_for(
    ready: Callable[[], bool],
    *,
    folder: Path,
    processes: Processes,
    ranks: Iterable[int],
    what: str,
    hang_timeout: float,
    heartbeat: Heartbeat,
) -> None:
    """Wait until `ready`, as long as one of `ranks` makes progress.

    Clocks of several machines are not compared: only whether a heartbeat changed since this process last looked.

    Raises:
        TimeoutError: no heartbeat of any of `ranks` changed for `hang_timeout` seconds.
    """
    paths = [heartbeat_path(folder, processes, rank) for rank in ranks]
    seen, since = None, time.monotonic()
    while not ready():
        heartbeat.beat()
        beats = [_modified(path) for path in paths]
        if beats != seen:
            seen, since = beats, time.monotonic()
        elif time.monotonic() - since > hang_timeout:
            raise TimeoutError(
                f"waited {hang_timeout:.0f} s for {what} without a sign of progress; every process ends. "
                "If the processes run on several machines, all must see the same run.dir. "
                "The same command continues with what is finished; run.hang_timeout sets the wait."
            )
        time.sleep(_POLL_SECONDS)


def _modified(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def _asked_of_launcher() -> int:
    """`--num_processes` on the command line of the process that started us, if that was `accelerate launch`."""
    try:
        words = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:  # not Linux
        return 1
    if (
        not any("accelerate" in word for word in words[:3])
        or "launch" not in words[:4]
        or "curate" not in " ".join(words)
    ):
        return 1
    for i, word in enumerate(words):
        value = word.partition("=")[2] or (words[i + 1] if i + 1 < len(words) else "")
        if word.split("=")[0] == "--num_processes" and value.isdigit():
            return int(value)
    return 1
