"""Writes the report of a run, and finds the difference of two selections."""

from __future__ import annotations

from pathlib import Path

from curate.pipeline.adapter import adapter_stage
from curate.pipeline.evaluation import evaluation_stage
from curate.pipeline.job import Job
from curate.pipeline.selection import selection_stage
from curate.pipeline.verified import (
    verified_comparison,
    verified_embeddings,
    verified_file,
    verified_kept,
    verified_rows,
)
from curate.read.examples import read_examples
from curate.report.diff import SelectionDiff, diff
from curate.report.report import comparison_report, report
from curate.runs.atomic import write_text
from curate.types import CurateError


def write_report(job: Job) -> Path:
    """Write report.html about select.name, or about the comparison of a run that holds nothing else; return its path.

    Raises:
        CurateError: there is no such selection; its adapter was trained on an earlier one; the plotting library is
            not installed.
    """
    name = job.recipe.select.name
    selection = job.folder.stage(selection_stage(name))
    if selection is None and _only_compared(job):
        path = _place(job)
        verified_comparison(job.folder)
        write_text(path, comparison_report(job.folder.path))
        return path
    if selection is None:
        raise CurateError(f"{job.folder.path} holds no selection {name!r} yet: run curate select (or curate run)")
    adapter = job.folder.stage(adapter_stage(name))
    # A report would show losses of an adapter beside records that it was not trained on.
    if adapter is not None and adapter["key"]["selection"] != selection["fingerprint"]:
        raise CurateError(
            f"{job.folder.selection(name)} holds an adapter of an earlier selection: run curate train, then the report"
        )
    path = _place(job)
    _verify(job, name)
    if (evaluation := job.folder.selection(name) / "evaluation.json").exists():
        verified_file(job.folder, evaluation_stage(name), evaluation, "evaluate")
    if (job.folder.path / "embeddings.npy").exists():
        verified_embeddings(job)
    verified_comparison(job.folder)
    with job.launch.busy("report"):
        write_text(path, report(job.folder.path, name, read_examples(job.recipe.data, job.settled.source)))
    return path


def _only_compared(job: Job) -> bool:
    """Whether the run holds a comparison and no selection of any name."""
    selected = any(name.startswith("selections/") for name in job.folder.manifest()["stages"])
    return not selected and (job.folder.path / "comparison.json").exists()


def _place(job: Job) -> Path:
    """Where the page goes.

    Raises:
        CurateError: a folder stands there.
    """
    path = job.folder.path / "report.html"
    if path.is_dir():
        raise CurateError(f"expected to write {path}, but there is a folder of that name: move it away")
    return path


def _verify(job: Job, *names: str) -> None:
    """Check that the tables of a page are of this run: scores.parquet, and selection.parquet of the named selections.

    Raises:
        CurateError: one of them is not.
    """
    verified_rows(job.folder)
    for name in names:
        if job.folder.stage(selection_stage(name)) is not None:
            verified_kept(job.folder, name)


def selection_diff(job: Job, name_a: str, name_b: str) -> SelectionDiff:
    """Return how two selections of a run differ, with texts of the records.

    Raises:
        CurateError: there is no such selection, or the names are the same.
    """
    _verify(job, name_a, name_b)
    examples = read_examples(job.recipe.data, job.settled.source)
    return diff(job.folder.path, name_a, name_b, examples)
