"""Turns the settings `train.*` into arguments of transformers' Trainer."""

from __future__ import annotations

import importlib.util
import logging
import os
from dataclasses import fields
from pathlib import Path

import torch
from transformers import PreTrainedModel, TrainingArguments
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
)

from curate.config import Train
from curate.config.stages import EFFECTIVE_BATCH
from curate.models.device import sharded_by_launcher
from curate.types import CurateError

logger = logging.getLogger(__name__)

# Trackers whose package has another name.
_PACKAGES = {"azure_ml": "azureml-sdk", "comet_ml": "comet-ml", "flyte": "flytekit"}


def check_report_to(report_to: str) -> None:
    """Refuse an experiment tracker (train.report_to) that is unknown or not installed.

    This is quick, and is called before scoring: the Trainer itself would notice only hours later.

    Raises:
        CurateError: the message names the known trackers, or the package to install.
    """
    if report_to in ("none", "all"):
        return
    known = sorted(INTEGRATION_TO_CALLBACK)
    if report_to not in known:
        raise CurateError(f"train.report_to: expected none, all or one of {', '.join(known)}, got {report_to}")
    # transformers supports these two, but leaves them out of its list of installed ones.
    unlisted = {"azure_ml": "azureml", "flyte": "flytekit"}
    is_there = report_to in unlisted and importlib.util.find_spec(unlisted[report_to]) is not None
    if not is_there and report_to not in get_available_reporting_integrations():
        raise CurateError(
            f"train.report_to={report_to} needs a package that is not installed or not set up here: "
            f"pip install {_PACKAGES.get(report_to, report_to)}, or train.report_to=none"
        )


def num_processes() -> int:
    """Return the number of processes of this launch, over all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def accumulation_steps(settings: Train) -> int:
    """Return the batches per step: as set, else as many as make a step of 16 records over all processes.

    A warning says so where 16 records cannot be divided that way.
    """
    accumulation, at_once = settings.accumulation(num_processes()), settings.batch_size * num_processes()
    if settings.gradient_accumulation is None and accumulation * at_once != EFFECTIVE_BATCH:
        logger.warning(
            "%d processes with train.batch_size=%d take %d records a step, not %d",
            num_processes(),
            settings.batch_size,
            accumulation * at_once,
            EFFECTIVE_BATCH,
        )
    return accumulation


def training_arguments(
    settings: Train, model: PreTrainedModel, seed: int, accumulation: int, checkpoint_dir: Path
) -> TrainingArguments:
    """Return the arguments of the Trainer, for the precision of the model and for the CPU if the model is there.

    Args:
        settings: `train.*`.
        model: the model to train.
        seed: for the order of records and dropout.
        accumulation: batches per step, from `accumulation_steps`.
        checkpoint_dir: folder for the checkpoints.

    Raises:
        CurateError: float16 on a CPU.
    """
    on_cpu = model.device.type == "cpu" and not sharded_by_launcher()
    if on_cpu and model.dtype == torch.float16:
        raise CurateError("training in float16 needs a GPU: expected model.dtype=float32 or bfloat16 on a CPU")
    # transformers 5 renamed this argument; the old name still works, with a FutureWarning.
    names = {field.name for field in fields(TrainingArguments)}
    checkpointing = "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"
    arguments = TrainingArguments(
        output_dir=str(checkpoint_dir),
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=accumulation,
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.scheduler,
        warmup_steps=settings.warmup,  # below 1: a fraction of the steps
        logging_steps=1,
        logging_nan_inf_filter=False,  # else it logs the mean of earlier losses in place of a NaN
        save_steps=settings.save_steps,
        save_total_limit=2,
        seed=seed,
        bf16=model.dtype == torch.bfloat16,
        fp16=model.dtype == torch.float16,
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        ddp_find_unused_parameters=False,
        remove_unused_columns=False,  # the data set has no columns: `collate` makes the tensors
        label_names=["labels"],
        report_to=settings.report_to,
        disable_tqdm=True,
        **{checkpointing: settings.gradient_checkpointing, f"{checkpointing}_kwargs": {"use_reentrant": False}},
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # without a launcher the Trainer would copy the model to all GPUs in threads
    return arguments
