"""Records, in memory or in files, to a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.api.bars import shown
from curate.api.opened import Run
from curate.api.records import rows
from curate.types import CurateError

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from curate.models.memory import InMemory
    from curate.runs.launch import Progress

_HOW_LOADED = ("revision", "dtype", "quantization", "device_map", "attention", "trust_remote_code")


def run(
    records: Iterable[Mapping[str, Any]] | Dataset | pd.DataFrame | str | Path,
    *,
    model: str | Path | PreTrainedModel,
    dir: str | Path,
    keep: str | int = "10%",
    tokenizer: PreTrainedTokenizerBase | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Run:
    """Score records and keep some of them; returns the run. It is `curate run` up to the selection: nothing is trained.

    Finished stages are skipped: the same call twice computes nothing, and after an interruption (of a cell, a kernel, a
    machine) it goes on with what is finished. Other records, another model or other settings of scores in the same
    folder are refused.

    Records in memory are written to DIR/records.jsonl. Of a DataFrame, what is missing (NaN, NA, NaT) becomes null.

    A model in memory has no file that could be hashed. It is known by its configuration, samples of all its weights and
    its tokenizer, hashed at every call (`curate.models.memory.weights_in_memory` says how): a run goes on with these
    very weights only, neither with others nor with a model that is given by name. `curate score` on a shell is refused
    in such a run; selecting needs no model. The model is set to eval mode, and is scored where it is, in its precision.
    A later training loads `train.model`, by default what `model.name_or_path` says: from files, not from memory.

    Args:
        records: a list of dicts, a `datasets.Dataset` or a pandas DataFrame; or a file, a folder or a hub id.
        model: a hub id, a folder, or a transformers model.
        dir: the run folder, run.dir.
        keep: a share of the records ("10%") or a count, select.keep.
        tokenizer: of a model in memory; goes with no other.
        settings: all others, by "section.key" (`curate settings` lists them): {"score.exits": 3, "data.limit": 1000}.
        progress: called with stage, done, total (None if unknown) and unit; None: the bars of the command line.

    Raises:
        CurateError: a mistake in one of these, or a run in the folder that does not go with them.
    """
    from curate.config import Recipe, recipe_with
    from curate.pipeline import perform
    from curate.pipeline.given import Given
    from curate.runs.folder import RECORDS

    named: dict[str, Any] = {"run.dir": dir, "select.keep": keep}
    in_files = isinstance(records, (str, Path))
    named["data.path"] = records if in_files else Path(dir) / RECORDS
    loaded = _loaded(model, tokenizer)
    named |= {"model.name": model} if loaded is None else {"model.name": loaded.name, "model.dtype": loaded.dtype}
    settings = settings or {}
    loading = {f"model.{name}" for name in _HOW_LOADED} if loaded is not None else set()
    if twice := sorted(settings.keys() & (named.keys() | loading)):
        raise CurateError(f"settings: {twice[0]} is said by an argument of its own, or by the model in memory")
    recipe = recipe_with(Recipe(), named | dict(settings))
    given = Given(None if in_files else rows(records), loaded)
    with shown(progress) as show, _threads_put_back():
        perform("run", recipe, progress=show, training=False, given=given)
    return Run(Path(recipe.run.dir), progress)


@contextmanager
def _threads_put_back() -> Iterator[None]:
    """A run keeps to the number of threads that it was begun with; what the caller does next need not."""
    import torch

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _loaded(model: object, tokenizer: object) -> InMemory | None:
    """The model in memory with its tokenizer; None where a name is given."""
    if not isinstance(model, (str, Path)):
        from curate.models.memory import in_memory

        return in_memory(model, tokenizer)
    if tokenizer is not None:
        raise CurateError(f"tokenizer: that of {model} is loaded with it; it is given only beside a model in memory")
    return None
