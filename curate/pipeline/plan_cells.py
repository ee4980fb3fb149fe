"""Plans the cells of a comparison: one for every selector, number kept and seed, and what each of them selects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from curate.compare.cells import ALL, Cell
from curate.compare.selectors import LENGTHS_OF, settings_of
from curate.config import Recipe, Select, Selector
from curate.types import CurateError


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """A cell and its selection.

    cell        selector, number kept, and seed
    chosen      the section `select` that the selector stands for; None for the baseline that trains on all records
    lengths_of  the name of another cell; records are drawn so that their response lengths are distributed as in that
                one. None: no such condition
    """

    cell: Cell
    chosen: Select | None
    lengths_of: str | None = None

    @property
    def name(self) -> str:
        """The name of the cell's folder."""
        return cell_name(self.cell)


def cell_name(cell: Cell) -> str:
    """Return the name of a cell's folder.

    >>> cell_name(Cell("random", "10%", 0))
    'random-10pct-seed0'
    """
    keep = cell.keep.replace("%", "pct").replace(" ", "")
    return "-".join(part for part in (cell.selector, keep, f"seed{cell.seed}") if part)


def seeds_of(recipe: Recipe) -> Sequence[int]:
    """Return the seeds of compare.seeds; a count n stands for 0 to n - 1."""
    seeds = recipe.compare.seeds
    return range(seeds) if isinstance(seeds, int) else seeds


def planned_cells(recipe: Recipe, *, num_layers: int) -> list[PlannedCell]:
    """Return the cells in the order in which they are done.

    Raises:
        CurateError: a setting of a selector is wrong.
    """
    # Seed by seed: a run that is stopped after the first seed can already be compared with compare.seeds=1.
    compare = recipe.compare
    cells = []
    for seed in seeds_of(recipe):
        for keep in compare.keep:
            for selector in compare.selectors:
                name = selector if isinstance(selector, str) else selector.name
                chosen = selector_select(recipe, selector, num_layers=num_layers, keep=keep, seed=seed)
                other = lengths_of(recipe, selector)
                if other is not None and chosen.groups is not None:
                    raise CurateError(f"compare.selectors: {name}: expected lengths_of or select.groups, got both")
                followed = None if other is None else cell_name(Cell(other, str(keep), seed))
                cells.append(PlannedCell(Cell(name, str(keep), seed), chosen, followed))
        if "all" in compare.baselines:
            cells.append(PlannedCell(Cell(ALL, "", seed), None))
    return cells


def selector_select(recipe: Recipe, selector: str | Selector, *, num_layers: int, keep: int | str, seed: int) -> Select:
    """Return the section `select` of a selector.

    Args:
        recipe: its section `select` gives quota, min_response_tokens, duplicates and gamma where a selector does not.
        selector: the name of a built-in one, or settings of select.* with a name.
        num_layers: decoder layers of the scoring model; the built-in selector last_exit needs it.
        keep: a count or a percentage.
        seed: of its random draws.

    Raises:
        CurateError: an unknown setting or a bad value.
    """
    own = settings_of(selector, num_layers=num_layers) if isinstance(selector, str) else dict(selector.select)
    name = selector if isinstance(selector, str) else selector.name
    # Not the recipe's method or score: a selector must mean the same in every comparison.
    base = recipe.select.model_dump(include={"quota", "min_response_tokens", "duplicates", "gamma"})
    tree: dict[str, Any] = {**base, **own, "name": name, "keep": keep, "seed": seed}
    try:
        return Select.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise CurateError(f"compare.selectors: {name}: select.{key}: {first['msg']}") from None


def lengths_of(recipe: Recipe, selector: str | Selector) -> str | None:
    """Return the selector whose response lengths a selector copies; None if it copies none.

    Raises:
        CurateError: that selector is not part of the comparison, or copies the lengths of another one itself.
    """
    followed = {s if isinstance(s, str) else s.name: _lengths_of(s) for s in recipe.compare.selectors}
    other = _lengths_of(selector)
    if other is None:
        return None
    name = selector if isinstance(selector, str) else selector.name
    if other not in followed:
        raise CurateError(f"compare.selectors: {name} keeps the lengths of {other}: expected {other} beside it")
    if followed[other] is not None:
        raise CurateError(
            f"compare.selectors: {name} keeps the lengths of {other}, and that those of {followed[other]}: "
            f"expected {followed[other]}"
        )
    return other


def _lengths_of(selector: str | Selector) -> str | None:
    return LENGTHS_OF.get(selector) if isinstance(selector, str) else selector.lengths_of


def selects_of(recipe: Recipe, *, num_layers: int) -> list[Select]:
    """Return a section `select` for every selector, to find out which scores and embeddings they read."""
    keep, seed = recipe.compare.keep[0], seeds_of(recipe)[0]  # any will do: what is read depends on neither
    return [
        selector_select(recipe, selector, num_layers=num_layers, keep=keep, seed=seed)
        for selector in recipe.compare.selectors
    ]
