"""Makes the recipe of the demo, and reports how many planted flaws were kept."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from curate.config import Recipe, load_recipe
from curate.config.shipped import recipes_folder
from curate.demo import count_kept_flaws, demo_data_path, demo_model_path, embedder_path
from curate.tables.selection import read_kept


def demo_recipe(words: Sequence[str] = ()) -> Recipe:
    """Return the shipped demo recipe for the embedded data, model and embedder.

    Args:
        words: further settings as `section.key=value`.

    Raises:
        CurateError: the embedder package is missing, or a setting is wrong.
    """
    embedded = {"data.path": demo_data_path(), "model.name": demo_model_path(), "embed.model": embedder_path()}
    # Relative paths, so that recipe.yaml of the run holds no absolute path of this machine.
    return load_recipe(
        recipes_folder() / "demo.yaml", [*(f"{key}={os.path.relpath(path)}" for key, path in embedded.items()), *words]
    )


def flaw_lines(run_dir: Path, selection: str) -> Iterator[str]:
    """Yield lines for the person: how many planted flaws were kept, how many by chance, and what that does not show."""
    folder = run_dir / "selections" / selection
    flaws = count_kept_flaws(np.flatnonzero(read_kept(folder / "selection.parquet")).tolist())
    # Counts by kind, since a score may find one kind of flaw and miss another.
    kinds = ", ".join(f"{count} {kind}" for kind, count in flaws["by_kind"].items())
    yield ""
    chance = flaws["expected"]
    yield f"Planted flaws: {flaws['planted']}. Kept: {flaws['kept']} ({kinds}). Chance would keep {chance:.0f}."
    yield "That checks the machinery on generated text; it is no evidence about real data."
    yield f"Kept records: {folder / 'kept.json'}; adapter: {folder / 'adapter'}"
