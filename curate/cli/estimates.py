"""Prints estimates and what the doctor finds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from curate.cli import terminal
from curate.cli.terminal import printable, say
from curate.config import Recipe
from curate.probe.estimate import Compared, Estimate, as_object, compare_with_truth
from curate.probe.findings import Finding
from curate.runs.folder import RunFolder
from curate.types import CurateError

_SHOWN = (1, 2, 4, 8)  # numbers of processes; the JSON has all from 1 to 8


def show_estimate(recipe: Recipe, *, as_json: bool) -> None:
    """Estimate what a run will take, print it, and store it for the run.

    Raises:
        CurateError: what `estimate` refuses.
    """
    from curate.pipeline.estimate import estimate
    from curate.pipeline.stored_estimate import keep_estimate

    folder = RunFolder(Path(recipe.run.dir))
    with terminal.progress() as show:
        result = estimate(recipe, progress=show)
    manifest = folder.manifest() if folder.holds_run() else {}
    compared = compare_with_truth(result, manifest)
    if as_json:
        truth = [{"what": row.what, "estimated": row.estimated, "true": row.true} for row in compared]
        say(json.dumps({**as_object(result), "truth": truth}, ensure_ascii=False, indent=1))
    else:
        for line in estimate_lines(result):
            say(line)
        for line in truth_lines(compared):
            say(line)
    kept = keep_estimate(result, recipe, folder)
    if kept is not None and not as_json:
        say(f"kept in {kept}; after the run its manifest holds this beside the truth")


def show_examination(recipe: Recipe) -> None:
    """Print what the doctor finds, line by line as it is found.

    Raises:
        CurateError: something failed.
    """
    from curate.pipeline.doctor import examine

    failed = []
    for finding in examine(recipe):
        say(printable(finding_line(finding)))
        if finding.level == "fail":
            failed.append(finding)
    if failed:
        first = finding_line(failed[0]).partition("  ")[2]
        raise CurateError(f"{recipe.model.name}: {len(failed)} of the checks above failed, the first: {first}")


def finding_line(finding: Finding) -> str:
    """Return a finding as one line: its level, what was examined, what was found."""
    return f"{finding.level:<4}  {finding.name}: {' '.join(finding.text.splitlines())}"


def estimate_lines(result: Estimate) -> Iterator[str]:
    """Yield an estimate as lines: records and tokens, a table of seconds, memory, and its assumptions."""
    counts = result.counts
    about = "" if counts.exact else f" (scaled up from {counts.sampled:,})"
    yield f"{counts.records:,} records{about}: {counts.scored:,} can be scored, {counts.truncated:,} of them truncated"
    yield f"{counts.tokens:,} tokens, {counts.response_tokens:,} of them scored"
    if counts.dropped:
        yield "dropped: " + ", ".join(f"{number:,} {reason}" for reason, number in sorted(counts.dropped.items()))
    yield ", ".join(f"{key}={value}" for key, value in result.settings.items())
    yield ""
    yield f"{'stage':<12}" + "".join(f"{f'{n} process' + 'es' * (n > 1):>14}" for n in _SHOWN) + "  forward passes"
    for stage in result.stages:  # stage.seconds[n - 1] is for n processes
        passes = f"{stage.forward_passes:>16.1f}" if stage.forward_passes else ""
        yield (f"{stage.name:<12}" + "".join(f"{duration(stage.seconds[n - 1]):>14}" for n in _SHOWN) + passes).rstrip()
    yield f"{'in all':<12}" + "".join(f"{duration(result.total_seconds(n)):>14}" for n in _SHOWN)
    yield ""
    for peak in result.memory:
        parts = ("weights", peak.weights), ("activations", peak.activations), ("Python and libraries", peak.process)
        told = ", ".join(f"{what} {gigabytes(number)}" for what, number in parts if number is not None)
        yield f"memory of {peak.stage}: {'more than ' if peak.peak is None else ''}{gigabytes(peak.known)} ({told})"
    yield f"probed {result.device} for {duration(result.probe_seconds)}"
    for sentence in result.assumptions:
        yield f"  {sentence}"


def truth_lines(rows: Sequence[Compared]) -> Iterator[str]:
    """Yield a line for each figure: estimate, truth and their ratio. Nothing is yielded if no stage has run."""
    if rows:
        yield ""
        yield f"{'':<24}{'estimated':>14}{'true':>14}{'ratio':>8}"
    for row in rows:
        estimated, true = (in_unit(value, row.unit) for value in (row.estimated, row.true))
        yield f"{row.what:<24}{estimated:>14}{true:>14}" + ("" if row.ratio is None else f"{row.ratio:>8.2f}")


def duration(seconds: float) -> str:
    """Return seconds in the unit in which people say them.

    >>> duration(0.25), duration(42), duration(400), duration(9000)
    ('0.2 s', '42 s', '6.7 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def in_unit(value: float, unit: str) -> str:
    """Return a figure of a comparison with the truth, for a person.

    >>> in_unit(1234, "records"), in_unit(4, "seconds"), in_unit(2_500_000, "bytes")
    ('1,234', '4.0 s', '2.5 MB')
    """
    if unit == "bytes":
        return gigabytes(int(value))
    return f"{value:,.1f} s" if unit == "seconds" else f"{value:,.0f}"


def gigabytes(number: int) -> str:
    """Return bytes as MB or GB.

    >>> gigabytes(2_500_000), gigabytes(14_000_000_000)
    ('2.5 MB', '14.0 GB')
    """
    return f"{number / 1e6:,.1f} MB" if number < 1e9 else f"{number / 1e9:,.1f} GB"
