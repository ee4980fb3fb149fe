"""Makes a run from records in memory or in files: `curate.run`."""

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

    from curate.models.in_memory import InMemory
    from curate.runs.launch import Progress

# Settings of the section `model` that say how a model is loaded: one in memory is loaded already.
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
    """Score records, select some of them, and return the run. This is `curate run` without training.

    Finished stages are skipped. So a repeated call computes nothing, and a call after an interruption goes on with what
    is finished. A folder that holds a run with other records, another model or other settings of scores is refused.

    Records in memory are written to DIR/records.jsonl. Missing values of a DataFrame (NaN, NA, NaT) become null.

    A model in memory is set to eval mode, and is scored on its device and in its precision. It has no files to hash, so
    at every call its configuration, samples of all its weights and its tokenizer are hashed instead (see
    `curate.models.in_memory.weights_in_memory`). The run goes on only with the same weights in memory; `curate score`
    in a shell is refused. Selecting needs no model. A later training loads `train.model` from files; by default that
    is `model.name_or_path`.

    Args:
        records: a list of dicts, a `datasets.Dataset` or a pandas DataFrame; or a file, a folder or a hub id.
        model: a hub id, a folder, or a transformers model.
        dir: the run folder (run.dir).
        keep: a percentage of the records ("10%") or a count (select.keep).
        tokenizer: the tokenizer of a model in memory; not allowed for other models, which bring their own.
        settings: all other settings by "section.key" (`curate settings` lists them), for example
            {"score.exits": 3, "data.limit": 1000}.
        progress: called with stage, done, total (None if unknown) and unit; None shows the bars of the command line.

    Raises:
        CurateError: a mistake in an argument, or the folder holds a run that they do not fit.
    """
    # Imported here, so that `import curate` takes no time for the pipeline.
    from curate.config import Recipe, recipe_with
    from curate.pipeline import perform
    from curate.pipeline.given import Given
    from curate.runs.folder import RECORDS

    # Arguments are settings of the recipe too: each may be given in one place only.
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
    """Restore the number of threads of torch after a `with` block.

    A run always uses the number of threads that it was begun with; the caller's own computations should not.
    """
    import torch

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _loaded(model: object, tokenizer: object) -> InMemory | None:
    """Return the model in memory with its tokenizer; None if the model is given by name."""
    if not isinstance(model, (str, Path)):
        from curate.models.in_memory import in_memory

        return in_memory(model, tokenizer)
    if tokenizer is not None:
        raise CurateError(f"tokenizer: that of {model} is loaded with it; it is given only beside a model in memory")
    return None
