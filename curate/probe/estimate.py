"""The estimate of a run, what it says, and how it compares with what a finished run took."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

PROCESSES = tuple(range(1, 9))
"""The numbers of processes that seconds are given for."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Records and tokens of the whole input.

    records          as read, at most data.limit
    exact            every record was tokenised; else all numbers but `sampled` are scaled up from a sample
    sampled          records that were tokenised
    scored           records that can be scored
    tokens           of the records that can be scored
    response_tokens  how many of those are scored
    truncated        records that lose the end of their response
    dropped          records that are not scored, by reason
    """

    records: int
    exact: bool
    sampled: int
    scored: int
    tokens: int
    response_tokens: int
    truncated: int
    dropped: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class StageEstimate:
    """What a stage takes.

    name            tokens, complexity, ifd, masked, dropout, embed, select, train, evaluate
    seconds         on 1, 2, ... 8 processes
    forward_passes  of a score: its price as a multiple of one forward pass over the records with one exit, the last;
                    None for other stages
    """

    name: str
    seconds: tuple[float, ...]
    forward_passes: float | None = None


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Peak memory of a stage in one process, in bytes; `activations` is None where it could not be measured."""

    stage: str
    weights: int
    activations: int | None


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will take, as it would be on this machine.

    counts         records and tokens
    stages         in the order in which they run
    memory         of the stages that load a model
    device         what was probed
    settings       what every `auto` came to, by key
    assumptions    what the numbers rest on, a sentence each
    probe_seconds  how long it took to find out
    """

    counts: Counts
    stages: tuple[StageEstimate, ...]
    memory: tuple[MemoryEstimate, ...]
    device: str
    settings: Mapping[str, Any]
    assumptions: tuple[str, ...]
    probe_seconds: float

    def total_seconds(self, processes: int = 1) -> float:
        """Return the seconds of all stages on 1 to 8 processes."""
        return sum(stage.seconds[processes - 1] for stage in self.stages)


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure: what was estimated, what it came to, and estimate / truth (None where the truth is zero)."""

    what: str
    unit: str
    estimated: float
    true: float
    ratio: float | None


def shared(alone: float, divided: float, imbalance: Mapping[int, float] | None = None) -> tuple[float, ...]:
    """Return seconds on 1 to 8 processes: `alone` every process (or one, for all) spends, `divided` they share.

    >>> shared(1, 8)[:4]
    (9.0, 5.0, 3.6666666666666665, 3.0)
    """
    return tuple(alone + divided / count * (imbalance or {}).get(count, 1.0) for count in PROCESSES)


def as_object(estimate: Estimate) -> dict[str, Any]:
    """Return an estimate as plain JSON values; `total_seconds` is beside its fields."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(estimate)))  # tuples become lists
    for stage in plain["stages"]:
        stage["seconds"] = [round(seconds, 3) for seconds in stage["seconds"]]
    plain["processes"] = list(PROCESSES)
    plain["total_seconds"] = [round(estimate.total_seconds(count), 3) for count in PROCESSES]
    plain["probe_seconds"] = round(estimate.probe_seconds, 1)
    return plain


def compare_with_truth(estimate: Estimate, manifest: Mapping[str, Any]) -> list[Compared]:
    """Hold an estimate against the stages that a manifest records: counts, then the seconds of every stage there.

    Seconds are those of as many processes as the stage had. Stages that did not run are left out; of several selections
    the one named in the estimate's settings counts.
    """
    stages = manifest.get("stages", {})
    rows = list(_counts(estimate.counts, stages["tokens"])) if "tokens" in stages else []
    selection = f"selections/{estimate.settings.get('select.name', 'main')}"
    launched = stages.get("scores", {}).get("processes", 1)  # stages that do not say ran in the same launch
    for stage in estimate.stages:
        names = _names_in_manifest(stage.name, selection)
        records = [stages[name] for name in names if name in stages]
        if len(records) == len(names):
            count = min(records[0].get("processes", launched), PROCESSES[-1])
            seconds = sum(record["seconds"] for record in records)
            rows.append(_compared(stage.name, "seconds", stage.seconds[count - 1], seconds))
    return rows


def _counts(counts: Counts, record: Mapping[str, Any]) -> Iterator[Compared]:
    yield _compared("number of records", "", counts.records, record["in"])
    yield _compared("number of tokens", "", counts.tokens, record["tokens"])
    yield _compared("truncated", "records", counts.truncated, record["truncated"])
    for reason in sorted({*counts.dropped, *record["dropped"]}):
        yield _compared(
            f"dropped: {reason}", "records", counts.dropped.get(reason, 0), record["dropped"].get(reason, 0)
        )


def _names_in_manifest(stage: str, selection: str) -> tuple[str, ...]:
    names = {
        "complexity": ("scores",),
        "embed": ("embeddings", "clusters"),
        "select": (selection,),
        "train": (f"{selection}/adapter",),
        "evaluate": (f"{selection}/evaluation",),
    }
    return names.get(stage, (stage,) if stage == "tokens" else (f"scores/{stage}",))


def _compared(what: str, unit: str, estimated: float, true: float) -> Compared:
    return Compared(what, unit, estimated, true, estimated / true if true else None)
