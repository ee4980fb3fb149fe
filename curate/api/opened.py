"""Opens run folders: `curate.open`, and `Run` with tables, kept records and further selections."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from curate.api.bars import shown
from curate.config.base import expand_home
from curate.types import CurateError

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]
    from datasets import Dataset

    from curate.config import Recipe
    from curate.runs.folder import RunFolder
    from curate.runs.launch import Progress
    from curate.runs.manifest import StageRecord


class SelectSettings(TypedDict, total=False):
    """The settings of the section `select`; `curate settings select` says what each does."""

    name: str
    method: str
    by: str
    exits: list[int] | tuple[int, ...] | None
    order: str
    keep: int | str
    quota: str
    min_response_tokens: int
    duplicates: str
    within: Mapping[str, tuple[float | None, float | None]]
    gamma: float
    near_duplicates: float | None
    groups: Mapping[str, Any] | None
    seed: int | None
    replace: bool


@dataclass(frozen=True, slots=True, repr=False)
class Run:
    """A run folder, to read from and to select from. Every method reads the files anew; nothing is kept in memory.

    path      the run folder
    progress  called with stage, done, total (None if unknown) and unit; None shows the bars of the command line
    """

    path: Path
    progress: Progress | None = None

    def __repr__(self) -> str:
        """Return how many records are scored and selected, and whether the last call was finished."""
        stages = self._stages()
        scores, found = stages.get("scores"), list[str]()
        found += [f"{scores['out']:,} of {scores['in']:,} records scored"] if scores else ["not scored"]
        found += [f"{stages[f'selections/{name}']['out']:,} kept in {name}" for name in self.selections()]
        return f"Run({str(self.path)!r}: {'; '.join(filter(None, [*found, self._left_to_do()]))})"

    def scores(self) -> pd.DataFrame:
        """Return scores.parquet: a row for every input record, in input order.

        Scores are NaN where a record was not scored; `status` says why. `confidence` and `log_prob` hold a number for
        every exit.

        Raises:
            CurateError: nothing is scored yet; the message says which call to make.
        """
        from curate.pipeline.verified import verified_rows

        return self._table(self.path / "scores.parquet", "scores", "score", lambda: verified_rows(self._folder()))

    def selections(self) -> list[str]:
        """Return the names of the finished selections, sorted."""
        # A selection that was interrupted has files, but no entry in the manifest.
        found = (path.parent.name for path in self.path.glob("selections/*/selection.parquet"))
        return sorted(name for name in found if f"selections/{name}" in self._stages())

    def selection(self, name: str = "main") -> pd.DataFrame:
        """Return selection.parquet: a row for every input record, in input order, with `kept` and the reason.

        Raises:
            CurateError: there is no such selection; the message names the existing ones.
        """
        from curate.pipeline.verified import verified_kept

        self._require_selection(name)
        path = self.path / "selections" / name / "selection.parquet"
        return self._table(path, f"selection {name!r}", "select", lambda: verified_kept(self._folder(), name))

    def kept(self, name: str = "main") -> Dataset:
        """Return the records that a selection keeps, in input order, with all their fields.

        If only some records have a field, it is None in the others.

        Raises:
            CurateError: there is no such selection, or a field has values of several types, which no Dataset can hold.
        """
        from curate.pipeline.verified import verified_selection
        from curate.read.arrow import as_dataset
        from curate.read.files import open_source, read_records

        self._require_selection(name)
        path = verified_selection(self._folder(), name)
        # data.limit is a limit for the input; the kept file is read whole.
        data = self._recipe().data.model_copy(update={"path": str(path), "limit": None})
        records = [dict(record.fields or {}) for record in read_records(open_source(data), data)]
        return as_dataset(records, name=str(path))

    def select(self, **settings: Unpack[SelectSettings]) -> Dataset:
        """Make another selection from the scores of the run, and return the records that it keeps, as `kept` does.

            five = run.select(name="five", keep="5%")
            hard = run.select(name="hard", method="top", order="highest")

        Other settings stay as in recipe.yaml of the run; without a name, the selection `main` is replaced. No model is
        loaded and nothing is scored. Only the folder selections/NAME changes. Embeddings or a score that the run does
        not have come from the same `curate.run(...)` with their setting, such as settings={"score.ifd": True}.

        Raises:
            CurateError: an unknown setting, a missing score, fewer records than should be kept, or an adapter was
                trained on the selection of this name.
        """
        from curate.config import recipe_with
        from curate.pipeline import perform
        from curate.pipeline.needed import needs_embeddings

        recipe = recipe_with(self._recipe(), {f"select.{key}": value for key, value in settings.items()})
        if needs_embeddings(recipe.select) and "embeddings" not in self._stages():
            again = {f"select.{key}": value for key, value in settings.items() if key != "keep"}
            raise CurateError(
                f"{self.path} holds no embeddings yet, which this selection needs: the same curate.run(...), with "
                f"{again} in its settings, makes both and scores nothing again"
            )
        with shown(self.progress) as progress:
            perform("select", recipe, progress=progress)
        return self.kept(recipe.select.name)

    def _table(self, path: Path, what: str, verb: str, verify: Callable[[], Any]) -> pd.DataFrame:
        from curate.tables.parquet import errors_naming, open_table

        if not path.is_file():
            raise CurateError(f"{self.path} holds no {what} yet: {self._left_to_do() or f'curate {verb} makes them'}")
        verify()
        with errors_naming(path, verb):  # sorted, since another program may have sorted the file otherwise
            return open_table(path, verb).read().sort_by("row").to_pandas()

    def _require_selection(self, name: str) -> None:
        """Refuse the name of a selection that the manifest does not have."""
        if name in (names := self.selections()):
            return
        makes = f"run.select(name={name!r}, ...) makes it"
        if names:
            raise CurateError(f"{self.path} holds no selection {name!r}, there are {', '.join(names)}: {makes}")
        raise CurateError(f"{self.path} holds no selection {name!r}, there is none yet: {self._left_to_do() or makes}")

    def _recipe(self) -> Recipe:
        """Return the recipe of the run; relative paths in it start from the folder that the run was begun in."""
        # From the command line's own code, so that Python and a shell use the same recipe.
        from curate.cli.recipes import recipe_of

        if not (self.path / "recipe.yaml").is_file():
            raise CurateError(f"{self.path} has not begun to score: {self._left_to_do() or 'curate.run(...) does'}")
        return recipe_of([f"run.dir={self.path}"])

    def _stages(self) -> dict[str, StageRecord]:
        return self._folder().stages()

    def _folder(self) -> RunFolder:
        from curate.runs.folder import RunFolder

        return RunFolder(self.path)

    def _left_to_do(self) -> str:
        """Return how the last call ended and how to go on; "" if it was finished."""
        status: dict[str, Any] = {}
        with suppress(OSError, ValueError, RecursionError):  # without a status to read, the folder counts as finished
            told = json.loads((self.path / "status.json").read_text(encoding="utf-8"))
            status = told if isinstance(told, dict) else {}
        state, verb = str(status.get("state")), status.get("verb")
        ended = {
            "interrupted": "was interrupted",
            "failed": f"failed ({str(status.get('message')).removeprefix('CurateError: ')})",
            "running": "is still running, or was killed",
        }
        if state not in ended:
            return ""
        call = "the same curate.run(...)" if verb == "run" else "the same call"
        when = ", once that is mended," if state == "failed" else ""
        return f"the last call (curate {verb}) {ended[state]}; {call}{when} goes on with what is finished"


def open(path: str | Path, *, progress: Progress | None = None) -> Run:
    """Open a run folder, whether Python or the command line made it, and return the run.

    A warning is logged if the last call in the folder was not finished.

    Args:
        path: the run folder; ~ is expanded.
        progress: as for `curate.run`; used by `Run.select`.

    Raises:
        CurateError: the path is not the folder of a run, or there is a pipe or device in it.
    """
    import logging

    from curate.runs.folder import RunFolder
    from curate.runs.special import refuse_special_inside

    path = Path(expand_home(str(path)))
    refuse_special_inside(path)
    # A mistyped path would otherwise look like a run without scores.
    if not RunFolder(path).holds_run():
        what = "a folder, but not of a run" if path.is_dir() else "no such folder"
        raise CurateError(f"expected the folder of a run (run.dir), got {path}: {what}")
    run = Run(path, progress)
    if left := run._left_to_do():
        logging.getLogger(__name__).warning("%s: %s", path, left)
    return run
