"""Every `auto` of a recipe, resolved once and then kept; and what tokens and scores depend on."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from dataclasses import dataclass, replace
from typing import Any

from curate.config import Recipe
from curate.models.fingerprint import tokenizer_fingerprint, weight_fingerprint
from curate.models.load import load_config, load_tokenizer, resolve_device, resolve_dtype
from curate.pipeline.keys import settings, settle, settled
from curate.read.examples import input_format
from curate.read.files import Source, source_sha256
from curate.run.folder import Key, RunFolder
from curate.scoring.batches import auto_tokens_per_batch
from curate.scoring.exits import exit_layers
from curate.tokens.prompts import resolve_template
from curate.tokens.tokenize import default_max_length, fixed_rotary_length
from curate.types import CurateError

_VERSIONS = (
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "datasets",
    "faiss-cpu",
    "sentence-transformers",
    "numpy",
    "pyarrow",
)


@dataclass(frozen=True, slots=True)
class Resolved:
    """A recipe without an `auto`, and what tokens and scores made with it depend on."""

    recipe: Recipe
    tokenizer: Any
    num_layers: int
    tokens_key: Key
    scores_key: Key


def resolve(recipe: Recipe, folder: RunFolder, source: Source) -> Resolved:
    """Settle every `auto`: as this run settled it before, else from the data, the model and the machine.

    Raises:
        CurateError: no data or model named, or they cannot be read.
    """
    if not recipe.model.name:
        raise CurateError("expected model.name, a hub id or a local folder; give it as model.name=...")
    before = settled(folder)
    recipe = settle(recipe, before)
    model, prompt = recipe.model, recipe.prompt
    tokenizer = load_tokenizer(model.name, revision=model.revision, trust_remote_code=model.trust_remote_code)
    config = load_config(model.name, revision=model.revision, trust_remote_code=model.trust_remote_code)
    text_config = config.get_text_config()
    device = resolve_device()

    template: Any = prompt.template
    if template != before.get("prompt.template"):  # of another model it need not be valid; that is refused by name
        template = resolve_template(template, tokenizer)
    max_length = prompt.max_length or default_max_length(tokenizer, config)
    if max_length > (limit := fixed_rotary_length(config)) and max_length != before.get("prompt.max_length"):
        raise CurateError(
            f"prompt.max_length: expected at most {limit} for {model.name}, got {max_length}: beyond that its rotary "
            "embedding changes with the longest record of a batch, and scores would depend on the batch"
        )
    dtype: Any = str(resolve_dtype(model.dtype, device)).removeprefix("torch.")
    budget = recipe.score.tokens_per_batch
    if budget == "auto":
        budget = before.get("score.tokens_per_batch") or auto_tokens_per_batch(device_type=device.type)
    recipe = recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update={"format": input_format(recipe.data, source)}),
            "prompt": prompt.model_copy(update={"template": template, "max_length": max_length}),
            "model": model.model_copy(update={"dtype": dtype}),
            "score": recipe.score.model_copy(update={"tokens_per_batch": budget}),
        }
    )
    tokens_key = {
        "data": source_sha256(source),
        **settings(recipe),
        "tokenizer": tokenizer_fingerprint(model.name, revision=model.revision),
    }
    scores_key = {
        **tokens_key,
        "model": weight_fingerprint(model.name, revision=model.revision),
        "model.dtype": dtype,
        "model.quantization": model.quantization,
        "model.attention": model.attention,
        "score.exits": list(exit_layers(recipe.score.exits, text_config.num_hidden_layers)),
        "score.tokens_per_batch": budget,
    }
    return Resolved(recipe, tokenizer, text_config.num_hidden_layers, tokens_key, scores_key)


def with_tokens_per_batch(resolved: Resolved, budget: int) -> Resolved:
    """The same with another number of tokens in a batch."""
    score = resolved.recipe.score.model_copy(update={"tokens_per_batch": budget})
    return replace(
        resolved,
        recipe=resolved.recipe.model_copy(update={"score": score}),
        scores_key={**resolved.scores_key, "score.tokens_per_batch": budget},
    )


def surroundings(recipe: Recipe) -> dict[str, Any]:
    """Versions, seed, device and git commit, for the manifest."""
    device = resolve_device()
    versions = {name: _version(name) for name in ("lc-curate", *_VERSIONS)}
    return {
        "versions": {"python": platform.python_version(), **versions},
        "git_commit": _git_commit(),
        "model": {"name": recipe.model.name, "revision": recipe.model.revision},
        "seed": recipe.run.seed,
        "device": device.type if device.type == "cpu" else f"{device.type}: {_device_name(device)}",
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the working directory's repository, if it is one."""
    try:
        answer = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False)  # noqa: S607
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def _device_name(device: Any) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
