"""comparison.parquet: a row per cell, set and metric, with the costs of the cell."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curate.compare.cells import Cell, Cost, Measurement
from curate.compare.table import Row
from curate.tables.json_values import read_json

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
_COSTS = tuple(cost.name for cost in dataclasses.fields(Cost))


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


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many records two selectors both keep, square over the selectors `names`; by chance: of two random draws."""

    names: list[str]
    count: list[list[int]]
    by_chance: list[list[float]]


@dataclass(frozen=True, slots=True)
class Compared:
    """What a report shows of a comparison.json: the rows of its table, and overlaps by the kept number of records."""

    rows: list[Row]
    overlaps: dict[str, Overlap] = field(default_factory=dict)


def read_compared(path: Path) -> Compared:
    """Return what a comparison.json holds, checked field by field: a damaged file is named, never half read.

    Raises:
        CurateError: the file is missing or damaged.
    """
    return read_json(path, Compared, "compare")
