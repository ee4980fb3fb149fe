"""Exact counts, every cluster covered, and the same rows as a slow and obvious reference."""

import subprocess
import sys
import tracemalloc
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from curate.selection import REASONS, Candidates, Rule, count_reasons, keep_count, overlap, select
from curate.selection.pool import pool
from curate.selection.quotas import cluster_quotas, largest_remainder
from curate.types import STATUSES, CurateError

EMPTY = STATUSES.index("empty_response")


def candidates(scores, **arrays):
    """A table in which every row is scored and ten tokens long, unless said otherwise."""
    scores = np.asarray(scores, np.float64)
    arrays = {key: np.asarray(value) if isinstance(value, list) else value for key, value in arrays.items()}
    arrays.setdefault("status", np.zeros(len(scores), np.uint8))
    arrays.setdefault("response_tokens", np.full(len(scores), 10, np.int32))
    return Candidates(columns={"complexity": scores}, **arrays)


def rows_kept(table, **rule):
    return np.flatnonzero(select(table, Rule(**rule)).kept).tolist()


def reasons(selection):
    return [REASONS[code] for code in selection.reason]


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


def slow_rule(table, rule):
    """The rule of design.md, one row at a time: the kept rows and the ranks; None where too few rows are eligible."""
    scores, lengths, clusters = table.columns["complexity"], table.response_tokens, table.clusters
    sign = 1 if rule.order == "lowest" else -1

    def key(row):
        return (-lengths[row] if rule.method == "longest" else sign * scores[row], row)

    eligible = []
    for row, score in enumerate(scores):
        embedded = clusters[row] >= 0 or rule.method != "clusters"
        if table.status[row] == 0 and np.isfinite(score) and embedded:
            eligible.append(row)
    best = {}
    for row in sorted(eligible, key=key):
        best.setdefault(table.duplicate_ids[row] if table.duplicate_ids[row] >= 0 else f"row {row}", row)
    eligible = sorted(best.values())
    if len(eligible) < rule.keep:
        return None
    label = [k if rule.method == "clusters" else 0 for k in clusters]
    strata = {k: sorted((row for row in eligible if label[row] == k), key=key) for k in range(max(label) + 1)}
    quotas = slow_quotas([len(rows) for rows in strata.values()], rule.keep, rule.quota)
    kept = {row for k, rows in strata.items() for row in rows[: quotas[k]]}
    return kept, {row: place for rows in strata.values() for place, row in enumerate(rows)}


@st.composite
def cases(draw):
    num_rows = draw(st.integers(1, 25))

    def column(values, dtype):
        return np.array(draw(st.lists(values, min_size=num_rows, max_size=num_rows)), dtype)

    table = candidates(
        column(st.sampled_from([0.0, 0.25, 0.5, 0.75, np.nan, np.inf]), float),
        status=column(st.sampled_from([0, 0, 0, EMPTY]), np.uint8),
        clusters=column(st.integers(-1, 4), np.int32),
        duplicate_ids=column(st.integers(-1, 9), np.int32),
        response_tokens=column(st.integers(1, 5), np.int32),
    )
    rule = Rule(
        keep=draw(st.integers(0, num_rows)),
        method=draw(st.sampled_from(["clusters", "top", "longest"])),
        order=draw(st.sampled_from(["lowest", "highest"])),
        quota=draw(st.sampled_from(["proportional", "equal"])),
    )
    return table, rule


@given(cases())
def test_the_rule_keeps_what_the_slow_reference_keeps(case):
    table, rule = case
    expected = slow_rule(table, rule)
    if expected is None:
        with pytest.raises(CurateError, match="eligible"):
            select(table, rule)
        return
    selection = select(table, rule)
    kept, rank = expected
    assert set(np.flatnonzero(selection.kept)) == kept
    assert selection.kept.sum() == rule.keep
    assert selection.rank.tolist() == [rank.get(row, -1) for row in range(len(table))]
    assert np.array_equal(selection.kept, selection.reason == REASONS.index("kept"))
    assert np.array_equal(selection.rank >= 0, selection.reason <= REASONS.index("outranked"))


@given(cases(), st.randoms())
def test_the_order_of_the_records_does_not_matter_where_scores_differ(case, random):
    table, rule = case
    num_rows = len(table)
    scores = np.array(random.sample(range(100), num_rows), float)
    assume(((table.status == 0) & (table.clusters >= 0)).sum() >= rule.keep)
    shuffled = np.array(random.sample(range(num_rows), num_rows))
    rule = Rule(keep=rule.keep, order=rule.order, quota=rule.quota, duplicates="keep")
    here = candidates(scores, status=table.status, clusters=table.clusters)
    there = candidates(scores[shuffled], status=table.status[shuffled], clusters=table.clusters[shuffled])
    assert np.array_equal(select(there, rule).kept, select(here, rule).kept[shuffled])


def test_inside_a_cluster_the_lowest_score_wins_and_ties_go_to_the_lower_row():
    table = candidates([0.5, 0.2, 0.2, 0.1, 0.9, 0.8], clusters=[0, 0, 0, 0, 1, 1])
    assert rows_kept(table, keep=2) == [3, 5]
    assert rows_kept(table, keep=3) == [1, 3, 5]
    assert rows_kept(table, keep=2, order="highest") == [0, 4]


def test_a_rank_is_the_place_inside_the_cluster():
    selection = select(candidates([0.3, 0.1, 0.2, 0.4, np.nan], clusters=[0, 0, 1, 1, 1]), Rule(keep=2))
    assert selection.rank.tolist() == [1, 0, 0, 1, -1]


def test_of_exact_duplicates_the_best_by_the_order_is_kept_not_the_first():
    table = candidates([0, 3, 1, 2, 1], status=[EMPTY, 0, 0, 0, 0], duplicate_ids=[7, 7, 7, 8, 7])
    selection = select(table, Rule(keep=2, method="top"))
    assert reasons(selection) == ["empty_response", "duplicate", "kept", "kept", "duplicate"]
    assert rows_kept(table, keep=1, method="top", order="highest") == [1]
    assert rows_kept(table, keep=3, method="top", duplicates="keep") == [2, 3, 4]


def test_the_best_of_duplicates_is_the_one_across_clusters():
    table = candidates([0.3, 0.2, 0.9], clusters=[0, 1, 0], duplicate_ids=[0, 0, -1])
    assert reasons(select(table, Rule(keep=2))) == ["duplicate", "kept", "kept"]


def test_under_a_random_order_every_duplicate_has_the_same_chance():
    table = candidates([0.1, 0.2, 0.3], duplicate_ids=[4, 4, 4])
    hits = np.zeros(3)
    for seed in range(1_500):
        hits[rows_kept(table, keep=1, method="random", seed=seed)] += 1
    assert np.abs(hits - 500).max() < 5 * np.sqrt(1_500 * 2 / 9)


def test_every_row_has_a_reason():
    table = candidates(
        [0.1, 0.2, np.nan, np.inf, 0.1, 0.1], status=[0, 0, 0, 0, 0, EMPTY], clusters=[0, 0, 0, 0, -1, 0]
    )
    selection = select(table, Rule(keep=1))
    assert reasons(selection) == ["kept", "outranked", "no_score", "no_score", "not_embedded", "empty_response"]
    assert count_reasons(selection.reason) == {
        "kept": 1, "outranked": 1, "no_score": 2, "not_embedded": 1, "empty_response": 1,
    }  # fmt: skip


def test_a_row_without_embedding_is_refused_by_clusters_only():
    table = candidates([0.1, 0.2], clusters=[-1, 0])
    for method in ("top", "random", "longest", "flexrand"):
        assert rows_kept(table, keep=2, method=method) == [0, 1]


def test_statuses_and_short_responses_become_reasons():
    codes = pool(np.arange(len(STATUSES)), np.full(len(STATUSES), 2), min_response_tokens=2)
    assert [REASONS[code] for code in codes] == ["kept", *STATUSES[1:]]
    codes = pool(np.array([0, 0, 1]), np.array([2, 3, 0]), min_response_tokens=3)
    assert [REASONS[code] for code in codes] == ["short_response", "kept", "empty_response"]


def test_ranges_are_inclusive_open_at_either_end_and_refuse_what_has_no_number():
    table = Candidates(
        np.zeros(5, np.uint8),
        np.array([1, 5, 9, 10, 5], np.int32),
        {"complexity": np.zeros(5), "ifd": np.array([0.5, 1.0, 0.9, 0.1, np.nan])},
    )

    def eligible(**within):
        selection = select(table, Rule(keep=0, method="top", within=within))
        assert {reasons(selection)[row] for row in range(5)} <= {"outranked", "out_of_range"}
        return np.flatnonzero(selection.reason == REASONS.index("outranked")).tolist()

    assert eligible(ifd=(None, 0.9)) == [0, 2, 3]
    assert eligible(ifd=(0.5, None)) == [0, 1, 2]
    assert eligible(ifd=(0.5, None), response_tokens=(5, 9)) == [1, 2]
    assert eligible(ifd=(None, None)) == [0, 1, 2, 3]
    with pytest.raises(CurateError, match=r"select\.within: the columns are complexity, ifd, response_tokens, got idf"):
        eligible(idf=(None, 1))


def test_scores_can_be_missing_where_no_order_reads_them():
    table = Candidates(np.zeros(3, np.uint8), np.array([1, 3, 2], np.int32))
    assert rows_kept(table, keep=1, method="longest") == [1]
    assert rows_kept(table, keep=1, method="top", by="response_tokens") == [0]
    assert len(rows_kept(table, keep=2, method="random")) == 2
    with pytest.raises(CurateError, match=r"select\.by: the columns are response_tokens, got complexity"):
        rows_kept(table, keep=1, method="top")


def test_the_longest_response_wins_and_ties_go_to_the_lower_row():
    assert rows_kept(candidates([0, 0, 0, 0], response_tokens=[5, 9, 5, 1]), keep=2, method="longest") == [0, 1]


def test_random_is_uniform():
    num_seeds = 3_000
    hits = np.zeros(6)
    table = candidates([0, 0, 0, 0, 0, np.nan])
    for seed in range(num_seeds):
        hits[rows_kept(table, keep=2, method="random", seed=seed)] += 1
    # Binomial with p = 2/5: 5 standard deviations.
    assert np.abs(hits[:5] - num_seeds * 0.4).max() < 5 * np.sqrt(num_seeds * 0.4 * 0.6)
    assert hits[5] == 0


def test_random_inside_clusters_is_uniform_in_each():
    num_seeds = 2_000
    hits = np.zeros(5)
    table = candidates(np.arange(5), clusters=[0, 0, 0, 1, 1])
    for seed in range(num_seeds):
        kept = rows_kept(table, keep=2, by="random", seed=seed)
        assert [kept[0] < 3, kept[1] >= 3] == [True, True]
        hits[kept] += 1
    assert np.abs(hits / num_seeds - [1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2]).max() < 5 * np.sqrt(0.25 / num_seeds)


@given(st.integers(0, 2**31 - 1), st.integers(0, 20), st.integers(0, 20))
def test_random_keeps_the_same_rows_for_a_seed_and_a_subset_for_a_smaller_count(seed, one, other):
    table = candidates(np.zeros(20), duplicate_ids=[0, 0, 1, 1, *[-1] * 16])
    small, large = sorted((min(one, 18), min(other, 18)))
    first, second = (rows_kept(table, keep=keep, method="random", seed=seed) for keep in (small, large))
    assert set(first) <= set(second)
    assert first == rows_kept(table, keep=small, method="random", seed=seed)


def test_another_seed_draws_other_rows():
    table = candidates(np.zeros(100))
    assert rows_kept(table, keep=10, method="random", seed=3) != rows_kept(table, keep=10, method="random", seed=4)


def test_a_row_that_leaves_the_pool_leaves_the_random_order_of_the_others():
    scores = np.zeros(50)
    kept = rows_kept(candidates(scores), keep=10, method="random")
    scores[kept[0]] = np.nan
    assert set(kept[1:]) <= set(rows_kept(candidates(scores), keep=10, method="random"))


def test_too_few_eligible_rows_are_an_error_that_counts_the_others():
    table = candidates([0.1, 0.2, 0.3, np.nan], status=[0, 0, EMPTY, 0], duplicate_ids=[1, 1, 2, 3])
    with pytest.raises(CurateError) as error:
        select(table, Rule(keep=2, method="top"))
    assert str(error.value) == (
        "expected 2 records to keep, but only 1 of 4 are eligible (not eligible: 1 duplicate, 1 no_score, "
        "1 empty_response); set select.keep to at most 1"
    )


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"method": "best"}, "unknown select.method=best; valid: clusters, top, random, longest, flexrand, k_center"),
        ({"order": "up"}, "unknown select.order=up; valid: lowest, highest"),
        ({"quota": "fair"}, "unknown select.quota=fair; valid: proportional, equal"),
        ({"duplicates": "no"}, "unknown select.duplicates=no; valid: drop, keep"),
        ({"group_quota": "fair"}, "unknown select.groups.quota=fair; valid: proportional, equal, a count or share for"),
        ({"method": "clusters"}, "select.method=clusters needs the embeddings"),
        ({"method": "k_center"}, "select.method=k_center needs the embeddings"),
        ({"method": "top", "near_duplicates": 0.9}, "select.near_duplicates needs the embeddings"),
    ],
)
def test_what_there_is_not_is_refused(rule, message):
    with pytest.raises(CurateError) as error:
        rows_kept(candidates([0.1]), keep=1, **rule)
    assert str(error.value).startswith(message)


def test_the_input_stays_as_it_is():
    table = candidates([0.1, np.nan, 0.3], clusters=[0, 1, 1], duplicate_ids=[0, 0, 0])
    arrays = (table.status, table.response_tokens, table.columns["complexity"], table.clusters, table.duplicate_ids)
    before = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    for method in ("clusters", "top", "random", "longest", "flexrand"):
        rows_kept(table, keep=1, method=method)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(arrays, before, strict=True))


def test_a_million_rows_are_selected_in_a_few_bytes_a_row():
    rng, num_rows = np.random.default_rng(0), 1_000_000
    table = candidates(
        rng.random(num_rows),
        clusters=rng.integers(0, 707, num_rows, dtype=np.int32),
        duplicate_ids=rng.integers(-num_rows, num_rows, num_rows, dtype=np.int32),
        response_tokens=rng.integers(1, 200, num_rows, dtype=np.int32),
    )
    for rule in (Rule(), Rule(method="top", order="highest"), Rule(method="random")):
        tracemalloc.start()
        try:
            assert select(table, rule).kept.sum() == num_rows // 10
            assert tracemalloc.get_traced_memory()[1] < 30 * num_rows
        finally:
            tracemalloc.stop()


def test_overlap_counts_and_is_shared_over_either():
    assert overlap(np.array([1, 1, 0, 0], bool), np.array([0, 1, 1, 1], bool)) == (1, 0.25)
    assert overlap(np.zeros(3, bool), np.zeros(3, bool)) == (0, 0.0)


def test_selection_is_numpy_only():
    code = "import sys, curate.selection; print([m for m in ('torch', 'faiss', 'transformers') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
