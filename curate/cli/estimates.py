"""Prints estimates and what the doctor finds."""

from __future__ import annotations

import json
import shutil
import textwrap
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
        for line in estimate_lines(result, shutil.get_terminal_size((100, 24)).columns):
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


def estimate_lines(result: Estimate, width: int = 80) -> Iterator[str]:
    """Yield an estimate as lines: records and tokens, tables of seconds and memory, and its assumptions.

    Sentences are broken at `width` characters; the tables are up to 76 wide.
    """
    counts = result.counts
    about = "" if counts.exact else f" (scaled up from {counts.sampled:,})"
    yield f"{counts.records:,} records{about}: {counts.scored:,} can be scored, {counts.truncated:,} of them truncated"
    yield f"{counts.tokens:,} tokens, {counts.response_tokens:,} of them scored"
    if counts.dropped:
        dropped = (f"{number:,} {reason}" for reason, number in sorted(counts.dropped.items()))
        yield from textwrap.wrap(f"dropped: {', '.join(dropped)}", width)
    yield from textwrap.wrap(", ".join(f"{key}={value}" for key, value in result.settings.items()), width)
    yield ""
    yield _line("stage", *(f"{n} process" + "es" * (n > 1) for n in _SHOWN), "forward passes")
    for stage in result.stages:  # stage.seconds[n - 1] is for n processes
        passes = f"{stage.forward_passes:.1f}" if stage.forward_passes else ""
        yield _line(stage.name, *(duration(stage.seconds[n - 1]) for n in _SHOWN), passes)
    yield _line("in all", *(duration(result.total_seconds(n)) for n in _SHOWN))
    yield ""
    yield _line("memory", "in all", "weights", "activations", "libraries")
    for peak in result.memory:
        parts = (peak.peak, peak.weights, peak.activations, peak.process)
        yield _line(peak.stage, *("unknown" if number is None else gigabytes(number) for number in parts))
    yield ""
    yield f"probed {result.device} for {duration(result.probe_seconds)}"
    for sentence in result.assumptions:
        yield from textwrap.wrap(sentence, width, initial_indent="  ", subsequent_indent="    ")


def _line(name: str, *cells: str) -> str:
    """Return a line of a table: a name, four cells of 12 characters, and a wider fifth one."""
    first, last = cells[:4], cells[4:]
    return (f"{name:<12}" + "".join(f"{cell:>12}" for cell in first) + "".join(f"{cell:>16}" for cell in last)).rstrip()


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
