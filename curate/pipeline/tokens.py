"""Makes work/tokens from the records: the first pass over the input. Scores, embeddings and adapters start from it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import numpy as np

from curate.config import Data, Model, Prompt, Recipe
from curate.diversity.texts import Texts, open_texts, recording
from curate.pipeline.job import Job
from curate.pipeline.loaded import Loaded
from curate.read.examples import expected_count, read_examples
from curate.read.files import Source
from curate.runs.atomic import disk_full_as_oserror, replacing
from curate.runs.keys import Key, fingerprint, read_key, write_key
from curate.runs.stage import Outcome, Stage
from curate.tables.digests import digest_of_ids, digest_of_values
from curate.tokens.lengths import length_limit, own_max_length
from curate.tokens.prepare import NEEDS_CHAT
from curate.tokens.remarks import Remark, count_remarks
from curate.tokens.saved import save_tokenizer
from curate.tokens.store import open_tokens, write_tokens
from curate.tokens.tokenize import ONLY_PROMPT, tokenize
from curate.types import STATUSES, CurateError, Example, Tokens, TokenStore

logger = logging.getLogger(__name__)

_LEAST_SCORED = 0.02  # of an input of which less can be scored, the format or the template is almost surely wrong
TOKENIZER = "tokenizer"
"""The folder in work/tokens with a copy of the tokenizer that made the tokens."""


def tokens(job: Job) -> TokenStore:
    """Return the tokens of every record; the main process makes them if they are missing, and the others wait."""
    job.launch.from_main("tokens", lambda: len(make_tokens(job)), int)
    return open_tokens(job.folder.work / "tokens")


def make_tokens(job: Job) -> TokenStore:
    """Return the tokens of every record; they are made if they are missing. Called by the main process.

    The texts to embed are written in the same pass, so that `embed` need not read the input again.

    Raises:
        CurateError: a record cannot be read (data.on_error=fail); `tokenize` refuses the template or the tokenizer;
            almost no record can be scored.
    """
    folder, key = job.folder.work / "tokens", job.settled.tokens_key
    stage = Stage(job.folder, "tokens", key, (folder,))
    record = job.folder.stage("tokens")
    if record is not None and read_key(folder) == key:
        store = open_tokens(folder)
        told = {text: Remark(**remark) for text, remark in record.get("remarks", {}).items()}
        _refuse_nothing_to_score(store, told, job.recipe.prompt.template)
        return store
    recipe, remarks = job.recipe, dict[str, Remark]()
    named, texts = (recipe.model.name, recipe.model.revision), job.folder.work / "texts"
    with replacing(texts) as texts_part, replacing(folder) as part:
        examples = recording(read_examples(recipe.data, job.settled.source), texts_part, recipe.embed.text)
        tokenized = tokenize_as_settled(
            recipe, job.loaded, examples, recipe.model, vocabulary_rows=job.settled.vocabulary
        )
        expected = expected_count(recipe.data, job.settled.source) or 0
        for count in write_tokens(count_remarks(tokenized, remarks), part):
            job.launch.advance("tokens", count, expected if count <= expected else None, "records")
        # Kept beside the tokens, because `select` writes files for trainers from both without loading transformers.
        tokenizer, config = job.loaded.tokenizer(*named), job.loaded.config(*named)
        with disk_full_as_oserror(part):
            save_tokenizer(tokenizer, part / TOKENIZER, length_limit=length_limit(tokenizer, config))
        write_key(part, key, with_files=True)
        write_key(texts_part, _texts_key(job), with_files=True)
    store = open_tokens(folder)
    stage.finish(_outcome(store, remarks, job.settled.source))
    for skipped in job.settled.source.skipped:
        logger.info("  not read: %s (%s)", skipped.name, skipped.why)
    for text, remark in remarks.items():
        # That a record is not scored is counted in the closing line. A note on a scored one may change what is learnt.
        level = logging.WARNING if remark.status == "scored" else logging.INFO
        logger.log(level, "  %d %s: %s (first: row %d)", remark.count, remark.status, text, remark.row)
    warn_unused_split(recipe.data, job.settled.source)
    _refuse_nothing_to_score(store, remarks, recipe.prompt.template)
    if hits := int(np.count_nonzero(store.rows["control_hits"])):
        logger.warning("%d records contain control tokens; they are read as ordinary text (model.allow_tokens)", hits)
    return store


def warn_unused_split(data: Data, source: Source) -> None:
    """Warn of a split where the input is local and has none: all of it is read."""
    saved_splits = (Path(data.path) / "dataset_dict.json").is_file()  # as save_to_disk writes them
    if data.split != Data().split and source.kind != "hub" and not saved_splits:
        logger.warning("split=%s is not used: all of %s is read", data.split, data.path)


def tokenize_as_settled(
    recipe: Recipe,
    loaded: Loaded,
    examples: Iterable[Example],
    model: Model,
    *,
    vocabulary_rows: int | None = None,
) -> Iterator[Tokens]:
    """Yield the tokens of examples with the prompt settings of a settled recipe and the tokenizer of `model`.

    `model` need not be the scoring model. If the run uses a chat template and this tokenizer has none, `auto` decides
    anew. Records are no longer than this model can take. Date and time in a template are those of the run.

    Args:
        recipe: settled.
        loaded: models and tokenizers of the job.
        examples: what to tokenise.
        model: whose tokenizer is used.
        vocabulary_rows: rows of the model's embedding, if known; a token beyond them is refused.
    """
    prompt, tokenizer = recipe.prompt, loaded.tokenizer(model.name, model.revision)
    limit = own_max_length(tokenizer, loaded.config(model.name, model.revision))
    assert prompt.max_length is not None, "settled when the job began"
    return tokenize(
        examples,
        tokenizer,
        template="auto" if prompt.template == "chat" and not tokenizer.chat_template else prompt.template,
        system=prompt.system,
        max_length=int(min(prompt.max_length, limit)),
        too_long=prompt.too_long,
        allow_tokens=recipe.model.allow_tokens,
        now=settled_now(prompt),
        vocabulary_rows=vocabulary_rows,
    )


def settled_now(prompt: Prompt) -> datetime | None:
    """Return the date and time that chat templates are told in this run; None where none was settled."""
    return datetime.fromisoformat(prompt.now) if prompt.now else None


def _refuse_nothing_to_score(store: TokenStore, remarks: Mapping[str, Remark], template: str) -> None:
    """Refuse an input of which at most 2 % of the records can be scored: the settings must be wrong for it.

    Raises:
        CurateError: it names the most frequent reason.
    """
    scored = int(np.count_nonzero(store.rows["status"] == STATUSES.index("scored")))
    if scored > _LEAST_SCORED * len(store):
        return
    reasons = [(remark.count, text, remark.status) for text, remark in remarks.items() if remark.status != "scored"]
    _, text, status = max(reasons, default=(0, "", ""))
    why = f": {text}" if text else ""
    raise CurateError(
        f"{scored} of {len(store)} records can be scored{why}.\n"
        f"Look at them with curate preview; {_way_on(status, text, template)}"
    )


def _way_on(status: str, reason: str, template: str) -> str:
    """Say what helps where records have this status for this reason."""
    if status == "too_long" or reason.startswith(ONLY_PROMPT):
        trim = ", or cut responses with prompt.too_long=trim" if status == "too_long" else ""
        return f"raise prompt.max_length where the model allows it{trim}"
    if reason == NEEDS_CHAT:
        return "score them with a model that has a chat template for tools, or leave such records out"
    if status == "unscorable" and template == "chat":
        return "prompt.template=alpaca writes records without a chat template, but has no place for tools"
    if status == "bad_record":
        return "without data.on_error=skip the first of them is told with what to do"
    return "data.columns says what their keys are called"


def tokens_for(job: Job, model: Model, folder: Path) -> TokenStore:
    """Return the tokens of every record in the vocabulary of another model; they are made if `folder` is missing.

    For the template see `tokenize_as_settled`.
    """
    if not folder.exists():
        tokenized = tokenize_as_settled(
            job.recipe, job.loaded, read_examples(job.recipe.data, job.settled.source), model
        )
        total = _num_records(job)
        with replacing(folder) as part:
            for count in write_tokens(tokenized, part):
                job.launch.advance("tokens of the small model", count, total, "records")
    return open_tokens(folder)


def embedding_texts(job: Job) -> Texts:
    """Return the texts to embed; the input is read for them if they are missing. Called by the main process."""
    # They are missing after another embed.text was chosen, and after the embeddings were finished.
    folder, key = job.folder.work / "texts", _texts_key(job)
    if read_key(folder) != key:
        with replacing(folder) as part:
            examples = recording(read_examples(job.recipe.data, job.settled.source), part, job.recipe.embed.text)
            total = _num_records(job)
            for count, _ in enumerate(examples, start=1):
                job.launch.advance("texts", count, total, "records")
            write_key(part, key, with_files=True)
    return open_texts(folder)


def _num_records(job: Job) -> int | None:
    """Return how many records the input has; None where none were tokenised yet."""
    record = job.folder.stage("tokens")
    return None if record is None else record["in"]


def _texts_key(job: Job) -> Key:
    return {"tokens": fingerprint(job.settled.tokens_key), "embed.text": job.recipe.embed.text}


def _outcome(store: TokenStore, remarks: Mapping[str, Remark], source: Source) -> Outcome:
    """Return what the stage reports: statuses as reasons for dropping, counts of tokens, file names without paths."""
    statuses = np.bincount(store.rows["status"], minlength=len(STATUSES))
    scored = store.rows["status"] == STATUSES.index("scored")
    dropped: dict[str, int] = {
        name: int(n) for name, n in zip(STATUSES, statuses, strict=True) if n and name != "scored"
    }
    details = {
        "truncated": int(store.rows["truncated"].sum()),
        "records_with_control_tokens": int(np.count_nonzero(store.rows["control_hits"])),
        "tokens": len(store.input_ids),
        "ids": digest_of_ids(store.rows["id"]),
        "lengths": digest_of_values(np.where(scored, store.rows["scored"], 0).astype(np.int32)),
        "files": [Path(file.name).name for file in source.files],
        "files_not_read": {skipped.name: skipped.why for skipped in source.skipped},
        "remarks": {text: asdict(remark) for text, remark in remarks.items()},
    }
    note = f"{len(source.files)} files" if len(source.files) > 1 or source.skipped else ""
    return Outcome(len(store), int(statuses[STATUSES.index("scored")]), dropped, details, note)
