"""Trains a LoRA adapter with transformers' Trainer and PEFT, on exactly the token ids and labels that are given."""

from __future__ import annotations

import json
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

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
from curate.training.features import Feature, collate, refuse_unusable
from curate.training.resume import AlreadyTrainedError, SealCheckpoints, last_complete_checkpoint
from curate.types import CurateError


@dataclass(frozen=True, slots=True)
class TrainResult:
    """The figures of a finished training.

    steps                 optimizer steps in all, those before an interruption included
    resumed_from          step of the checkpoint that this call went on from; 0 without one
    first_loss, loss      loss of the first and the last step, in nats: mean over the learnt tokens of the step
    effective_batch_size  records per step, over all processes
    trainable_parameters  parameters of the adapter
    seconds               duration of this call
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
    """Train a LoRA adapter and write it to `output_dir`, with a line of `train_log.jsonl` per step.

    The loss of a step is the mean over all its learnt tokens, so long responses weigh more than short ones. Batches are
    padded on the right.

    An interrupted training is resumed by the same call: it goes on from the last complete checkpoint in
    `checkpoint_dir`, to the same adapter (on a CPU the same bytes). The caller makes sure that the folder holds no
    checkpoints of other data, models or settings, and removes it in the end. With several processes, all of them call
    this function, and the main process writes.

    Args:
        features: input ids and labels of each record.
        model: from `load_model`; it is changed in place and cannot be used otherwise afterwards.
        settings: `train.*`; `merge` is left to `merge_adapter`.
        seed: for the first weights of the adapter, the order of records, and dropout.
        checkpoint_dir: folder for the Trainer's checkpoints, some files of which are pickles.
        output_dir: folder for the adapter, which holds no pickle and no absolute path; `write_adapter_files` adds the
            tokenizer and README.md.
        on_log: called after each step in every process, with a line of the log and `total_steps`.

    Raises:
        CurateError: nothing to train on, ids outside the vocabulary, target modules that the model does not have, a
            loss that is not a number.

    Source: Hu et al. 2021, arXiv 2106.09685 (LoRA); Dettmers et al. 2023, arXiv 2305.14314 (on quantised weights).
    """
    refuse_unusable(features, text_config(model).vocab_size)
    started = time.monotonic()
    base_name, base_commit = model.name_or_path, getattr(model.config, "_commit_hash", None)
    accumulation = accumulation_steps(settings)
    arguments = training_arguments(settings, model, seed, accumulation, checkpoint_dir)
    adapted = _with_adapter(model, settings, seed)
    with PartialState().main_process_first():  # it removes incomplete checkpoints before the others look
        checkpoint = last_complete_checkpoint(checkpoint_dir)
    callbacks = [Journal(output_dir, on_log), SealCheckpoints()]
    trainer = Trainer(adapted, arguments, collate, train_dataset=features, callbacks=callbacks)
    trainer.remove_callback(PrinterCallback)  # the caller shows progress by `on_log`
    _run(trainer, checkpoint, output_dir)
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


def _run(trainer: Trainer, checkpoint: Path | None, output_dir: Path) -> None:
    """Train, from the checkpoint if there is one, and save the adapter to `output_dir`."""
    with quiet_library(), _quiet_peft():
        with suppress(AlreadyTrainedError):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        trainer.save_model(str(output_dir))


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Return the model with the adapter in `folder`, in eval mode; the model itself is changed in place."""
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
    """Write the base model with the adapter merged into its weights, in bfloat16, and its tokenizer.

    The base model is loaded again, unquantised and on the CPU (2 bytes of RAM per parameter): merging into quantised
    weights would round them a second time.

    Args:
        adapter_dir: folder of the adapter.
        base_name: hub id or local folder of the base model.
        tokenizer: tokenizer of the base model.
        output_dir: folder for the merged model.
        revision: commit, tag or branch of the base model on the hub.
        trust_remote_code: run Python code that comes with the base model.

    Raises:
        CurateError: the base model cannot be loaded.
    """
    device = torch.device("cpu")
    base = load_model(
        base_name, revision=revision, dtype="bfloat16", trust_remote_code=trust_remote_code, device=device
    )
    with _quiet_peft():  # safe_merge raises if a merged weight is not finite
        merged = PeftModel.from_pretrained(base, str(adapter_dir)).merge_and_unload(safe_merge=True)
    with quiet_library():
        merged.save_pretrained(output_dir)
        tokenizer.save_pretrained(output_dir)
    _share_weights(output_dir, like=output_dir / "config.json")


def _with_adapter(model: PreTrainedModel, settings: Train, seed: int) -> PeftModel:
    """Return the model with a new LoRA adapter; the model is changed in place."""
    model.config.use_cache = False  # a KV cache is of no use in training, and takes memory
    if getattr(model, "is_quantized", False):
        # Gradient checkpointing is left to the Trainer, which follows train.gradient_checkpointing.
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    targets = settings.target_modules
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type=TaskType.CAUSAL_LM,
    )
    set_seed(seed)  # before get_peft_model, which draws the first weights of the adapter
    try:
        with _quiet_peft():
            return get_peft_model(model, config)
    except ValueError as error:
        raise CurateError(f"train.target_modules={targets}: {str(error).splitlines()[0]}") from error


@contextmanager
def _quiet_peft() -> Iterator[None]:
    """Silence two warnings inside a `with` block that a person can do nothing about.

    PEFT 0.21 reads an attribute that transformers 5.23 has deprecated. When it saves, it also asks the hub for the size
    of the base model's vocabulary, to see whether tokens were added. We never add any, and work without the hub.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "Could not find a config file in |Unable to fetch remote file ", UserWarning)
        yield


def _tidy(folder: Path, base_name: str, base_commit: str | None) -> None:
    """Make the folder of the adapter fit to publish: no pickle, no absolute path, the same bytes every time.

    The base model is named by `published_name`; a hub model also by the commit it was loaded from. PEFT's README.md is
    removed, since it names the folder of the base model.
    """
    (folder / "training_args.bin").unlink(missing_ok=True)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": published_name(base_name), "revision": base_commit}
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()  # PEFT keeps them in a set, whose order differs between processes
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    _share_weights(folder, like=path)


def _share_weights(folder: Path, *, like: Path) -> None:
    """Give the weights the permissions of the file `like`; safetensors lets only the user who wrote them read them."""
    for weights in folder.glob("*.safetensors"):
        shutil.copymode(like, weights)
