"""Logs the steps of training, and ends it when the loss is not a number."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from curate.types import CurateError

_LOG_KEYS = ("step", "loss", "learning_rate", "grad_norm", "epoch", "seconds")


class Journal(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Keeps the log of the steps in train_log.jsonl, one JSON object a line.

    The Trainer's state holds the log too, and every checkpoint holds that state. So a resumed training writes the steps
    before its checkpoint again, and its log is as complete as that of an uninterrupted one.
    """

    def __init__(self, folder: Path, on_log: Callable[[Mapping[str, float]], None] | None) -> None:
        self._path = folder / "train_log.jsonl"
        self._on_log = on_log
        self._origin = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the steps before the checkpoint, and set the clock back by the seconds they took."""
        past = [entry for entry in state.log_history if "loss" in entry]
        self._origin = time.monotonic() - (past[-1]["seconds"] if past else 0.0)
        if state.is_world_process_zero:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text("".join(map(_log_line, past)), encoding="utf-8")

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add a step to the log, or end training if its loss is not finite, before a checkpoint of it is written."""
        entry = state.log_history[-1]
        if "loss" not in entry:
            return  # the summary that the Trainer logs at the end
        # With float16, infinite gradients are expected: the gradient scaler skips such steps.
        if not math.isfinite(entry["loss"]) or not (args.fp16 or math.isfinite(entry.get("grad_norm", 0.0))):
            raise CurateError(
                f"the loss or its gradient is not a finite number at step {state.global_step} (loss {entry['loss']}): "
                "use model.dtype=bfloat16 or float32, or a lower train.learning_rate"
            )
        entry["seconds"] = round(time.monotonic() - self._origin, 3)
        if state.is_world_process_zero:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_log_line(entry))
        if self._on_log is not None:
            self._on_log(_fields(entry) | {"total_steps": state.max_steps})


def _fields(entry: Mapping[str, float]) -> dict[str, float]:
    return {key: entry[key] for key in _LOG_KEYS if key in entry}


def _log_line(entry: Mapping[str, float]) -> str:
    return json.dumps(_fields(entry)) + "\n"
