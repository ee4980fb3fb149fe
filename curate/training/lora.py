"""A LoRA adapter with transformers' Trainer and PEFT, on exactly the token ids and labels that are given."""

from __future__ import annotations

import json
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import PartialState
from peft import LoraConfig, PeftModel, TaskType, get_peft_model, prepare_model_for_kbit_training
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    set_seed,
)

from curate.config import Train
from curate.models.load import load_model, quiet_library, text_config
from curate.models.names import published_name
from curate.training.arguments import accumulation_steps, num_processes, training_arguments
from curate.training.callbacks import Journal
from curate.training.resume import SealCheckpoints, last_complete_checkpoint
from curate.types import CurateError

# input_ids [T] and labels [T]; a label of -100 is context, and not learnt.
Ids = Sequence[int] | npt.NDArray[np.integer[Any]]
Feature = tuple[Ids, Ids]
IGNORED = -100


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What training did.

    steps                 optimizer steps taken in all, those before an interruption included
    resumed_from          step of the checkpoint this call started from; 0 if from the beginning
    first_loss, loss      of the first and the last step: nats per learnt token, mean over the tokens of the step
    effective_batch_size  records per step, over all processes
    trainable_parameters  of the adapter
    seconds               of this call
    """

    steps: int
    resumed_from: int
    first_loss: float
    loss: float
    effective_batch_size: int
    trainable_parameters: int
    seconds: float


def train_adapter(
    features: Sequence[Feature],
    model: PreTrainedModel,
    *,
    settings: Train,
    seed: int,
    checkpoint_dir: Path,
    output_dir: Path,
    on_log: Callable[[Mapping[str, float]], None] | None = None,
) -> TrainResult:
    """Train a LoRA adapter and write it to `output_dir`, with `train_log.jsonl`, a line per step.

    The loss of a step is the mean over its learnt tokens, wherever they stand in its records. Batches are padded on
    the right. An interrupted call, repeated with the same arguments and `checkpoint_dir`, goes on from the last
    complete checkpoint to the same adapter (on a CPU the same bytes); the caller sees to it that the folder holds no
    checkpoints of other data, model or settings, and removes it in the end. In a launch of several processes all
    call this and the main one writes.

    Args:
        features: input ids and labels of each record.
        model: as `load_model` gives it; it is changed in place and of no other use afterwards.
        settings: `train.*`, except `merge`: see `merge_adapter`.
        seed: of the adapter's first weights, the order of records, and dropout.
        checkpoint_dir: kept between interrupted calls; holds the Trainer's own files, pickles among them.
        output_dir: a folder for the adapter; nothing in it is a pickle or holds an absolute path. `write_adapter_files`
            adds tokenizer and README.md.
        on_log: called after each step in every process, with a line of the log and `total_steps`.

    Raises:
        CurateError: nothing to train on, ids outside the vocabulary, target modules that the model does not have, a
            loss that is not a number, out of memory.

    Source: Hu et al. 2021, arXiv 2106.09685 (LoRA); Dettmers et al. 2023, arXiv 2305.14314 (on quantised weights).
    """
    _check(features, text_config(model).vocab_size)
    started = time.monotonic()
    base_name, base_commit = model.name_or_path, getattr(model.config, "_commit_hash", None)
    accumulation = accumulation_steps(settings)
    arguments = training_arguments(settings, model, seed, accumulation, checkpoint_dir)
    adapted = _with_adapter(model, settings, seed)
    with PartialState().main_process_first():  # the main process removes incomplete checkpoints, then all look
        checkpoint = last_complete_checkpoint(checkpoint_dir)
    journal = Journal(output_dir, on_log)
    trainer = Trainer(adapted, arguments, _collate, train_dataset=features, callbacks=[journal, SealCheckpoints()])
    trainer.remove_callback(PrinterCallback)  # progress is shown by whoever passes `on_log`
    try:
        with quiet_library(), _quiet_peft():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            trainer.save_model(str(output_dir))
    except torch.OutOfMemoryError as error:
        raise CurateError(
            f"out of memory with train.batch_size={settings.batch_size}: halve it, or set "
            "train.gradient_checkpointing=true or train.quantization=4bit"
        ) from error
    if PartialState().is_main_process:
        _tidy(output_dir, base_name, base_commit)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return TrainResult(
        steps=trainer.state.global_step,
        resumed_from=int(checkpoint.name.partition("-")[2]) if checkpoint else 0,
        first_loss=losses[0],
        loss=losses[-1],
        effective_batch_size=settings.batch_size * accumulation * num_processes(),
        trainable_parameters=adapted.get_nb_trainable_parameters()[0],
        seconds=time.monotonic() - started,
    )


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Return the model with the adapter in `folder`, ready to be evaluated; the model itself is changed in place."""
    with _quiet_peft():
        adapted = PeftModel.from_pretrained(model, str(folder))
    return adapted.eval()


def merge_adapter(
    adapter_dir: Path,
    base_name: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    output_dir: Path,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> None:
    """Write the base model with the adapter added to its weights, in bfloat16, with its tokenizer.

    The base is read anew and unquantised, on the CPU (2 bytes of RAM per parameter): merging into quantised weights
    would round them a second time.

    Raises:
        CurateError: the base cannot be loaded.
    """
    device = torch.device("cpu")
    base = load_model(
        base_name, revision=revision, dtype="bfloat16", trust_remote_code=trust_remote_code, device=device
    )
    with _quiet_peft():
        merged = PeftModel.from_pretrained(base, str(adapter_dir)).merge_and_unload(safe_merge=True)
    with quiet_library():
        merged.save_pretrained(output_dir)
        tokenizer.save_pretrained(output_dir)
    _share_weights(output_dir, like=output_dir / "config.json")


def _check(features: Sequence[Feature], vocab_size: int) -> None:
    if not len(features):
        raise CurateError("there is nothing to train on: expected at least one kept record with a response")
    for index in range(len(features)):
        ids, labels = (np.asarray(part) for part in features[index])
        assert ids.shape == labels.shape, "a label per token"
        if not (labels[1:] != IGNORED).any():
            raise CurateError(f"record {index} of those to train on has no response token to learn")
        if ids.min() < 0 or ids.max() >= vocab_size:
            raise CurateError(
                f"record {index} has the token id {int(ids.max())}, the model's vocabulary ends at {vocab_size - 1}: "
                "expected the tokenizer of the model that is trained"
            )


def _collate(batch: Sequence[Feature]) -> dict[str, torch.Tensor]:
    """Tensors [B, T], padded on the right; what stands under the padding is masked, so 0 is as good as any id."""
    shape = len(batch), max(len(ids) for ids, _ in batch)
    input_ids = torch.zeros(shape, dtype=torch.long)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED, dtype=torch.long)
    for i, (ids, targets) in enumerate(batch):
        input_ids[i, : len(ids)] = torch.from_numpy(np.asarray(ids, dtype=np.int64))
        labels[i, : len(ids)] = torch.from_numpy(np.asarray(targets, dtype=np.int64))
        attention_mask[i, : len(ids)] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def _with_adapter(model: PreTrainedModel, settings: Train, seed: int) -> PeftModel:
    model.config.use_cache = False
    if getattr(model, "is_quantized", False):
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    targets = settings.target_modules
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type=TaskType.CAUSAL_LM,
    )
    set_seed(seed)  # the adapter's first weights are drawn next
    try:
        with _quiet_peft():
            return get_peft_model(model, config)
    except ValueError as error:
        raise CurateError(f"train.target_modules={targets}: {str(error).splitlines()[0]}") from error


@contextmanager
def _quiet_peft() -> Iterator[None]:
    """Silences two warnings that a person can do nothing about.

    PEFT 0.21 reads an attribute that transformers 5.23 renamed and still knows. And when it saves it asks the hub how
    many tokens the base knows, to see whether tokens were added: we never add any, and work without the hub too.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "Could not find a config file in |Unable to fetch remote file ", UserWarning)
        yield


def _tidy(folder: Path, base_name: str, base_commit: str | None) -> None:
    """Make what the Trainer saved fit to publish: no pickle, no absolute path, the same bytes every time.

    The base is named as `published_name` does, one from the hub with the commit it was loaded from. README.md goes:
    PEFT's names the folder of the base.
    """
    (folder / "training_args.bin").unlink(missing_ok=True)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": published_name(base_name), "revision": base_commit}
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()  # PEFT keeps them in a set
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    _share_weights(folder, like=path)


def _share_weights(folder: Path, *, like: Path) -> None:
    """Let the weights be read by whoever may read the file beside them; safetensors writes them for its user alone."""
    for weights in folder.glob("*.safetensors"):
        shutil.copymode(like, weights)
