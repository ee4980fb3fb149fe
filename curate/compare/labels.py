"""Measures whether other people's judgements agree with a score or a selection, beside response length alone.

A field of the records may hold booleans, numbers, a text, or a list of tags. Every tag, and every text, becomes a
binary label of its own. Numbers are used as ranks only, so no threshold has to be chosen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau, rankdata

from curate.types import CurateError, End, FloatArray

MAX_TAGS = 64  # a field with more different texts is free text, not a judgement
_MAX_VALUES = 10  # numbers with more different values are shown in quarters

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Label:
    """One judgement of every record.

    name    the field, or field=tag
    kind    binary (0 or 1) or numeric
    values  float64 [N], NaN where the record lacks the field
    """

    name: str
    kind: Literal["binary", "numeric"]
    values: FloatArray


@dataclass(frozen=True, slots=True)
class KeptShare:
    """How many of the records with one value of a label a selection keeps; `share` is kept / records."""

    value: str
    records: int
    kept: int
    share: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well an order of the records agrees with a label.

    label       name of the label
    auc         AUC of the order: 1 if every record with a higher label comes first, 0 if last, .5 if there is no
                agreement; NaN where all labels are equal
    length_auc  AUC of the order "longest response first", on the same records
    records     number of records that have the label and the score
    positives   of a binary label, how many of these are positive; None for a numeric label
    dropped     number of records without the label or without the score
    """

    label: str
    auc: float
    length_auc: float
    records: int
    positives: int | None
    dropped: int


def read_labels(field: str, values: Sequence[Any]) -> list[Label]:
    """Turn a field of the records into labels, one value per record.

    A record whose value is None or NaN lacks the field: it has no label, which is not a negative label. An empty list
    means that the record has none of the tags: it is negative for all of them.

    >>> [(label.name, label.values.tolist()) for label in read_labels("in", [["a"], ["a", "b"], []])]
    [('in=a', [1.0, 1.0, 0.0]), ('in=b', [0.0, 1.0, 0.0])]

    Raises:
        CurateError: no record has the field; its values are of several kinds, or of none of these; there are more than
            MAX_TAGS different tags.
    """
    missing = [value is None or (isinstance(value, float) and math.isnan(value)) for value in values]
    kinds = {_kind(value) for value, lacks in zip(values, missing, strict=True) if not lacks}
    if len(kinds) != 1 or None in kinds:
        found = ", ".join(sorted({type(value).__name__ for value in values if value is not None})) or "no value"
        raise CurateError(
            f"compare.labels: expected {field} to hold booleans, numbers, texts or lists of texts, got {found}"
        )
    if kinds == {"tags"}:
        return _tags(field, values, missing)
    numbers = np.array([np.nan if lacks else float(v) for v, lacks in zip(values, missing, strict=True)])
    return [Label(field, "binary" if kinds == {"bool"} else "numeric", numbers)]


def agreement(
    label: Label,
    score: FloatArray,
    response_tokens: npt.NDArray[np.integer],
    *,
    order: End,
) -> Agreement:
    """Compute the AUC of an order against a label, and that of "longest response first".

        AUC = P(the record with the higher label comes first), over pairs with different labels; equal scores count 1/2

    For a binary label this is the area under the ROC curve, for numbers the concordance index. A selection can be given
    as a score: 1 for kept records, 0 for others, highest first.

    Args:
        label: as `read_labels` returns it.
        score: float64 [N], NaN where a record was not scored.
        response_tokens: int [N].
        order: which end of the score comes first.

    The lowest score comes first. One of two pairs of a good and a bad record has the good one first:

    >>> good = Label("good", "binary", np.array([1.0, 0.0, 1.0]))
    >>> found = agreement(good, np.array([0.1, 0.2, 0.3]), np.array([5, 5, 9]), order="lowest")
    >>> found.auc, found.length_auc
    (0.5, 0.75)
    """
    there = ~(np.isnan(label.values) | np.isnan(score))
    values, ranked = label.values[there], score[there] * (1 if order == "highest" else -1)
    return Agreement(
        label.name,
        auc(values, ranked),
        auc(values, response_tokens[there].astype(np.float64)),
        int(there.sum()),
        int(values.sum()) if label.kind == "binary" else None,
        int((~there).sum()),
    )


def auc(labels: FloatArray, scores: FloatArray) -> float:
    """Return P(the higher label has the higher score), over pairs with different labels; NaN if there is no such pair.

    Equal scores count half. It takes N log N steps.

    Of the four pairs of a 0 and a 1, three are in order and one is equal, 3.5 / 4:

    >>> auc(np.array([0.0, 0, 1, 1]), np.array([1.0, 2, 2, 3]))
    0.875
    >>> auc(np.array([1.0, 2, 3]), np.array([1.0, 3, 2])).__round__(6)
    0.666667
    """
    values, counts = np.unique(labels, return_counts=True)
    if len(values) < 2:
        return float("nan")
    if len(values) == 2:  # Mann-Whitney: the rank sum counts the pairs in order, and half of those that are equal
        lower, higher = (int(count) for count in counts)
        rank_sum = float(rankdata(scores)[labels == values[1]].sum())
        return (rank_sum - higher * (higher + 1) / 2) / (lower * higher)
    pairs, different = _pairs(len(labels)), _pairs(len(labels)) - sum(_pairs(int(c)) for c in counts)
    untied = pairs - sum(_pairs(int(c)) for c in np.unique(scores, return_counts=True)[1])
    if not untied:
        return 0.5
    # More values: Kendall's tau-b = (concordant - discordant) / sqrt(different * untied), of which only the numerator
    # is wanted, over `different` pairs.
    tau = float(kendalltau(labels, scores, variant="b", method="asymptotic").statistic)
    return 0.5 + 0.5 * tau * math.sqrt(different * untied) / different


def kept_shares(label: Label, kept: BoolArray) -> list[KeptShare]:
    """Return for each value of a label how many of its records a selection keeps.

    Numbers with more than ten different values are grouped into quarters of the records, from the lowest. A value on a
    boundary belongs to the lower quarter, so quarters of equal numbers differ in size.

    >>> label = Label("good", "binary", np.array([1.0, 1, 0, np.nan]))
    >>> [(s.value, s.records, s.kept) for s in kept_shares(label, np.array([True, False, True, True]))]
    [('no', 1, 1), ('yes', 2, 1)]
    """
    there = ~np.isnan(label.values)
    values, kept = label.values[there], kept[there]
    levels = np.unique(values)
    if label.kind == "binary":
        groups = {name: values == value for name, value in (("no", 0.0), ("yes", 1.0))}
    elif len(levels) <= _MAX_VALUES:
        groups = {f"{value:g}": values == value for value in levels}
    else:
        edges = np.quantile(values, [0.25, 0.5, 0.75])
        quarter = np.searchsorted(edges, values, side="left")
        groups = {_range(values[quarter == q]): quarter == q for q in range(4) if (quarter == q).any()}
    return [_share(name, kept[group]) for name, group in groups.items()]


def _share(name: str, kept: BoolArray) -> KeptShare:
    return KeptShare(name, len(kept), int(kept.sum()), float(kept.mean()) if len(kept) else float("nan"))


def _range(values: FloatArray) -> str:
    return f"{values.min():g} to {values.max():g}"


def _pairs(n: int) -> int:
    return n * (n - 1) // 2


def _kind(value: Any) -> Literal["bool", "number", "tags"] | None:
    """Return the kind of one value; a text is a single tag."""
    if isinstance(value, (bool, np.bool_)):  # before numbers: in Python a bool is an int
        return "bool"
    if isinstance(value, (int, float, np.number)):
        return "number"
    if isinstance(value, str):
        return "tags"
    if isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(item, str) for item in value):
        return "tags"
    return None


def _tags(field: str, values: Sequence[Any], missing: Sequence[bool]) -> list[Label]:
    """Make a binary label for every tag that occurs, named field=tag."""
    sets: list[set[str]] = [
        set() if lacks else {value} if isinstance(value, str) else set(value)
        for value, lacks in zip(values, missing, strict=True)
    ]
    names = sorted(set().union(*sets))
    if len(names) > MAX_TAGS:
        raise CurateError(
            f"compare.labels: expected at most {MAX_TAGS} different tags in {field}, got {len(names)}: "
            "name a field that holds somebody's judgement"
        )
    rows = np.where(missing, np.nan, 0.0)  # NaN + 1 stays NaN: a record without the field has no tag's label
    return [Label(f"{field}={name}", "binary", rows + np.array([name in tags for tags in sets])) for name in names]
