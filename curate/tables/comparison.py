"""comparison.parquet: a row per cell, set and metric, with the costs of the cell."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from curate.compare.cells import Cell, Cost, Measurement
from curate.compare.table import Row
from curate.tables.parquet import errors_naming

SCHEMA = pa.schema(
    [
        ("selector", pa.string()),
        ("keep", pa.string()),  # as in the recipe: a share ("10%") or a count
        ("seed", pa.int64()),
        ("set", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("stderr", pa.float64()),
        ("records", pa.int64()),
        ("higher_is_better", pa.bool_()),
        ("kept_records", pa.int64()),
        ("kept_tokens", pa.int64()),
        ("seen_tokens", pa.int64()),
        ("steps", pa.int64()),
        ("scoring_seconds", pa.float64()),
        ("embedding_seconds", pa.float64()),
        ("training_seconds", pa.float64()),
        ("evaluation_seconds", pa.float64()),
    ]
)
_COSTS = tuple(field.name for field in dataclasses.fields(Cost))


def write_comparison(path: Path, measurements: Sequence[Measurement]) -> None:
    """Write comparison.parquet, a row per measurement in the order given; the cost of a stage that did not run is null.

    A cell is a selector, a number of kept records and a seed; see `curate.compare.cells`.
    """
    rows = [
        {
            "selector": m.cell.selector,
            "keep": m.cell.keep,
            "seed": m.cell.seed,
            "set": m.set,
            "metric": m.metric,
            "value": m.value,
            "stderr": m.stderr,
            "records": m.records,
            "higher_is_better": m.higher_is_better,
            **{name: getattr(m.cost, name) for name in _COSTS},
        }
        for m in measurements
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, compression="zstd")


def read_comparison(path: Path) -> list[Measurement]:
    """Read what `write_comparison` wrote, in the same order."""
    return [
        Measurement(
            Cell(row["selector"], row["keep"], row["seed"]),
            row["set"],
            row["metric"],
            row["value"],
            row["records"],
            row["stderr"],
            row["higher_is_better"],
            Cost(**{name: row[name] for name in _COSTS}),
        )
        for row in pq.read_table(path, memory_map=True).to_pylist()
    ]


def read_rows(path: Path) -> list[Row]:
    """Read the rows of the table in a comparison.json.

    Raises:
        CurateError: the file is missing or damaged.
    """
    # Checked field by field against `Row`: a damaged file is named, never half read.
    with errors_naming(path, "compare"):
        return TypeAdapter(list[Row]).validate_python(json.loads(path.read_text(encoding="utf-8"))["rows"])
