"""Which scores a verb computes: those that score.* asks for, and those that a selection reads."""

from __future__ import annotations

from collections.abc import Sequence

from curate.config import Groups, Recipe, Select

FURTHER = ("ifd", "masked", "dropout")
"""The passes beside complexity, in the order in which they run."""

# Which pass makes a column of scores.parquet. A new score has its columns here (see CONTRIBUTING).
_PASS_OF = {
    "complexity": "complexity",
    "perplexity": "complexity",
    "ifd": "ifd",
    "log_prob_alone": "ifd",
    "masked_loss": "masked",
    "dropout_confidence": "dropout",
}
_OF_TOKENS = ("response_tokens", "prompt_tokens", "random")  # values of select.by that need no pass
BY_SCORE = ("clusters", "top", "flexrand")
"""The methods that order records by select.by; the others (random, longest, k_center) have an order of their own."""


def columns_of(select: Select) -> set[str]:
    """Return the score columns that a selection reads, to order by, to bound (within) or to group by.

    >>> from curate.config import Select
    >>> columns_of(Select(method="random", within={"ifd": (0, 1)}))
    {'ifd'}
    """
    by = {select.by} if select.method in BY_SCORE else set()
    binned = {select.groups.field} if select.groups is not None and is_binned_column(select.groups) else set()
    return {name for name in by | binned | set(select.within) if name not in _OF_TOKENS}


def is_binned_column(groups: Groups) -> bool:
    """Say whether groups are ranges of a score or a length, and not values of a field of the records."""
    return groups.bins is not None and groups.field in {*_PASS_OF, "response_tokens", "prompt_tokens"}


def passes_of(columns: set[str]) -> set[str]:
    """Return the passes that make these columns. A column of score.columns, a person's own file, needs none."""
    return {_PASS_OF[name] for name in columns if name in _PASS_OF}


def needs_embeddings(select: Select) -> bool:
    """Say whether a selection reads clusters or embeddings."""
    return select.method in ("clusters", "k_center") or select.near_duplicates is not None


def passes_to_run(recipe: Recipe, selects: Sequence[Select], *, complexity: bool) -> list[str]:
    """Return the passes that are needed, in the order in which they run: complexity, ifd, masked, dropout, columns.

    Selecting by length, at random or by a person's own column needs no pass of the language model.

    Args:
        recipe: the passes that its section `score` asks for are always among them.
        selects: the selections whose columns are needed.
        complexity: whether complexity is needed in any case.

    >>> from curate.config import Recipe, Select
    >>> passes_to_run(Recipe(), [Select(method="top", by="ifd")], complexity=False)
    ['ifd']
    """
    wanted = {"complexity"} if complexity else set()
    for select in selects:
        wanted |= passes_of(columns_of(select))
    score = recipe.score
    asked = {"ifd": score.ifd, "masked": score.masked, "dropout": score.dropout, "columns": score.columns}
    # True, a section with settings, and the path of a file all ask for the pass.
    wanted |= {name for name, setting in asked.items() if setting is not False and setting is not None}
    return [name for name in ("complexity", *FURTHER, "columns") if name in wanted]


def score_stages(select: Select) -> list[str]:
    """Return the stages of the manifest whose scores a selection reads.

    >>> score_stages(Select(method="top", by="ifd", within={"complexity": (None, 0.9)}))
    ['scores', 'scores/ifd']
    """
    columns = columns_of(select)
    own = bool(columns - set(_PASS_OF))
    names = {"scores" if name == "complexity" else f"scores/{name}" for name in passes_of(columns)}
    return sorted(names | ({"scores/columns"} if own else set()))


def needs_evaluation(recipe: Recipe) -> bool:
    """Say whether `curate run` ends with an evaluation: only where there is something to evaluate on."""
    return bool(recipe.evaluate.sets) or (recipe.evaluate.holdout and recipe.data.holdout != 0)
