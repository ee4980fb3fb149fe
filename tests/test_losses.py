"""The response loss against a plain loop over the model's own logits, with and without an adapter."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES
from peft import LoraConfig, get_peft_model
from real import real

import curate.evaluation.losses as losses_module
from curate.config import Data
from curate.evaluation.losses import response_losses
from curate.evaluation.summary import Losses, LossSummary, summarize
from curate.models.load import load_model, load_tokenizer
from curate.read.examples import read_examples
from curate.read.files import open_source
from curate.scoring.parts import find_parts
from curate.scoring.selftest import Check, confirm
from curate.tokens.store import open_tokens, write_tokens
from curate.tokens.tokenize import tokenize
from curate.types import CONTEXT, END, SCORED, STATUSES, CurateError, Status, Tokens, TokenStore

FAMILY = {family.name: family for family in FAMILIES}
FAMILY_NAMES = ("llama", "gpt2", "gemma2", "mistral_window", "opt")


def record(row: int, ids: Sequence[int], marks: Sequence[int], status: Status = "scored") -> Tokens:
    digest = hashlib.sha256(bytes([row])).hexdigest()
    return Tokens(row, digest, status, False, np.array(ids, np.int32), np.array(marks, np.uint8))


def conversations(count: int = 40, seed: int = 0) -> list[Tokens]:
    """Records that begin alike, of one or two responses with end tokens after them; every fifth is not scored."""
    rng = np.random.default_rng(seed)
    opening = rng.integers(3, 127, 10).tolist()
    out = []
    for row in range(count):
        if row % 5 == 4:
            out.append(record(row, [], [], STATUSES[1 + row % 3]))
            continue
        marks = [CONTEXT] * len(opening)
        for _ in range(rng.integers(1, 3)):
            marks += [CONTEXT] * rng.integers(1, 5) + [SCORED] * rng.integers(1, 9) + [END]
        rest = rng.integers(3, 127, len(marks) - len(opening)).tolist()
        out.append(record(row, opening + rest, marks))
    return out


def store_of(records: Sequence[Tokens], folder: Path) -> TokenStore:
    list(write_tokens(records, folder / "tokens"))
    return open_tokens(folder / "tokens")


def naive_loss(model: Any, tokens: Tokens) -> float:
    """Mean negative log-probability of the scored tokens, from the logits of the record alone, in float64."""
    ids = torch.from_numpy(tokens.input_ids.astype(np.int64))[None]
    with torch.no_grad():
        log_probs = model(input_ids=ids).logits[0].double().log_softmax(-1)
    scored = [t for t in range(len(tokens.marks)) if tokens.marks[t] == SCORED]
    return float(np.mean([-float(log_probs[t - 1, tokens.input_ids[t]]) for t in scored]))


def with_adapter(model: Any, target_modules: Any = "all-linear") -> Any:
    """A LoRA adapter whose weights are random and large enough to be seen; dropout would be seen too."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what PEFT does by itself: GPT-2 lays out its weights the other way
        adapted = get_peft_model(model, LoraConfig(r=4, lora_dropout=0.5, target_modules=target_modules))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.copy_(0.3 * torch.randn(weight.shape))
    return adapted


def assert_naive(model: Any, records: Sequence[Tokens], found: Losses) -> None:
    model.eval()
    for tokens in records:
        if tokens.status == "scored":
            assert found.loss[tokens.row] == pytest.approx(naive_loss(model, tokens), rel=1e-5)
            assert found.tokens[tokens.row] == (tokens.marks == SCORED).sum()
        else:
            assert np.isnan(found.loss[tokens.row])
            assert found.tokens[tokens.row] == 0


@pytest.mark.parametrize("name", FAMILY_NAMES)
@pytest.mark.parametrize("adapted", [False, True])
def test_losses_are_those_of_the_models_own_logits(name: str, adapted: bool, tmp_path: Path) -> None:
    model, records = FAMILY[name].build(), conversations()
    if adapted:
        model = with_adapter(model)
    found = response_losses(model, store_of(records, tmp_path), tokens_per_batch=128)
    assert_naive(model, records, found)


def test_an_adapter_changes_the_losses_also_where_it_stands_on_the_head(tmp_path: Path) -> None:
    records, store = conversations(), store_of(conversations(), tmp_path)
    untuned = response_losses(FAMILY["llama"].build(), store, tokens_per_batch=128)
    for target in (["q_proj"], ["lm_head"]):
        model = with_adapter(FAMILY["llama"].build(), target)
        found = response_losses(model, store, tokens_per_batch=128)
        assert_naive(model, records, found)
        assert np.nanmin(np.abs(found.loss - untuned.loss)) > 1e-4


def test_an_adapter_whose_rounding_is_coarse_is_evaluated_all_the_same(tmp_path: Path) -> None:
    """In 16 bits large logits round by more than the self-test allows: no reason to refuse a trained adapter."""
    model = with_adapter(FAMILY["llama"].build(), ["lm_head"]).to(torch.bfloat16)
    with torch.no_grad():
        model.base_model.model.lm_head.lora_B["default"].weight.mul_(1_000)
    with pytest.raises(CurateError, match="a padded record scores as it does alone"):
        confirm(find_parts(model))
    found = response_losses(model, store_of(conversations(), tmp_path), tokens_per_batch=128)
    assert np.isfinite(found.loss).any()


def test_a_model_in_training_is_evaluated_without_dropout_and_goes_on_training(tmp_path: Path) -> None:
    model, records = with_adapter(FAMILY["llama"].build()), conversations()
    model.train()
    model.base_model.model.lm_head.eval()
    modes = [module.training for module in model.modules()]
    found = response_losses(model, store_of(records, tmp_path), tokens_per_batch=128)
    assert [module.training for module in model.modules()] == modes
    assert_naive(model, records, found)


@pytest.mark.parametrize("tokens_per_batch", [1, 50, 10_000])
def test_the_size_of_batches_moves_nothing_and_progress_ends_with_all_records(
    tokens_per_batch: int, tmp_path: Path
) -> None:
    model, store = FAMILY["llama"].build(), store_of(conversations(), tmp_path)
    seen: list[tuple[int, int]] = []
    found = response_losses(
        model, store, tokens_per_batch=tokens_per_batch, on_progress=lambda done, total: seen.append((done, total))
    )
    whole = response_losses(model, store, tokens_per_batch=300)
    np.testing.assert_allclose(found.loss, whole.loss, rtol=1e-5)
    assert seen[-1] == (32, 32)
    assert seen == sorted(seen)


def test_a_shared_beginning_is_computed_once_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, records = FAMILY["llama"].build(), conversations()
    store = store_of(records, tmp_path)
    calls = []
    own = losses_module.compute_prefix_cache
    monkeypatch.setattr(losses_module, "compute_prefix_cache", lambda *args: calls.append(args) or own(*args))
    found = response_losses(model, store, tokens_per_batch=128)
    assert len(calls) == 1
    assert_naive(model, records, found)


def test_what_does_not_fit_into_memory_is_halved_and_a_record_that_never_fits_has_no_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, records = FAMILY["llama"].build(), conversations()
    store = store_of(records, tmp_path)
    too_large = int(np.argmax(store.rows["needed"]))
    forward = model.model.forward

    def limited(*args: Any, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        longest = input_ids.shape[1] + (10 if kwargs.get("past_key_values") is not None else 0)
        if input_ids.shape[0] > 2 or longest >= store.rows["needed"][too_large]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*args, input_ids=input_ids, **kwargs)

    parts = find_parts(model)  # before memory is short: what it and the self-test need is not in question here
    monkeypatch.setattr(losses_module, "find_parts", lambda model: parts)
    monkeypatch.setattr(losses_module, "confirm", lambda parts: None)
    monkeypatch.setattr(losses_module, "prefix_check", lambda parts: Check("prefixes", 0.0, 1.0))
    monkeypatch.setattr(model.model, "forward", limited)
    found = response_losses(model, store, tokens_per_batch=10_000)
    monkeypatch.undo()
    lost = [r for r in range(len(records)) if records[r].status == "scored" and np.isnan(found.loss[r])]
    assert lost == [r for r in range(len(records)) if store.rows["needed"][r] == store.rows["needed"][too_large]]
    assert (found.tokens[lost] == 0).all()
    assert_naive(model, [record for record in records if record.row not in lost], found)


def test_a_loss_that_is_not_finite_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = conversations()
    records[3] = record(3, [5, 6, 120], [CONTEXT, SCORED, SCORED])
    for other in range(len(records)):  # token 6 is in no other record
        if other != 3:
            records[other].input_ids[records[other].input_ids == 6] = 7
    model = FAMILY["llama"].build()
    store = store_of(records, tmp_path)
    with torch.no_grad():
        model.get_input_embeddings().weight[6] = float("nan")
    monkeypatch.setattr(losses_module, "confirm", lambda parts: None)  # it would refuse a model that is broken so
    found = response_losses(model, store, tokens_per_batch=100)
    assert np.isnan(found.loss[3])
    assert np.isfinite([found.loss[r.row] for r in records if r.status == "scored" and r.row != 3]).all()


def test_the_two_means_are_those_of_records_and_of_tokens() -> None:
    losses = Losses(np.array([1, 0, 4, 5], np.int32), np.array([3.0, np.nan, 1.0, 2.0]))
    assert summarize(losses) == LossSummary(3, 1, 10, 2.0, (3 + 4 + 10) / 10)


def test_a_set_without_a_single_loss_is_refused() -> None:
    with pytest.raises(CurateError, match=r"expected at least one reference .* got none in 2 records"):
        summarize(Losses(np.zeros(2, np.int32), np.full(2, np.nan)))


def test_real_references_have_the_losses_of_a_plain_loop(tmp_path: Path) -> None:
    folder = str(real("models/base-7m"))
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    data = Data(path=str(real("data/alpaca_9k.json")), limit=12)
    examples = list(read_examples(data, open_source(data)))
    tokens = list(tokenize(examples, tokenizer, template="alpaca", max_length=256))
    found = response_losses(model, store_of(tokens, tmp_path), tokens_per_batch=512)
    assert np.isfinite(found.loss).sum() >= 8
    assert_naive(model, tokens, found)
