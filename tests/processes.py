"""Real processes of curate that tests kill, stop and starve.

They are forked from a server that has imported everything, so that each starts at once; a launch of several gets the
environment that torchrun gives.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

_HEAVY = (
    "curate.cli",
    "curate.pipeline.adapter",
    "curate.pipeline.embeddings",
    "curate.pipeline.scores",
    "curate.pipeline.selection",
    "datasets",
    "sentence_transformers",
    "transformers.models.bert.modeling_bert",
    "transformers.models.llama.modeling_llama",
    "transformers.trainer",
)
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class Launch:
    """The processes of one call, by rank, and the file their output goes to."""

    processes: Sequence[BaseProcess]
    log: Path

    def alive(self) -> bool:
        return any(process.is_alive() for process in self.processes)

    def kill(self) -> bool:
        """SIGKILL to all; whether any was still alive."""
        alive = self.alive()
        for process in self.processes:
            process.kill()
        self.wait(10)
        return alive

    def signal(self, number: signal.Signals) -> None:
        for process in self.processes:
            if process.is_alive() and process.pid:
                os.kill(process.pid, number)

    def wait(self, timeout: float) -> list[int]:
        """Exit codes by rank; fails when one takes longer."""
        deadline = time.monotonic() + timeout
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        codes = [process.exitcode for process in self.processes]
        if None in codes:
            self.signal(signal.SIGKILL)
            raise AssertionError(f"still running after {timeout} s: {codes}\n{self.log.read_text()[-3000:]}")
        return [code for code in codes if code is not None]


def start(
    words: Sequence[str], log: Path, *, count: int = 1, file_size_limit: int | None = None, patch: str = ""
) -> Launch:
    """`curate WORDS...` on `count` processes.

    file_size_limit: no file may grow beyond so many bytes.
    patch: code to run in each process first.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*_HEAVY, "processes"])
    os.environ.update(ENVIRONMENT)  # the server inherits it
    port = free_port()
    processes = []
    for rank in range(count):
        environment = _torchrun(rank, count, port) if count > 1 else {}
        arguments = (list(words), environment, str(log), file_size_limit, patch)
        process = context.Process(target=_curate, args=arguments, daemon=True)
        process.start()
        processes.append(process)
    return Launch(processes, log)


def accelerate(
    words: Sequence[str], log: Path, *flags: str, program: Sequence[str] = ("-m", "curate")
) -> subprocess.Popen[bytes]:
    """`accelerate launch FLAGS -m curate WORDS...`, a group of processes of its own."""
    launcher = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    with log.open("wb") as file:
        return subprocess.Popen(
            [*launcher, *flags, *program, *words],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | ENVIRONMENT,
            cwd=log.parent,
            start_new_session=True,
        )


def on_cpus(count: int) -> tuple[str, ...]:
    """Flags of `accelerate launch` that start so many processes on CPUs."""
    return (
        "--multi_gpu",
        *("--num_processes", str(count)),
        *("--num_machines", "1"),
        *("--mixed_precision", "no"),
        *("--dynamo_backend", "no"),
        *("--main_process_port", str(free_port())),
    )


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _torchrun(rank: int, count: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _curate(words: list[str], environment: dict[str, str], log: str, file_size_limit: int | None, patch: str) -> None:
    from curate.cli import main

    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if file_size_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size_limit, resource.RLIM_INFINITY))
    exec(patch, {})
    sys.argv = ["curate", *words]
    sys.exit(main(words))
