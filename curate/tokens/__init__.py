"""From examples to token ids and the response mask: `prompts` writes text, `tokenize` marks it, `store` keeps it."""
