"""`curate preview`: records as the tokens that would be scored. No weights are needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curate.config import Recipe
from curate.pipeline.loaded import Loaded
from curate.pipeline.settle import adopt, known_key, settle_prompt
from curate.pipeline.tokens import tokenize_as_settled, warn_unused_split
from curate.read.examples import read_examples
from curate.read.files import open_source
from curate.report.preview import Preview, PreviewToken
from curate.runs.folder import RunFolder
from curate.tokens.pieces import pieces
from curate.types import END, CurateError, Example, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def previews(recipe: Recipe, *, count: int, rows: Sequence[int] = ()) -> list[Preview]:
    """Return the first `count` records, or the given rows, as exactly the tokens that `score` scores.

    If the run has settled settings already, those are used. Nothing is written.

    Args:
        recipe: as the person wrote it.
        count: how many records.
        rows: rows of the input to return instead.

    Raises:
        CurateError: data, tokenizer or settings cannot be read; there is no such row.
    """
    source, folder = open_source(recipe.data), RunFolder(Path(recipe.run.dir))
    warn_unused_split(recipe.data, source)
    loaded = Loaded(trust_remote_code=recipe.model.trust_remote_code, offload_folder=folder.work)
    known = known_key(folder) if folder.holds_run() else {}  # else run.dir may be any folder of a person's
    recipe = settle_prompt(adopt(recipe, known), source, loaded, known)
    examples = read_examples(recipe.data, source)
    chosen = _rows(examples, rows) if rows else list(islice(examples, count))
    tokenizer = loaded.tokenizer(recipe.model.name, recipe.model.revision)
    # Control tokens are shown differently from text that is only spelled like them.
    special = set(tokenizer.all_special_ids)
    return [
        Preview(
            record.row,
            record.id,
            record.status,
            recipe.prompt.template,
            tuple(
                PreviewToken(piece.id, piece.text, piece.scored, piece.end, piece.id in special)
                for piece in pieces(record, tokenizer)
            ),
            "; ".join(filter(None, (record.reason, *record.notes))),
            record.truncated,
            record.control_hits,
            _added_end(record, tokenizer),
        )
        for record in tokenize_as_settled(recipe, loaded, chosen, recipe.model)
    ]


def _rows(examples: Iterable[Example], rows: Sequence[int]) -> list[Example]:
    """Return the examples of these rows, in the order of the input, which is read no further than to the last."""
    wanted, found, read = set(rows), list[Example](), 0
    for example in islice(examples, max(rows) + 1):
        read = example.row + 1
        if example.row in wanted:
            found.append(example)
    if len(found) < len(wanted):
        raise CurateError(f"expected a row of the input, got {max(rows):,}: it has {read:,} records, counted from 0")
    return found


def _added_end(record: Tokens, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the end token that training adds, by the rule of `curate.tokens.labels`; "" if it adds none."""
    if record.status != "scored" or record.truncated or np.any(record.marks == END):
        return ""
    return tokenizer.eos_token or ""
