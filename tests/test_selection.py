"""Exact counts, every cluster covered, and the same rows as a slow and obvious reference."""

import subprocess
import sys
from collections import Counter
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from curate.selection import REASONS, count_reasons, keep_count, reason_codes, select
from curate.selection.quotas import cluster_quotas, largest_remainder
from curate.types import STATUSES, CurateError

ELIGIBLE, EMPTY = 0, REASONS.index("empty_response")


def rows_kept(scores, count, **options):
    scores = np.asarray(scores, np.float64)
    arrays = {key: np.asarray(value) if isinstance(value, list) else value for key, value in options.items()}
    arrays.setdefault("reason", np.zeros(len(scores), np.uint8))
    return np.flatnonzero(select(scores, count=count, **arrays).kept).tolist()


@pytest.mark.parametrize(
    ("keep", "rows_in", "count"),
    [
        ("10%", 9_229, 923),  # 922.9
        ("10%", 5, 1),  # exactly half rounds up
        ("10%", 14, 1),
        ("10%", 15, 2),
        ("0.1%", 2_500, 3),
        ("33.3%", 1_000, 333),
        ("1.15%", 10_000, 115),  # 114.99999999999999 in floating point
        (" 7 % ", 100, 7),
        ("100%", 3, 3),
        (852, 9_229, 852),
    ],
)
def test_keep_count_by_hand(keep, rows_in, count):
    assert keep_count(keep, rows_in) == count


@given(st.integers(1, 10_000_000), st.integers(1, 100_000))
def test_a_share_is_rounded_half_up(rows_in, thousandths):
    share = Decimal(thousandths) / 1000
    expected = int((share * rows_in / 100).quantize(Decimal(1), ROUND_HALF_UP))
    assume(expected > 0)
    assert keep_count(f"{share}%", rows_in) == expected


def test_a_share_that_is_no_record_is_refused():
    with pytest.raises(CurateError, match=r"select\.keep=10% of 4 records is none"):
        keep_count("10%", 4)


@pytest.mark.parametrize(
    ("sizes", "count", "quota", "expected"),
    [
        ([8, 0, 3, 1], 7, "proportional", [4, 0, 2, 1]),  # 1 each; rest 4: 2.67, 1, .33
        ([5, 5], 3, "proportional", [2, 1]),  # equal remainders: the lower cluster
        ([10, 1, 1], 11, "proportional", [9, 1, 1]),  # the small ones are full
        ([10, 1, 1], 12, "proportional", [10, 1, 1]),
        ([6, 3, 1], 2, "proportional", [1, 1, 0]),  # fewer than clusters: 1.2, .6, .2
        ([98, 1, 1], 2, "proportional", [2, 0, 0]),  # 1.96, .02, .02
        ([8, 0, 3, 1], 7, "equal", [3, 0, 3, 1]),
        ([9, 9, 9], 5, "equal", [2, 2, 1]),
        ([9, 9, 9], 2, "equal", [1, 1, 0]),
        ([0, 0], 0, "equal", [0, 0]),
    ],
)
def test_quotas_by_hand(sizes, count, quota, expected):
    assert cluster_quotas(np.array(sizes), count, quota=quota).tolist() == expected


def slow_quotas(sizes, count, quota):
    """The same words with fractions and loops: one each, whole parts, largest remainders, the cut-off again."""
    nonempty = [k for k, size in enumerate(sizes) if size]
    quotas = dict.fromkeys(range(len(sizes)), 0)
    sharing = nonempty
    if count >= len(nonempty):
        quotas |= dict.fromkeys(nonempty, 1)
    while left := count - sum(quotas.values()):
        weights = {k: sizes[k] if quota == "proportional" else 1 for k in sharing}
        share = {k: Fraction(left * weights[k], sum(weights.values())) for k in sharing}
        for k in sharing:
            quotas[k] = min(sizes[k], quotas[k] + int(share[k]))
        sharing = [k for k in sharing if quotas[k] < sizes[k]]
        for k in sorted(sharing, key=lambda k: (int(share[k]) - share[k], k))[: count - sum(quotas.values())]:
            quotas[k] += 1
        sharing = [k for k in sharing if quotas[k] < sizes[k]]
    return list(quotas.values())


sizes_and_count = st.lists(st.integers(0, 12), min_size=1, max_size=8).flatmap(
    lambda sizes: st.tuples(st.just(sizes), st.integers(0, sum(sizes)))
)


@given(sizes_and_count, st.sampled_from(["proportional", "equal"]))
def test_quotas_are_exact_fit_and_cover_every_cluster(sizes_count, quota):
    sizes, count = sizes_count
    quotas = cluster_quotas(np.array(sizes), count, quota=quota).tolist()
    assert quotas == slow_quotas(sizes, count, quota)
    assert sum(quotas) == count
    assert all(0 <= kept <= size for kept, size in zip(quotas, sizes, strict=True))
    if count >= sum(size > 0 for size in sizes):
        assert all(kept > 0 for kept, size in zip(quotas, sizes, strict=True) if size)


@given(sizes_and_count)
def test_equal_quotas_differ_by_at_most_one_but_for_full_clusters(sizes_count):
    sizes, count = sizes_count
    quotas = cluster_quotas(np.array(sizes), count, quota="equal").tolist()
    most = max(quotas)
    assert all(kept >= most - 1 or kept == size for kept, size in zip(quotas, sizes, strict=True))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(0, 100))
def test_seats_without_caps_are_hamiltons(weights, count):
    seats = largest_remainder(np.array(weights), count, capacity=np.full(len(weights), count)).tolist()
    exact = [Fraction(count * weight, sum(weights)) for weight in weights]
    expected = [int(share) for share in exact]
    by_remainder = sorted(range(len(weights)), key=lambda i: (int(exact[i]) - exact[i], i))
    for i in by_remainder[: count - sum(expected)]:
        expected[i] += 1
    assert seats == expected


def reference(scores, reason, count, method, order, quota, clusters, duplicate_ids, lengths):
    """The rule of design.md, one row at a time; None where too few rows are eligible."""
    seen, eligible = set(), []
    for row, score in enumerate(scores):
        embedded = clusters[row] >= 0 or method != "clusters"
        if (
            reason[row] == 0
            and np.isfinite(score)
            and embedded
            and (duplicate_ids[row] < 0 or duplicate_ids[row] not in seen)
        ):
            seen.add(duplicate_ids[row])
            eligible.append(row)
    if len(eligible) < count:
        return None
    if method == "longest":
        return set(sorted(eligible, key=lambda row: (-lengths[row], row))[:count])
    preferred = sorted(eligible, key=lambda row: (scores[row] if order == "lowest" else -scores[row], row))
    if method == "top":
        return set(preferred[:count])
    sizes = Counter(clusters[row] for row in eligible)
    quotas = slow_quotas([sizes[k] for k in range(max(clusters) + 1)], count, quota)
    return {row for k in sizes for row in [r for r in preferred if clusters[r] == k][: quotas[k]]}


@st.composite
def tables(draw):
    num_rows = draw(st.integers(1, 25))

    def column(values):
        return draw(st.lists(values, min_size=num_rows, max_size=num_rows))

    return {
        "scores": np.array(column(st.sampled_from([0.0, 0.25, 0.5, 0.75, np.nan, np.inf]))),
        "reason": np.array(column(st.sampled_from([ELIGIBLE, ELIGIBLE, ELIGIBLE, EMPTY])), np.uint8),
        "count": draw(st.integers(0, num_rows)),
        "method": draw(st.sampled_from(["clusters", "top", "longest"])),
        "order": draw(st.sampled_from(["lowest", "highest"])),
        "quota": draw(st.sampled_from(["proportional", "equal"])),
        "clusters": np.array(column(st.integers(-1, 4)), np.int32),
        "duplicate_ids": np.array(column(st.integers(-1, 9)), np.int32),
        "lengths": np.array(column(st.integers(1, 5)), np.int32),
    }


@given(tables())
def test_the_rule_keeps_what_the_slow_reference_keeps(table):
    expected = reference(**table)
    if expected is None:
        with pytest.raises(CurateError, match="eligible"):
            select(**table)
        return
    selection = select(**table)
    assert set(np.flatnonzero(selection.kept)) == expected
    assert selection.kept.sum() == table["count"]
    assert np.array_equal(selection.kept, selection.reason == REASONS.index("kept"))
    assert np.array_equal(selection.rank >= 0, selection.reason <= REASONS.index("outranked"))
    ranked = np.flatnonzero(selection.rank >= 0)
    places = Counter(table["clusters"][ranked] if table["method"] == "clusters" else np.zeros(len(ranked)))
    if table["method"] == "longest":
        key = -table["lengths"]
    else:
        key = table["scores"] if table["order"] == "lowest" else -table["scores"]
    for label, size in places.items():
        same = ranked if table["method"] != "clusters" else ranked[table["clusters"][ranked] == label]
        preferred = sorted(same, key=lambda row: (key[row], row))
        assert selection.rank[preferred].tolist() == list(range(size))


@given(tables(), st.randoms())
def test_the_order_of_the_records_does_not_matter_where_scores_differ(table, random):
    num_rows = len(table["scores"])
    table |= {
        "scores": np.array(random.sample(range(100), num_rows), float),
        "duplicate_ids": None,
        "method": "clusters",
    }
    assume(((table["reason"] == 0) & (table["clusters"] >= 0)).sum() >= table["count"])
    shuffled = np.array(random.sample(range(num_rows), num_rows))
    moved = {key: value[shuffled] if isinstance(value, np.ndarray) else value for key, value in table.items()}
    assert np.array_equal(select(**moved).kept, select(**table).kept[shuffled])


def test_inside_a_cluster_the_lowest_score_wins_and_ties_go_to_the_lower_row():
    scores = [0.5, 0.2, 0.2, 0.1, 0.9, 0.8]
    assert rows_kept(scores, 2, clusters=[0, 0, 0, 0, 1, 1]) == [3, 5]
    assert rows_kept(scores, 3, clusters=[0, 0, 0, 0, 1, 1]) == [1, 3, 5]
    assert rows_kept(scores, 2, clusters=[0, 0, 0, 0, 1, 1], order="highest") == [0, 4]


def test_a_rank_is_the_place_inside_the_cluster():
    selection = select(
        np.array([0.3, 0.1, 0.2, 0.4, np.nan]),
        reason=np.zeros(5, np.uint8),
        count=2,
        clusters=np.array([0, 0, 1, 1, 1]),
    )
    assert selection.rank.tolist() == [1, 0, 0, 1, -1]


def test_of_exact_duplicates_the_first_eligible_row_is_in_the_pool():
    reason = np.array([EMPTY, 0, 0, 0], np.uint8)
    selection = select(
        np.array([0, 3, 1, 2.0]), reason=reason, count=2, method="top", duplicate_ids=np.array([7, 7, 7, 8])
    )
    assert [REASONS[code] for code in selection.reason] == ["empty_response", "kept", "duplicate", "kept"]
    assert rows_kept([0, 3, 1, 2], 2, method="top", duplicate_ids=None) == [0, 2]


def test_every_row_has_a_reason():
    selection = select(
        np.array([0.1, 0.2, np.nan, np.inf, 0.1, 0.1]),
        reason=np.array([0, 0, 0, 0, 0, EMPTY], np.uint8),
        count=1,
        clusters=np.array([0, 0, 0, 0, -1, 0]),
    )
    assert [REASONS[code] for code in selection.reason] == [
        "kept", "outranked", "no_score", "no_score", "not_embedded", "empty_response",
    ]  # fmt: skip
    assert count_reasons(selection.reason) == {
        "kept": 1, "outranked": 1, "no_score": 2, "not_embedded": 1, "empty_response": 1,
    }  # fmt: skip


def test_a_row_without_embedding_is_refused_by_clusters_only():
    for method in ("top", "random", "longest"):
        assert rows_kept([0.1, 0.2], 2, method=method, clusters=[-1, 0], lengths=[1, 1]) == [0, 1]


def test_statuses_and_short_responses_become_reasons():
    codes = reason_codes(np.arange(len(STATUSES)), np.full(len(STATUSES), 2), min_response_tokens=2)
    assert [REASONS[code] for code in codes] == ["kept", *STATUSES[1:]]
    codes = reason_codes(np.array([0, 0, 1]), np.array([2, 3, 0]), min_response_tokens=3)
    assert [REASONS[code] for code in codes] == ["short_response", "kept", "empty_response"]


def test_the_longest_response_wins_and_ties_go_to_the_lower_row():
    assert rows_kept([0, 0, 0, 0], 2, method="longest", lengths=[5, 9, 5, 1]) == [0, 1]


def test_random_is_uniform():
    num_seeds = 3_000
    hits = np.zeros(6)
    for seed in range(num_seeds):
        hits[rows_kept([0, 0, 0, 0, 0, np.nan], 2, method="random", seed=seed)] += 1
    # Binomial with p = 2/5: 5 standard deviations.
    assert np.abs(hits[:5] - num_seeds * 0.4).max() < 5 * np.sqrt(num_seeds * 0.4 * 0.6)
    assert hits[5] == 0


def test_random_keeps_the_same_rows_for_a_seed_and_a_subset_for_a_smaller_count():
    scores = np.zeros(100)
    assert rows_kept(scores, 10, method="random", seed=3) == rows_kept(scores, 10, method="random", seed=3)
    assert rows_kept(scores, 10, method="random", seed=3) != rows_kept(scores, 10, method="random", seed=4)
    assert set(rows_kept(scores, 10, method="random", seed=3)) < set(rows_kept(scores, 30, method="random", seed=3))


def test_too_few_eligible_rows_are_an_error_that_counts_the_others():
    with pytest.raises(CurateError) as error:
        select(
            np.array([0.1, 0.2, 0.3, np.nan]),
            reason=np.array([0, 0, EMPTY, 0], np.uint8),
            count=2,
            method="top",
            duplicate_ids=np.array([1, 1, 2, 3]),
        )
    assert str(error.value) == (
        "expected 2 records to keep, but only 1 of 4 are eligible (not eligible: 1 duplicate, 1 no_score, "
        "1 empty_response); set select.keep to at most 1"
    )


def test_an_unknown_method_lists_the_valid_ones():
    with pytest.raises(CurateError, match="unknown method 'best'; valid: clusters, top, random, longest"):
        rows_kept([0.1], 1, method="best")


def test_the_input_stays_as_it_is():
    reason = np.zeros(3, np.uint8)
    rows_kept([0.1, np.nan, 0.3], 1, reason=reason, method="top")
    assert not reason.any()


def test_selection_is_numpy_only():
    code = "import sys, curate.selection; print([m for m in ('torch', 'faiss', 'transformers') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
