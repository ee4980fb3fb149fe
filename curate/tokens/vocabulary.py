"""Looks at a vocabulary: how much text a token can stand for, and which tokens the model has no embedding for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import pre_tokenizers

from curate.types import CurateError, TokenStore

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SPACES = re.compile("[ĠĊĉčċČ▁]")  # white space as byte-level and SentencePiece vocabularies write it


def longest_token(spec: Mapping[str, Any], vocabulary: Mapping[str, int], mark: str) -> int | None:
    """Return the most bytes (UTF-8, without white space) that one token stands for; None where there is no bound.

    There is one only for a BPE model with a token for every byte: other models may drop characters, or encode a long
    run of unknown characters as one token.

    Args:
        spec: the tokenizer.json.
        vocabulary: token -> id, with the added tokens.
        mark: what private names begin with (`Codec.mark`); they are not counted.
    """
    # Pre-tokenizers nest, so their settings are searched as text: "Removed" and CharDelimiterSplit drop characters.
    cuts = json.dumps(spec["pre_tokenizer"])
    if spec["model"]["type"] != "BPE" or "Removed" in cuts or "CharDelimiterSplit" in cuts:
        return None
    single = pre_tokenizers.ByteLevel.alphabet() if '"ByteLevel"' in cuts else []
    if spec["model"].get("byte_fallback"):
        single = [f"<0x{byte:02X}>" for byte in range(256)]
    if not single or not vocabulary.keys() >= set(single):
        return None
    lengths = (len(_SPACES.sub("", token).encode()) for token in vocabulary if not token.startswith(mark))
    return max(1, *lengths)


def tokens_beyond(tokenizer: PreTrainedTokenizerBase, rows: int) -> dict[str, int]:
    """Return the tokens, with their ids, that an embedding of `rows` rows does not have, lowest id first.

    They do no harm as long as no text uses them.
    """
    beyond = {token: i for token, i in tokenizer.get_vocab().items() if i >= rows}
    return dict(sorted(beyond.items(), key=lambda item: item[1]))


def check_embedding(store: TokenStore, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Raise if the model's embedding of `rows` rows lacks one of the stored tokens.

    Raises:
        CurateError: names the first such token and the row of its record.
    """
    at = np.flatnonzero(store.input_ids >= rows)
    if len(at):
        row = int(np.searchsorted(store.rows["end"], at[0], side="right"))
        raise beyond_embedding(tokenizer, int(store.input_ids[at[0]]), row, rows)


def beyond_embedding(tokenizer: PreTrainedTokenizerBase, token_id: int, row: int, rows: int) -> CurateError:
    """Make the error for a record (the prompt template, if row is -1) that holds a token without an embedding."""
    token = tokenizer.convert_ids_to_tokens(token_id)
    where = "the prompt template writes" if row < 0 else f"row {row} holds"
    return CurateError(
        f"{where} the token {token!r} with id {token_id}, but the model's embedding has {rows} rows (ids below "
        f"{rows}): tokens were added to the tokenizer and the embedding was not resized.\n"
        "Use the tokenizer that belongs to the model, or the model after resize_token_embeddings(len(tokenizer)) and "
        "training; prompt.template=alpaca needs no tokens of a chat template"
    )
