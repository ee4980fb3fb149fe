"""The interval of a difference: its limits, what it covers, and how often it holds the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap

from curate.compare.intervals import mean_difference
from curate.types import CurateError, FloatArray


def losses(seeds: int, records: int, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).gamma(2, 1, (seeds, records))


def selectors(
    rng: np.random.Generator, shift: float, *, seeds: int, seed_noise: float, record_noise: float, records: int = 150
) -> tuple[FloatArray, FloatArray]:
    """Losses of two selectors whose true difference is `shift`: hard and easy records, luck of the draw, noise."""
    hardness = rng.gamma(2, 1, records)
    ours = hardness + shift + record_noise * rng.normal(size=records) + seed_noise * rng.normal(size=(seeds, 1))
    reference = hardness + seed_noise * rng.normal(size=(seeds, 1))
    noise = 0.05 * rng.normal(size=(2, seeds, records))
    return ours + noise[0], reference + noise[1]


def test_equal_losses_differ_by_nothing() -> None:
    same = np.tile(losses(1, 50), (3, 1))
    for weights in (None, np.arange(1.0, 51)):
        found = mean_difference(same, same, weights)
        assert (found.value, found.low, found.high, found.covers) == (0, 0, 0, "seeds and records")


@given(shift=st.floats(-5, 5), seeds=st.integers(1, 4), weighted=st.booleans())
def test_a_shift_of_all_losses_is_found_exactly(shift: float, seeds: int, weighted: bool) -> None:
    same = np.tile(losses(1, 30), (seeds, 1))
    found = mean_difference(same + shift, same, np.arange(1.0, 31) if weighted else None, replicates=300)
    np.testing.assert_allclose([found.value, found.low, found.high], shift, atol=1e-12)


def test_the_two_means_weigh_records_as_they_should() -> None:
    ours, reference = np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([[1.0, 1.0]])
    assert mean_difference(ours, reference).value == pytest.approx((1 + 4) / 2)
    assert mean_difference(ours, reference, np.array([1.0, 3.0])).value == pytest.approx((1 + 3 * 4) / 4)


def test_with_one_seed_the_interval_is_that_of_scipys_bootstrap_over_records() -> None:
    ours, reference = losses(1, 80, 1), losses(1, 80, 2)
    found = mean_difference(ours, reference, replicates=20_000)
    theirs = bootstrap(
        (ours[0] - reference[0],), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(5)
    ).confidence_interval
    assert found.covers == "records"
    np.testing.assert_allclose([found.low, found.high], [theirs.low, theirs.high], atol=0.02)


def test_with_many_seeds_the_interval_is_that_of_a_plain_crossed_bootstrap() -> None:
    ours, reference = selectors(np.random.default_rng(0), 0.1, seeds=40, seed_noise=0.3, record_noise=0.3, records=60)
    weights = np.random.default_rng(1).integers(1, 100, 60).astype(float)
    found = mean_difference(ours, reference, weights, replicates=20_000)
    rng, values = np.random.default_rng(2), []
    for _ in range(4_000):
        a, b, r = (rng.integers(0, n, n) for n in (40, 40, 60))
        difference = ours[a][:, r].mean(0) - reference[b][:, r].mean(0)
        values.append((difference * weights[r]).sum() / weights[r].sum())
    np.testing.assert_allclose([found.low, found.high], np.quantile(values, [0.025, 0.975]), atol=0.02)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize(("seed_noise", "record_noise"), [(0.2, 0.01), (0.1, 1.0), (0.01, 1.0)])
def test_about_19_of_20_intervals_hold_the_truth(seeds: int, seed_noise: float, record_noise: float) -> None:
    rng = np.random.default_rng(seeds)
    held = 0
    for _ in range(200):
        pair = selectors(rng, 0.3, seeds=seeds, seed_noise=seed_noise, record_noise=record_noise)
        found = mean_difference(*pair, replicates=400)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.3 <= found.high
    assert 0.88 <= held / 200 <= 0.99


def test_a_planted_difference_is_found_and_noise_is_not() -> None:
    rng = np.random.default_rng(3)
    planted = mean_difference(*selectors(rng, -0.3, seeds=3, seed_noise=0.02, record_noise=0.2))
    assert planted.high is not None
    assert planted.high < 0
    noise = mean_difference(*selectors(rng, 0.0, seeds=3, seed_noise=0.02, record_noise=0.2))
    assert noise.low is not None
    assert noise.high is not None
    assert noise.low < 0 < noise.high


def test_the_luck_of_the_draw_widens_the_interval_only_where_there_is_more_than_one_seed() -> None:
    ours, reference = selectors(np.random.default_rng(4), 0.0, seeds=3, seed_noise=0.5, record_noise=0.1)
    whole, one = mean_difference(ours, reference), mean_difference(ours[:1], reference)
    assert (whole.covers, one.covers) == ("seeds and records", "records")
    assert whole.low is not None
    assert one.low is not None
    assert whole.value - whole.low > 3 * (one.value - one.low)


def test_what_has_no_seed_is_covered_by_the_seeds_of_the_other() -> None:
    ours, reference = selectors(np.random.default_rng(5), 1.0, seeds=3, seed_noise=0.1, record_noise=0.1)
    untuned = mean_difference(ours[:1], reference, without_seed="ours")
    assert untuned.covers == "seeds and records"
    assert untuned.low is not None
    assert untuned.high is not None
    assert untuned.low < mean_difference(ours[:1], reference).low  # type: ignore[operator]
    swapped = mean_difference(reference, ours[:1], without_seed="reference")
    mirrored = [-swapped.value, -swapped.high, -swapped.low]  # type: ignore[operator]
    assert [untuned.value, untuned.low, untuned.high] == pytest.approx(mirrored)
    assert mean_difference(reference[:1], ours[:1], without_seed="reference").covers == "records"


@pytest.mark.parametrize("seeds", [2, 3])
def test_about_19_of_20_intervals_hold_the_truth_where_one_side_has_no_seed(seeds: int) -> None:
    rng, held = np.random.default_rng(seeds), 0
    for number in range(300):
        ours, reference = selectors(rng, 0.3, seeds=seeds, seed_noise=0.0, record_noise=0.02)
        luck = 0.3 * rng.normal(size=(seeds, 1))  # of the reference alone: the untuned model has none
        found = mean_difference(ours[:1], reference + luck, without_seed="ours", replicates=400, seed=number)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.3 <= found.high
    assert 0.92 <= held / 300 <= 0.98


def test_a_metric_without_records_is_covered_by_its_seeds_alone() -> None:
    ours, reference = np.array([[0.5], [0.6], [0.7]]), np.array([[0.1], [0.2], [0.3]])
    found = mean_difference(ours, reference)
    assert found.covers == "seeds"
    assert found.low is not None
    assert 0 < found.low < found.value == pytest.approx(0.4)
    alone = mean_difference(ours[:1], reference[:1])
    assert (alone.covers, alone.low, alone.high) == ("nothing", None, None)


def test_records_that_one_side_lacks_are_left_out_on_both_and_counted() -> None:
    ours, reference = losses(2, 20, 1), losses(2, 20, 2)
    ours[1, 3] = reference[0, 7] = np.nan
    left = np.setdiff1d(np.arange(20), [3, 7])
    weights = np.arange(1.0, 21)
    found = mean_difference(ours, reference, weights)
    alone = mean_difference(ours[:, left], reference[:, left], weights[left])
    assert (found.records, found.dropped) == (18, 2)
    assert (found.value, found.low, found.high) == (alone.value, alone.low, alone.high)


def test_the_same_arguments_give_the_same_interval_and_exchanged_sides_the_opposite_value() -> None:
    ours, reference = losses(3, 40, 1), losses(3, 40, 2)
    assert mean_difference(ours, reference) == mean_difference(ours, reference)
    assert mean_difference(ours, reference).low != mean_difference(ours, reference, seed=1).low
    assert mean_difference(reference, ours).value == pytest.approx(-mean_difference(ours, reference).value)


def test_sides_with_other_records_and_without_any_are_refused() -> None:
    with pytest.raises(CurateError, match="expected losses of the same records, got 3 and 4"):
        mean_difference(losses(1, 3), losses(1, 4))
    with pytest.raises(CurateError, match="expected records with a loss on both sides, got none of 3"):
        mean_difference(losses(1, 3), np.full((1, 3), np.nan))
