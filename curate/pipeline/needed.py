"""Which scores a verb computes: those that are asked for, and those that the selection orders by or bounds."""

from __future__ import annotations

from curate.config import Recipe

FURTHER = ("ifd", "masked", "dropout")
_PASS_OF = {
    "complexity": "complexity",
    "perplexity": "complexity",
    "ifd": "ifd",
    "log_prob_alone": "ifd",
    "masked_loss": "masked",
    "dropout_confidence": "dropout",
}
_OF_TOKENS = ("response_tokens", "prompt_tokens", "random")
BY_SCORE = ("clusters", "top", "flexrand")  # methods that order by select.by; the others have an order of their own


def columns_of(recipe: Recipe) -> set[str]:
    """Return the columns of scores.parquet that the selection reads.

    >>> from curate.config import load_recipe
    >>> columns_of(load_recipe(None, ["select.method=random", "select.within.ifd=[0, 1]"]))
    {'ifd'}
    """
    select = recipe.select
    by = {select.by} if select.method in BY_SCORE else set()
    return {name for name in by | set(select.within) if name not in _OF_TOKENS}


def passes_of(columns: set[str]) -> set[str]:
    """Return the passes that make these columns; a person's own column needs none."""
    return {_PASS_OF[name] for name in columns if name in _PASS_OF}


def passes_to_run(recipe: Recipe, verb: str) -> list[str]:
    """Return the passes to run, in order: complexity, ifd, masked, dropout, columns.

    `score` always computes complexity; `run` only what the selection reads and what score.* asks for. Selecting by
    length, at random or by a person's own column needs no language-model score.
    """
    wanted = passes_of(columns_of(recipe)) if verb == "run" else {"complexity"}
    score = recipe.score
    asked = {"ifd": score.ifd, "masked": score.masked, "dropout": score.dropout, "columns": score.columns}
    wanted |= {name for name, setting in asked.items() if setting is not False and setting is not None}
    return [name for name in ("complexity", *FURTHER, "columns") if name in wanted]


def score_stages(recipe: Recipe) -> list[str]:
    """Return the stages of the scores that the selection reads, as the manifest names them."""
    columns = columns_of(recipe)
    own = bool(columns - set(_PASS_OF))
    names = {"scores" if name == "complexity" else f"scores/{name}" for name in passes_of(columns)}
    return sorted(names | ({"scores/columns"} if own else set()))
