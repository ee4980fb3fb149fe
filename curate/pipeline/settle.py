"""Settles a job once: which data, which settings without `auto`, and what tokens made with them depend on."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from curate.config import Recipe
from curate.pipeline.loaded import Loaded
from curate.read.examples import input_format
from curate.read.files import Source, open_source, source_sha256
from curate.runs.folder import RunFolder
from curate.runs.keys import Key, read_key
from curate.types import CurateError


@dataclass(frozen=True, slots=True)
class Settled:
    """What a job knows before its first stage; made by the main process and handed to all.

    recipe       the recipe; what a model decides is without `auto` once the model was asked
    source       the input's files
    data_sha256  SHA-256 (hex) of the input's content
    tokens_key   what the tokens depend on, by name: the data, the settings of `token_settings`, the tokenizer
    scores_key   what complexity depends on beside that: the model, its precision, exits; empty if it was not asked
    num_layers   decoder layers of the model; 0 if it was not asked
    vocabulary   rows of the model's embedding; None if it was not asked or does not say
    fit_batches  score.tokens_per_batch is auto, and no earlier call has found a number that fits this device
    """

    recipe: Recipe
    source: Source
    data_sha256: str
    tokens_key: dict[str, Any]
    scores_key: dict[str, Any]
    num_layers: int = 0
    vocabulary: int | None = None
    fit_batches: bool = False


def settle(recipe: Recipe, folder: RunFolder, loaded: Loaded, *, ask_model: bool) -> Settled:
    """Settle every `auto`: as this run settled it before, else from the data, the model and the machine.

    Args:
        recipe: as the person wrote it.
        folder: of the run.
        loaded: models and tokenizers of this job.
        ask_model: consult the scoring model even where the run has tokens already, so that a change of it is seen.

    Raises:
        CurateError: no data or model named, or they cannot be read; data or settings other than those of the tokens
            and scores that are there, by name.
    """
    source = open_source(recipe.data)
    known = known_key(folder)
    recipe = adopt(recipe, known)
    fit_batches = recipe.score.tokens_per_batch == "auto"
    scores_key: dict[str, Any] = {}
    num_layers, vocabulary = 0, None
    if ask_model or not known:
        recipe, scores_key, num_layers, vocabulary = _ask(recipe, source, loaded, known)
    data_sha256 = source_sha256(source)  # after the model, whose absence is found sooner
    tokenizer = scores_key.pop("tokenizer", known.get("tokenizer"))
    tokens_key = {"data": data_sha256, **token_settings(recipe), "tokenizer": tokenizer}
    if known:
        now = {name: value for name, value in {**tokens_key, **scores_key}.items() if name in known}
        folder.require_same("scores", {name: known[name] for name in now}, now)
    return Settled(recipe, source, data_sha256, tokens_key, scores_key, num_layers, vocabulary, fit_batches)


def known_key(folder: RunFolder) -> Key:
    """What this run settled before, by name; empty in a new folder."""
    for stage in ("scores", "tokens"):
        record = folder.stage(stage)
        if record is not None:
            return record["key"]
    return read_key(folder.work / "scores") or read_key(folder.work / "tokens") or {}


def adopt(recipe: Recipe, known: Key) -> Recipe:
    """Put what a run settled before in place of every `auto`; of a new run all stays as it is."""
    data, prompt, model, score = recipe.data, recipe.prompt, recipe.model, recipe.score
    if data.format == "auto" and "data.format" in known:
        data = data.model_copy(update={"format": known["data.format"]})
    if prompt.template == "auto" and "prompt.template" in known:
        prompt = prompt.model_copy(update={"template": known["prompt.template"]})
    if prompt.now is None and known.get("prompt.now"):
        prompt = prompt.model_copy(update={"now": known["prompt.now"]})
    if prompt.max_length is None and "prompt.max_length" in known:
        prompt = prompt.model_copy(update={"max_length": known["prompt.max_length"]})
    if model.dtype == "auto" and "model.dtype" in known:
        model = model.model_copy(update={"dtype": known["model.dtype"]})
    if score.tokens_per_batch == "auto" and "score.tokens_per_batch" in known:
        score = score.model_copy(update={"tokens_per_batch": known["score.tokens_per_batch"]})
    return recipe.model_copy(update={"data": data, "prompt": prompt, "model": model, "score": score})


def token_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings that decide which tokens there are and which of them are scored, by name."""
    data, prompt = recipe.data, recipe.prompt
    return {
        "data.split": data.split,
        "data.format": data.format,
        "data.columns": dict(sorted(data.columns.items())),
        "data.roles": dict(sorted(data.roles.items())),
        "data.numbers": data.numbers,
        "data.delimiter": data.delimiter,
        "data.limit": data.limit,
        "data.on_error": data.on_error,
        "data.max_record_bytes": data.max_record_bytes,
        "prompt.template": prompt.template,
        "prompt.system": prompt.system,
        "prompt.max_length": prompt.max_length,
        "prompt.too_long": prompt.too_long,
        "prompt.now": prompt.now,
        "model.allow_tokens": sorted(recipe.model.allow_tokens),
    }


def save_recipe(folder: Path, recipe: Recipe) -> None:
    """Write the settled recipe, which replays the run, unless it stands there; paths stay as they were written."""
    from curate.config import dump_recipe, load_recipe
    from curate.config.places import restore_paths
    from curate.runs.atomic import write_text

    path = folder / "recipe.yaml"
    if path.is_dir():
        raise CurateError(f"{path} is a folder: expected a file of the run, move it")
    if path.exists():
        with suppress(CurateError):  # somebody has damaged it
            recipe = restore_paths(recipe, load_recipe(path), folder)
    text = dump_recipe(recipe)
    if not path.exists() or path.read_bytes() != text.encode():
        write_text(path, text)


def settle_prompt(recipe: Recipe, source: Source, loaded: Loaded, known: Key) -> Recipe:
    """Settle what the data, the tokenizer and the model's configuration decide: format, template, length, clock.

    Raises:
        CurateError: no model named, or a setting that it does not allow.
    """
    from curate.tokens.lengths import check_max_length, default_max_length, fixed_rotary_length
    from curate.tokens.prompts import resolve_template

    model, prompt = recipe.model, recipe.prompt
    if not model.name:
        raise CurateError("expected model.name, a hub id or a local folder; give it as model.name=...")
    tokenizer, config = loaded.tokenizer(model.name, model.revision), loaded.config(model.name, model.revision)
    data = recipe.data.model_copy(update={"format": input_format(recipe.data, source)})
    template: Any = prompt.template
    if template != known.get("prompt.template"):  # of another model it need not be valid; that is refused by name
        template = resolve_template(template, tokenizer)
    max_length = prompt.max_length or default_max_length(tokenizer, config)
    if max_length != known.get("prompt.max_length"):
        check_max_length(max_length, config, model.name)
        if max_length > (limit := fixed_rotary_length(config)):
            raise CurateError(
                f"prompt.max_length: expected at most {limit} for {model.name}, got {max_length}: beyond that its "
                "rotary embedding changes with the longest record of a batch, and scores would depend on the batch"
            )
    now = prompt.now
    if now is None and template == "chat" and "prompt.now" not in known:
        # Else resuming, training and replaying on another day would read other text than was scored. A template may
        # read the clock for some records only, and the model that is trained, with its own, may be named later.
        now = datetime.now().isoformat(timespec="seconds")
    prompt = prompt.model_copy(update={"template": template, "max_length": max_length, "now": now})
    return recipe.model_copy(update={"data": data, "prompt": prompt})


def _ask(recipe: Recipe, source: Source, loaded: Loaded, known: Key) -> tuple[Recipe, dict[str, Any], int, int | None]:
    """Ask data, model and machine: the recipe without `auto`, what scores depend on, layers, rows of the embedding.

    The weights are looked at, not loaded: what is wrong with them shows before a million records are tokenised.
    """
    from curate.models.device import resolve_dtype
    from curate.scoring.batches import auto_tokens_per_batch
    from curate.scoring.exits import exit_layers

    recipe = settle_prompt(recipe, source, loaded, known)
    facts = loaded.weight_facts(recipe.model.name, recipe.model.revision)
    model, score, device = recipe.model, recipe.score, loaded.device()
    if score.tokens_per_batch == "auto":
        score = score.model_copy(update={"tokens_per_batch": auto_tokens_per_batch(device_type=device.type)})
    dtype = str(resolve_dtype(model.dtype, device)).removeprefix("torch.")
    num_layers = loaded.config(model.name, model.revision).get_text_config().num_hidden_layers
    weights, tokenizer = loaded.fingerprints(model.name, model.revision)
    key = {
        "tokenizer": tokenizer,
        "model": weights,
        "model.dtype": dtype,
        "model.quantization": model.quantization,
        "model.attention": model.attention,
        "score.exits": list(exit_layers(score.exits, num_layers)),
        "score.tokens_per_batch": score.tokens_per_batch,
    }
    settled = {"model": model.model_copy(update={"dtype": dtype}), "score": score}
    return recipe.model_copy(update=settled), key, num_layers, facts.embedding_rows
