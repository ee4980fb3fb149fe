"""The verbs that run stages in a run folder: run, score, embed, select, train, evaluate, compare.

The docstring of a verb is its help. What a verb does is in `curate.pipeline`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from curate.cli import terminal
from curate.cli.options import Words, recipe_from

if TYPE_CHECKING:
    from curate.config import Recipe
    from curate.pipeline import Verb

# Imports stand inside the functions, so that `curate --help` and a wrong word are answered without loading torch.


def run(words: Words = None) -> None:
    """Score, embed, select and train. Finished stages are skipped."""
    recipe = recipe_from(words)
    perform_stages("run", recipe)
    with terminal.outcome():
        from curate.cli.tables import show_worth

        show_worth(recipe)


def score(words: Words = None) -> None:
    """Score the learning complexity of every record: scores.parquet."""
    perform_stages("score", recipe_from(words))


def embed(words: Words = None) -> None:
    """Embed and cluster the records: embeddings.npy, clusters.parquet."""
    perform_stages("embed", recipe_from(words))


def select(words: Words = None) -> None:
    """Choose records from finished scores, in moments: selections/NAME."""
    perform_stages("select", recipe_from(words))


def train(words: Words = None) -> None:
    """Train a LoRA adapter on a selection: selections/NAME/adapter."""
    perform_stages("train", recipe_from(words))


def evaluate(words: Words = None) -> None:
    """Measure response loss and tasks, untuned and with the adapter: selections/NAME/evaluation.json."""
    perform_stages("evaluate", recipe_from(words))


def compare(words: Words = None) -> None:
    """Compare selectors by training on what each keeps: comparison.json. Finished cells are skipped."""
    recipe = recipe_from(words, "comparison.yaml", "recipe.yaml")
    perform_stages("compare", recipe)
    with terminal.outcome():
        from curate.cli.tables import show_comparison

        show_comparison(Path(recipe.run.dir))


def perform_stages(verb: Verb, recipe: Recipe) -> None:
    """Run the stages of a verb with progress on the terminal; end the command with a message if they fail."""
    with terminal.outcome(), terminal.progress() as progress:
        from curate.pipeline import perform

        perform(verb, recipe, progress=progress)
