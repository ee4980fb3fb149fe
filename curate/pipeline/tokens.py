"""From records to work/tokens: what every score, embedding and adapter starts from. The first pass over the input."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import numpy as np

from curate.config import Model, Prompt, Recipe
from curate.diversity.texts import Texts, open_texts, recording
from curate.pipeline.job import Job
from curate.pipeline.loaded import Loaded
from curate.read.examples import read_examples
from curate.read.files import Source
from curate.runs.atomic import disk_full_as_oserror, replacing, write_json
from curate.runs.keys import Key, fingerprint, read_key
from curate.runs.stage import Outcome, Stage
from curate.tables.digests import digest_of_ids
from curate.tokens.lengths import length_limit, own_max_length
from curate.tokens.remarks import Remark, count_remarks
from curate.tokens.saved import save_tokenizer
from curate.tokens.store import holds, open_tokens, write_tokens
from curate.tokens.tokenize import tokenize
from curate.types import STATUSES, CurateError, Example, Tokens, TokenStore

logger = logging.getLogger(__name__)

_LEAST_SCORED = 0.02
TOKENIZER = "tokenizer"  # in the folder of the tokens: what made them


def tokens(job: Job) -> TokenStore:
    """Return the tokens of every record; the main process makes them if they are not there, the others wait."""
    job.launch.from_main("tokens", lambda: len(make_tokens(job)), int)
    return open_tokens(job.folder.work / "tokens")


def make_tokens(job: Job) -> TokenStore:
    """Return the tokens of every record, made if they are not there; called by the main process.

    The texts to embed are written on the way, so that the input is not read for them again.

    Raises:
        CurateError: a record that cannot be read (data.on_error=fail), or what `tokenize` refuses.
    """
    folder, key = job.folder.work / "tokens", job.settled.tokens_key
    stage = Stage(job.folder, "tokens", key, (folder,))
    record = job.folder.stage("tokens")
    known = read_key(folder) == key and record is not None
    if known and record and holds(folder, records=record["in"], tokens=record["tokens"]):
        store = open_tokens(folder)
        _refuse_nothing_to_score(store, {text: Remark(**told) for text, told in record.get("remarks", {}).items()})
        return store
    recipe, remarks = job.recipe, dict[str, Remark]()
    named, texts = (recipe.model.name, recipe.model.revision), job.folder.work / "texts"
    with replacing(texts) as texts_part, replacing(folder) as part:
        examples = recording(read_examples(recipe.data, job.settled.source), texts_part, recipe.embed.text)
        tokenized = tokenize_as_settled(
            recipe, job.loaded, examples, recipe.model, vocabulary_rows=job.settled.vocabulary
        )
        for count in write_tokens(count_remarks(tokenized, remarks), part):
            job.launch.advance("tokens", count, None, "records")
        tokenizer, config = job.loaded.tokenizer(*named), job.loaded.config(*named)
        with disk_full_as_oserror(part):
            save_tokenizer(tokenizer, part / TOKENIZER, length_limit=length_limit(tokenizer, config))
        write_json(part / "key.json", key)
        write_json(texts_part / "key.json", _texts_key(job))
    store = open_tokens(folder)
    stage.finish(_outcome(store, remarks, job.settled.source))
    for skipped in job.settled.source.skipped:
        logger.info("  not read: %s (%s)", skipped.name, skipped.why)
    for text, remark in remarks.items():
        level = logging.WARNING if remark.status == "scored" else logging.INFO  # a note may change what is learnt
        logger.log(level, "  %d %s: %s (first: row %d)", remark.count, remark.status, text, remark.row)
    _refuse_nothing_to_score(store, remarks)
    if hits := int(np.count_nonzero(store.rows["control_hits"])):
        logger.warning("%d records contain control tokens; they are read as ordinary text (model.allow_tokens)", hits)
    return store


def tokenize_as_settled(
    recipe: Recipe,
    loaded: Loaded,
    examples: Iterable[Example],
    model: Model,
    *,
    vocabulary_rows: int | None = None,
) -> Iterator[Tokens]:
    """Tokenise under the settled prompt, as a model's tokenizer does and no longer than it can take.

    The template is that of the run where the tokenizer has it, else its own. Date and time are those of the run.
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


def _refuse_nothing_to_score(store: TokenStore, remarks: Mapping[str, Remark]) -> None:
    """Refuse an input of which nearly nothing can be scored: that is hardly what a person meant.

    Raises:
        CurateError: with the most frequent reason.
    """
    scored = int(np.count_nonzero(store.rows["status"] == STATUSES.index("scored")))
    if scored > _LEAST_SCORED * len(store):
        return
    reasons = [(remark.count, text, remark.status) for text, remark in remarks.items() if remark.status != "scored"]
    _, text, status = max(reasons, default=(0, "", ""))
    advice = {
        "too_long": "raise prompt.max_length where the model allows it, or cut responses with prompt.too_long=trim",
        "unscorable": "prompt.template=alpaca writes any record without a chat template",
    }.get(status, "data.columns says what their keys are called")
    why = f": {text}" if text else ""
    raise CurateError(
        f"{scored} of {len(store)} records can be scored{why}.\nLook at them with curate preview; {advice}"
    )


def tokens_for(job: Job, model: Model, folder: Path) -> TokenStore:
    """Return the tokens that another model's tokenizer makes of every record, made if they are not there.

    The template is that of the run where the other tokenizer has it, else its own.
    """
    if not folder.exists():
        tokenized = tokenize_as_settled(
            job.recipe, job.loaded, read_examples(job.recipe.data, job.settled.source), model
        )
        with replacing(folder) as part:
            for count in write_tokens(tokenized, part):
                job.launch.advance("tokens of the small model", count, None, "records")
    return open_tokens(folder)


def embedding_texts(job: Job) -> Texts:
    """Return the texts to embed, read from the input if they are not there; called by the main process."""
    folder, key = job.folder.work / "texts", _texts_key(job)
    if read_key(folder) != key:
        with replacing(folder) as part:
            examples = recording(read_examples(job.recipe.data, job.settled.source), part, job.recipe.embed.text)
            for count, _ in enumerate(examples, start=1):
                job.launch.advance("texts", count, None, "records")
            write_json(part / "key.json", key)
    return open_texts(folder)


def _texts_key(job: Job) -> Key:
    return {"tokens": fingerprint(job.settled.tokens_key), "embed.text": job.recipe.embed.text}


def _outcome(store: TokenStore, remarks: Mapping[str, Remark], source: Source) -> Outcome:
    statuses = np.bincount(store.rows["status"], minlength=len(STATUSES))
    dropped: dict[str, int] = {
        name: int(n) for name, n in zip(STATUSES, statuses, strict=True) if n and name != "scored"
    }
    details = {
        "truncated": int(store.rows["truncated"].sum()),
        "records_with_control_tokens": int(np.count_nonzero(store.rows["control_hits"])),
        "tokens": len(store.input_ids),
        "ids": digest_of_ids(store.rows["id"]),
        "files": [Path(file.name).name for file in source.files],
        "files_not_read": {skipped.name: skipped.why for skipped in source.skipped},
        "remarks": {text: asdict(remark) for text, remark in remarks.items()},
    }
    note = f"{len(source.files)} files" if len(source.files) > 1 or source.skipped else ""
    return Outcome(len(store), int(statuses[STATUSES.index("scored")]), dropped, details, note)
