r"""Picks, from an instruction-tuning data set, the tenth that is worth training on.

    import curate

    run = curate.run("alpaca.json", model="Qwen/Qwen2.5-0.5B", keep="10%", dir="runs/first")
    run.scores()                          # a DataFrame: a row for every record
    run.kept()                            # a datasets.Dataset: the records that are kept
    run.select(name="five", keep="5%")    # again, in moments; nothing is scored twice
    run = curate.open("runs/first")       # later

Records may also be a list of dicts, a datasets.Dataset or a pandas DataFrame, and the model may be one in memory. The
stages that `curate.run` and the verbs of the command line run can also be called alone: each is a plain function.

    records -> examples -> tokens -> scores ----\
                  \------> embeddings -> clusters -> selection -> adapter -> evaluation -> comparison

The map, in reading order. To follow a run from its start, read pipeline/ after types.py:

    types.py     the types that stages pass to each other, and the error for a person's mistakes
    config/      the recipe: a typed section for each stage, YAML files, settings on the command line
    read/        files to records, records to conversations
    tokens/      conversations to text, text to token ids with the response mask
    models/      weights and tokenizers: where they are, their fingerprints, what is refused
    scoring/     early exits, their confidence, batches, the self-test
    diversity/   texts to vectors (sentence-transformers), vectors to clusters (FAISS)
    selection/   which records are kept, exact in number; numpy only
    publish/     the kept records, and files with which other programs train on them
    training/    the LoRA adapter, with Trainer and PEFT
    evaluation/  response losses on references, lm-eval tasks, a judge
    compare/     differences with intervals, overlaps, labels, and the table
    tables/      the Parquet files of a run, one module for each schema
    probe/       what `estimate` and `doctor` find: samples, times, memory, findings
    report/      what a person looks at: preview, the report of a run, two selections side by side
    runs/        the run folder: atomic files, manifest, lock, processes, stages
    pipeline/    joins the stages; the only room that does
    api/         what a person calls from Python: run, open, Run
    cli/         the command line, the only room that prints; __main__.py starts it
    demo/        the embedded model and data set

Recipes to start from, and what made the demo, are in `recipes/` beside the package (inside it in a wheel).

`import curate` loads none of it: a name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.api import Run, open, run
    from curate.config import Recipe, dump_recipe, load_recipe
    from curate.diversity.cluster import cluster
    from curate.diversity.embed import embed, embedding_text, load_embedder
    from curate.models.load import load_model, load_tokenizer
    from curate.pipeline import perform
    from curate.read.examples import read_examples
    from curate.read.files import open_source, read_records
    from curate.runs.folder import RunFolder
    from curate.scoring.confidence import complexity
    from curate.scoring.exits import exit_layers
    from curate.scoring.parts import find_parts
    from curate.scoring.score import ScoringModel, score_batch
    from curate.selection import Candidates, Rule, Selection, select
    from curate.tables.score_columns import read_column, read_rows
    from curate.tokens.tokenize import tokenize
    from curate.training.lora import merge_adapter, train_adapter
    from curate.types import CurateError, Example, Record, Tokens, TokenStore, Turn

    __version__: str

__all__ = [
    "Candidates",
    "CurateError",
    "Example",
    "Recipe",
    "Record",
    "Rule",
    "Run",
    "RunFolder",
    "ScoringModel",
    "Selection",
    "TokenStore",
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
    "open",
    "open_source",
    "perform",
    "read_column",
    "read_examples",
    "read_records",
    "read_rows",
    "run",
    "score_batch",
    "select",
    "tokenize",
    "train_adapter",
]

# Which module has which public name. torch and transformers take seconds to import, and `curate --help` needs neither.
_OWNERS = {
    "api": ("Run", "open", "run"),
    "config": ("Recipe", "dump_recipe", "load_recipe"),
    "read.files": ("open_source", "read_records"),
    "read.examples": ("read_examples",),
    "tokens.tokenize": ("tokenize",),
    "diversity.cluster": ("cluster",),
    "diversity.embed": ("embed", "embedding_text", "load_embedder"),
    "models.load": ("load_model", "load_tokenizer"),
    "pipeline": ("perform",),
    "runs.folder": ("RunFolder",),
    "scoring.confidence": ("complexity",),
    "scoring.exits": ("exit_layers",),
    "scoring.parts": ("find_parts",),
    "scoring.score": ("ScoringModel", "score_batch"),
    "tables.score_columns": ("read_column", "read_rows"),
    "selection": ("Candidates", "Rule", "Selection", "select"),
    "training.lora": ("merge_adapter", "train_adapter"),
    "types": ("CurateError", "Example", "Record", "TokenStore", "Tokens", "Turn"),
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
