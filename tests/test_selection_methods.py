"""FlexRand hits its budget with the right parts; k-center takes what a slow greedy loop takes."""

from fractions import Fraction
from itertools import combinations, product
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.selection import REASONS, Candidates, Rule, select
from curate.selection.orders import farthest_first
from curate.selection.quotas import flexrand_split
from curate.selection.strata import easy_size

# Unit vectors whose products are multiples of 1/4, so that every sum is exact and ties are ties.
GRID = np.concatenate([np.eye(4), -np.eye(4), np.array(list(product([-0.5, 0.5], repeat=4)))]).astype(np.float32)


def scored(scores, **arrays):
    status, tokens = np.zeros(len(scores), np.uint8), np.full(len(scores), 10, np.int32)
    return Candidates(status, tokens, {"complexity": np.asarray(scores, float)}, **arrays)


def embedded(embeddings, **arrays):
    return scored(np.zeros(len(embeddings)), embeddings=np.asarray(embeddings, np.float32), **arrays)


def half_up(number):
    return floor(number + Fraction(1, 2))


@pytest.mark.parametrize(
    ("gamma", "count", "easy", "hard"),
    [  # of 100 records: gamma * 100 are easy
        (0.25, 10, 5, 5),  # e = min(.25, .05)
        (0.25, 50, 25, 25),  # e = min(.25, .25)
        (0.25, 90, 25, 65),  # e = min(.25, .45): all of the easy part
        (0.5, 10, 5, 5),
        (0.5, 50, 25, 25),
        (0.5, 90, 45, 45),
        (0.75, 10, 5, 5),  # h = min(.25, .05)
        (0.75, 50, 25, 25),
        (0.75, 90, 65, 25),  # h = min(.25, .45): all of the hard part
        (0.25, 11, 6, 5),  # 5.5 and 5.5: rounding both up would make 12
    ],
)
def test_flexrand_counts_by_hand(gamma, count, easy, hard):
    assert flexrand_split(100, count, gamma) == (easy, hard)
    selection = select(scored(np.arange(100)[::-1]), Rule(keep=count, method="flexrand", gamma=gamma))
    easy_part = np.arange(100) >= 100 - round(gamma * 100)  # the scores fall, so the easiest are the last
    assert (selection.kept & easy_part).sum() == easy
    assert (selection.kept & ~easy_part).sum() == hard


@given(st.integers(1, 400).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size))), st.integers(1, 99))
def test_flexrand_is_exact_fits_its_parts_and_follows_the_formula(size_count, percent):
    (size, count), gamma = size_count, Fraction(percent, 100)
    easy, hard = flexrand_split(size, count, percent / 100)
    eta = Fraction(count, size)
    fraction = min(gamma, eta / 2) if gamma <= Fraction(1, 2) else eta - min(1 - gamma, eta / 2)
    assert easy == half_up(size * fraction)
    assert easy + hard == count
    assert 0 <= easy <= easy_size(size, percent / 100) == half_up(size * gamma)
    assert 0 <= hard <= size - easy_size(size, percent / 100)


def test_flexrand_draws_uniformly_inside_its_parts_and_breaks_ties_by_row():
    num_seeds, hits = 3_000, np.zeros(8)
    table = scored([0.1] * 8)  # all alike: rows 0 and 1 are the easy quarter
    for seed in range(num_seeds):
        hits[select(table, Rule(keep=3, method="flexrand", seed=seed)).kept] += 1
    # 3 of 8: e = min(.25, .1875), so 1.5 rounded up: both of the easy part, and one of six.
    assert hits[:2].tolist() == [num_seeds] * 2
    assert np.abs(hits[2:] / num_seeds - 1 / 6).max() < 5 * np.sqrt(5 / 36 / num_seeds)


def test_the_easy_end_of_flexrand_is_that_of_the_order_and_refused_rows_are_in_no_part():
    table = scored([5, np.nan, 1, 2, 3, 4, 0.5], duplicate_ids=np.array([-1, -1, -1, -1, 0, -1, 0]))
    for order, easy in (("lowest", {2}), ("highest", {0})):  # of five or so: half up(1.25) = 1
        kept = [
            set(np.flatnonzero(select(table, Rule(keep=2, method="flexrand", order=order, seed=seed)).kept).tolist())
            for seed in range(40)
        ]
        assert all(len(rows) == 2 and 1 not in rows and not rows >= {4, 6} for rows in kept)
        assert all(len(rows & (easy | {6})) >= 1 for rows in kept)


def test_flexrand_over_groups_splits_every_group_by_itself():
    groups = np.array([0] * 40 + [1] * 60)
    table = scored(np.arange(100), groups=groups, group_names=("a", "b"))
    kept = np.flatnonzero(select(table, Rule(keep=10, method="flexrand")).kept)
    # 4 of a (2 of its first ten, 2 of the rest), 6 of b (3 of its first fifteen, 3 of the rest)
    assert np.histogram(kept, [0, 10, 40, 55, 100])[0].tolist() == [2, 2, 3, 3]


def slow_farthest_first(vectors, count):
    """The greedy loop as it is told: the row nearest to the mean, then always the one farthest from all so far."""
    rows = range(len(vectors))
    mean = sum(np.asarray(v, np.float64) for v in vectors)
    chosen = [max(rows, key=lambda row: (float(vectors[row] @ mean), -row))][:count]

    def distance(row):
        return min(float(((vectors[row] - vectors[centre]) ** 2).sum()) for centre in chosen)

    while len(chosen) < count:
        chosen.append(max((row for row in rows if row not in chosen), key=lambda row: (distance(row), -row)))
    rest = [row for row in rows if row not in chosen]
    return chosen + (sorted(rest, key=lambda row: (-distance(row), row)) if chosen else rest)


grid_rows = st.lists(st.integers(0, len(GRID) - 1), min_size=1, max_size=20).flatmap(
    lambda picks: st.tuples(st.just(GRID[picks]), st.integers(0, len(picks)))
)


@given(grid_rows)
def test_farthest_first_is_the_slow_greedy_loop(vectors_count):
    vectors, count = vectors_count
    ordered = farthest_first(vectors, np.arange(len(vectors), dtype=np.int32), count)
    assert ordered.tolist() == slow_farthest_first(vectors, count)


@given(grid_rows, st.integers(1, 4))
def test_rows_that_are_not_asked_for_change_nothing_however_sparse_the_others_are(vectors_count, spread):
    """Few rows of many are copied, many are read in place: both give the same, past rows without an embedding."""
    vectors, count = vectors_count
    table = np.full((spread * len(vectors) + 3, 4), np.nan, np.float32)
    rows = 2 + spread * np.arange(len(vectors), dtype=np.int32)
    table[rows] = vectors
    assert farthest_first(table, rows, count).tolist() == [int(rows[i]) for i in slow_farthest_first(vectors, count)]


@given(st.integers(0, 1000))
def test_the_covering_radius_is_at_most_twice_the_best_possible(seed):
    vectors = np.random.default_rng(seed).normal(size=(9, 3))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    gaps = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    best = min(gaps[:, list(centres)].min(axis=1).max() for centres in combinations(range(9), 3))
    greedy = farthest_first(vectors, np.arange(9, dtype=np.int32), 3)[:3]
    assert gaps[:, greedy].min(axis=1).max() <= 2 * best + 1e-6


def test_k_center_keeps_the_first_centres_and_ranks_the_rest_by_distance():
    selection = select(embedded(GRID), Rule(keep=5, method="k_center"))
    expected = slow_farthest_first(GRID, 5)
    assert set(np.flatnonzero(selection.kept)) == set(expected[:5])
    assert selection.rank[expected].tolist() == list(range(len(GRID)))


def test_k_center_refuses_rows_without_an_embedding_and_keeps_the_lowest_of_duplicates():
    vectors = np.concatenate([GRID[:4], GRID[:1], np.full((1, 4), np.nan)])
    table = embedded(vectors, duplicate_ids=np.array([0, -1, -1, -1, 0, -1]))
    selection = select(table, Rule(keep=4, method="k_center"))
    assert [REASONS[code] for code in selection.reason] == ["kept"] * 4 + ["duplicate", "not_embedded"]


def test_k_center_of_a_smaller_count_is_a_subset_and_of_a_memory_map_the_same(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.save(tmp_path / "embeddings.npy", vectors)
    mapped = np.load(tmp_path / "embeddings.npy", mmap_mode="r")
    few, many, again = (
        set(np.flatnonzero(select(embedded(source), Rule(keep=count, method="k_center")).kept))
        for source, count in ((vectors, 10), (vectors, 40), (mapped, 40))
    )
    assert few < many
    assert many == again


def test_k_center_over_groups_spreads_inside_every_group():
    groups = np.arange(len(GRID)) % 2
    table = embedded(GRID, groups=groups, group_names=("even", "odd"))
    selection = select(table, Rule(keep=7, method="k_center", group_quota={"even": 3}))
    for code, count in ((0, 3), (1, 4)):
        rows = np.flatnonzero(groups == code)
        assert set(np.flatnonzero(selection.kept & (groups == code))) == {
            rows[i] for i in slow_farthest_first(GRID[rows], count)[:count]
        }
