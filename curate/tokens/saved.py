"""Keeps a tokenizer on disk beside the tokens that it made; it is read without loading transformers, which is slow."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from curate.types import CurateError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FACTS = "facts.json"


@dataclass(frozen=True, slots=True)
class SavedTokenizer:
    """What training needs of a tokenizer.

    folder         the saved files; transformers' `from_pretrained` reads them too
    end            the end token, if it has one
    end_id         its id
    chat_template  its only chat template, if it has one
    length_limit   tokens that the model and its tokenizer say they can take
    """

    folder: Path
    end: str | None
    end_id: int | None
    chat_template: str | None
    length_limit: int

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Return the ids of each text, as `tokenizer(texts)` does: with what the tokenizer itself adds to a text.

        Raises:
            CurateError: the tokenizer cannot be read.
        """
        path = self.folder / "tokenizer.json"
        try:
            backend = Tokenizer.from_file(str(path))
        except Exception as error:
            if type(error) is not Exception:  # which is what tokenizers raises
                raise
            raise CurateError(f"cannot read {path} ({error}): remove {self.folder}, and it is made again") from None
        backend.no_truncation()  # a tokenizer.json may hold settings of its own for both
        backend.no_padding()
        return [encoding.ids for encoding in backend.encode_batch(texts)]


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path, *, length_limit: int) -> SavedTokenizer:
    """Save a tokenizer into a folder of its own; `open_tokenizer` reads it."""
    tokenizer.save_pretrained(folder)
    template = tokenizer.chat_template  # a dictionary where there are several, of which none is the template
    facts = {
        "end": tokenizer.eos_token,
        "end_id": tokenizer.eos_token_id,
        "chat_template": template if isinstance(template, str) else None,
        "length_limit": length_limit,
    }
    (folder / _FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return SavedTokenizer(folder, **facts)


def open_tokenizer(folder: Path) -> SavedTokenizer | None:
    """Open what `save_tokenizer` wrote; None if nothing is there or it is damaged."""
    path = folder / _FACTS
    try:
        return SavedTokenizer(folder, **json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
    except (ValueError, TypeError, RecursionError):
        return None
