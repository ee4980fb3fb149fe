"""Packs records for a page: columns of all that are listed, and as many full texts as fit."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from curate.report.run_table import RunTable
from curate.report.summary import strata_of
from curate.types import Example, IntArray

_MAX_CHARACTERS = 20_000  # of one turn, so that one long record does not take the room of thousands
_BLOCK = 128  # texts that are compressed before the size is checked

# Reasons why a record is not kept, as sentences of a page.
REASON_WORDS = {
    "outranked": "other records came first",
    "near_duplicate": "a record almost like it is kept",
    "duplicate": "a record that is exactly the same came first",
    "short_response": "its response is shorter than select.min_response_tokens",
    "no_score": "it has no value in the column that the selection goes by",
    "not_embedded": "it has no embedding, and so no cluster",
    "held_out": "it is held out for evaluation",
    "out_of_range": "it lies outside the ranges of select.within",
    "no_group": "it has no group, or its group has no share",
    "empty_response": "its response is empty",
    "too_long": "it is longer than prompt.max_length",
    "unscorable": "no token of its response can be scored",
    "non_finite": "its score is not a finite number",
    "out_of_memory": "the record alone did not fit into memory",
    "bad_record": "it could not be read",
}


@dataclass(frozen=True, slots=True)
class Texts:
    """The packed texts of a page.

    data   JSON lines [row, [[role, text], ...]], compressed by zlib and in base64
    rows   the rows that are inside, in the order of the lines
    """

    data: str
    rows: tuple[int, ...]


def listed_rows(table: RunTable, limit: int, *, seed: int = 0) -> IntArray:
    """Return the rows that a page lists, ascending: all, or at most `limit`.

    If there are more, the kept rows and a random sample of the others are listed. If even the kept rows are more, a
    random sample of them is listed.
    """
    order = priority(np.arange(len(table)), table, seed=seed)
    return np.sort(order[:limit])


def priority(rows: IntArray, table: RunTable, *, seed: int = 0) -> IntArray:
    """Return `rows` with the kept ones first, then the others, each part in random order.

    The first n rows are therefore the kept rows and a random sample of the others, or a random sample of the kept rows.
    """
    shuffled = np.random.default_rng(seed).permutation(rows)
    return shuffled[np.argsort(~table.kept[shuffled], kind="stable")]


def columns(table: RunTable, rows: IntArray) -> dict[str, Any]:
    """Return the columns of the records that a page lists, as plain lists; None if a record has no value."""
    score = table.score[rows]
    codes, _ = strata(table)
    return {
        "row": rows.tolist(),
        "score": [round(value, 4) if np.isfinite(value) else None for value in score.tolist()],
        "response": table.response_tokens[rows].tolist(),
        "prompt": table.prompt_tokens[rows].tolist(),
        "cluster": table.cluster[rows].tolist(),
        "group": table.group.codes[rows].tolist(),
        "kept": table.kept[rows].astype(int).tolist(),
        "reason": table.reason.codes[rows].tolist(),
        "rank": table.rank[rows].tolist(),
        "stratum": codes[rows].tolist(),
    }


def strata(table: RunTable) -> tuple[IntArray, list[tuple[int, int]]]:
    """Return the stratum of every row, int64 [N], and the numbers of eligible and of kept records of every stratum."""
    by = strata_of(table.settings)
    cluster = table.cluster + 1 if "cluster" in by else np.zeros(len(table), np.int64)
    group = table.group.codes + 1 if "group" in by else np.zeros(len(table), np.int64)
    # One number for each pair of cluster and group; "none" is -1 in the columns, and becomes 0 here.
    _, codes = np.unique(cluster.astype(np.int64) * (group.max(initial=0) + 1) + group, return_inverse=True)
    eligible, kept = (
        np.bincount(codes[mask], minlength=codes.max(initial=-1) + 1) for mask in (table.rank >= 0, table.kept)
    )
    return codes, list(zip(eligible.tolist(), kept.tolist(), strict=True))


def turns(example: Example) -> list[tuple[str, str]]:
    """Return role and text of every turn, or the problem of a bad record. Long turns are cut, and say so."""
    if example.problem is not None:
        return [("problem", _cut(example.problem))]
    shown = [(turn.role, f"{turn.content}\n\n{turn.input}" if turn.input else turn.content) for turn in example.turns]
    return [(role, _cut(text)) for role, text in shown]


def collect(examples: Iterable[Example], rows: IntArray) -> dict[int, list[tuple[str, str]]]:
    """Return the turns of the records in `rows`, by row."""
    wanted = set(rows.tolist())
    return {example.row: turns(example) for example in examples if example.row in wanted}


def pack_texts(texts: Mapping[int, list[tuple[str, str]]], order: IntArray, *, room: int) -> Texts:
    """Return the texts packed, in the given order, as many as fit into `room` bytes of base64."""
    packer = zlib.compressobj(9)
    out, kept_rows = b"", []
    there = [row for row in order.tolist() if row in texts]
    for start in range(0, len(there), _BLOCK):
        rows = there[start : start + _BLOCK]
        lines = "".join(json.dumps([row, texts[row]], separators=(",", ":"), ensure_ascii=False) + "\n" for row in rows)
        before = packer.copy()  # to go back to, if this block does not fit
        # Half a surrogate pair cannot be written in UTF-8; JSON has an escape for it.
        more = packer.compress(lines.encode("utf-8", "backslashreplace")) + packer.flush(zlib.Z_SYNC_FLUSH)
        # 16 bytes for the end of the stream; base64 writes 3 bytes as 4 characters.
        if (len(out) + len(more) + 16) * 4 / 3 > room:
            packer = before
            break
        out += more
        kept_rows += rows
    return Texts(base64.b64encode(out + packer.flush()).decode(), tuple(kept_rows))


def _cut(text: str) -> str:
    rest = len(text) - _MAX_CHARACTERS
    return text if rest <= 0 else f"{text[:_MAX_CHARACTERS]}\n[{rest:,} more characters are not in this file]"
