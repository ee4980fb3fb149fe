"""The training stage: a selection to its LoRA adapter, on exactly the examples and the mask that scoring used."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from curate.config import Recipe
from curate.models.load import load_model
from curate.pipeline.features import base_key, read_dropped, read_features, trained_model, write_features
from curate.pipeline.job import Job
from curate.pipeline.library_errors import training
from curate.pipeline.merged import finish_folder, merge
from curate.pipeline.selection import selection_stage
from curate.pipeline.verified import verified_file, verified_kept
from curate.publish.adapter import write_adapter_files
from curate.runs.atomic import disk_full_as_oserror, replacing
from curate.runs.digests import digest_of_blocks
from curate.runs.keys import Key, read_key, write_key
from curate.runs.manifest import StageRecord
from curate.runs.stage import Outcome, Stage
from curate.tokens.prompts import resolve_template
from curate.training.lora import TrainResult, train_adapter
from curate.types import CurateError

WEIGHTS = "adapter_model.safetensors"
"""The name of the file that holds the weights of an adapter."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the main process finds out before training.

    done      whether the adapter was finished before
    key       what it depends on, by name
    records   how many records the selection keeps
    dropped   how many of them cannot be trained on, by status
    """

    done: bool
    key: dict[str, Any] = field(default_factory=dict)
    records: int = 0
    dropped: dict[str, int] = field(default_factory=dict)


def adapter_stage(name: str) -> str:
    """Return the name of the stage that trains the adapter of a selection, in the manifest."""
    return f"{selection_stage(name)}/adapter"


def verified_adapter(job: Job) -> Path:
    """Return the folder of the adapter of select.name, after checking that its weights are those that were trained.

    Raises:
        CurateError: they are others, or cannot be read.
    """
    name = job.recipe.select.name
    folder = job.folder.selection(name) / "adapter"
    verified_file(job.folder, adapter_stage(name), folder / WEIGHTS, "train")
    return folder


def check_trainable(job: Job) -> None:
    """Check that train.model can be read and has the chat template that is scored with, if it is another model.

    Raises:
        CurateError: it cannot be read, or lacks the template.
    """
    model = trained_model(job.recipe)
    if not model.is_scoring_model and job.recipe.model.name:
        resolve_template(job.recipe.prompt.template, job.loaded.tokenizer(model.name, model.revision))
        job.loaded.weight_facts(model.name, model.revision, attention=job.recipe.model.attention)


def train(job: Job) -> None:
    """Train selections/NAME/adapter, if it is not finished. Training continues from the last checkpoint.

    Raises:
        CurateError: there is no selection yet; there is nothing to train on; the loss is not finite.
    """
    name, started = adapter_stage(job.recipe.select.name), time.monotonic()
    prepared = job.launch.from_main(name, lambda: _prepare(job), Prepared)
    if not prepared.done:
        result = _train(job)
        if job.is_main:
            _publish(job, prepared, result, started)
    if job.is_main:
        merge(job, job.folder.stage(name))


def _train(job: Job) -> TrainResult:
    """Load the model and train an adapter on the stored examples, in work/."""
    work, settings, model = _work(job), job.recipe.train, trained_model(job.recipe)
    with training(job, work):
        loaded = load_model(
            model.name,
            revision=model.revision,
            dtype=job.recipe.model.dtype,
            quantization=settings.quantization,
            attention=job.recipe.model.attention,
            trust_remote_code=job.recipe.model.trust_remote_code,
        )
        return train_adapter(
            read_features(work / "features.npz"),
            loaded,
            settings=settings,
            seed=training_seed(job.recipe),
            checkpoint_dir=work / "checkpoints",
            output_dir=work / "adapter",
            on_log=lambda entry: job.launch.advance("training", int(entry["step"]), int(entry["total_steps"]), "steps"),
        )


def _publish(job: Job, prepared: Prepared, result: TrainResult, started: float) -> None:
    """Copy the adapter into the selection, with tokenizer and model card, and remove the checkpoints."""
    folder, work = job.folder.selection(job.recipe.select.name), _work(job)
    stage = _stage(job, prepared.key, started)
    with stage.replacing(folder / "adapter") as temporary, disk_full_as_oserror(folder):
        shutil.copytree(work / "adapter", temporary)
        model, prompt = trained_model(job.recipe), job.recipe.prompt
        tokenizer = job.loaded.tokenizer(model.name, model.revision)
        assert prompt.template != "auto", "settled before anything was tokenised"
        write_adapter_files(
            temporary,
            tokenizer,
            base=model.name,
            template=prompt.template,
            settings=job.recipe.train,
            system=prompt.system,
        )
        files = finish_folder(folder / "adapter", temporary, job.folder.stage(stage.name))
    details = {
        "steps": result.steps,
        "records_per_step": result.effective_batch_size,
        "trainable_parameters": result.trainable_parameters,
        "first_loss": result.first_loss,
        "last_loss": result.loss,
        "files": files,
        "digests": {WEIGHTS: digest_of_blocks(folder / "adapter" / WEIGHTS)},
    }
    rows_out = prepared.records - sum(prepared.dropped.values())
    note = f"{result.steps} steps, loss by step in adapter/train_log.jsonl"
    stage.finish(Outcome(prepared.records, rows_out, prepared.dropped, details, note))
    shutil.rmtree(work)


def _stage(job: Job, key: Key, started: float) -> Stage:
    adapter = job.folder.selection(job.recipe.select.name) / "adapter"
    products = (adapter / WEIGHTS, adapter / "adapter_config.json")
    return Stage(job.folder, adapter_stage(job.recipe.select.name), key, products, started)


def _prepare(job: Job) -> Prepared:
    """Make the training examples, or find those of an earlier call with the same key and its checkpoints."""
    name = job.recipe.select.name
    selection = job.folder.stage(selection_stage(name))
    if selection is None:
        raise CurateError(f"{job.folder.path} holds no selection {name!r} yet: run curate select (or curate run)")
    with job.launch.heartbeat.kept_up():
        key = _key(job, selection)
    if _stage(job, key, 0).is_finished():  # 0: only `finish` asks when it began
        verified_adapter(job)
        return Prepared(True)
    work = _work(job)
    if work.exists() and read_key(work) != key:
        shutil.rmtree(work)  # checkpoints of another selection or of other settings
    shutil.rmtree(work / "adapter", ignore_errors=True)  # a killed call may have left a half-written file in it
    if not work.exists():
        # One folder with key and examples, replaced as a whole: examples without their key cannot be left over.
        with replacing(work) as temporary:
            temporary.mkdir()
            kept = verified_kept(job.folder, name)
            write_features(job, np.flatnonzero(kept), temporary / "features.npz")
            write_key(temporary, key, with_files=True)
    return Prepared(False, dict(key), selection["out"], read_dropped(work / "features.npz"))


def _key(job: Job, selection: StageRecord) -> Key:
    """Return what an adapter depends on: the selection, the model, and the settings that change its weights.

    Raises:
        CurateError: the scoring model is to be trained, and is not the one any more that was scored with.
    """
    # Of the model its fingerprint and not its name, which may be a path: the same weights elsewhere are the same.
    settings = job.recipe.train.model_dump(mode="json", exclude={"report_to", "model", "revision", "merge", "seed"})
    return {
        "selection": selection["fingerprint"],
        "seed": training_seed(job.recipe),
        **base_key(job),
        **{f"train.{name}": value for name, value in settings.items()},
    }


def training_seed(recipe: Recipe) -> int:
    """Return the seed of the adapter's initial weights, of the order of records and of dropout."""
    return recipe.run.seed if recipe.train.seed is None else recipe.train.seed


def _work(job: Job) -> Path:
    return job.folder.work / f"train-{job.recipe.select.name}"
