"""Selects rows by a rule: pool, strata, quotas and order, one after the other, each step in its own module."""

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
    """The result of a rule; N rows.

    kept    bool [N]
    rank    int32 [N], place in the order among the eligible rows of the same stratum, from 0; -1 where not eligible
    reason  uint8 [N], index into `REASONS`: "kept", or why not
    """

    kept: npt.NDArray[np.bool_]
    rank: npt.NDArray[np.int32]
    reason: Reasons


def select(candidates: Candidates, rule: Rule) -> Selection:
    """Keep exactly as many rows as the rule says, the first by its order in every stratum.

    1. The pool: rows that are scored, long enough, within ranges and not held out; of exact duplicates the best by the
       order. A row whose `rule.by` is not finite is refused by every method, if there is such a column.
    2. The strata: one stratum of all rows, or one per cluster (method clusters), or FlexRand's two strata. Where there
       are groups, each group has strata of its own.
    3. The quotas: distributed over groups first, then inside each group over its strata.
    4. The order in every stratum; ties go to the lower row. With `rule.near_duplicates`, a record that is too close to
       a kept one is passed over. (Method k_center ignores that setting: it takes close records last by itself.)

    The same candidates and rule always give the same selection, since every draw comes from `rule.seed`.

    A new method is added to `Method` in types.py, then where methods are told apart by name. In this module: here
    (k_center has an order that no column gives), `_check` (what a method needs), `_order`, `_pool`, `_strata`,
    `_quotas`, and `_cut` (which methods skip near-duplicates). Outside it: `curate.pipeline.needed` (which methods read
    scores or embeddings), `curate.pipeline.selection` (which ones draw, and the words of the data card),
    `curate.pipeline.cost_of_stages` (its cost), `curate.report.report` and `curate.report.run_table` (its words).

    Cost: about half a second for a million rows, and 15 to 25 bytes a row (45 for clusters inside groups). For k_center
    see `farthest_first`, for near-duplicates `near.walk`.

    Raises:
        CurateError: there are fewer eligible rows than asked for, in all or in a group; a method, column or group does
            not exist; clusters or embeddings are missing where the rule needs them.

    Rows 0 to 2 are one cluster and row 3 another. Method clusters keeps the lowest complexity of each, method top the
    two lowest of all:

    >>> scores = {"complexity": np.array([0.5, 0.2, 0.1, 0.9])}
    >>> status, tokens = np.zeros(4, np.uint8), np.full(4, 7)
    >>> candidates = Candidates(status, tokens, scores, clusters=np.array([0, 0, 0, 1]))
    >>> select(candidates, Rule(keep=2)).kept.tolist()
    [False, False, True, True]
    >>> select(candidates, Rule(keep="50%", method="top")).kept.tolist()
    [False, True, True, False]
    """
    _check(candidates, rule)
    count = keep_count(rule.keep, len(candidates))
    order = _order(candidates, rule)
    reason = _pool(candidates, rule, order)
    if np.count_nonzero(reason == ELIGIBLE) < count:
        raise CurateError(_too_few(reason, count))
    parts = _strata(candidates, rule, reason == ELIGIBLE)
    quotas = _quotas(parts, count, rule, candidates.group_names if candidates.groups is not None else ())
    ordered = ordered_rows(parts.labels, parts.sizes, order)
    if rule.method == "k_center":
        assert candidates.embeddings is not None
        # No column says this order: which row comes next depends on the rows before it.
        for (start, stop), quota in zip(bounds(parts.sizes), quotas.tolist(), strict=True):
            ordered[start:stop] = farthest_first(candidates.embeddings, ordered[start:stop], quota)
    return _cut(ordered, parts.sizes, quotas, candidates, rule, reason)


def overlap(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> tuple[int, float]:
    """Return how many rows two selections have in common, and their Jaccard index.

    The index is (rows in both) / (rows in either); 0 if both are empty.

    >>> overlap(np.array([True, True, False]), np.array([False, True, True]))
    (1, 0.3333333333333333)
    """
    shared, either = int(np.count_nonzero(a & b)), int(np.count_nonzero(a | b))
    return shared, shared / either if either else 0.0


def _check(candidates: Candidates, rule: Rule) -> None:
    """Raise for an unknown option, and for a rule that needs clusters or embeddings that the candidates lack."""
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
        ("method=clusters", rule.method == "clusters", candidates.clusters is not None),
        ("method=k_center", rule.method == "k_center", candidates.embeddings is not None),
        ("near_duplicates", rule.near_duplicates is not None, candidates.embeddings is not None),
    ):
        if needs and not there:
            raise CurateError(
                f"select.{setting} needs the embeddings of the records, and there are none yet: embed first"
            )
    assert candidates.groups is None or candidates.groups.max(initial=-1) < len(candidates.group_names), (
        "every group has a name"
    )
    assert candidates.groups is not None or isinstance(rule.group_quota, str), "quotas of groups need groups"


def _column(candidates: Candidates, name: str, setting: str) -> Key:
    if name in candidates.columns:
        return candidates.columns[name]
    if name != "response_tokens":
        raise CurateError(
            f"{setting}: the columns are {', '.join([*candidates.columns, 'response_tokens'])}, got {name}"
        )
    return candidates.response_tokens


def _score_order(candidates: Candidates, rule: Rule) -> Order:
    if rule.by == "random":
        return Order(random_key(len(candidates), rule.seed))
    return Order(_column(candidates, rule.by, "select.by"), rule.order)


def _order(candidates: Candidates, rule: Rule) -> Order | None:
    """Return the order in every stratum; None for k_center, whose order depends on which rows are in the stratum."""
    if rule.method == "k_center":
        return None
    if rule.method in ("random", "flexrand"):
        return Order(random_key(len(candidates), rule.seed))
    if rule.method == "longest":
        return Order(candidates.response_tokens, "highest")
    return _score_order(candidates, rule)


def _pool(candidates: Candidates, rule: Rule, order: Order | None) -> Reasons:
    """Return why each row may not be kept, with the settings of the rule; duplicates are refused last."""
    embedded = None  # methods that need no embedding also keep rows without one
    if rule.method == "clusters" and candidates.clusters is not None:
        embedded = candidates.clusters >= 0
    elif rule.method == "k_center" and candidates.embeddings is not None:
        embedded = np.isfinite(candidates.embeddings[:, 0])
    ranges: list[Within] = [
        (_column(candidates, name, "select.within"), low, high) for name, (low, high) in rule.within.items()
    ]
    # `score` for every method, also where it is not ordered by: so all methods choose from the same pool.
    reason = pool(
        candidates.status,
        candidates.response_tokens,
        min_response_tokens=rule.min_response_tokens,
        score=candidates.columns.get(rule.by),
        embedded=embedded,
        held_out=candidates.held_out,
        within=ranges,
        groups=candidates.groups,
    )
    if rule.duplicates == "keep" or candidates.duplicate_ids is None:
        return reason
    return refuse_duplicates(reason, candidates.duplicate_ids, order)


def _strata(candidates: Candidates, rule: Rule, eligible: npt.NDArray[np.bool_]) -> Strata:
    if rule.method == "flexrand":
        return flexrand_strata(eligible, _score_order(candidates, rule), gamma=rule.gamma, groups=candidates.groups)
    return strata(
        eligible, clusters=candidates.clusters if rule.method == "clusters" else None, groups=candidates.groups
    )


def _quotas(parts: Strata, count: int, rule: Rule, names: tuple[str, ...]) -> IntArray:
    """Return how many rows every stratum keeps, by group and inside each group: int64 [S], sum `count`."""
    num_groups = max(len(names), 1)
    # Strata ascend by group: those of group g are ends[g] to ends[g + 1] - 1.
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


def _cut(
    ordered: Rows, sizes: IntArray, quotas: IntArray, candidates: Candidates, rule: Rule, reason: Reasons
) -> Selection:
    """Keep the first rows of every stratum, as many as its quota; `ordered` holds the strata one after the other."""
    rank = np.full(len(reason), -1, np.int32)
    for (start, stop), quota in zip(bounds(sizes), quotas.tolist(), strict=True):
        rank[ordered[start:stop]] = np.arange(stop - start, dtype=np.int32)
        reason[ordered[start + quota : stop]] = OUTRANKED  # the others are KEPT, which is the same code as ELIGIBLE
    if rule.near_duplicates is not None and rule.method != "k_center":
        assert candidates.embeddings is not None
        reason[ordered] = walk(
            ordered,
            sizes,
            quotas,
            embeddings=candidates.embeddings,
            clusters=candidates.clusters,
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
