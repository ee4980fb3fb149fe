"""A prefix computed once: every exit of what follows equals a k-layer model that sees the whole record."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, NUM_LAYERS, Family, likely_records, plain_log_probs, shorter
from test_exits import ALL_LAYERS, FAMILY, family_names, padded, state_of
from test_score import LAYERS, assert_same, by_row, record, table_of
from torch import nn

from curate.pipeline.compute import batch_scores
from curate.scoring import prefix_cache
from curate.scoring.batches import plan_batches_of
from curate.scoring.exits import exit_hidden, replayed_head
from curate.scoring.parts import DecoderParts, find_parts
from curate.scoring.prefix_cache import compute_prefix_cache
from curate.scoring.score import ScoringModel, join_scores, score_batch
from curate.scoring.selftest import prefix_check
from curate.types import CONTEXT, SCORED, BatchScores, TokenStore

SHARED = 8  # longer than the sliding windows of the families


def largest_gap(family: Family, parts: DecoderParts) -> float:
    """How far any exit is from a model of that many layers, over records that share a prefix, seen twice.

    In units of the contract: 1e-5 of probability per token, 1e-5 of a record's log-probability.
    """
    first, *others = likely_records(parts.model, (24, 19, 16))
    records = [np.concatenate([first[:SHARED], other[SHARED:]]) for other in (first, *others)]
    input_ids, keep = padded([r[SHARED:] for r in records])
    targets = torch.from_numpy(np.concatenate([r[SHARED + 1 :] for r in records]))
    before = compute_prefix_cache(parts, first[:SHARED].astype(np.int32))
    gap = 0.0
    for _ in range(2):
        hidden = exit_hidden(parts, input_ids, keep, ALL_LAYERS, before)
        for k, h in zip(ALL_LAYERS, hidden, strict=True):
            with torch.no_grad(), replayed_head(parts) as head:
                ours = head(h).double().log_softmax(-1).gather(1, targets[:, None])[:, 0].numpy()
            small = shorter(family, parts.model, k)
            for r, mine in zip(records, np.split(ours, np.cumsum([len(r) - SHARED - 1 for r in records])[:-1])):  # noqa: B905
                truth = plain_log_probs(small, r)[SHARED:]
                gap = max(gap, np.abs(np.exp(mine) - np.exp(truth)).max(), abs(mine.mean() / truth.mean() - 1))
    return gap / 1e-5


@pytest.mark.parametrize("family", FAMILIES, ids=family_names)
def test_every_exit_after_a_shared_beginning_equals_a_k_layer_model_that_sees_it_whole(family: Family) -> None:
    assert largest_gap(family, find_parts(family.build())) <= 1


@pytest.mark.parametrize("family", FAMILIES, ids=family_names)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_check_passes_where_it_may(family: Family, dtype: torch.dtype) -> None:
    if "moe" in family.model_type or family.name in {"mixtral", "gpt_oss"}:
        dtype = torch.float32  # random routers are often near a tie, and a tie that falls the other way moves a token
    check = prefix_check(find_parts(family.build(dtype=dtype)))
    assert check.passed, check


RECURRENT = [
    Family("mamba", "mamba", {"vocab_size": 128, "hidden_size": 64, "state_size": 8}),
    Family(
        "lfm2",
        "lfm2",
        {**FAMILY["llama"].settings, "num_key_value_heads": 2, "block_auto_adjust_ff_dim": False},
        lambda n: {"layer_types": ["conv" if i % 2 else "full_attention" for i in range(n)]},
    ),
    Family(
        "qwen3_next",
        "qwen3_next",
        {
            **FAMILY["qwen3_moe"].settings,
            "head_dim": 16,
            "shared_expert_intermediate_size": 32,
            "num_experts": 4,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
        },
        lambda n: {"layer_types": ["linear_attention" if i % 2 else "full_attention" for i in range(n)]},
    ),
]


@pytest.mark.parametrize("family", RECURRENT, ids=family_names)
def test_a_model_that_keeps_more_than_keys_and_values_computes_every_record_whole(family: Family) -> None:
    torch.manual_seed(0)
    parts = find_parts(family.empty(NUM_LAYERS))
    check = prefix_check(parts)
    assert not check.passed
    assert state_of(parts.model) == state_of(find_parts(parts.model).model), "and nothing is left behind"


def forgetful(parts: DecoderParts, patch: pytest.MonkeyPatch) -> None:
    """The decoder does not see what stands before."""
    forward = parts.backbone.forward

    def without(*args: Any, past_key_values: Any = None, **kwargs: Any) -> Any:
        return forward(*args, past_key_values=None, **kwargs)

    patch.setattr(parts.backbone, "forward", without)


def growing(parts: DecoderParts, patch: pytest.MonkeyPatch) -> None:
    """What follows is stored behind the prefix, so that the next batch sees it."""
    plain = prefix_cache._PrefixLayer.update

    def storing(self: Any, keys: Any, values: Any, *args: Any, **kwargs: Any) -> Any:
        both = plain(self, keys, values)
        self.keys, self.values = (t[:1] for t in both)
        return both

    patch.setattr(prefix_cache._PrefixLayer, "update", storing)


@pytest.mark.parametrize("mistake", [forgetful, growing])
def test_the_check_sees_mistakes(mistake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = find_parts(FAMILY["llama"].build())
    mistake(parts, monkeypatch)
    assert not prefix_check(parts).passed


def test_states_are_the_same_after_any_number_of_batches() -> None:
    parts = find_parts(FAMILY["llama_tied_grouped"].build())
    before = compute_prefix_cache(parts, np.arange(3, 12, dtype=np.int32))
    stored = [(layer.keys.clone(), layer.values.clone()) for layer in before.layers]
    for size in (1, 3):
        ids = torch.arange(7 * size).reshape(size, 7)
        exit_hidden(parts, ids, torch.ones_like(ids, dtype=torch.bool), [NUM_LAYERS], before)
    assert before.get_seq_length() == 9
    for layer, (keys, values) in zip(before.layers, stored, strict=True):
        assert torch.equal(layer.keys, keys)
        assert torch.equal(layer.values, values)


def test_a_batch_scores_as_it_does_whole_also_where_it_is_halved(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    header = rng.integers(3, 120, 9).tolist()
    records = []
    for row, length in enumerate(rng.integers(2, 9, 12)):
        marks = [CONTEXT] * (9 + length) + [SCORED] * 3 + [CONTEXT] + [SCORED] * (row % 3)
        records.append(record(row, [*header, *rng.integers(3, 120, len(marks) - 9)], marks))
    table, rows = table_of(records, tmp_path), np.arange(12)
    scorer = ScoringModel(find_parts(FAMILY["llama"].build()), LAYERS, 7)
    whole = by_row(score_batch(scorer, table, rows))
    before = compute_prefix_cache(scorer.parts, np.array(header, np.int32))
    seen: list[int] = []

    def refuse_more_than_four(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        seen.append(kwargs["input_ids"].shape[1])
        if len(kwargs["input_ids"]) > 4:
            raise MemoryError

    for limited in (False, True):
        if limited:
            scorer.parts.backbone.register_forward_pre_hook(refuse_more_than_four, with_kwargs=True)
        shared = score_batch(scorer, table, rows, before)
        assert shared.split == limited
        for row, scores in by_row(shared).items():
            assert_same(dataclasses.replace(scores, split=False), whole[row])
    longest = int(table.rows["needed"].max())
    assert max(seen) == longest - 9, "the prefix is not computed again"


def two_templates(folder: Path) -> TokenStore:
    """Twenty records each with one of two prefixes, and five with none."""
    rng = np.random.default_rng(0)
    headers = [rng.integers(3, 120, length).tolist() for length in (9, 14)]
    records = []
    for row in range(45):
        header = [] if row >= 40 else headers[row % 2]
        rest = int(rng.integers(2, 9))
        marks = [CONTEXT] * (len(header) + rest) + [SCORED] * int(rng.integers(1, 5))
        records.append(record(row, [*header, *rng.integers(3, 120, len(marks) - len(header))], marks))
    return table_of(records, folder)


def scores_of_all(scorer: ScoringModel, table: TokenStore, *, reuse_prefixes: bool) -> BatchScores:
    plan = plan_batches_of(table, 150, reuse_prefixes=reuse_prefixes)
    assert len(plan.prefixes) == (2 if reuse_prefixes else 0)
    scores_of = batch_scores(lambda: scorer, table, plan)
    return join_scores([scores_of(batch) for batch in range(len(plan.costs))])


def test_a_table_scores_the_same_with_and_without_what_its_records_share(tmp_path: Path) -> None:
    table, scorer = two_templates(tmp_path), ScoringModel(find_parts(FAMILY["llama"].build()), LAYERS, 50)
    whole, shared = (by_row(scores_of_all(scorer, table, reuse_prefixes=reuse)) for reuse in (False, True))
    assert sorted(shared) == list(range(45))
    for row, scores in shared.items():
        assert_same(scores, whole[row])


def test_without_memory_for_a_beginning_its_records_are_computed_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, scorer = two_templates(tmp_path), ScoringModel(find_parts(FAMILY["llama"].build()), LAYERS, 50)
    whole = by_row(scores_of_all(scorer, table, reuse_prefixes=False))

    def none_left(*_: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr("curate.pipeline.compute.compute_prefix_cache", none_left)
    without = scores_of_all(scorer, table, reuse_prefixes=True)
    assert without.split, "and it is recorded"
    for row, scores in by_row(without).items():
        assert_same(dataclasses.replace(scores, split=False), whole[row])


def test_running_out_of_memory_is_no_verdict_on_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr("curate.scoring.selftest.compute_prefix_cache", none_left)
    with pytest.raises(torch.OutOfMemoryError):
        prefix_check(find_parts(FAMILY["llama"].build()))
