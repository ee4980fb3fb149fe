"""The estimate of a run, as JSON, and its comparison with what a finished run took."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

PROCESSES = tuple(range(1, 9))
"""Numbers of processes that seconds are estimated for."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of records and tokens of the whole input.

    records          records read, at most data.limit
    exact            whether every record was tokenized; if not, all numbers but `sampled` are scaled up from a sample
    sampled          records that were tokenized
    scored           records that can be scored
    tokens           tokens of the records that can be scored
    response_tokens  those of them that are scored
    truncated        records whose response is cut
    dropped          reason -> records that are not scored
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
    """Estimated time of a stage.

    name            tokens, complexity, ifd, masked, dropout, embed, select, train or evaluate
    seconds         seconds on 1, 2, ... 8 processes
    forward_passes  of a score: its time divided by that of one forward pass over the records with the last exit only;
                    None for other stages
    """

    name: str
    seconds: tuple[float, ...]
    forward_passes: float | None = None


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Peak memory of a stage in one process, in bytes. A part that could not be measured is None.

    stage        the stage
    weights      of the model
    activations  what computing takes beside the weights
    process      what the process holds before it loads the model: Python, libraries, tokenizers; 0 on a GPU
    """

    stage: str
    weights: int
    activations: int | None
    process: int | None

    @property
    def peak(self) -> int | None:
        """Return the sum of the parts; None where one of them is unknown."""
        if self.activations is None or self.process is None:
            return None
        return self.weights + self.activations + self.process


@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimated time and memory of a run on this machine.

    counts         records and tokens
    stages         times of the stages, in the order in which they run
    memory         memory of the stages that load a model
    device         device that was probed
    settings       setting -> the value that its `auto` stands for
    assumptions    what the numbers rest on, a sentence each
    probe_seconds  seconds that the estimate itself took
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
    """One figure as estimated and as it came out; `ratio` is estimated / true, None where true is zero.

    The unit is "", records, seconds or bytes (of a peak of memory).
    """

    what: str
    unit: str
    estimated: float
    true: float
    ratio: float | None


def seconds_by_processes(
    alone: float, divided: float, imbalance: Mapping[int, float] | None = None
) -> tuple[float, ...]:
    """Return the seconds that a stage takes on 1 to 8 processes.

    Args:
        alone: seconds that are spent whatever the number of processes.
        divided: seconds on one process of the work that is divided among them.
        imbalance: number of processes -> time of the busiest one over their mean; 1 where a number is missing.

    >>> seconds_by_processes(1, 8)[:4]
    (9.0, 5.0, 3.6666666666666665, 3.0)
    """
    return tuple(alone + divided / count * (imbalance or {}).get(count, 1.0) for count in PROCESSES)


def as_object(estimate: Estimate) -> dict[str, Any]:
    """Return an estimate as plain JSON values, with `processes` and `total_seconds` beside its fields."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(estimate)))  # tuples become lists
    for stage in plain["stages"]:
        stage["seconds"] = [round(seconds, 3) for seconds in stage["seconds"]]
    plain["processes"] = list(PROCESSES)
    plain["total_seconds"] = [round(estimate.total_seconds(count), 3) for count in PROCESSES]
    plain["probe_seconds"] = round(estimate.probe_seconds, 1)
    return plain


def compare_with_truth(estimate: Estimate, manifest: Mapping[str, Any]) -> list[Compared]:
    """Compare an estimate with the stages in a manifest: the counts, then seconds and peak memory of every stage.

    The estimate for as many processes as the stage had is taken. Stages that did not run are left out. Of several
    selections the one that the estimate's settings name is taken.
    """
    stages = manifest.get("stages", {})
    rows = list(_counts(estimate.counts, stages["tokens"])) if "tokens" in stages else []
    selection = f"selections/{estimate.settings.get('select.name', 'main')}"
    launched = stages.get("scores", {}).get("processes", 1)  # stages that do not say ran in the same launch
    for stage in estimate.stages:
        names = _names_in_manifest(stage.name, selection)
        records = [stages[name] for name in names if name in stages]
        if len(records) == len(names):  # all parts of the stage ran: a part alone would look like a wrong estimate
            # Seconds are estimated for up to 8 processes; a larger launch is compared with those.
            count = min(records[0].get("processes", launched), PROCESSES[-1])
            seconds = sum(record["seconds"] for record in records)
            rows.append(_compared(stage.name, "seconds", stage.seconds[count - 1], seconds))
            rows += _memory(stage.name, estimate.memory, records)
    return rows


def _memory(name: str, memory: Sequence[MemoryEstimate], records: Sequence[Mapping[str, Any]]) -> list[Compared]:
    """Return the peak of memory of a stage, beside the largest of its records; nothing where one is not known."""
    peaks = [record["peak_memory"] for record in records if "peak_memory" in record]
    estimated = [whole.peak for whole in memory if whole.stage == name and whole.peak is not None]
    return [_compared(f"memory of {name}", "bytes", estimated[0], max(peaks))] if peaks and estimated else []


def _counts(counts: Counts, record: Mapping[str, Any]) -> Iterator[Compared]:
    yield _compared("number of records", "", counts.records, record["in"])
    yield _compared("number of tokens", "", counts.tokens, record["tokens"])
    yield _compared("truncated", "records", counts.truncated, record["truncated"])
    for reason in sorted({*counts.dropped, *record["dropped"]}):
        yield _compared(
            f"dropped: {reason}", "records", counts.dropped.get(reason, 0), record["dropped"].get(reason, 0)
        )


def _names_in_manifest(stage: str, selection: str) -> tuple[str, ...]:
    """Return the stages of a manifest that one stage of an estimate stands for."""
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
