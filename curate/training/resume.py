"""Seals checkpoints with the SHA-256 of every file, and finds the last one that is complete."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch.distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)

_SEAL = "complete.json"


class AlreadyTrainedError(Exception):
    """The checkpoint that training would go on from is that of the last step."""


class SealCheckpoints(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Seals each checkpoint in the main process, after all processes have written their part of it."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End a training that has all its steps: with max_steps, the Trainer would add one in the middle of an epoch.

        Raises:
            AlreadyTrainedError: the weights of the last step are loaded.
        """
        if state.global_step >= state.max_steps:
            raise AlreadyTrainedError

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Seal the checkpoint that was just saved."""
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # every process saves its own random state
        if state.is_world_process_zero:
            _seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def last_complete_checkpoint(folder: Path) -> Path | None:
    """Return the latest checkpoint in `folder` whose files are all as they were written; None if there is none.

    Later checkpoints, left incomplete by a killed process, a full disk or a bad block, are removed with a warning;
    training writes them again.
    """
    checkpoints = [path for path in folder.glob("checkpoint-*") if path.name.partition("-")[2].isdigit()]
    for path in sorted(checkpoints, key=_step, reverse=True):
        if _is_sealed(path):
            return path
        logger.warning("%s is incomplete and removed; training goes on from the one before", path)
        shutil.rmtree(path)
    return None


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.partition("-")[2])


def _seal(checkpoint: Path) -> None:
    # Written under another name first, so that a seal is complete or absent.
    temporary = checkpoint / f"{_SEAL}.tmp"
    temporary.write_text(json.dumps(_digests(checkpoint)), encoding="utf-8")
    os.replace(temporary, checkpoint / _SEAL)


def _is_sealed(checkpoint: Path) -> bool:
    try:
        expected = json.loads((checkpoint / _SEAL).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return bool(expected == _digests(checkpoint))


def _digests(checkpoint: Path) -> dict[str, str]:
    """Return the SHA-256 (hex) of every file of a checkpoint, by its path in it; seals are left out."""
    digests = {}
    for file in sorted(checkpoint.rglob("*")):
        if file.is_file() and not file.name.startswith(_SEAL):
            with file.open("rb") as stream:
                digests[file.relative_to(checkpoint).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
    return digests
