"""One measurement of one cell of a comparison, as comparison.parquet holds it: a row per cell, set and metric."""

from __future__ import annotations

from dataclasses import dataclass

UNTUNED, ALL, RANDOM = "untuned", "all", "random"
LOSS_OVER_RECORDS, LOSS_OVER_TOKENS = "loss_over_records", "loss_over_tokens"


@dataclass(frozen=True, slots=True)
class Cell:
    """What is selected, trained and evaluated once.

    selector  its name; `untuned` and `all` are baselines
    keep      what was asked for, as the person wrote it ("10%", "340"); "" for a baseline, which goes with every keep
    seed      of the selection and of training; 0 for `untuned`, which has none
    """

    selector: str
    keep: str
    seed: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What a cell took; None where a stage had no part in it (nothing is trained for `untuned`).

    kept_records, kept_tokens  records it kept, and their response tokens
    seen_tokens, steps         response tokens seen in training (with repeats), and optimizer steps
    *_seconds                  of the passes and the embedding that its selection needs, shared or not; of training; of
                               evaluation
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

    set               set of references, or task
    metric            loss_over_records, loss_over_tokens, or a task's own
    value             nats per token, or the metric's own unit
    stderr            standard error over examples, where a task gives one
    records           records or examples it is a mean over
    higher_is_better  false for losses
    cost              of the cell; the same in all of its measurements
    """

    cell: Cell
    set: str
    metric: str
    value: float
    records: int
    stderr: float | None = None
    higher_is_better: bool = False
    cost: Cost = Cost()
