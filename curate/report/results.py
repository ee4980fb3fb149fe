"""Makes tables and a chart of the results: the evaluation of an adapter, and the comparison of selectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.compare.cells import ALL, UNTUNED
from curate.compare.table import Row
from curate.compare.text_table import MEANS, difference_tables, reference_of, summary_tables
from curate.report.chart import LEGEND, Spec, axis, chart, colour, field, number
from curate.runs.manifest import StageRecord
from curate.tables.comparison import Overlap, read_compared
from curate.tables.evaluation import Evaluated, Task, read_evaluated
from curate.tables.parquet import errors_naming

_VERDICTS = ("better", "no difference seen", "worse")
_COLOURS = ("var(--easy)", "var(--middle)", "var(--hard)")
_SHAPES = ("triangle-left", "circle", "triangle-right")


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a page. Cells are texts, numbers or None; notes are shown below the table."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    notes: tuple[str, ...] = ()


def evaluation_tables(folder: Path, selection: str, stages: Mapping[str, StageRecord]) -> list[Table]:
    """Return the results of a selection's adapter as tables; none if its present adapter was not evaluated.

    Args:
        folder: folder of the run.
        selection: name of the selection.
        stages: the stages of the manifest.
    """
    adapter = stages.get(f"selections/{selection}/adapter", {})
    stage = stages.get(f"selections/{selection}/evaluation", {})
    path = folder / "selections" / selection / "evaluation.json"
    # After another training the file is still there, but its results are those of the earlier adapter.
    if not path.exists() or stage.get("key", {}).get("adapter") != adapter.get("fingerprint"):
        return []
    found = read_evaluated(path)
    with errors_naming(path, "evaluate"):
        return [table for table in (_losses(found), _tasks(found.tasks), _judge(found.judge)) if table.rows]


def _losses(found: Evaluated) -> Table:
    """Return the table of losses: two rows per set, since the mean over records and over tokens can disagree."""
    rows = []
    for name, by_model in found.sets.items():
        untuned, adapter = by_model["untuned"], by_model["adapter"]
        for mean, before, after in (
            ("mean over records", untuned.mean_over_records, adapter.mean_over_records),
            ("mean over tokens", untuned.mean_over_tokens, adapter.mean_over_tokens),
        ):
            rows.append((name, mean, adapter.records, adapter.tokens, before, after, after - before))
    header = ("set", "loss", "records", "response tokens", "untuned", "adapter", "difference")
    return Table("Loss in nats per response token, lower is better", header, tuple(rows))


def _tasks(tasks: Sequence[Task]) -> Table:
    rows = (
        (t.task, t.metric, t.value, t.stderr, t.samples, "higher" if t.higher_is_better else "lower") for t in tasks
    )
    return Table("Tasks", ("task", "metric", "value", "standard error", "examples", "better is"), tuple(rows))


def _judge(judge: Mapping[str, Any] | None) -> Table:
    # Lists are the judge's single ratings; a table shows their mean.
    counts = {name.replace("_", " "): value for name, value in (judge or {}).items() if not isinstance(value, list)}
    return Table(
        "Judged against the untuned model's answers", tuple(counts), (tuple(counts.values()),) if counts else ()
    )


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison on a page.

    selectors    how many selectors there are, without the untuned model and all records
    summaries    tables for every number of kept records, with a row per selector
    differences  a table for every number of kept records, set and metric, with a row per selector
    figure       chart of the differences of losses with their intervals; None if there are no differences
    overlaps     a table for every number of kept records: how many of them two selectors have in common
    """

    selectors: int
    summaries: tuple[Table, ...]
    differences: tuple[Table, ...]
    figure: Spec | None
    overlaps: tuple[Table, ...]


def comparison(folder: Path) -> Comparison | None:
    """Return the comparison of a run; None if the run has none.

    Raises:
        CurateError: comparison.json is damaged.
    """
    path = folder / "comparison.json"
    if not path.exists():
        return None
    found = read_compared(path)
    rows = found.rows
    with errors_naming(path, "compare"):
        summaries, differences = (
            tuple(Table(t.title, t.header, t.rows, t.notes) for t in tables)
            for tables in (summary_tables(rows), difference_tables(rows))
        )
        selectors = len({row.selector for row in rows} - {UNTUNED, ALL})
        return Comparison(selectors, summaries, differences, differences_figure(rows), tuple(_overlaps(found.overlaps)))


def _overlaps(found: Mapping[str, Overlap]) -> Iterator[Table]:
    """Yield a table of overlaps for every number of kept records, each count with that of random draws."""
    # A count alone says little: two random tenths of the records also have a hundredth in common.
    for keep, overlap in found.items():
        names = overlap.names
        rows = (
            (name, *(f"{count:,} ({chance:,.0f})" for count, chance in zip(counts, chances, strict=True)))
            for name, counts, chances in zip(names, overlap.count, overlap.by_chance, strict=True)
        )
        note = "In brackets: how many two random draws of these sizes would both keep."
        yield Table(f"Records that both keep, kept: {keep}", ("selector", *names), tuple(rows), (note,))


def differences_figure(rows: Sequence[Row]) -> Spec | None:
    """Return the chart of every selector's loss minus that of the reference, with intervals; None without any.

    Only losses are shown. Task results have other units, and are in the tables.
    """
    points = [
        {
            "place": f"{row.set}\n{MEANS[row.metric]}",
            "who": row.selector if len({row.keep for row in rows}) == 1 else f"{row.selector}, {row.keep}",
            "value": d.value,
            "low": d.low,
            "high": d.high,
            "verdict": row.verdict,
        }
        for row in rows
        if (d := row.difference) is not None and d.low is not None and row.metric in MEANS
    ]
    if not points:
        return None
    label = {"labelLimit": 110, "grid": True, "labelExpr": r"split(datum.label, '\n')"}  # two lines
    # Sets and metrics are the rows of the chart; within a row, every selector has a line of its own.
    y = {"field": "place", "type": "nominal", "sort": None, "title": None, "axis": label}
    offset = {"field": "who", "type": "nominal", "sort": None}
    x = {"type": "quantitative", "title": f"loss minus that of {reference_of(rows)}, nats per token", **axis()}
    colours = colour("verdict", _VERDICTS, _COLOURS)
    # The same legend for colour and shape makes Vega-Lite draw one legend for both.
    shapes = {**colours, "scale": {"domain": list(_VERDICTS), "range": list(_SHAPES)}, "legend": LEGEND}
    tooltip = [
        field("who", "nominal", "selector"),
        field("place", "nominal", "set, mean"),
        *(number(name, "+.4f") for name in ("value", "low", "high")),
        field("verdict", "nominal"),
    ]
    place = {"y": y, "yOffset": offset, "color": colours, "tooltip": tooltip}
    zero = {"type": "rule", "strokeDash": [3, 3], "stroke": "var(--soft)"}
    layers = [
        {"mark": {**zero, "aria": False}, "encoding": {"x": {"datum": 0, **x}}},
        {
            "mark": {"type": "rule", "strokeWidth": 2, "aria": False},
            "encoding": {**place, "x": {"field": "low", **x}, "x2": {"field": "high"}},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 70, "aria": False},
            "encoding": {**place, "x": {"field": "value", **x}, "shape": shapes},
        },
        {
            "mark": {"type": "text", "align": "left", "dx": 7, "dy": -1, "fontSize": 10, "aria": False},
            "encoding": {**place, "x": {"field": "high", **x}, "text": {"field": "who"}},
        },
    ]
    return chart(points, 17 * len(points) + 40, layer=layers)
