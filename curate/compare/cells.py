"""Cells of a comparison and their measurements, as comparison.parquet holds them: a row per cell, set and metric."""

from __future__ import annotations

from dataclasses import dataclass, field

from curate.evaluation.summary import ByRecord

# Baselines, and the selector that others are compared with if nothing else is asked for.
UNTUNED, ALL, RANDOM = "untuned", "all", "random"
LOSS_OVER_RECORDS, LOSS_OVER_TOKENS = "loss_over_records", "loss_over_tokens"
LOSSES = (LOSS_OVER_RECORDS, LOSS_OVER_TOKENS)


@dataclass(frozen=True, slots=True)
class Cell:
    """One selection with its adapter and evaluation: done once, whatever tables show it.

    selector  name of the selector; `untuned` and `all` are baselines
    keep      select.keep as the person wrote it ("10%", "340"); "" for a baseline, which is shown for every keep
    seed      seed of the selection and of training; 0 for `untuned`, which has none
    """

    selector: str
    keep: str
    seed: int


@dataclass(frozen=True, slots=True)
class Cost:
    """The costs of a cell; None where it has no such stage (nothing is trained for `untuned`).

    kept_records, kept_tokens  records that it keeps, and their response tokens
    seen_tokens, steps         response tokens seen in training (with repeats), and optimizer steps
    scoring_seconds            of the scores that its selection needs, also if other cells share them
    embedding_seconds          of the embeddings and clusters that its selection needs, also if shared
    training_seconds, evaluation_seconds  of this cell alone
    """

    kept_records: int | None = None
    kept_tokens: int | None = None
    seen_tokens: int | None = None
    steps: int | None = None
    scoring_seconds: float | None = None
    embedding_seconds: float | None = None
    training_seconds: float | None = None
    evaluation_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number about one cell.

    set               name of the set of references, or of the task
    metric            loss_over_records, loss_over_tokens, or a metric of the task
    value             nats per token, or the metric's own unit
    records           how many records or examples the value is a mean over
    stderr            standard error over examples, where a task reports one
    higher_is_better  direction of the metric; False for losses
    cost              costs of the cell; the same in all of its measurements
    by_record         what the value is a mean over; None where it is no mean over records, and in comparison.parquet
    """

    cell: Cell
    set: str
    metric: str
    value: float
    records: int
    stderr: float | None = None
    higher_is_better: bool = False
    cost: Cost = Cost()
    by_record: ByRecord | None = field(default=None, compare=False, repr=False)
