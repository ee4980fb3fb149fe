"""Groups get what they are promised, exactly; held-out records take their duplicates with them."""

from collections import Counter
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from curate.selection import REASONS, Candidates, Rule, holdout_rows, select
from curate.selection.bins import equal_bins
from curate.selection.quotas import cluster_quotas, group_quotas
from curate.selection.strata import strata
from curate.types import CurateError

NAMES = ("code", "chat", "maths")


def table_of(scores, groups, **arrays):
    status, tokens = np.zeros(len(scores), np.uint8), np.full(len(scores), 5, np.int32)
    columns = {"complexity": np.asarray(scores, float)}
    return Candidates(status, tokens, columns, groups=np.asarray(groups), group_names=NAMES, **arrays)


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("proportional", [5, 3, 2]),
        ("equal", [4, 3, 3]),
        ({"code": 1, "chat": 2, "maths": 7}, [1, 2, 7]),
        ({"maths": "50%"}, [3, 2, 5]),  # the other five: 1 each, 1.875 and 1.125 of three
        ({"maths": 0}, [6, 4, 0]),  # 1 each, 5 and 3 of eight
        ({"code": "33%", "chat": "33%", "maths": "34%"}, [3, 3, 4]),  # 3.3, 3.3, 3.4
        ({"code": "25%", "chat": "25%", "maths": "50%"}, [3, 2, 5]),  # equal remainders: the one named first
        ({"chat": "25%", "code": "25%", "maths": "50%"}, [2, 3, 5]),
        ({"code": " 99 % ", "chat": "0%", "maths": "1%"}, [10, 0, 0]),
    ],
)
def test_group_quotas_by_hand(quota, expected):
    assert group_quotas(np.array([50, 30, 20]), 10, quota=quota, names=NAMES).tolist() == expected


@pytest.mark.parametrize(
    ("quota", "message"),
    [
        ({"poems": 1}, "no record has the value 'poems'; there are 'code', 'chat', 'maths'"),
        ({"code": 11}, "the quotas add up to 11 records, but 10 are kept"),
        ({"code": "60%", "chat": "60%"}, "the quotas add up to 12 records, but 10 are kept"),
        ({"maths": "70%"}, "7 records of 'maths' are asked for, but only 2 are eligible"),
        ({"code": 1, "chat": 1, "maths": 1}, "the groups named keep 3 of 10 records, and the others have only 0"),
        ({"code": "120%"}, "expected 0% to 100% for 'code', got '120%'"),
        ({"code": "much%"}, "expected 0% to 100% for 'code', got 'much%'"),
        ({"code": "much"}, "expected a share such as \"40%\" or a count for 'code', got 'much'"),
        ({"code": -1}, "expected a share such as \"40%\" or a count for 'code', got -1"),
        ({"code": 0.4}, "expected a share such as \"40%\" or a count for 'code', got 0.4"),
    ],
)
def test_group_quotas_that_cannot_be_are_refused(quota, message):
    with pytest.raises(CurateError) as error:
        group_quotas(np.array([50, 30, 2]), 10, quota=quota, names=NAMES)
    assert message in str(error.value)


@given(st.lists(st.integers(0, 100), min_size=3, max_size=3), st.integers(0, 200))
def test_shares_are_rounded_together_and_each_by_less_than_one(percents, count):
    assume(sum(percents) <= 100)
    quota = {name: f"{percent}%" for name, percent in zip(NAMES, percents, strict=True)}
    seats = group_quotas(np.full(4, 200), count, quota=quota, names=(*NAMES, "rest"))
    exact = [Fraction(percent * count, 100) for percent in percents]
    assert seats[:3].sum() == floor(sum(exact) + Fraction(1, 2))
    assert seats.sum() == count
    assert all(abs(int(seat) - share) < 1 for seat, share in zip(seats[:3], exact, strict=True))


grouped_rows = st.lists(
    st.tuples(st.integers(-1, 2), st.integers(-1, 3), st.sampled_from([0.0, 0.25, 0.5, 0.75])), min_size=1, max_size=40
)


@given(grouped_rows, st.data())
def test_groups_and_clusters_are_filled_group_first_then_by_cluster(rows, data):
    groups, clusters, scores = (np.array(column) for column in zip(*rows, strict=True))
    eligible = np.flatnonzero((groups >= 0) & (clusters >= 0)).tolist()
    count = data.draw(st.integers(0, len(eligible)))
    group_quota, quota = (data.draw(st.sampled_from(["proportional", "equal"])) for _ in range(2))
    selection = select(
        table_of(scores, groups, clusters=clusters), Rule(keep=count, quota=quota, group_quota=group_quota)
    )
    sizes = Counter((groups[row], clusters[row]) for row in eligible)
    of_groups = cluster_quotas(
        np.array([sum(sizes[g, k] for k in range(4)) for g in range(3)]), count, quota=group_quota
    )
    expected, rank = set(), {}
    for g in range(3):
        of_clusters = cluster_quotas(np.array([sizes[g, k] for k in range(4)]), int(of_groups[g]), quota=quota)
        for k in range(4):
            ordered = sorted((r for r in eligible if (groups[r], clusters[r]) == (g, k)), key=lambda r: (scores[r], r))
            expected |= set(ordered[: of_clusters[k]])
            rank |= {row: place for place, row in enumerate(ordered)}
    assert set(np.flatnonzero(selection.kept)) == expected
    assert selection.rank.tolist() == [rank.get(row, -1) for row in range(len(rows))]
    refused = [REASONS[code] for row, code in enumerate(selection.reason) if row not in rank]
    assert refused == ["not_embedded" if clusters[r] < 0 else "no_group" for r in range(len(rows)) if r not in rank]


@given(grouped_rows, st.data())
def test_one_stratum_a_group_keeps_the_best_of_each(rows, data):
    groups, _, scores = (np.array(column) for column in zip(*rows, strict=True))
    members = [sorted(np.flatnonzero(groups == g), key=lambda r: (scores[r], r)) for g in range(3)]
    quota = [data.draw(st.integers(0, len(rows))) for rows in members]
    rule = Rule(keep=sum(quota), method="top", group_quota=dict(zip(NAMES, quota, strict=True)))
    kept = select(table_of(scores, groups), rule).kept
    assert set(np.flatnonzero(kept)) == {
        row for rows, number in zip(members, quota, strict=True) for row in rows[:number]
    }


def test_many_values_of_both_fields_are_no_more_strata_than_rows():
    codes = np.arange(50_000)
    parts = strata(np.ones(50_000, bool), clusters=codes[::-1].copy(), groups=codes)
    assert len(parts.sizes) == 50_000
    assert parts.parents.tolist() == codes.tolist()


def test_a_record_without_the_field_and_one_that_is_held_out_are_refused():
    table = table_of([0.1, 0.2, 0.3], [0, -1, 0], held_out=np.array([True, False, False]))
    selection = select(table, Rule(keep=1, method="top"))
    assert [REASONS[code] for code in selection.reason] == ["held_out", "no_group", "kept"]


@given(st.lists(st.tuples(st.booleans(), st.integers(-1, 5)), min_size=1, max_size=30), st.integers(0, 99), st.data())
def test_a_holdout_is_exact_in_distinct_records_and_closed_under_duplication(rows, seed, data):
    eligible, ids = (np.array(column) for column in zip(*rows, strict=True))
    distinct = {int(i) if i >= 0 else f"row {row}" for row, i in enumerate(ids) if eligible[row]}
    count = data.draw(st.integers(0, len(distinct)))
    fewer = data.draw(st.integers(0, count))
    held, part = (holdout_rows(len(rows), n, seed=seed, eligible=eligible, duplicate_ids=ids) for n in (count, fewer))
    assert len({int(i) if i >= 0 else f"row {row}" for row, i in enumerate(ids) if held[row]}) == count
    assert all(eligible[row] for row in np.flatnonzero(held & (ids < 0)))
    assert not set(ids[held & (ids >= 0)]) & set(ids[~held])
    assert not (part & ~held).any(), "a smaller count is a subset"


def test_a_holdout_is_uniform_and_follows_the_seed():
    hits = sum(holdout_rows(5, 2, seed=seed).astype(int) for seed in range(3_000))
    assert np.abs(hits - 1_200).max() < 5 * np.sqrt(3_000 * 0.24)
    assert np.array_equal(holdout_rows(99, 9, seed=5), holdout_rows(99, 9, seed=5))


def test_more_than_there_are_cannot_be_held_out():
    with pytest.raises(
        CurateError, match=r"expected 3 records to hold out, but only 2 of 4 .*data\.holdout to at most 2"
    ):
        holdout_rows(4, 3, seed=0, eligible=np.array([1, 1, 1, 0], bool), duplicate_ids=np.array([0, 0, -1, -1]))


@given(
    st.lists(st.one_of(st.integers(-5, 40).map(float), st.sampled_from([np.nan, np.inf, -np.inf])), max_size=60),
    st.integers(2, 9),
)
def test_bins_are_ranges_that_do_not_overlap_and_hold_equal_values_together(values, count):
    codes, names = equal_bins(np.array(values), count)
    assert [code >= 0 for code in codes] == [bool(np.isfinite(value)) for value in values]
    known = sorted((value, code) for value, code in zip(values, codes.tolist(), strict=True) if code >= 0)
    assert [code for _, code in known] == sorted(code for _, code in known)  # a larger value is in no lower range
    assert len({code for _, code in known}) == len(names) <= count
    for value in {value for value, _ in known}:
        assert len({code for other, code in known if other == value}) == 1
    for code, name in enumerate(names):
        inside = [value for value, own in known if own == code]
        assert name == f"{min(inside):.6g} to {max(inside):.6g}"


def test_bins_of_distinct_values_are_equal_in_size():
    codes, _ = equal_bins(np.random.default_rng(0).permutation(1000).astype(float), 10)
    assert np.bincount(codes).tolist() == [100] * 10
