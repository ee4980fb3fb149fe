"""IFD: the response with its prompt and without it, held against one plain forward pass per response."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from conftest import small_tokenizer
from families import FAMILIES, Family, plain_log_probs
from hypothesis import given
from hypothesis import strategies as st
from real import real
from test_score import FAMILY, STATUS, conversations, fail_where, record, scorer_of, table_of
from transformers import AutoModelForCausalLM, AutoTokenizer

import curate.scoring.ifd as ifd_module
from curate.scoring.batches import plan_batches_of
from curate.scoring.ifd import ResponsesAlone, alone, ifd, pool_alone
from curate.scoring.score import ScoringModel, full_model, score_batch
from curate.tokens.control import make_codec
from curate.tokens.tokenize import tokenize
from curate.types import CONTEXT, END, ROW, SCORED, BatchScores, Example, IntArray, Tokens, TokenStore, Turn

BOS, NO_BOS = np.array([1]), np.array([], np.int64)


def store_of(marks: Sequence[Sequence[int]]) -> TokenStore:
    """Records with these marks in memory; their ids count on from 10."""
    rows = np.zeros(len(marks), ROW)
    rows["end"] = np.cumsum([len(m) for m in marks])
    rows["id"] = [np.void(bytes([i]) * 32) for i in range(len(marks))]
    flat = np.array([m for record_marks in marks for m in record_marks], np.uint8)
    return TokenStore(np.arange(10, 10 + len(flat), dtype=np.int32), flat, rows)


def responses_of(tokens: Tokens) -> list[list[int]]:
    """The ids of every response, by a loop over tokens."""
    out: list[list[int]] = []
    for t, (token, mark) in enumerate(zip(tokens.input_ids.tolist(), tokens.marks.tolist(), strict=True)):
        if mark == SCORED:
            out += [[]] if t == 0 or tokens.marks[t - 1] != SCORED else []
            out[-1].append(token)
    return out


def sequences_of(cut: ResponsesAlone) -> list[tuple[int, list[int], list[int]]]:
    spans = [cut.tokens.span(i) for i in range(len(cut.tokens))]
    return [
        (int(owner), cut.tokens.input_ids[s].tolist(), cut.tokens.marks[s].tolist())
        for owner, s in zip(cut.owners, spans, strict=True)
    ]


def log_prob_alone(scorer: ScoringModel, store: TokenStore, opening: IntArray, tokens_per_batch: int) -> Any:
    cut = alone(store, opening)
    plan = plan_batches_of(cut.tokens, tokens_per_batch, reuse_prefixes=False)
    batches = [score_batch(full_model(scorer), cut.tokens, plan.rows_of_batch(b)) for b in range(len(plan.costs))]
    return pool_alone(cut, batches, len(store))


def naive_ifd(model: Any, tokens: Tokens, opening: IntArray) -> float:
    """Perplexity given the prompt over perplexity alone, from the model's logits of whole sequences."""
    given_prompt = plain_log_probs(model, tokens.input_ids)[tokens.marks[1:] == SCORED]
    first = max(len(opening) - 1, 0)
    each = [plain_log_probs(model, np.array([*opening, *ids]))[first:] for ids in responses_of(tokens)]
    return float(np.exp(-given_prompt.mean()) / np.exp(-np.concatenate(each).mean()))


# --- cutting responses out ---


def test_every_response_is_a_sequence_of_its_own_after_the_opening() -> None:
    store = store_of([[CONTEXT, SCORED, SCORED, END, CONTEXT, SCORED], [], [CONTEXT, CONTEXT, SCORED]])
    cut = alone(store, BOS)
    assert sequences_of(cut) == [
        (0, [1, 11, 12], [CONTEXT, SCORED, SCORED]),
        (0, [1, 15], [CONTEXT, SCORED]),
        (2, [1, 18], [CONTEXT, SCORED]),
    ]
    assert cut.tokens.rows["needed"].tolist() == [2, 1, 1]
    assert cut.tokens.rows["scored"].tolist() == [2, 1, 1]
    assert [bytes(i)[0] for i in cut.tokens.rows["id"]] == [0, 0, 2]


def test_without_an_opening_nothing_predicts_the_first_token() -> None:
    store = store_of([[CONTEXT, SCORED, SCORED, END, CONTEXT, SCORED], [CONTEXT, SCORED], [CONTEXT, SCORED, SCORED]])
    cut = alone(store, NO_BOS)
    assert sequences_of(cut) == [(0, [11, 12], [CONTEXT, SCORED]), (2, [19, 20], [CONTEXT, SCORED])]
    assert cut.tokens.rows["scored"].tolist() == [1, 1]


def test_a_store_without_responses_gives_no_sequence() -> None:
    for store in (store_of([]), store_of([[], []])):
        cut = alone(store, BOS)
        assert (len(cut.tokens), len(cut.owners), len(cut.tokens.input_ids)) == (0, 0, 0)


@given(
    marks=st.lists(st.lists(st.sampled_from([CONTEXT, SCORED, END]), max_size=12), max_size=9),
    opening=st.lists(st.integers(0, 9), max_size=3),
    block=st.integers(1, 4),
)
def test_cutting_equals_a_loop_over_tokens(marks: list[list[int]], opening: list[int], block: int) -> None:
    marks = [[CONTEXT, *m] if m and m[0] == SCORED else m for m in marks]
    store = store_of(marks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ifd_module, "_BLOCK", block)
        cut = alone(store, np.array(opening, np.int64))
    expected = []
    for row in range(len(marks)):
        tokens = Tokens(row, "", "scored", False, store.input_ids[store.span(row)], store.marks[store.span(row)])
        for ids in responses_of(tokens):
            first = [CONTEXT] * len(opening) if opening else [CONTEXT]
            if len(sequence := [*opening, *ids]) > len(first):
                expected.append((row, sequence, first + [SCORED] * (len(sequence) - len(first))))
    assert sequences_of(cut) == expected
    for i, (_, sequence, its_marks) in enumerate(expected):
        assert cut.tokens.rows["needed"][i] == len(sequence) - 1
        assert cut.tokens.rows["scored"][i] == its_marks.count(SCORED)


# --- the score ---


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("opening", [BOS, NO_BOS], ids=["bos", "no-bos"])
def test_ifd_is_the_ratio_of_two_naive_perplexities(family: Family, opening: IntArray, tmp_path: Path) -> None:
    model, records = family.build(), conversations(8)
    store, scorer = table_of(records, tmp_path), scorer_of(model)
    rows = np.flatnonzero(store.rows["status"] == STATUS["scored"])
    log_prob = np.full(len(store), np.nan)
    log_prob[rows] = score_batch(full_model(scorer), store, rows).log_prob[:, -1]
    found = ifd(log_prob_alone(scorer, store, opening, 24), log_prob)
    assert len(rows) == 7
    for row in rows:
        assert found[row] == pytest.approx(naive_ifd(model, records[row], opening), rel=2e-4)
    assert np.isnan(found[[r.row for r in records if r.status != "scored"]]).all()


def test_the_responses_of_a_record_are_pooled_token_by_token_in_any_order() -> None:
    cut = alone(store_of([[CONTEXT, SCORED, CONTEXT, SCORED, SCORED, SCORED], [CONTEXT, SCORED]]), BOS)
    found = pool_alone(cut, [scores_of([2, 1, 0], [-5.0, -2.0, -6.0])], 2)
    assert found.tolist() == [(-6.0 + 3 * -2.0) / 4, -5.0]
    in_chunks = pool_alone(cut, [scores_of([1], [-2.0]), scores_of([2, 0], [-5.0, -6.0])], 2)
    np.testing.assert_array_equal(in_chunks, found)


@pytest.mark.parametrize("status", ["non_finite", "out_of_memory"])
def test_a_record_one_of_whose_responses_was_not_scored_has_no_number(status: str) -> None:
    cut = alone(store_of([[CONTEXT, SCORED, CONTEXT, SCORED], [CONTEXT, SCORED]]), BOS)
    bad = scores_of([0, 1, 2], [-1.0, np.nan, -3.0])
    bad.status[1] = STATUS[status]  # its number is NaN then: see `score_records`
    assert np.isnan(pool_alone(cut, [bad], 2)).tolist() == [True, False]
    missing = scores_of([0, 2], [-1.0, -3.0])
    assert np.isnan(pool_alone(cut, [missing], 2)).tolist() == [True, False]


def test_a_response_of_one_token_without_bos_has_no_number() -> None:
    store = store_of([[CONTEXT, SCORED], [CONTEXT, SCORED, SCORED]])
    cut = alone(store, NO_BOS)
    assert np.isnan(pool_alone(cut, [scores_of([0], [-1.5])], 2)).tolist() == [True, False]


def test_ifd_says_how_much_the_prompt_helps() -> None:
    log_prob_alone_, log_prob = np.array([-3.0, -2.0, -1.0, np.nan]), np.array([-1.0, -2.0, -3.0, -1.0])
    np.testing.assert_allclose(ifd(log_prob_alone_, log_prob), [np.exp(-2), 1, np.exp(2), np.nan], rtol=1e-12)


def test_out_of_memory_halves_a_batch_of_responses_as_any_other(tmp_path: Path) -> None:
    store, scorer = table_of(conversations(8), tmp_path), scorer_of(FAMILY["llama"].build())
    whole = log_prob_alone(scorer, store, BOS, 1000)
    fail_where(scorer, lambda ids: len(ids) > 2, MemoryError())
    np.testing.assert_allclose(log_prob_alone(scorer, store, BOS, 1000), whole, rtol=1e-5)


def scores_of(rows: Sequence[int], log_prob: Sequence[float]) -> BatchScores:
    column = np.array(log_prob, np.float32)[:, None]
    return BatchScores(np.array(rows), np.full(len(rows), STATUS["scored"], np.uint8), np.exp(column), column)


# --- tokenizers and real models ---


def test_the_opening_is_what_the_tokenizer_itself_writes(llama: Path) -> None:
    assert make_codec(AutoTokenizer.from_pretrained(llama)).opening.tolist() == []
    from tokenizers.processors import TemplateProcessing

    tokenizer = small_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    assert make_codec(tokenizer).opening.tolist() == [0]


@pytest.mark.parametrize("name", ["stories260K", "base-7m"])
def test_a_real_model_finds_what_a_naive_computation_finds(name: str, tmp_path: Path) -> None:
    folder, data = real(f"models/{name}"), real("data/alpaca_9k.json")
    chosen = json.loads(data.read_text(encoding="utf-8"))[:24]
    examples = [
        Example(i, f"{i:064x}", (Turn("user", r["instruction"], r["input"]), Turn("assistant", r["output"])))
        for i, r in enumerate(chosen)
    ]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    records = list(tokenize(examples, tokenizer, template="alpaca", max_length=400))
    store, scorer, opening = table_of(records, tmp_path), scorer_of(model, layers=(1,)), make_codec(tokenizer).opening
    rows = np.flatnonzero(store.rows["status"] == STATUS["scored"])
    assert len(rows) >= 20
    given_prompt: npt.NDArray[Any] = np.full(len(store), np.nan)
    given_prompt[rows] = score_batch(full_model(scorer), store, rows).log_prob[:, 0]
    found = ifd(log_prob_alone(scorer, store, opening, 512), given_prompt)
    for row in rows:
        if not np.isnan(found[row]):
            assert found[row] == pytest.approx(naive_ifd(model, records[row], opening), rel=1e-4)
    assert np.isfinite(found[rows]).sum() >= 18
    assert np.median(found[rows][np.isfinite(found[rows])]) < 1, "a prompt helps"


def test_the_full_model_is_the_last_exit(tmp_path: Path) -> None:
    store, scorer = table_of([record(0, [5, 6, 7, 8], [0, 0, 1, 1])], tmp_path), scorer_of(FAMILY["llama"].build())
    last = score_batch(full_model(scorer), store, np.array([0])).log_prob
    np.testing.assert_array_equal(last, score_batch(scorer, store, np.array([0])).log_prob[:, -1:])
    assert full_model(dataclasses.replace(scorer, layers=(1, 2))).layers == (4,)
