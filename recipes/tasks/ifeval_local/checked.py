"""Checks for the task ifeval_local, before anything is generated, that its data of NLTK is installed."""

from __future__ import annotations

from typing import Any


def with_sentences(docs: Any) -> Any:
    """Return the prompts unchanged, after checking that NLTK's sentence tables (punkt_tab) are installed.

    Without the tables, the checks of one prompt in ten fail, and only after all answers were generated.

    Raises:
        LookupError: the tables are not installed; the message of NLTK says how to get them.
    """
    import nltk

    nltk.data.find("tokenizers/punkt_tab/english/")
    return docs
