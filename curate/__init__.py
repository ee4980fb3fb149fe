r"""Picks, from an instruction-tuning data set, the tenth that is worth training on.

    records -> examples -> tokens -> scores ----\
                  \------> embeddings -> clusters -> selection -> adapter

The map, in reading order:

    types.py        every type that crosses a stage boundary, and the one error a person can cause
    config.py       the recipe: a typed model per stage and overrides; strict_yaml.py reads and writes it
    data/           files in and out, records as conversations, prompts, tokens with the response mask
    checkpoints.py  where a model's files are, and what tells them from others
    models.py       weights and tokenizers: precision, device, quantisation, and what is refused
    scoring/        early exits, their confidence, batches, the self-test, scores.parquet
    diversity/      texts to vectors (sentence-transformers), vectors to clusters (FAISS)
    selection/      which records are kept, exact in number; numpy only
    training/       the LoRA adapter, with Trainer and PEFT
    tables.py       clusters.parquet and selection.parquet
    runs.py         the run folder: atomic writes, manifest, lock
    parallel.py     many processes on one run
    pipeline/       the only place that joins stages
    cli.py          the command line, the only module that prints; __main__.py starts it
    recipes/        recipes to start from, and settings for accelerate
    demo/           the embedded model and data set

Every stage is a plain function. Importing this package loads none of them: names are looked up when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.config import Recipe, dump_recipe, load_recipe
    from curate.data.files import open_source, read_records
    from curate.data.records import read_examples
    from curate.data.tokens import tokenize
    from curate.diversity.cluster import cluster
    from curate.diversity.embed import embed, embedding_text, load_embedder
    from curate.models import load_model, load_tokenizer
    from curate.pipeline import perform
    from curate.runs import RunFolder
    from curate.scoring.confidence import complexity
    from curate.scoring.exits import exit_layers, find_parts
    from curate.scoring.score import Scorer, score_batch
    from curate.scoring.table import read_scores
    from curate.selection import Selection, select
    from curate.training.lora import merge_adapter, train_adapter
    from curate.types import CurateError, Example, Record, Tokens, TokenTable, Turn

    __version__: str

__all__ = [
    "CurateError",
    "Example",
    "Recipe",
    "Record",
    "RunFolder",
    "Scorer",
    "Selection",
    "TokenTable",
    "Tokens",
    "Turn",
    "__version__",
    "cluster",
    "complexity",
    "dump_recipe",
    "embed",
    "embedding_text",
    "exit_layers",
    "find_parts",
    "load_embedder",
    "load_model",
    "load_recipe",
    "load_tokenizer",
    "merge_adapter",
    "open_source",
    "perform",
    "read_examples",
    "read_records",
    "read_scores",
    "score_batch",
    "select",
    "tokenize",
    "train_adapter",
]

_OWNERS = {
    "config": ("Recipe", "dump_recipe", "load_recipe"),
    "data.files": ("open_source", "read_records"),
    "data.records": ("read_examples",),
    "data.tokens": ("tokenize",),
    "diversity.cluster": ("cluster",),
    "diversity.embed": ("embed", "embedding_text", "load_embedder"),
    "models": ("load_model", "load_tokenizer"),
    "pipeline": ("perform",),
    "runs": ("RunFolder",),
    "scoring.confidence": ("complexity",),
    "scoring.exits": ("exit_layers", "find_parts"),
    "scoring.score": ("Scorer", "score_batch"),
    "scoring.table": ("read_scores",),
    "selection": ("Selection", "select"),
    "training.lora": ("merge_adapter", "train_adapter"),
    "types": ("CurateError", "Example", "Record", "TokenTable", "Tokens", "Turn"),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("lc-curate")
    for module, names in _OWNERS.items():
        if name in names:
            return getattr(importlib.import_module(f"curate.{module}"), name)
    raise AttributeError(f"module 'curate' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
