"""Settles a job: replaces every `auto` of a recipe, once, and says what the tokens and scores then depend on."""

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
from curate.runs.folder import COMPARISON_RECIPE, RECIPE, RunFolder
from curate.runs.keys import Key, read_key
from curate.types import CurateError


@dataclass(frozen=True, slots=True)
class Settled:
    """What a job knows before its first stage; made by the main process, the same in every process.

    "Asked" means that the model's configuration and weight headers were read: always by run, score and compare, and by
    other verbs only where the run has no tokens yet.

    recipe       the recipe; if the model was asked, without any `auto` that the model decides
    source       the input's files
    data_sha256  SHA-256 (hex) of the input's content
    tokens_key   what the tokens depend on, by name: the data, the settings of `token_settings`, the tokenizer
    scores_key   what complexity depends on beside that: model, precision, exits, batches; empty if not asked
    num_layers   decoder layers of the model; 0 if not asked
    vocabulary   rows of the model's embedding; None if not asked, or if the weights do not say
    fit_batches  whether score.tokens_per_batch is auto and no earlier call has found a number that fits this device
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
    """Return the recipe without `auto`, and what tokens and scores made with it depend on.

    An `auto` becomes what this run made of it before; in a new run the data, the model and the machine decide.

    Args:
        recipe: as the person wrote it.
        folder: the run folder.
        loaded: models and tokenizers of this job.
        ask_model: whether to read the scoring model's configuration and headers even if the run has tokens already;
            a changed model is then noticed.

    Raises:
        CurateError: no data or model is named, or they cannot be read; data or settings differ from those of the
            tokens and scores of this run (it says which).
    """
    source = open_source(recipe.data)
    known = known_key(folder)
    recipe = adopt(recipe, known)
    fit_batches = recipe.score.tokens_per_batch == "auto"
    scores_key: dict[str, Any] = {}
    num_layers, vocabulary = 0, None
    if ask_model or not known:
        recipe, scores_key, num_layers, vocabulary = _ask(recipe, source, loaded, known)
    data_sha256 = source_sha256(source)  # last, since it reads all data: a missing model is reported at once
    tokenizer = scores_key.pop("tokenizer", known.get("tokenizer"))
    tokens_key = {"data": data_sha256, **token_settings(recipe), "tokenizer": tokenizer}
    if known:
        # Names that the run has not settled yet (scores_key before the first score) cannot have changed.
        now = {name: value for name, value in {**tokens_key, **scores_key}.items() if name in known}
        folder.require_same("scores", {name: known[name] for name in now}, now)
    return Settled(recipe, source, data_sha256, tokens_key, scores_key, num_layers, vocabulary, fit_batches)


def known_key(folder: RunFolder) -> Key:
    """Return the key with which this run settled its tokens or scores before; empty in a new folder."""
    # Scores first: their key holds that of the tokens and more. The keys in work/ are those of unfinished stages.
    for stage in ("scores", "tokens"):
        record = folder.stage(stage)
        if record is not None:
            return record["key"]
    return read_key(folder.work / "scores") or read_key(folder.work / "tokens") or {}


def adopt(recipe: Recipe, known: Key) -> Recipe:
    """Return the recipe with every `auto` replaced by what the run settled before, as far as `known` says.

    >>> adopt(Recipe(), {"model.dtype": "bfloat16"}).model.dtype
    'bfloat16'
    """
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
    """Return the settings that decide which tokens there are and which of them are scored, by name."""
    data, prompt = recipe.data, recipe.prompt
    return {
        "data.split": data.split,
        "data.format": data.format,
        "data.columns": dict(sorted(data.columns.items())),  # the order in which a person wrote them does not count
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


def save_recipe(folder: Path, recipe: Recipe, verb: str) -> None:
    """Write recipe.yaml into a run folder, if it changed: the settled recipe, with which the run can be repeated.

    A comparison writes comparison.yaml instead, and recipe.yaml only if there is none: what it holds out would change
    the selection, and so the adapter, when the run is repeated. A path that an earlier call wrote, and that still leads
    to the same place, stays as it was written.

    Raises:
        CurateError: a folder has the name of that file.
    """
    if verb == "compare":
        _save_recipe(folder, recipe, COMPARISON_RECIPE)
    if verb != "compare" or not (folder / RECIPE).exists():
        _save_recipe(folder, recipe, RECIPE)


def _save_recipe(folder: Path, recipe: Recipe, name: str) -> None:
    from curate.config import dump_recipe, load_recipe
    from curate.config.places import restore_paths
    from curate.runs.atomic import write_text

    path = folder / name
    if path.is_dir():
        raise CurateError(f"{path} is a folder: expected a file of the run, move it")
    if path.exists():
        with suppress(CurateError):  # a damaged one is written again
            recipe = restore_paths(recipe, load_recipe(path), folder)
    text = dump_recipe(recipe)
    if not path.exists() or path.read_bytes() != text.encode():
        write_text(path, text)


def settle_prompt(recipe: Recipe, source: Source, loaded: Loaded, known: Key) -> Recipe:
    """Return the recipe with what the data, the tokenizer and the configuration decide: format, template, length, date.

    No weights are read.

    Args:
        recipe: after `adopt`.
        source: the input's files.
        loaded: models and tokenizers of this job.
        known: what the run settled before, by name.

    Raises:
        CurateError: no model is named, or the model does not allow a setting.
    """
    from curate.tokens.lengths import check_max_length, default_max_length, fixed_rotary_length
    from curate.tokens.prompts import resolve_template

    model, prompt = recipe.model, recipe.prompt
    if not model.name:
        raise CurateError("expected model.name, a hub id or a local folder; give it as model.name=...")
    tokenizer, config = loaded.tokenizer(model.name, model.revision), loaded.config(model.name, model.revision)
    data = recipe.data.model_copy(update={"format": input_format(recipe.data, source)})
    template: Any = prompt.template
    # What the run has used already is not checked again. If the model was changed, it may not be valid any more, and
    # `settle` then says that the model changed, which is the better message.
    if template != known.get("prompt.template"):
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
        # Some templates write the date. Without a fixed one, a run that continues on another day, or trains later,
        # would use other text than was scored. It is fixed for every chat template, because a template may write the
        # date for some records only, and train.model, with a template of its own, may be named later.
        now = datetime.now().isoformat(timespec="seconds")
    prompt = prompt.model_copy(update={"template": template, "max_length": max_length, "now": now})
    return recipe.model_copy(update={"data": data, "prompt": prompt})


def _ask(recipe: Recipe, source: Source, loaded: Loaded, known: Key) -> tuple[Recipe, dict[str, Any], int, int | None]:
    """Return the recipe without `auto`, the scores' key, the number of layers, and the rows of the embedding.

    The headers of the weight files are read, and so wrong weights are refused before a million records are tokenised.
    """
    from curate.models.device import resolve_dtype
    from curate.scoring.batches import auto_tokens_per_batch
    from curate.scoring.exits import exit_layers

    recipe = settle_prompt(recipe, source, loaded, known)
    facts = loaded.weight_facts(recipe.model.name, recipe.model.revision, attention=recipe.model.attention)
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
