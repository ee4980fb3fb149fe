"""From a selection to its LoRA adapter, on exactly the examples and the mask that scoring used."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from curate.models.fingerprint import tokenizer_fingerprint, weight_fingerprint
from curate.models.load import load_config, load_model, load_tokenizer
from curate.pipeline.keys import read_key, refuse_other_data, settle, settled
from curate.pipeline.selection import selection_stage
from curate.read.examples import read_examples
from curate.read.files import open_source, source_sha256
from curate.run.atomic import replacing, write_json
from curate.run.folder import Key
from curate.run.job import Job, log_finished, log_stage
from curate.run.processes import lost_process
from curate.tables.selection import read_kept
from curate.tokens.prompts import resolve_template
from curate.tokens.tokenize import own_max_length, tokenize, training_labels
from curate.training.lora import Feature, merge_adapter, train_adapter
from curate.types import CurateError, Tokens

# What safetensors and torch.save say when a file cannot be written (the latter not why).
_FULL = {
    "os error 28)": errno.ENOSPC,
    "os error 122)": errno.EDQUOT,
    "os error 27)": errno.EFBIG,
    "inline_container": errno.ENOSPC,
    "file write failed": errno.ENOSPC,
}


def adapter_stage(name: str) -> str:
    """The manifest's name for the adapter of a selection."""
    return f"{selection_stage(name)}/adapter"


def check_trainable(job: Job) -> None:
    """See that train.model, where it is another than the scoring model, is there and knows the scoring template.

    Raises:
        CurateError: it is not, or does not.
    """
    model = job.recipe.model
    if job.recipe.train.model and model.name:
        scoring = load_tokenizer(model.name, revision=model.revision, trust_remote_code=model.trust_remote_code)
        resolve_template(resolve_template(job.recipe.prompt.template, scoring), _tokenizer(job))
        load_config(_model_name(job), revision=_revision(job), trust_remote_code=model.trust_remote_code)


def train(job: Job) -> None:
    """Bring the run to where selections/NAME/adapter is finished, from the last checkpoint if there is one.

    Raises:
        CurateError: no selection yet; nothing to train on; the loss is not finite.
    """
    started = time.monotonic()
    name = job.recipe.select.name
    prepared = job.lead(adapter_stage(name), lambda: _prepare(job))
    if prepared["done"]:
        return
    work = _work(job)
    settings, model_settings = job.recipe.train, job.recipe.model
    with job.heartbeat.kept_up(), _faults_by_their_kind(job, work):
        model = load_model(
            _model_name(job),
            revision=_revision(job),
            dtype=model_settings.dtype,
            quantization=settings.quantization,
            attention=model_settings.attention,
            trust_remote_code=model_settings.trust_remote_code,
        )
        result = train_adapter(
            _read_features(work / "features.npz"),
            model,
            settings=settings,
            seed=job.recipe.run.seed,
            checkpoint_dir=work / "checkpoints",
            output_dir=work / "adapter",
            on_log=lambda entry: job.advance("training", int(entry["step"]), int(entry["total_steps"]), "steps"),
        )
    if not job.processes.is_main:
        return
    job.folder.forget(adapter_stage(name))
    if settings.merge:
        with replacing(job.folder.selection(name) / "merged") as temporary:
            merge_adapter(
                work / "adapter",
                _model_name(job),
                _tokenizer(job),
                output_dir=temporary,
                revision=_revision(job),
                trust_remote_code=model_settings.trust_remote_code,
            )
    with replacing(job.folder.selection(name) / "adapter") as temporary:
        shutil.copytree(work / "adapter", temporary)
    facts = {
        "in": prepared["records"],
        "out": prepared["examples"],
        "dropped": prepared["dropped"],
        "steps": result.steps,
        "records_per_step": result.effective_batch_size,
        "trainable_parameters": result.trainable_parameters,
        "first_loss": result.first_loss,
        "last_loss": result.loss,
        "seconds": round(time.monotonic() - started, 3),
    }
    job.folder.record(adapter_stage(name), prepared["key"], **facts)
    log_stage(adapter_stage(name), facts, f"{result.steps} steps, loss by step in adapter/train_log.jsonl")
    shutil.rmtree(work)


@contextmanager
def _faults_by_their_kind(job: Job, folder: Path) -> Iterator[None]:
    """The libraries that train tell of a full disk, and of a process that is gone, in words only."""
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        number = next((number for words, number in _FULL.items() if words in str(error)), None)
        if number is not None:
            raise OSError(number, os.strerror(number), str(folder)) from error
        if job.processes.count > 1 and lost_process(error):
            raise TimeoutError(
                "another process ended while training, or gave no sign of life for "
                f"{job.recipe.run.hang_timeout:.0f} s; every process ends. "
                "The same command continues with the last checkpoint; run.hang_timeout sets the wait."
            ) from error
        raise


def _prepare(job: Job) -> dict[str, Any]:
    folder, name = job.folder, job.recipe.select.name
    stage = folder.stage(selection_stage(name))
    if stage is None:
        raise CurateError(f"{folder.path} holds no selection {name!r} yet: run curate select (or curate run)")
    refuse_other_data(folder, job.recipe, source_sha256(open_source(job.recipe.data)))
    job = replace(job, recipe=settle(job.recipe, settled(folder)))  # the examples and the mask that scoring used
    key = _key(job, stage)
    if folder.is_done(adapter_stage(name), key) and (folder.selection(name) / "adapter").exists():
        log_finished(adapter_stage(name))
        return {"done": True}
    work = _work(job)
    if work.exists() and read_key(work) != key:
        shutil.rmtree(work)  # of another selection or other settings
    shutil.rmtree(work / "adapter", ignore_errors=True)  # a killed call may have left a half-written file in it
    if not work.exists():
        with replacing(work) as temporary:
            temporary.mkdir()
            dropped = _write_features(job, temporary / "features.npz")
            write_json(temporary / "dropped.json", dropped)
            write_json(temporary / "key.json", key)
    dropped = json.loads((work / "dropped.json").read_text(encoding="utf-8"))
    examples = stage["out"] - sum(dropped.values())
    return {"done": False, "key": key, "records": stage["out"], "examples": examples, "dropped": dropped}


def _key(job: Job, selection: dict[str, Any]) -> Key:
    settings = job.recipe.train.model_dump(mode="json", exclude={"report_to", "model", "revision"})
    return {
        "selection": selection["fingerprint"],
        "seed": job.recipe.run.seed,
        "model.dtype": job.recipe.model.dtype,
        "train.model": weight_fingerprint(_model_name(job), revision=_revision(job)),
        "train.tokenizer": tokenizer_fingerprint(_model_name(job), revision=_revision(job)),
        **{f"train.{name}": value for name, value in settings.items()},
    }


def _write_features(job: Job, path: Path) -> dict[str, int]:
    """Store input ids and labels of the kept records, in input order, in the tokens of the model to train.

    Returns how many records that model cannot be trained on, by status.
    """
    end, limit = _tokenizer(job).eos_token_id, _length_limit(job)
    features: list[Feature] = []
    dropped: Counter[str] = Counter()
    for record in _kept_tokens(job):
        if record.status == "scored":
            ids, labels = (np.array(part)[:limit] for part in training_labels(record, end))  # the end token is extra
            features.append((ids, labels))
        else:
            dropped[record.status] += 1
        job.advance("training examples", len(features), None, "records")
    if not features:
        raise CurateError(f"{_model_name(job)} can be trained on none of the kept records ({dict(dropped)})")
    np.savez(
        path,
        lengths=np.array([len(ids) for ids, _ in features]),
        ids=np.concatenate([ids for ids, _ in features]),
        labels=np.concatenate([labels for _, labels in features]),
    )
    return dict(dropped)


def _kept_tokens(job: Job) -> Iterator[Tokens]:
    recipe, tokenizer = job.recipe, _tokenizer(job)
    kept = read_kept(job.folder.selection(recipe.select.name) / "selection.parquet")
    assert recipe.prompt.max_length is not None, "settled when the records were scored"
    examples = read_examples(recipe.data, open_source(recipe.data))
    return tokenize(
        (replace(example, row=i) for i, example in enumerate(compress(examples, kept))),
        tokenizer,
        template=resolve_template(recipe.prompt.template, tokenizer),
        system=recipe.prompt.system,
        max_length=min(recipe.prompt.max_length, _length_limit(job)),
        too_long=recipe.prompt.too_long,
        allow_tokens=recipe.model.allow_tokens,
    )


def _length_limit(job: Job) -> int:
    """Tokens that the model to train can take."""
    trust = job.recipe.model.trust_remote_code
    config = load_config(_model_name(job), revision=_revision(job), trust_remote_code=trust)
    return int(min(own_max_length(_tokenizer(job), config), 1 << 31))


def _read_features(path: Path) -> list[Feature]:
    with np.load(path, allow_pickle=False) as arrays:
        cuts = np.cumsum(arrays["lengths"])[:-1]
        return list(zip(np.split(arrays["ids"], cuts), np.split(arrays["labels"], cuts), strict=True))


def _work(job: Job) -> Path:
    return job.folder.work / f"train-{job.recipe.select.name}"


def _model_name(job: Job) -> str:
    return job.recipe.train.model or job.recipe.model.name


def _revision(job: Job) -> str | None:
    return job.recipe.train.revision if job.recipe.train.model else job.recipe.model.revision


def _tokenizer(job: Job) -> Any:
    trust = job.recipe.model.trust_remote_code
    return load_tokenizer(_model_name(job), revision=_revision(job), trust_remote_code=trust)
