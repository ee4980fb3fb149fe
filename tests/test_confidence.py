"""The maths from logits to complexity: hand-computed numbers, high-precision truth and the ends of the range."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from curate.scoring.confidence import complexity, head_rows, mean_per_record, perplexity, token_log_probs


def test_token_log_probs_by_hand() -> None:
    logits = torch.tensor([[1.0, 0.0], [0.0, 0.0], [math.log(3.0), 0.0]])
    found = token_log_probs(logits, torch.tensor([0, 1, 1]))
    expected = [-math.log(1 + math.exp(-1)), -math.log(2), -math.log(4)]
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("offset", [0.0, -30.0, 100.0])
@pytest.mark.parametrize("vocabulary", [2, 33, 5003])
def test_token_log_probs_are_within_the_contract_of_float64_truth(vocabulary: int, offset: float) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    logits = 4 * torch.randn((257, vocabulary), generator=generator) + offset
    targets = torch.randint(vocabulary, (257,), generator=generator)
    targets[::2] = logits[::2].argmax(1)
    truth = logits.double().log_softmax(-1).gather(1, targets[:, None])[:, 0]
    assert (token_log_probs(logits, targets) - truth).abs().max() < 1e-5


@pytest.mark.parametrize(("dtype", "own_error"), [(torch.bfloat16, 1e-3), (torch.float16, 1e-4)])
def test_the_softmax_of_low_precision_logits_runs_in_float32(dtype: torch.dtype, own_error: float) -> None:
    logits = (8 * torch.randn((64, 1000), generator=torch.Generator().manual_seed(0))).to(dtype)
    targets = logits.argmax(1)
    truth = logits.double().log_softmax(-1).gather(1, targets[:, None])[:, 0]
    assert (token_log_probs(logits, targets) - truth).abs().max() < 1e-5
    assert (logits.log_softmax(-1).gather(1, targets[:, None])[:, 0] - truth).abs().max() > own_error


def test_extreme_logits_neither_overflow_nor_leave_the_range() -> None:
    logits = torch.tensor([[3e38, -3e38], [3e38, -3e38], [-3e38, -3e38], [0.0, -200.0]])
    found = token_log_probs(logits, torch.tensor([0, 1, 0, 1]))
    assert found[0] == 0
    assert found[1] == -math.inf  # not representable; `score` turns it into a status
    assert found[2].item() == pytest.approx(-math.log(2))  # not lost beside 3e38
    assert found[3] == -200


@settings(deadline=None)
@given(hnp.arrays(np.float32, (3, 17), elements=st.floats(-1e4, 1e4, width=32)), st.integers(0, 16))
def test_a_probability_is_never_above_one(logits: np.ndarray, target: int) -> None:
    assert (token_log_probs(torch.from_numpy(logits), torch.full((3,), target)) <= 0).all()


def test_mean_per_record_by_hand() -> None:
    log_probs = np.log(np.array([[0.5, 0.25, 1.0, 0.1], [1.0, 1.0, 0.5, 0.5]])).astype(np.float32)
    confidence, log_prob = mean_per_record(log_probs, np.array([2, 1, 1]))
    assert confidence.dtype == log_prob.dtype == np.float64
    np.testing.assert_allclose(confidence, [[0.375, 1.0], [1.0, 0.5], [0.1, 0.5]], rtol=1e-7)
    half = math.log(0.5)
    np.testing.assert_allclose(log_prob, [[1.5 * half, 0], [0, half], [math.log(0.1), half]], rtol=1e-6)


@settings(deadline=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=12))
def test_a_records_means_do_not_depend_on_the_records_beside_it(counts: list[int]) -> None:
    rng = np.random.default_rng(counts)
    log_probs = np.log(rng.random((3, sum(counts)))).astype(np.float32)
    together = mean_per_record(log_probs, np.array(counts))
    for i, (start, count) in enumerate(zip(np.cumsum([0, *counts]), counts, strict=False)):
        alone = mean_per_record(log_probs[:, start : start + count], np.array([count]))
        for ours, mine in zip(together, alone, strict=True):
            np.testing.assert_array_equal(ours[i], mine[0])
        exact = log_probs[:, start : start + count].astype(np.float64)
        np.testing.assert_allclose(alone[0][0], [math.fsum(np.exp(e)) / count for e in exact], rtol=1e-14)


def test_means_are_over_tokens_of_a_record_not_over_records_or_batches() -> None:
    log_probs = np.log(np.array([[1.0, 1.0, 1.0, 0.2]], np.float32))
    confidence, _ = mean_per_record(log_probs, np.array([3, 1]))
    np.testing.assert_allclose(confidence[:, 0], [1.0, 0.2])


def test_what_is_not_finite_stays_in_its_record() -> None:
    log_probs = np.array([[0.0, np.nan, -np.inf, -1.0]], np.float32)
    confidence, log_prob = mean_per_record(log_probs, np.array([1, 1, 1, 1]))
    np.testing.assert_array_equal(confidence[:, 0], [1.0, np.nan, 0.0, np.exp(np.float32(-1.0), dtype=np.float64)])
    np.testing.assert_array_equal(log_prob[:, 0], [0.0, np.nan, -np.inf, -1.0])


def test_complexity_is_one_minus_the_mean_over_exits() -> None:
    found = complexity(np.array([[0.1, 0.2, 0.6], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]], np.float32))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [0.7, 0.0, 1.0], atol=1e-7)
    assert np.isnan(complexity(np.array([[0.5, np.nan]]))).all()


@settings(deadline=None)
@given(hnp.arrays(np.float32, (5, 4), elements=st.floats(0, 1, width=32)))
def test_complexity_lies_between_zero_and_one(confidence: np.ndarray) -> None:
    assert ((complexity(confidence) >= 0) & (complexity(confidence) <= 1)).all()


def test_perplexity_is_the_inverse_geometric_mean_and_may_be_infinite() -> None:
    found = perplexity(np.array([0.0, -math.log(7), -1000.0, np.nan]))
    np.testing.assert_allclose(found, [1.0, 7.0, np.inf, np.nan], rtol=1e-12)


@pytest.mark.parametrize("on_gpu", [False, True])
def test_head_rows_bound_the_logits_and_fall_with_the_vocabulary(on_gpu: bool) -> None:
    rows = [head_rows(vocabulary, on_gpu=on_gpu) for vocabulary in (1, 512, 32_000, 151_936, 262_144, 10**9)]
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] == 16
    size = rows[3] * 151_936 * 4
    assert size <= (1 << 30 if on_gpu else 1 << 25)
