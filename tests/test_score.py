"""The scorer as a whole: however records are batched, their scores are those of k-layer models that see each alone."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from families import FAMILIES, VOCABULARY, Family, plain_log_probs, shorter
from torch import nn

from curate.scoring.batches import plan_batches
from curate.scoring.parts import find_parts
from curate.scoring.score import ScoringModel, collate, exit_log_probs, join_scores, score_batch
from curate.scoring.selftest import confirm
from curate.tokens.lengths import fixed_rotary_length
from curate.tokens.store import open_tokens, write_tokens
from curate.types import CONTEXT, END, SCORED, STATUSES, BatchScores, Status, Tokens, TokenStore

LAYERS = (1, 2, 4)
FAMILY = {family.name: family for family in FAMILIES}
STATUS = {name: code for code, name in enumerate(STATUSES)}
RARE = 127  # no random record holds this token

Truth = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def record(row: int, ids: Sequence[int], marks: Sequence[int], status: Status = "scored") -> Tokens:
    digest = hashlib.sha256(bytes(ids)).hexdigest()
    return Tokens(row, digest, status, False, np.array(ids, np.int32), np.array(marks, np.uint8))


def conversations(count: int = 32, seed: int = 0) -> list[Tokens]:
    """Records of one to three turns with end tokens between and tokens after the last; every fifth is not scored."""
    rng = np.random.default_rng(seed)
    out = []
    for row in range(count):
        marks: list[int] = []
        for _ in range(rng.integers(1, 4)):
            marks += [CONTEXT] * rng.integers(1, 5) + [SCORED] * rng.integers(1, 7) + [END]
        marks += [CONTEXT] * rng.integers(0, 3)
        if row % 5 == 4:
            out.append(record(row, [], [], STATUSES[1 + row % 3]))
        else:
            out.append(record(row, rng.integers(3, RARE, len(marks)).tolist(), marks))
    return out


def table_of(records: Sequence[Tokens], folder: Path) -> TokenStore:
    list(write_tokens(records, folder / "tokens"))
    return open_tokens(folder / "tokens")


def scorer_of(model: Any, *, layers: tuple[int, ...] = LAYERS, head_rows: int = 100_000) -> ScoringModel:
    return ScoringModel(find_parts(model), layers, head_rows)


def all_scores(scorer: ScoringModel, table: TokenStore, tokens_per_batch: int) -> dict[int, BatchScores]:
    """Every planned row's scores, by row."""
    rows = np.flatnonzero(table.rows["status"] == STATUS["scored"])
    plan = plan_batches(rows, table.rows["needed"][rows], tokens_per_batch)
    parts = [score_batch(scorer, table, plan.rows_of_batch(b)) for b in range(len(plan.batches) - 1)]
    return by_row(join_scores(parts))


def by_row(scores: BatchScores) -> dict[int, BatchScores]:
    fields = (scores.rows, scores.status, scores.confidence, scores.log_prob)
    return {int(row): BatchScores(*(f[i] for f in fields), scores.split) for i, row in enumerate(scores.rows)}


def truth_of(models: Sequence[Any], tokens: Tokens) -> Truth:
    """Confidence and log-probability by one full forward pass per record and k-layer model."""
    scored = tokens.marks[1:] == SCORED
    log_probs = [plain_log_probs(model, tokens.input_ids)[scored] for model in models]
    return np.array([np.exp(lp).mean() for lp in log_probs]), np.array([lp.mean() for lp in log_probs])


def assert_same(ours: BatchScores, other: Truth | BatchScores, status: Status = "scored") -> None:
    """Within the contract: 1e-5 of confidence, 1e-5 relative of log-probability."""
    confidence, log_prob = (other.confidence, other.log_prob) if isinstance(other, BatchScores) else other
    assert ours.status == STATUS[status]
    np.testing.assert_allclose(ours.confidence, confidence, rtol=0, atol=1e-5)
    np.testing.assert_allclose(ours.log_prob, log_prob, rtol=1e-5, atol=0)


@pytest.fixture
def llama() -> Any:
    return FAMILY["llama"].build()


# --- the same numbers as k-layer models, one record at a time ---


@pytest.mark.parametrize(
    "name", ["llama_tied_grouped", "mistral_window", "gemma2", "gpt2", "mixtral", "opt", "granite"]
)
@pytest.mark.parametrize("tokens_per_batch", [1, 70, 100_000])
def test_scores_are_those_of_k_layer_models_that_see_each_record_alone(
    name: str, tokens_per_batch: int, tmp_path: Path
) -> None:
    family = FAMILY[name]
    model, records = family.build(), conversations(12)
    found = all_scores(scorer_of(model, head_rows=16), table_of(records, tmp_path), tokens_per_batch)
    assert sorted(found) == [r.row for r in records if r.status == "scored"]
    models = [shorter(family, model, k) for k in LAYERS]
    for row, scores in found.items():
        assert_same(scores, truth_of(models, records[row]))


def test_batch_size_order_padding_and_head_chunks_move_nothing(llama: Any, tmp_path: Path) -> None:
    table, scorer = table_of(conversations(40), tmp_path), scorer_of(llama)
    rows = np.flatnonzero(table.rows["status"] == STATUS["scored"])
    assert len(rows) == 32
    alone = {int(row): score_batch(scorer, table, np.array([row])) for row in rows}
    shuffled = np.random.default_rng(0).permutation(rows)
    longest = rows[table.rows["needed"][rows].argmax()]
    batches = {
        "32 in order": [(scorer, rows)],
        "32 shuffled": [(scorer, shuffled)],
        "each padded to the longest": [(scorer, np.array([row, longest])) for row in rows if row != longest],
        "head in ones": [(scorer_of(llama, head_rows=1), rows)],
        "head in sevens": [(scorer_of(llama, head_rows=7), shuffled)],
    }
    for name, made in batches.items():
        for its_scorer, its_rows in made:
            scores = score_batch(its_scorer, table, its_rows)
            np.testing.assert_array_equal(scores.rows, its_rows, err_msg=name)
            assert not scores.split
            for row, ours in by_row(scores).items():
                assert_same(ours, by_row(alone[row])[row])


def test_asking_for_fewer_exits_gives_the_same_numbers(llama: Any, tmp_path: Path) -> None:
    table = table_of(conversations(10), tmp_path)
    everything = all_scores(scorer_of(llama, layers=(1, 2, 3, 4)), table, 100)
    for layers in [(1,), (2,), (1, 3), (4,), (2, 4)]:
        for row, scores in all_scores(scorer_of(llama, layers=layers), table, 100).items():
            at = [k - 1 for k in layers]
            np.testing.assert_array_equal(scores.confidence, everything[row].confidence[at])
            np.testing.assert_array_equal(scores.log_prob, everything[row].log_prob[at])


ROTARY = {
    "dynamic": ("llama", {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}),
    "longrope": ("phi3_window", {"rope_type": "longrope", "rope_theta": 1e4, "factor": 4.0}),
}


@pytest.mark.parametrize("kind", ROTARY)
def test_a_rotary_embedding_that_changes_with_the_batch_does_not_up_to_the_length_that_is_allowed(
    kind: str, tmp_path: Path
) -> None:
    """Beyond it the scores of a record depend on its neighbour, which is why longer records are refused."""
    name, rotary = ROTARY[kind]
    family = FAMILY[name]
    if kind == "longrope":
        rotary = {**rotary, "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    lengths = {"max_position_embeddings": 16, "original_max_position_embeddings": 16}
    settings = {**family.settings, "sliding_window": 64, **lengths, "rope_parameters": rotary}
    model = dataclasses.replace(family, settings=settings).build()
    assert fixed_rotary_length(model.config) == 16
    rng = np.random.default_rng(0)
    records = [
        record(row, rng.integers(3, RARE, n + 1), [CONTEXT] * 4 + [SCORED] * (n - 3))
        for row, n in enumerate([10, 16, 24])
    ]
    table, scorer = table_of(records, tmp_path), scorer_of(model)
    alone = score_batch(scorer, table, np.array([0]))
    assert_same(by_row(score_batch(scorer, table, np.array([0, 1])))[0], by_row(alone)[0])
    beside_longer = by_row(score_batch(scorer, table, np.array([0, 2])))[0]
    assert np.abs(beside_longer.log_prob - by_row(alone)[0].log_prob).max() > 0.01


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama_tied_grouped", "gemma2", "gpt2"])
def test_low_precision_errs_no_more_than_the_plain_forward_in_it(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    assert_low_precision_errs_no_more(FAMILY[name], dtype, torch.device("cpu"), tmp_path)


def assert_low_precision_errs_no_more(family: Family, dtype: torch.dtype, device: torch.device, folder: Path) -> None:
    model, records = family.build(dtype=dtype).to(device), conversations(12)
    found = all_scores(scorer_of(model), table_of(records, folder), 100)
    exact = [shorter(family, model, k, torch.float64).to(device) for k in LAYERS]
    plain = [shorter(family, model, k, dtype).to(device) for k in LAYERS]
    errors = []
    for row, scores in found.items():
        truth, naive = truth_of(exact, records[row])[0], truth_of(plain, records[row])[0]
        errors.append((np.abs(scores.confidence - truth), np.abs(naive - truth)))
    ours, theirs = np.max(errors, axis=0)
    assert (ours <= theirs + 1e-3).all()


# --- which tokens count ---


def test_collate_by_hand(tmp_path: Path) -> None:
    first = record(0, [5, 6, 7, 8, 9, 10, 11], [CONTEXT, SCORED, END, CONTEXT, SCORED, SCORED, END])
    second = record(1, [20, 21, 22], [CONTEXT, CONTEXT, SCORED])
    batch = collate(table_of([first, second], tmp_path), np.array([1, 0]))
    assert batch.input_ids_BT.tolist() == [[20, 21, 0, 0, 0], [5, 6, 7, 8, 9]]
    assert batch.keep_BT.int().tolist() == [[0, 1, 0, 0, 0], [1, 0, 0, 1, 1]]
    assert batch.targets_N.tolist() == [22, 6, 9, 10]
    assert batch.counts_B.tolist() == [1, 3]


def test_what_follows_the_last_scored_token_changes_nothing(llama: Any, tmp_path: Path) -> None:
    ids, marks = [5, 6, 7, 8], [CONTEXT, CONTEXT, SCORED, SCORED]
    longer = record(1, [*ids, 9, 10, 11], [*marks, END, CONTEXT, CONTEXT])
    table, scorer = table_of([record(0, ids, marks), longer], tmp_path), scorer_of(llama)
    short, long = (score_batch(scorer, table, np.array([row])) for row in (0, 1))
    np.testing.assert_array_equal(short.confidence, long.confidence)
    np.testing.assert_array_equal(short.log_prob, long.log_prob)


def test_a_token_changes_what_comes_after_it_and_nothing_before(llama: Any, tmp_path: Path) -> None:
    marks = [CONTEXT, SCORED, SCORED, END, CONTEXT, CONTEXT, SCORED, SCORED]
    records = [record(row, [5, 6, 7, 8, token, 10, 11, 12], marks) for row, token in enumerate([9, 99])]
    table, scorer = table_of(records, tmp_path), scorer_of(llama)
    one, other = (exit_log_probs(scorer, collate(table, np.array([row]))) for row in (0, 1))
    assert torch.equal(one[:, :2], other[:, :2])
    assert ((one[:, 2:] - other[:, 2:]).abs() > 1e-3).all()


def test_logits_exist_only_for_a_few_response_positions_at_a_time(llama: Any, tmp_path: Path) -> None:
    table, rows = table_of(conversations(8), tmp_path), np.array([0, 1, 2, 3])
    scorer, shapes = scorer_of(llama, head_rows=5), []
    llama.get_output_embeddings().register_forward_hook(lambda module, args, output: shapes.append(output.shape))
    score_batch(scorer, table, rows)
    num_scored = int(table.rows["scored"][rows].sum())
    assert all(shape[:-1].numel() <= 5 and shape[-1] == VOCABULARY for shape in shapes)
    assert sum(shape[:-1].numel() for shape in shapes) == len(LAYERS) * num_scored


# --- what goes wrong ---

NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: not enough memory: you tried to ..."),
    RuntimeError("MPS backend out of memory (MPS allocated: 17 GB, max allowed: 18 GB)."),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]


def fail_where(scorer: ScoringModel, condition: Any, error: BaseException) -> None:
    """The decoder raises where the condition holds for its input ids."""

    def before(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if condition(kwargs["input_ids"]):
            raise error

    scorer.parts.backbone.register_forward_pre_hook(before, with_kwargs=True)


@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda e: f"{type(e).__name__}-{str(e)[:30]}")
def test_a_batch_that_does_not_fit_is_halved_until_it_does(
    error: BaseException, llama: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table, rows, scorer = table_of(conversations(8), tmp_path), np.array([5, 0, 7, 1, 3]), scorer_of(llama)
    whole = score_batch(scorer, table, rows)
    fail_where(scorer, lambda ids: len(ids) > 2, error)
    with caplog.at_level(logging.DEBUG):
        halved = score_batch(scorer, table, rows)
    assert "out of memory on 5 records" in caplog.text
    assert halved.split
    assert not whole.split
    np.testing.assert_array_equal(halved.rows, rows)
    for row, scores in by_row(halved).items():
        assert_same(scores, by_row(whole)[row])


def test_a_single_record_that_never_fits_gets_a_status_and_no_number(llama: Any, tmp_path: Path) -> None:
    records = conversations(8)
    records[1].input_ids[0] = RARE
    table, rows, scorer = table_of(records, tmp_path), np.array([0, 1, 2, 3]), scorer_of(llama)
    whole = by_row(score_batch(scorer, table, rows))
    fail_where(scorer, lambda ids: bool((ids == RARE).any()), MemoryError())
    found = by_row(score_batch(scorer, table, rows))
    for row in (0, 2, 3):
        assert_same(found[row], whole[row])
    assert found[1].status == STATUS["out_of_memory"]
    assert np.isnan([found[1].confidence, found[1].log_prob]).all()


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("out of memory"), KeyError("norm")])
def test_other_faults_are_not_mistaken_for_memory(error: Exception, llama: Any, tmp_path: Path) -> None:
    table, scorer = table_of(conversations(3), tmp_path), scorer_of(llama)
    fail_where(scorer, lambda ids: True, error)
    with pytest.raises(type(error)) as caught:
        score_batch(scorer, table, np.array([0, 1]))
    assert caught.value is error


def test_a_fault_in_the_head_leaves_the_model_whole(llama: Any, tmp_path: Path) -> None:
    table, scorer, rows = table_of(conversations(3), tmp_path), scorer_of(llama), np.array([0, 1])
    before = score_batch(scorer, table, rows)

    def fail(*_: Any) -> None:
        raise MemoryError

    broken = llama.get_output_embeddings().register_forward_hook(fail)
    assert (score_batch(scorer, table, rows).status == STATUS["out_of_memory"]).all()
    broken.remove()
    assert "forward" not in scorer.parts.backbone.__dict__
    assert not any(block._forward_hooks for block in scorer.parts.blocks)
    np.testing.assert_array_equal(score_batch(scorer, table, rows).log_prob, before.log_prob)


def test_a_record_that_overflows_gets_a_status_and_the_others_their_scores(tmp_path: Path) -> None:
    records = conversations(8)
    records[2].input_ids[0] = RARE
    model = FAMILY["llama"].build(dtype=torch.float16)
    table, rows, scorer = table_of(records, tmp_path), np.array([0, 1, 2, 3]), scorer_of(model)
    before = by_row(score_batch(scorer, table, rows))
    with torch.no_grad():
        model.get_input_embeddings().weight[RARE] *= 1e6  # beyond float16's 65,504
    found = by_row(score_batch(scorer, table, rows))
    assert found[2].status == STATUS["non_finite"]
    assert np.isnan([found[2].confidence, found[2].log_prob]).all()
    for row in (0, 1, 3):
        assert found[row].status == STATUS["scored"]
        np.testing.assert_array_equal(found[row].confidence, before[row].confidence)


def test_a_record_that_is_not_finite_at_one_exit_only_has_no_number_at_any(llama: Any, tmp_path: Path) -> None:
    table, rows, scorer = table_of(conversations(3), tmp_path), np.array([0, 1]), scorer_of(llama)
    with torch.no_grad():
        llama.model.layers[-1].mlp.down_proj.weight.fill_(torch.inf)
    scores = score_batch(scorer, table, rows)
    assert (scores.status == STATUS["non_finite"]).all()
    assert np.isnan([scores.confidence, scores.log_prob]).all()
    early = score_batch(dataclasses.replace(scorer, layers=(1, 2)), table, rows)
    assert (early.status == STATUS["scored"]).all()


def test_scores_of_several_batches_are_joined_in_the_order_given() -> None:
    def scores(rows: list[int], split: bool) -> BatchScores:
        numbers = np.array(rows, np.float32)[:, None]
        return BatchScores(np.array(rows), np.zeros(len(rows), np.uint8), numbers, -numbers, split)

    joined = join_scores([scores([4, 2], False), scores([3], True)])
    assert joined.rows.tolist() == [4, 2, 3]
    assert joined.confidence[:, 0].tolist() == [4, 2, 3]
    assert joined.log_prob[:, 0].tolist() == [-4, -2, -3]
    assert joined.split
    assert not join_scores([scores([1], False)]).split


# --- on a GPU ---

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_low_precision_on_a_gpu_errs_no_more_than_the_plain_forward_in_it(
    family: Family, dtype: torch.dtype, tmp_path: Path
) -> None:
    assert_low_precision_errs_no_more(family, dtype, torch.device("cuda"), tmp_path)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_float32_on_a_gpu_scores_like_k_layer_models(family: Family, tmp_path: Path) -> None:
    model, records = family.build().to("cuda"), conversations(12)
    confirm(find_parts(model))
    found = all_scores(scorer_of(model), table_of(records, tmp_path), 100)
    models = [shorter(family, model, k).to("cuda") for k in LAYERS]
    for row, scores in found.items():
        assert_same(scores, truth_of(models, records[row]))
