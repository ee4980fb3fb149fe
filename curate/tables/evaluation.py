"""evaluation.parquet: the loss of every reference record, untuned and with adapter; evaluation.json: their means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.evaluation.summary import Losses, LossSummary, summarize
from curate.evaluation.task_results import TaskResult
from curate.tables.json_values import as_json, read_json
from curate.tables.parquet import count_rows, errors_naming

Model = Literal["untuned", "adapter"]
MODELS: tuple[Model, ...] = get_args(Model)
_ROW_GROUP = 65_536
_DEFINITIONS = {
    "loss": "-1/T * sum over response tokens of log p(token), nats per token; the end token is not scored",
    "mean_over_records": "every record counts the same",
    "mean_over_tokens": "every response token counts the same",
    "dropped": "records without a loss: empty or over-long response, not finite, out of memory",
}
SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("set", pa.string()),
        ("row", pa.int64()),
        ("tokens", pa.int32()),
        ("loss", pa.float64()),
    ],
    metadata={f"curate.{name}": text for name, text in _DEFINITIONS.items()},
)


@dataclass(frozen=True, slots=True)
class SetLosses:
    """The losses of one model on one set; entry r belongs to row r of the set's file."""

    model: Model
    set: str
    losses: Losses


def write_evaluation(path: Path, results: Iterable[SetLosses]) -> None:
    """Write evaluation.parquet: model, set, row, tokens and loss, a row per record; loss is null where missing."""
    with pq.ParquetWriter(path, SCHEMA, use_dictionary=["model", "set"], compression="zstd") as writer:
        for result in results:
            tokens, loss = result.losses.tokens, result.losses.loss
            for start in range(0, len(loss), _ROW_GROUP):
                part = slice(start, min(start + _ROW_GROUP, len(loss)))
                count = part.stop - part.start
                columns = [
                    pa.array([result.model] * count),
                    pa.array([result.set] * count),
                    pa.array(np.arange(part.start, part.stop)),
                    pa.array(tokens[part]),
                    pa.array(loss[part], mask=np.isnan(loss[part])),
                ]
                writer.write_table(pa.table(columns, schema=SCHEMA))


def read_evaluation(path: Path) -> list[SetLosses]:
    """Read what `write_evaluation` wrote, in the same order.

    Raises:
        CurateError: the file is missing or damaged.
    """
    found = []
    with errors_naming(path, "compare"):
        table = pq.read_table(path, memory_map=True).select(SCHEMA.names).cast(SCHEMA)
        if empty := [name for name in SCHEMA.names if name != "loss" and table[name].null_count]:
            raise ValueError(f"the column {empty[0]} lacks values")
        # use_threads=False keeps the pairs in the order of the file.
        pairs = table.select(["model", "set"]).group_by(["model", "set"], use_threads=False).aggregate([])
        for pair in pairs.to_pylist():
            mine = table.filter(pc.and_(pc.equal(table["model"], pair["model"]), pc.equal(table["set"], pair["set"])))
            rows = mine["row"].to_numpy()  # places by row: another program may have sorted the file
            losses = Losses(np.zeros(len(rows), np.int32), np.full(len(rows), np.nan))
            losses.tokens[rows] = mine["tokens"].to_numpy()
            losses.loss[rows] = mine["loss"].to_numpy()
            found.append(SetLosses(pair["model"], pair["set"], losses))
    return found


def count_losses(path: Path) -> int:
    """Return how many records evaluation.parquet is about; each has a row for every model.

    Raises:
        CurateError: the file is missing or damaged.
    """
    return count_rows(path, "evaluate", SCHEMA.names) // len(MODELS)


@dataclass(frozen=True, slots=True)
class Task:
    """One metric of one lm-eval task: a `TaskResult` without its examples; `value` is None where it is not finite."""

    task: str
    metric: str
    value: float | None
    stderr: float | None
    samples: int
    higher_is_better: bool


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What a report shows of an evaluation.json: losses by set and model, tasks, and a judge's counts."""

    sets: dict[str, dict[str, LossSummary]]
    tasks: list[Task]
    judge: dict[str, int | float | str | list[Any] | None] | None


def read_evaluated(path: Path) -> Evaluated:
    """Read an evaluation.json.

    Raises:
        CurateError: the file is missing or damaged.
    """
    return read_json(path, Evaluated, "evaluate")


def evaluation_json(
    results: Sequence[SetLosses],
    *,
    tasks: Sequence[TaskResult] = (),
    judge: Any = None,
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the content of evaluation.json: both means by set and model, task results, the judge's, and definitions.

    Args:
        results: as written to evaluation.parquet.
        tasks: results of lm-eval tasks.
        judge: `PairResult` or `RatingResult`, None if there was no judge.
        about: further entries, for example seconds and settings.

    Raises:
        CurateError: a set has no record with a loss.
    """
    sets: dict[str, dict[str, Any]] = {}
    for result in results:
        sets.setdefault(result.set, {})[result.model] = as_json(summarize(result.losses))
    return {
        **as_json(dict(about or {})),
        "definitions": _DEFINITIONS,
        "sets": sets,
        "tasks": [{f.name: as_json(getattr(task, f.name)) for f in fields(Task)} for task in tasks],
        "judge": as_json(judge),
    }
