"""Correlations, overlaps, lengths and labels, each against an obvious count."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from real import real

from curate.compare.labels import Label, agreement, auc, kept_shares, read_labels
from curate.compare.statistics import length_statistics, overlaps, rank_correlations
from curate.types import CurateError

small = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=25)


def slow_auc(labels: list[Any], scores: list[Any]) -> float:
    """The definition: every pair with different labels is looked at."""
    counted = [
        1.0 if (a > b) == (x > y) and x != y else 0.5 if x == y else 0.0
        for (a, x), (b, y) in itertools.combinations(zip(labels, scores, strict=True), 2)
        if a != b
    ]
    return sum(counted) / len(counted) if counted else math.nan


@given(small)
def test_auc_is_the_share_of_pairs_in_the_labels_order(pairs: list[tuple[int, int]]) -> None:
    labels, scores = (np.array(column, float) for column in zip(*pairs, strict=True))
    for some in (labels, labels > 2):  # numbers, and a yes-or-no label
        expected = slow_auc(some.tolist(), scores.tolist())
        assert auc(some.astype(float), scores) == pytest.approx(expected, nan_ok=True)


@given(small)
def test_auc_knows_ranks_only_and_turns_round_with_the_order(pairs: list[tuple[int, int]]) -> None:
    labels, scores = (np.array(column, float) for column in zip(*pairs, strict=True))
    found = auc(labels, scores)
    assert auc(np.exp(labels), scores**3) == pytest.approx(found, nan_ok=True)
    assert auc(labels, -scores) == pytest.approx(1 - found, nan_ok=True)


def test_agreement_leaves_out_and_counts_records_without_label_or_score() -> None:
    label = Label("good", "binary", np.array([1, 0, 1, np.nan, 0]))
    score, tokens = np.array([0.1, 0.9, 0.5, 0.0, np.nan]), np.array([10, 20, 30, 40, 50])
    found = agreement(label, score, tokens, order="lowest")
    assert (found.auc, found.length_auc) == (1.0, 0.5)
    assert (found.records, found.positives, found.dropped) == (3, 2, 2)
    assert agreement(label, score, tokens, order="highest").auc == 0.0


def test_a_selection_agrees_as_far_as_it_keeps_more_of_what_is_good() -> None:
    label = Label("good", "binary", np.array([1.0, 1, 0, 0]))
    found = agreement(label, np.array([True, False, False, False]).astype(float), np.ones(4, int), order="highest")
    assert (found.auc, found.length_auc) == (0.75, 0.5)


def test_labels_are_booleans_numbers_texts_or_tags() -> None:
    (boolean,) = read_labels("ok", [True, None, False])
    assert (boolean.name, boolean.kind) == ("ok", "binary")
    np.testing.assert_array_equal(boolean.values, [1, np.nan, 0])
    (number,) = read_labels("rating", [4.5, 3, None, float("nan")])
    assert (number.name, number.kind) == ("rating", "numeric")
    np.testing.assert_array_equal(number.values, [4.5, 3, np.nan, np.nan])
    tags = read_labels("in", [["b", "a"], [], None, {"b"}, ("a", "a")])
    assert [(tag.name, tag.kind) for tag in tags] == [("in=a", "binary"), ("in=b", "binary")]
    np.testing.assert_array_equal(tags[0].values, [1, 0, np.nan, 0, 1])
    np.testing.assert_array_equal(tags[1].values, [1, 0, np.nan, 1, 0])
    texts = read_labels("judge", ["yes", float("nan"), "no"])
    np.testing.assert_array_equal([text.values for text in texts], [[0, np.nan, 1], [1, np.nan, 0]])


@pytest.mark.parametrize(
    ("values", "got"),
    [
        ([None, None], "no value"),
        ([True, 3.5], "bool, float"),
        ([1, "a"], "int, str"),
        ([{"a": 1}], "dict"),
        ([["a", 1]], "list"),
    ],
)
def test_a_field_that_is_no_label_is_named(values: list[Any], got: str) -> None:
    with pytest.raises(CurateError, match=f"compare.labels: expected good to hold booleans, .* got {got}"):
        read_labels("good", values)


def test_a_field_with_hundreds_of_texts_is_no_judgement() -> None:
    with pytest.raises(CurateError, match="expected at most 64 different tags in id, got 65"):
        read_labels("id", [f"record {i}" for i in range(65)])


def test_kept_shares_are_told_by_value_or_in_quarters() -> None:
    kept = np.array([True, False, True, True, False, False])
    few = kept_shares(Label("stars", "numeric", np.array([1, 1, 2, np.nan, 2, 2])), kept)
    assert [(s.value, s.records, s.kept, s.share) for s in few] == [("1", 2, 1, 0.5), ("2", 3, 1, pytest.approx(1 / 3))]
    many = kept_shares(Label("x", "numeric", np.arange(20.0)), np.arange(20) % 2 == 0)
    assert [(s.value, s.records) for s in many] == [("0 to 4", 5), ("5 to 9", 5), ("10 to 14", 5), ("15 to 19", 5)]
    assert sum(s.kept for s in many) == 10


def test_columns_correlate_by_rank_over_the_rows_that_both_have() -> None:
    a = np.array([1.0, 2, 3, 4, np.nan])
    found = rank_correlations({"a": a, "cubed": a**3, "other": np.array([2.0, 1, 4, 3, 5]), "flat": np.ones(5)})
    assert found.rho[0, 1] == pytest.approx(1)
    assert found.rho[0, 2] == pytest.approx(1 - 6 * 4 / (4 * 15))  # 1 - 6 sum d^2 / n (n^2 - 1)
    assert np.isnan(found.rho[3]).all()
    assert found.records[0].tolist() == [4, 4, 4, 4]
    assert found.records[2, 3] == 5
    np.testing.assert_array_equal(found.rho, found.rho.T)


@given(st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=1, max_size=4))
def test_overlaps_are_those_of_sets(kept: list[list[bool]]) -> None:
    sets = [{i for i, k in enumerate(some) if k} for some in kept]
    found = overlaps({str(i): np.array(some) for i, some in enumerate(kept)})
    for (i, a), (j, b) in itertools.product(enumerate(sets), repeat=2):
        assert found.count[i, j] == len(a & b)
        assert found.jaccard[i, j] == pytest.approx(len(a & b) / len(a | b) if a | b else math.nan, nan_ok=True)
        assert found.by_chance[i, j] == pytest.approx(len(a) * len(b) / 12)


def test_lengths_are_those_of_what_is_kept() -> None:
    tokens = np.array([1, 2, 3, 4, 5, 1000])
    found = length_statistics(tokens, tokens < 1000)
    assert (found.records, found.tokens, found.mean, found.median) == (5, 15, 3.0, 3.0)
    np.testing.assert_allclose(found.quantiles, [1.2, 2, 4, 4.8])
    nothing = length_statistics(tokens, tokens < 0)
    assert (nothing.records, nothing.tokens) == (0, 0)
    assert math.isnan(nothing.mean)


def test_real_labels_are_read_and_longest_finds_the_longest() -> None:
    lines = real("data/alpaca_recovered.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    labels = {label.name: label for label in read_labels("in", [record["in"] for record in records])}
    assert int(labels["in=random_9k"].values.sum()) == 9229
    assert len(labels) == 8
    lengths = np.array([len(record["output"]) for record in records])
    inside = labels["in=random_9k"].values == 1
    longest = Label("longest", "binary", labels["in=longest_1k"].values[inside])
    assert agreement(longest, -lengths[inside].astype(float), lengths[inside], order="lowest").auc > 0.99
    (ratings,) = read_labels("alpagasus_score", [record.get("alpagasus_score") for record in records])
    assert ratings.kind == "numeric"
    assert agreement(ratings, ratings.values, lengths, order="highest").auc == 1.0
    with pytest.raises(CurateError, match="expected at most 64 different tags"):
        read_labels("car_cluster", [record.get("car_cluster") for record in records])
