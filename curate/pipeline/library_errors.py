"""Turns what libraries raise while a model is trained into errors that the command line understands."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from curate.pipeline.job import Job
from curate.runs.processes import lost_process
from curate.scoring.score import out_of_memory
from curate.types import CurateError

# Texts in the errors of safetensors and torch.save by which a full disk is recognised. torch.save gives no reason why
# it could not write; it is taken for a full disk.
_FULL = {
    "os error 28)": errno.ENOSPC,
    "os error 122)": errno.EDQUOT,
    "os error 27)": errno.EFBIG,
    "inline_container": errno.ENOSPC,
    "file write failed": errno.ENOSPC,
}


@contextmanager
def training(job: Job, folder: Path) -> Iterator[None]:
    """Give a block in which to train: it beats for the other processes, and turns errors of libraries into ours.

    Raises:
        CurateError: the memory is too small.
        OSError: the disk is full.
        TimeoutError: another process of the launch ended, or hangs.
    """
    try:
        with job.launch.busy("loading the model to train"):
            yield
    except (RuntimeError, SafetensorError, MemoryError) as error:
        if out_of_memory(error):
            train = job.recipe.train
            raise CurateError(
                f"out of memory with train.batch_size={train.batch_size} and train.rank={train.rank}: halve them, or "
                "set train.gradient_checkpointing=true or train.quantization=4bit"
            ) from error
        number = next((number for words, number in _FULL.items() if words in str(error)), None)
        if number is not None:
            raise OSError(number, os.strerror(number), str(folder)) from error
        if job.launch.processes.count > 1 and lost_process(error):
            raise TimeoutError(
                "another process ended while training, or gave no sign of life for "
                f"{job.recipe.run.hang_timeout:.0f} s; every process ends. "
                "The same command continues with the last checkpoint; run.hang_timeout sets the wait."
            ) from error
        raise
