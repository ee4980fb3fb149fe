"""The merged model: an adapter in the weights of its model, as one folder that any program loads."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from curate.pipeline.features import trained_model
from curate.pipeline.job import Job
from curate.pipeline.selection import selection_stage
from curate.runs.atomic import keep_others, remove
from curate.runs.manifest import StageRecord
from curate.runs.stage import Outcome, Stage
from curate.training.lora import merge_adapter


def merge(job: Job, adapter: StageRecord | None) -> None:
    """Write merged/, the model with the adapter in its weights, if train.merge asks for it.

    Without train.merge, a merged model of an earlier adapter is removed: beside a new adapter it would mislead. Files
    that this package did not write stay.

    Args:
        job: its select.name names the selection.
        adapter: what the manifest says of its adapter.
    """
    assert adapter is not None, "the caller has just finished it"
    name, folder = selection_stage(job.recipe.select.name), job.folder.selection(job.recipe.select.name)
    key = {"adapter": adapter["fingerprint"]}
    earlier = job.folder.stage(f"{name}/merged")
    written = (earlier or {}).get("files", ["config.json"])
    stage = Stage(job.folder, f"{name}/merged", key, tuple(folder / "merged" / file for file in written))
    if not job.recipe.train.merge:
        if earlier is not None and not job.folder.is_done(stage.name, key):
            job.folder.forget(stage.name)
            for file in earlier.get("files", []):
                remove(folder / "merged" / file)
            with suppress(OSError):  # not empty: a person has put files there
                (folder / "merged").rmdir()
        return
    if stage.is_finished():
        return
    model = trained_model(job.recipe)
    with job.launch.busy("merging the adapter"), stage.replacing(folder / "merged") as temporary:
        merge_adapter(
            folder / "adapter",
            model.name,
            job.loaded.tokenizer(model.name, model.revision),
            output_dir=temporary,
            revision=model.revision,
            trust_remote_code=job.recipe.model.trust_remote_code,
        )
        files = finish_folder(folder / "merged", temporary, earlier)
    stage.finish(Outcome(1, 1, details={"files": files}, note=str(folder / "merged")))


def finish_folder(old: Path, new: Path, earlier: StageRecord | None) -> list[str]:
    """Return the names in a new folder, and put a person's files of the folder that it will replace beside them.

    Args:
        old: the folder that is there.
        new: the folder that will take its place.
        earlier: what the manifest says of `old`; without its names nobody knows which files are a person's.
    """
    names = sorted(path.name for path in new.iterdir())
    if earlier is not None and "files" in earlier:
        keep_others(old, new, ours=earlier["files"])
    return names
