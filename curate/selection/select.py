"""Rows selected by a rule: pool, strata, quotas and order, one after the other, each step in its own module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt

from curate.selection.near import walk
from curate.selection.orders import Key, Order, Rows, bounds, farthest_first, ordered_rows, random_key
from curate.selection.pool import (
    ELIGIBLE,
    KEPT,
    OUTRANKED,
    Reasons,
    Within,
    count_reasons,
    pool,
    refuse_duplicates,
)
from curate.selection.quotas import cluster_quotas, flexrand_split, group_quotas, keep_count
from curate.selection.rule import Candidates, Rule
from curate.selection.strata import Strata, flexrand_strata, strata
from curate.types import CurateError, End, IntArray, Method, Quota


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """What a rule decided; N rows.

    kept    bool [N]
    rank    int32 [N]: place in the order, from 0, among the eligible rows of the same stratum; -1 for the others
    reason  uint8 [N]: index into `REASONS`, "kept" for the kept rows
    """

    kept: npt.NDArray[np.bool_]
    rank: npt.NDArray[np.int32]
    reason: Reasons


def select(table: Candidates, rule: Rule) -> Selection:
    """Keep exactly as many rows as the rule says, the first by its order in every stratum.

    1. The pool: rows that are scored, long enough, within ranges, not held out; of exact duplicates the best by the
       order. Every method refuses a row whose `rule.by` is not finite, where the table has that column.
    2. The strata: all rows as one, or clusters (method clusters), or FlexRand's two parts; inside every group where
       the table has groups.
    3. The quotas: across groups first, then inside each group across its strata.
    4. The order in every stratum; ties to the lower row. With `rule.near_duplicates` it is walked past records that are
       too close to a kept one. Method k_center needs no such walk: farthest first takes them last by itself.

    Nothing is random but what `rule.seed` draws, so a table and a rule always give the same selection. A million rows
    take about half a second and 15 to 25 bytes a row (45 for clusters inside groups), but for k_center and
    near-duplicates (see there).

    Raises:
        CurateError: fewer eligible rows than asked for, in all or in a group; a method, column or group that there is
            not; no clusters or embeddings where the rule needs them.

    >>> scores = {"complexity": np.array([0.5, 0.2, 0.1, 0.9])}
    >>> status, tokens = np.zeros(4, np.uint8), np.full(4, 7)
    >>> table = Candidates(status, tokens, scores, clusters=np.array([0, 0, 0, 1]))
    >>> select(table, Rule(keep=2)).kept.tolist()
    [False, False, True, True]
    >>> select(table, Rule(keep="50%", method="top")).kept.tolist()
    [False, True, True, False]
    """
    _check(table, rule)
    count = keep_count(rule.keep, len(table))
    order = _order(table, rule)
    reason = _pool(table, rule, order)
    if np.count_nonzero(reason == ELIGIBLE) < count:
        raise CurateError(_too_few(reason, count))
    parts = _strata(table, rule, reason == ELIGIBLE)
    quotas = _quotas(parts, count, rule, table.group_names if table.groups is not None else ())
    ordered = ordered_rows(parts.labels, parts.sizes, order)
    if rule.method == "k_center":
        assert table.embeddings is not None
        for (start, stop), quota in zip(bounds(parts.sizes), quotas.tolist(), strict=True):
            ordered[start:stop] = farthest_first(table.embeddings, ordered[start:stop], quota)
    return _cut(ordered, parts.sizes, quotas, table, rule, reason)


def overlap(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> tuple[int, float]:
    """Return how many rows two selections share, and their Jaccard index (shared / in either; 0 if both are empty).

    >>> overlap(np.array([True, True, False]), np.array([False, True, True]))
    (1, 0.3333333333333333)
    """
    shared, either = int(np.count_nonzero(a & b)), int(np.count_nonzero(a | b))
    return shared, shared / either if either else 0.0


def _check(table: Candidates, rule: Rule) -> None:
    """Refuse words that there are not, and a rule that needs what the table lacks."""
    for name, value, valid in (
        ("method", rule.method, get_args(Method)),
        ("order", rule.order, get_args(End)),
        ("quota", rule.quota, get_args(Quota)),
        ("duplicates", rule.duplicates, ("drop", "keep")),
        ("groups.quota", rule.group_quota, (*get_args(Quota), "a count or share for every value")),
    ):
        if isinstance(value, str) and value not in valid:
            raise CurateError(f"unknown select.{name}={value}; valid: {', '.join(valid)}")
    for setting, needs, there in (
        ("method=clusters", rule.method == "clusters", table.clusters is not None),
        ("method=k_center", rule.method == "k_center", table.embeddings is not None),
        ("near_duplicates", rule.near_duplicates is not None, table.embeddings is not None),
    ):
        if needs and not there:
            raise CurateError(
                f"select.{setting} needs the embeddings of the records, and there are none yet: embed first"
            )
    assert table.groups is None or table.groups.max(initial=-1) < len(table.group_names), "every group has a name"
    assert table.groups is not None or isinstance(rule.group_quota, str), "quotas of groups need groups"


def _column(table: Candidates, name: str, setting: str) -> Key:
    if name in table.columns:
        return table.columns[name]
    if name != "response_tokens":
        raise CurateError(f"{setting}: the columns are {', '.join([*table.columns, 'response_tokens'])}, got {name}")
    return table.response_tokens


def _score_order(table: Candidates, rule: Rule) -> Order:
    if rule.by == "random":
        return Order(random_key(len(table), rule.seed))
    return Order(_column(table, rule.by, "select.by"), rule.order)


def _order(table: Candidates, rule: Rule) -> Order | None:
    """Return the order in every stratum; None for k_center, whose order follows from the rows that are there."""
    if rule.method == "k_center":
        return None
    if rule.method in ("random", "flexrand"):
        return Order(random_key(len(table), rule.seed))
    if rule.method == "longest":
        return Order(table.response_tokens, "highest")
    return _score_order(table, rule)


def _pool(table: Candidates, rule: Rule, order: Order | None) -> Reasons:
    embedded = None
    if rule.method == "clusters" and table.clusters is not None:
        embedded = table.clusters >= 0
    elif rule.method == "k_center" and table.embeddings is not None:
        embedded = np.isfinite(table.embeddings[:, 0])
    ranges: list[Within] = [
        (_column(table, name, "select.within"), low, high) for name, (low, high) in rule.within.items()
    ]
    reason = pool(
        table.status,
        table.response_tokens,
        min_response_tokens=rule.min_response_tokens,
        score=table.columns.get(rule.by),
        embedded=embedded,
        held_out=table.held_out,
        within=ranges,
        groups=table.groups,
    )
    if rule.duplicates == "keep" or table.duplicate_ids is None:
        return reason
    return refuse_duplicates(reason, table.duplicate_ids, order)


def _strata(table: Candidates, rule: Rule, eligible: npt.NDArray[np.bool_]) -> Strata:
    if rule.method == "flexrand":
        return flexrand_strata(eligible, _score_order(table, rule), gamma=rule.gamma, groups=table.groups)
    return strata(eligible, clusters=table.clusters if rule.method == "clusters" else None, groups=table.groups)


def _quotas(parts: Strata, count: int, rule: Rule, names: tuple[str, ...]) -> IntArray:
    """Return how many rows every stratum keeps: int64 [S], sum `count`."""
    num_groups = max(len(names), 1)
    ends = np.searchsorted(parts.parents, np.arange(num_groups + 1))
    group_sizes = np.bincount(parts.parents, weights=parts.sizes, minlength=num_groups).astype(np.int64)
    counts = group_quotas(group_sizes, count, quota=rule.group_quota, names=names) if names else np.array([count])
    if rule.method not in ("clusters", "flexrand"):
        return counts[: len(parts.sizes)]  # a stratum is a group; groups after the last eligible row keep none
    quotas = np.zeros_like(parts.sizes)
    for group in np.flatnonzero(counts):
        sizes, inside = parts.sizes[ends[group] : ends[group + 1]], int(counts[group])
        if rule.method == "flexrand":
            quotas[ends[group] : ends[group + 1]] = flexrand_split(int(sizes.sum()), inside, rule.gamma)
        else:
            quotas[ends[group] : ends[group + 1]] = cluster_quotas(sizes, inside, quota=rule.quota)
    return quotas


def _cut(ordered: Rows, sizes: IntArray, quotas: IntArray, table: Candidates, rule: Rule, reason: Reasons) -> Selection:
    """Fill every quota from the rows of its stratum, which stand in order one stratum after the other."""
    rank = np.full(len(reason), -1, np.int32)
    for (start, stop), quota in zip(bounds(sizes), quotas.tolist(), strict=True):
        rank[ordered[start:stop]] = np.arange(stop - start, dtype=np.int32)
        reason[ordered[start + quota : stop]] = OUTRANKED  # the others are KEPT, which is the same code as ELIGIBLE
    if rule.near_duplicates is not None and rule.method != "k_center":
        assert table.embeddings is not None
        reason[ordered] = walk(
            ordered,
            sizes,
            quotas,
            embeddings=table.embeddings,
            clusters=table.clusters,
            threshold=rule.near_duplicates,
        )
    return Selection(reason == KEPT, rank, reason)


def _too_few(reason: Reasons, count: int) -> str:
    counts = count_reasons(reason)
    eligible = counts.pop("kept", 0)
    others = ", ".join(f"{number} {name}" for name, number in counts.items()) or "none"
    return (
        f"expected {count} records to keep, but only {eligible} of {len(reason)} are eligible (not eligible: {others})"
        f"; set select.keep to at most {eligible}"
    )
