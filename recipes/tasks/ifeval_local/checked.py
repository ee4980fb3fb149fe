"""What ifeval_local looks at before anything is generated."""

from __future__ import annotations

from typing import Any


def with_sentences(docs: Any) -> Any:
    """Return the prompts as they are, once NLTK's sentence tables are known to be there.

    Without them the checkers fail on one prompt in ten, after all answers were generated.

    Raises:
        LookupError: they are not there; NLTK says how to get them.
    """
    import nltk

    nltk.data.find("tokenizers/punkt_tab/english/")
    return docs
