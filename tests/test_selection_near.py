"""The walk past near-duplicates is that of a slow loop, and sizes stay exact."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.selection import REASONS, Candidates, Rule, near, select
from curate.selection.quotas import cluster_quotas

GRID = np.concatenate([np.eye(4), -np.eye(4), np.array(list(product([-0.5, 0.5], repeat=4)))]).astype(np.float32)


def slow_walk(table, rule):
    """Row by row over the strata in turn: what became of every eligible row."""
    scores, vectors, clusters = table.columns["complexity"], table.embeddings, table.clusters
    by_cluster = rule.method == "clusters"
    rows = [row for row in range(len(table)) if not by_cluster or clusters[row] >= 0]
    label = {row: int(clusters[row]) if by_cluster else 0 for row in rows}
    num_strata = max(label.values(), default=0) + 1
    strata = [sorted((r for r in rows if label[r] == k), key=lambda r: (scores[r], r)) for k in range(num_strata)]
    quotas = cluster_quotas(np.array([len(s) for s in strata]), rule.keep, quota=rule.quota)
    reason, kept = {}, []
    for stratum, quota in zip(strata, quotas, strict=True):
        if clusters is None:
            kept = []
        missing = quota
        for row in stratum:
            others = [other for other in kept if clusters is None or clusters[other] == clusters[row]]
            if not missing:
                reason[row] = "outranked"
            elif any(vectors[row] @ vectors[other] >= rule.near_duplicates for other in others):
                reason[row] = "near_duplicate"
            else:
                reason[row] = "kept"
                kept.append(row)
                missing -= 1
        for row in [row for row in stratum if reason[row] == "near_duplicate"][:missing]:
            reason[row] = "kept"
            kept.append(row)
    return [reason.get(row, "not_embedded") for row in range(len(table))]


@st.composite
def cases(draw):
    num_rows = draw(st.integers(1, 30))

    def column(values):
        return np.array(draw(st.lists(values, min_size=num_rows, max_size=num_rows)))

    vectors = GRID[column(st.integers(0, len(GRID) - 1))]
    clusters = column(st.integers(-1, 2)).astype(np.int32)
    vectors[clusters < 0] = np.nan
    method = draw(st.sampled_from(["clusters", "top"]))
    has_clusters = method == "clusters" or draw(st.booleans())
    table = Candidates(
        np.zeros(num_rows, np.uint8),
        np.full(num_rows, 5, np.int32),
        {"complexity": column(st.sampled_from([0.0, 0.25, 0.5, 0.75]))},
        clusters=clusters if has_clusters else None,
        embeddings=vectors,
    )
    eligible = int((clusters >= 0).sum()) if method == "clusters" else num_rows
    threshold = draw(st.sampled_from([0.25, 0.5, 1.0]))
    return table, Rule(keep=draw(st.integers(0, eligible)), method=method, near_duplicates=threshold)


@pytest.mark.parametrize("width", [2, near._WALK])
@given(case=cases())
def test_the_walk_is_that_of_the_slow_loop_in_parts_of_any_width(width, case):
    table, rule = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near, "_WALK", width)
        selection = select(table, rule)
    assert [REASONS[code] for code in selection.reason] == slow_walk(table, rule)
    assert selection.kept.sum() == rule.keep
    assert np.array_equal(selection.rank >= 0, selection.reason <= REASONS.index("near_duplicate"))


def table_of(scores, vectors, **arrays):
    status, tokens = np.zeros(len(scores), np.uint8), np.full(len(scores), 5, np.int32)
    return Candidates(
        status, tokens, {"complexity": np.array(scores)}, embeddings=np.array(vectors, np.float32), **arrays
    )


def reasons(table, **rule):
    return [REASONS[code] for code in select(table, Rule(**rule)).reason]


def test_the_better_of_two_near_duplicates_stays_and_the_next_one_moves_up():
    table = table_of([0.1, 0.2, 0.3, 0.4], [[1, 0], [0.8, 0.6], [0, 1], [-1, 0]])
    assert reasons(table, keep=2, method="top", near_duplicates=0.8) == [
        "kept", "near_duplicate", "kept", "outranked",
    ]  # fmt: skip
    assert reasons(table, keep=2, method="top", near_duplicates=0.81) == ["kept", "kept", "outranked", "outranked"]


def test_where_there_are_not_enough_others_the_best_passed_over_are_taken_back():
    table = table_of([0.3, 0.2, 0.1, 0.4], [[1, 0], [1, 0], [1, 0], [0, 1]])
    assert reasons(table, keep=3, method="top", near_duplicates=1.0) == ["near_duplicate", "kept", "kept", "kept"]
    assert reasons(table, keep=4, method="top", near_duplicates=1.0) == ["kept"] * 4


def test_a_chain_is_judged_by_what_is_kept_not_by_what_was_passed_over():
    angles = np.radians([0, 30, 60])
    table = table_of([0.1, 0.2, 0.3], np.stack([np.cos(angles), np.sin(angles)], axis=1))
    assert reasons(table, keep=2, method="top", near_duplicates=0.8) == ["kept", "near_duplicate", "kept"]


def test_a_record_that_was_taken_back_counts_as_kept_for_the_groups_after_it():
    angles = np.radians([0, 30, 60, 270])  # the third is near the second, which is near the first
    table = table_of(
        [0.1, 0.2, 0.3, 0.4],
        np.stack([np.cos(angles), np.sin(angles)], axis=1),
        clusters=np.zeros(4, np.int32),
        groups=np.array([0, 0, 1, 1]),
        group_names=("a", "b"),
    )
    rule = {"method": "top", "near_duplicates": 0.8}
    assert reasons(table, keep=4, **rule) == ["kept"] * 4
    assert reasons(table, keep=3, group_quota={"a": 2}, **rule) == ["kept", "kept", "near_duplicate", "kept"]
    assert reasons(table, keep=2, group_quota={"a": 1}, **rule) == ["kept", "outranked", "kept", "outranked"]


def test_groups_share_the_memory_of_a_cluster():
    vectors = [[1, 0], [1, 0], [0, 1]]
    arrays = {"groups": np.array([0, 1, 1]), "group_names": ("a", "b")}
    rule = {"keep": 2, "method": "top", "near_duplicates": 0.9}
    clustered = table_of([0.1, 0.2, 0.3], vectors, clusters=np.zeros(3, np.int32), **arrays)
    assert reasons(clustered, **rule) == ["kept", "near_duplicate", "kept"]
    assert reasons(table_of([0.1, 0.2, 0.3], vectors, **arrays), **rule) == ["kept", "kept", "outranked"]


def test_equal_vectors_are_near_at_a_threshold_of_one_whatever_float32_makes_of_them():
    vectors = np.random.default_rng(0).normal(size=(200, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    table = table_of(np.arange(400.0), np.concatenate([vectors, vectors]))
    kept = select(table, Rule(keep=200, method="random", near_duplicates=1.0)).kept
    assert (kept[:200] ^ kept[200:]).all(), "one of every pair"


def test_near_duplicates_change_nothing_for_k_center():
    table = table_of(np.zeros(len(GRID)), GRID, clusters=np.arange(len(GRID)) % 3)
    kept = [select(table, Rule(keep=20, method="k_center", near_duplicates=t)).kept for t in (None, 0.5)]
    assert np.array_equal(*kept)
