"""Shows a run and one of its selections as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from curate.config.strict_yaml import parse
from curate.report import chart_data, figures, pages, records, results, summary
from curate.report.names import cluster_names
from curate.report.projection import Projection, project
from curate.report.run_table import LENGTH, RunTable, read_run
from curate.report.vega import vega_script
from curate.runs.folder import COMPARISON_RECIPE, RECIPE, RunFolder
from curate.runs.manifest import facts_of
from curate.tables.embeddings import open_embeddings
from curate.types import CurateError, Example, IntArray

MAX_BYTES = 5_000_000
MAX_LISTED = 50_000
MAX_POINTS = 2_500
_COMPARED = ("data", "prompt", "model", "score", "embed", "cluster", "compare", "train", "evaluate")  # of settings
_NUMBERS = 200  # bytes that the page may grow by when it states how many texts it has


def report(folder: Path, selection: str, examples: Iterable[Example]) -> str:
    """Return a run and a selection as an HTML page of at most `MAX_BYTES` that opens from disk and fetches nothing.

    The page lists up to `MAX_LISTED` records, and has as many full texts as fit, those of kept records first. Charts
    show up to `MAX_POINTS` points, a random sample if there are more. The page states these numbers.

    Args:
        folder: folder of the run, with scores.parquet, manifest.json, recipe.yaml and the selection; embeddings.npy and
            comparison.json are shown if they exist.
        selection: name of the selection.
        examples: all records of the input, as the run read them.

    Raises:
        CurateError: no such run or selection; the plotting library is not installed.
    """
    table = read_run(folder, selection)
    rows = records.listed_rows(table, MAX_LISTED)
    texts = records.collect(examples, rows)
    names = cluster_names((int(table.cluster[row]), _instruction(turns)) for row, turns in texts.items())
    values = _values(folder, table, rows, names)
    # Rendered without texts first, to know how many bytes are left for them.
    empty = _render(values, records.Texts("", ()))
    order = records.priority(rows, table)
    room = MAX_BYTES - len(empty.encode()) - _NUMBERS
    return _render(values, records.pack_texts(texts, order, room=room))


def _render(values: Mapping[str, Any], texts: records.Texts) -> str:
    """Return the page with these values and texts."""
    table: RunTable = values["table"]
    inside = np.zeros(len(table), bool)
    inside[list(texts.rows)] = True
    scripts = {"vega": vega_script(), "report": pages.source("report.js")}
    return pages.page(
        "report.html.jinja",
        scripts=scripts,
        texts=texts.data,
        texts_inside=len(texts.rows),
        kept_inside=int(np.count_nonzero(inside & table.kept)),
        notice=pages.source("THIRD_PARTY.txt"),
        **values,
    )


def _values(folder: Path, table: RunTable, rows: IntArray, names: Mapping[int, str]) -> dict[str, Any]:
    """Return the values that the template shows, without the texts."""
    run = RunFolder(folder)
    finished = run.stages()
    strata = summary.strata_of(table.settings)
    group_names = dict(enumerate(table.group.names))
    levels = chart_data.exit_levels(table)
    shown = [name for name in dict.fromkeys(("complexity", table.by)) if name in table.scores]
    bins = {name: chart_data.histogram(table.scores[name], table.kept) for name in shown}
    projection = _projection(folder, table)
    charts = _figures(table, projection, names, bins, levels)
    compared = results.comparison(folder)
    if compared is not None and compared.figure is not None:
        charts["comparison"] = compared.figure
    stages = summary.costs(finished, table.selection)
    return {
        "table": table,
        "score_name": table.by.replace("_", " "),
        "model": _model_name(run),
        "versions": facts_of(run.manifest(), "versions", folder / "manifest.json"),
        "kept": int(table.kept.sum()),
        "dropped": [(name, records.REASON_WORDS.get(name, ""), count) for name, count in summary.dropped(table)],
        "order": order_words(table),
        "chosen": chosen_words(table.settings),
        "stages": stages,
        "seconds": sum(stage[3] for stage in stages),
        "tokens": finished.get("tokens", {}).get("tokens"),
        # with the settings of this selection: the file's may be those of a later one
        "settings": summary.settings_lines(
            {**_recipe_file(folder), "select": {"name": table.selection, **table.settings}}
        ),
        "clusters": summary.parts(table, table.cluster, names, has_quota="cluster" in strata),
        "group_words": group_words(groups) if (groups := table.settings.get("groups")) else "groups",
        "groups": summary.parts(table, table.group.codes, group_names, has_quota="group" in strata),
        "evaluation": results.evaluation_tables(folder, table.selection, finished),
        "comparison": compared,
        "levels": levels,
        "bins": bins,
        "explained": projection.explained if projection else None,
        "map_points": len(projection.rows) if projection else 0,
        "length_points": min(MAX_POINTS, len(table)),
        "figures": pages.script_json(charts),
        "listed": len(rows),
        "about": pages.script_json(_about(table, names)),
        "columns": pages.packed_json(records.columns(table, rows)),
    }


def _figures(
    table: RunTable, projection: Projection | None, names: Mapping[int, str], bins: Mapping[str, Any], levels: Any
) -> dict[str, Any]:
    """Return the charts by the name of their place on the page; those that the run has no data for are left out."""
    charts = {f"histogram-{name}": figures.histogram_figure(rows, name) for name, rows in bins.items() if rows}
    if table.by != LENGTH:  # the chart would show length against itself
        charts["length"] = figures.length_figure(table, _sample(table))
    if levels:
        charts["exits"] = figures.exits_figure(levels)
    if projection:
        charts["map"] = figures.map_figure(table, projection, dict(names))
    return charts


def comparison_report(folder: Path) -> str:
    """Return the comparison of a run that has no selection yet as an HTML page; it opens from disk, fetches nothing.

    Raises:
        CurateError: comparison.json is not there or damaged; the plotting library is not installed.
    """
    run, compared = RunFolder(folder), results.comparison(folder)
    if compared is None:
        raise CurateError(f"{folder} holds no comparison: run curate compare")
    return pages.page(
        "comparison.html.jinja",
        scripts={"vega": vega_script(), "report": pages.source("report.js")},
        comparison=compared,
        records=run.stages().get("tokens", {}).get("in"),
        model=_model_name(run),
        settings=summary.settings_lines(_recipe_file(folder, COMPARISON_RECIPE, RECIPE), _COMPARED),
        figures=pages.script_json({"comparison": compared.figure} if compared.figure is not None else {}),
        notice=pages.source("THIRD_PARTY.txt"),
    )


def order_words(table: RunTable) -> str:
    """Return in words which records of a stratum were kept first."""
    method, by = table.settings.get("method", "clusters"), table.settings.get("by")
    known = {
        "random": "in random order",
        "flexrand": "in random order",
        "longest": "longest response first",
        "k_center": "farthest from the kept ones first",
    }
    if by == "random":
        return "in random order"
    order = table.settings.get("order", "lowest")
    return known.get(str(method), f"{order} {table.by.replace('_', ' ')} first")


def chosen_words(settings: Mapping[str, Any]) -> str:
    """Return in words how many records were to be kept, and which restrictions were set.

    >>> chosen_words({"keep": "10%", "groups": {"field": "source"}, "within": {"ifd": [None, 1]}})
    'keep 10%, groups by source, within ifd up to 1'
    """
    words = [f"keep {settings['keep']}"] if "keep" in settings else []
    if groups := settings.get("groups"):
        words.append(group_words(groups))
    for column, (low, high) in (settings.get("within") or {}).items():
        ends = (f"from {low:g}" if low is not None else "", f"up to {high:g}" if high is not None else "")
        words.append(f"within {column.replace('_', ' ')} {' '.join(filter(None, ends))}")
    return ", ".join(words)


def group_words(groups: Mapping[str, Any]) -> str:
    """Return in words what the groups of a selection are.

    >>> group_words({"field": "source", "bins": None}), group_words({"field": "response_tokens", "bins": 4})
    ('groups by source', 'groups by 4 ranges of response tokens')
    """
    field = str(groups["field"])
    return (
        f"groups by {groups['bins']} ranges of {field.replace('_', ' ')}"
        if groups.get("bins")
        else f"groups by {field}"
    )


def _about(table: RunTable, names: Mapping[int, str]) -> dict[str, Any]:
    """Return the names and numbers that the record browser of the page needs to describe a record."""
    return {
        "score": table.by.replace("_", " "),
        "whole": table.by == LENGTH,
        "order": order_words(table),
        "reasons": [{"name": name, "words": records.REASON_WORDS.get(name, "")} for name in table.reason.names],
        "clusters": {str(cluster): name for cluster, name in names.items()},
        "groups": list(table.group.names),
        "bins": table.settings.get("method")
        == "flexrand",  # selection.parquet does not say which rows are in which bin
        "by": list(summary.strata_of(table.settings)),
        "strata": records.strata(table)[1],
    }


def _projection(folder: Path, table: RunTable) -> Projection | None:
    path = folder / "embeddings.npy"
    if not path.exists():
        return None
    embeddings = open_embeddings(path)
    # Embeddings of another number of records are those of an older input.
    return project(embeddings, _sample(table)) if len(embeddings) == len(table) else None


def _sample(table: RunTable) -> IntArray:
    """Return the rows whose points the charts show: a random sample, ascending."""
    # A sample of all rows: kept rows, if preferred, would look like more than they are.
    return np.sort(np.random.default_rng(0).permutation(len(table))[:MAX_POINTS])


def _model_name(run: RunFolder) -> str:
    """Return the name without its folder: a report is passed on, and should not show paths of this machine."""
    return Path(str(facts_of(run.manifest(), "model", run.path / "manifest.json").get("name", ""))).name


def _recipe_file(folder: Path, *names: str) -> dict[str, Any]:
    """Return the first recipe of these names in the run folder; its `select` is that of the selection made last."""
    path = next((folder / name for name in names if (folder / name).exists()), folder / RECIPE)
    try:
        recipe = parse(path.read_text(encoding="utf-8") if path.exists() else "", path.name) or {}
    except (OSError, UnicodeDecodeError):
        raise CurateError(f"{path} is damaged: remove it, and curate score makes it again") from None
    if not isinstance(recipe, dict) or not all(isinstance(section or {}, dict) for section in recipe.values()):
        raise CurateError(f"{path} is no recipe: remove it, and curate score makes it again")
    return recipe


def _instruction(turns: list[tuple[str, str]]) -> str:
    return next((text for role, text in turns if role == "user"), "")
