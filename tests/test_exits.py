"""Early exits: every exit is the model with its later layers taken away, whatever the family."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from families import FAMILIES, MULTI_STREAM, NUM_LAYERS, Family, likely_records, plain_log_probs, shorter
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import LlamaModel

from curate.scoring import exits
from curate.scoring.exits import exit_hidden, exit_layers, first_layers, replayed_head
from curate.scoring.parts import DecoderParts, find_parts
from curate.types import CurateError

ALL_LAYERS = tuple(range(1, NUM_LAYERS + 1))
FAMILY = {family.name: family for family in FAMILIES}
LogProbs = list[npt.NDArray[np.float64]]


def family_names(family: Family) -> str:
    return family.name


def padded(records: Sequence[npt.NDArray[np.int64]]) -> tuple[Tensor, Tensor]:
    """The records in one batch with zeros on their right, and the positions that predict a next token."""
    input_ids = torch.zeros((len(records), max(len(r) for r in records)), dtype=torch.long)
    keep = torch.zeros(input_ids.shape, dtype=torch.bool)
    for i, record in enumerate(records):
        input_ids[i, : len(record)] = torch.from_numpy(record)
        keep[i, : len(record) - 1] = True
    return input_ids, keep


@torch.no_grad()
def log_probs_by_exit(parts: DecoderParts, records: Sequence[npt.NDArray[np.int64]]) -> dict[int, LogProbs]:
    """Per layer and record the log-probability of tokens 1, 2, ...; looked up in `exits`, where tests break it."""
    input_ids, keep = padded(records)
    targets = torch.from_numpy(np.concatenate([record[1:] for record in records]))
    hidden = exits.exit_hidden(parts, input_ids, keep, ALL_LAYERS)
    with exits.replayed_head(parts) as head:
        flat = [head(h).double().log_softmax(-1).gather(1, targets[:, None])[:, 0].numpy() for h in hidden]
    cuts = np.cumsum([len(record) - 1 for record in records])[:-1]
    return {k: np.split(values, cuts) for k, values in zip(ALL_LAYERS, flat, strict=True)}


def largest_gap(family: Family, parts: DecoderParts) -> float:
    """How far any exit of a padded batch is from a model of that many layers that sees each record alone.

    In units of the contract: 1e-5 of probability per token, 1e-5 of a record's log-probability.
    """
    records, gap = likely_records(parts.model), 0.0
    ours = log_probs_by_exit(parts, records)
    for k in ALL_LAYERS:
        small = shorter(family, parts.model, k)
        for mine, record in zip(ours[k], records, strict=True):
            truth = plain_log_probs(small, record)
            gap = max(gap, np.abs(np.exp(mine) - np.exp(truth)).max(), abs(mine.mean() / truth.mean() - 1))
        assert k < NUM_LAYERS or np.exp(truth).max() > 0.03, "probabilities near zero would agree by themselves"
    return gap / 1e-5


@pytest.mark.parametrize("family", FAMILIES, ids=family_names)
def test_every_exit_equals_a_separately_built_model_of_that_many_layers(family: Family) -> None:
    assert largest_gap(family, find_parts(family.build())) <= 1


@pytest.mark.parametrize("family", FAMILIES, ids=family_names)
def test_the_last_exit_is_the_models_own_logits(family: Family) -> None:
    model = family.build()
    parts, ids = find_parts(model), torch.from_numpy(likely_records(model)[0])[None]
    (hidden,) = exit_hidden(parts, ids, torch.ones_like(ids, dtype=torch.bool), [NUM_LAYERS])
    with torch.no_grad(), replayed_head(parts) as head:
        ours = head(hidden)
    with torch.no_grad():
        torch.testing.assert_close(ours, model(input_ids=ids).logits[0], rtol=0, atol=1e-5)


def test_the_sweep_covers_what_it_promises() -> None:
    kinds = {family.model_type for family in FAMILIES}
    assert len(FAMILIES) == 36
    assert len(kinds) >= 28
    promised = "llama mistral qwen2 qwen3 mixtral gemma2 gemma3_text phi3 gpt2 gpt_neox opt cohere granite olmo2 falcon"
    assert set(promised.split()) <= kinds


# What makes these families special, switched off: numbers that do not move would make their parity an empty claim.
PLAIN = [
    ("mistral_window", {"sliding_window": 64}),
    ("phi3_window", {"sliding_window": 64}),
    ("starcoder2_window", {"sliding_window": 64}),
    ("gpt_oss", {"sliding_window": 64}),
    ("gpt_neo", {"window_size": 64}),
    ("cohere2", {"sliding_window": 64}),
    ("gemma2", {"sliding_window": 64}),
    ("gemma2", {"attn_logit_softcapping": None}),
    ("gemma2", {"final_logit_softcapping": None}),
    ("gemma3", {"final_logit_softcapping": None}),
    ("cohere", {"logit_scale": 1.0}),
    ("granite", {"logits_scaling": 1.0}),
    ("granite", {"embedding_multiplier": 1.0}),
    ("granite", {"residual_multiplier": 1.0}),
    ("granite", {"attention_multiplier": 0.25}),
    ("gpt_neox_parallel", {"use_parallel_residual": False}),
    ("minicpm3", {"dim_model_base": 64}),
    ("minicpm3", {"scale_emb": 1.0}),
]


@pytest.mark.parametrize(("name", "change"), PLAIN, ids=[f"{name}-{next(iter(change))}" for name, change in PLAIN])
def test_what_is_special_about_a_family_moves_its_numbers(name: str, change: dict[str, Any]) -> None:
    family = FAMILY[name]
    model = family.build()
    other = dataclasses.replace(family, settings={**family.settings, **change}).empty(NUM_LAYERS)
    other.load_state_dict(model.state_dict())
    record = likely_records(model)[0]
    assert np.abs(plain_log_probs(model, record) - plain_log_probs(other, record)).max() > 0.01


# --- tests that the parity test can fail ---


class FrozenNorm(nn.Module):
    """The mistake of reusing the last layer's norm statistics at every exit."""

    def __init__(self, parts: DecoderParts) -> None:
        super().__init__()
        (self.norm,) = parts.tail
        parts.blocks[-1].register_forward_hook(self.remember)

    def remember(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self.last = output

    def forward(self, hidden_1NH: Tensor) -> Tensor:
        last = torch.cat([record[: len(r) - 1] for record, r in zip(self.last, self.records, strict=True)])
        scale = last.pow(2).mean(-1, keepdim=True).rsqrt()
        return self.norm.weight * hidden_1NH * scale


def without_tail(parts: DecoderParts, patch: pytest.MonkeyPatch) -> DecoderParts:
    return dataclasses.replace(parts, tail=())


def with_tail_twice(parts: DecoderParts, patch: pytest.MonkeyPatch) -> DecoderParts:
    return dataclasses.replace(parts, tail=parts.tail * 2)


def with_frozen_norm(parts: DecoderParts, patch: pytest.MonkeyPatch) -> DecoderParts:
    norm = FrozenNorm(parts)
    norm.records = likely_records(parts.model)
    return dataclasses.replace(parts, tail=(norm,))


def one_position_late(parts: DecoderParts, patch: pytest.MonkeyPatch) -> DecoderParts:
    patch.setattr(exits, "exit_hidden", lambda p, ids, keep, layers: exit_hidden(p, ids, keep.roll(1, 1), layers))
    return parts


def one_layer_early(parts: DecoderParts, patch: pytest.MonkeyPatch) -> DecoderParts:
    earlier = [max(1, k - 1) for k in ALL_LAYERS]
    patch.setattr(exits, "exit_hidden", lambda p, ids, keep, layers: exit_hidden(p, ids, keep, earlier))
    return parts


def with_padding_on_the_left(parts: DecoderParts, patch: pytest.MonkeyPatch) -> DecoderParts:
    def rolled(p: DecoderParts, ids: Tensor, keep: Tensor, layers: Sequence[int]) -> list[Tensor]:
        shifts = (ids.shape[1] - 1 - keep.sum(1)).tolist()
        moved = [torch.stack([row.roll(n) for row, n in zip(t, shifts, strict=True)]) for t in (ids, keep)]
        return exit_hidden(p, *moved, layers)

    patch.setattr(exits, "exit_hidden", rolled)
    return parts


def with_a_bare_head(parts: DecoderParts, patch: pytest.MonkeyPatch) -> DecoderParts:
    head = nn.Sequential(*parts.tail, parts.model.get_output_embeddings())
    patch.setattr(exits, "replayed_head", lambda p: nullcontext(head))
    return parts


MISTAKES = [
    ("llama", without_tail),
    ("llama", with_tail_twice),
    ("llama", with_frozen_norm),
    ("llama", one_position_late),
    ("llama", one_layer_early),
    ("gpt2", with_padding_on_the_left),
    ("gemma2", with_a_bare_head),
    ("cohere", with_a_bare_head),
    ("granite", with_a_bare_head),
]


@pytest.mark.parametrize(("name", "mistake"), MISTAKES, ids=[f"{name}-{m.__name__}" for name, m in MISTAKES])
def test_the_parity_test_sees_the_known_mistakes(
    name: str, mistake: Callable[..., DecoderParts], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = mistake(find_parts(FAMILY[name].build()), monkeypatch)
    assert largest_gap(FAMILY[name], parts) > 100


# --- exit_layers ---


def test_exit_layers_are_equal_shares_rounded_half_up() -> None:
    assert exit_layers(5, 8) == (2, 3, 5, 6, 8)  # 1.6 3.2 4.8 6.4 8
    assert exit_layers(4, 10) == (3, 5, 8, 10)  # 2.5 5 7.5 10
    assert exit_layers(5, 12) == (2, 5, 7, 10, 12)  # 2.4 4.8 7.2 9.6 12
    assert exit_layers(1, 12) == (12,)
    assert exit_layers(5, 5) == exit_layers(9, 5) == exit_layers("all", 5) == (1, 2, 3, 4, 5)
    assert exit_layers([4, 1], 5) == (1, 4)


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 200))
def test_a_count_of_exits_gives_that_many_distinct_layers_and_ends_with_the_last(count: int, num_layers: int) -> None:
    layers = exit_layers(count, num_layers)
    assert len(layers) == min(count, num_layers)
    assert all(a < b for a, b in itertools.pairwise(layers))
    assert layers[0] >= 1
    assert layers[-1] == num_layers


@pytest.mark.parametrize("layers", [[0], [1, 6], []])
def test_a_layer_that_the_model_does_not_have_is_refused(layers: list[int]) -> None:
    with pytest.raises(CurateError, match=r"score\.exits: the model has layers 1 to 5, got \["):
        exit_layers(layers, 5)


# --- taking a model apart ---


@pytest.mark.parametrize(
    ("name", "tail"),
    [
        ("llama", ["model.norm"]),
        ("gpt2", ["transformer.ln_f"]),
        ("mpt", ["transformer.norm_f"]),
        ("gpt_neox_parallel", ["gpt_neox.final_layer_norm"]),
        ("opt", ["model.decoder.final_layer_norm"]),
        ("opt_post_norm_projected", ["model.decoder.project_out"]),
    ],
)
def test_the_tail_is_what_stands_between_the_last_layer_and_the_head(name: str, tail: list[str]) -> None:
    model = FAMILY[name].build()
    parts = find_parts(model)
    names = {module: path for path, module in model.named_modules()}
    assert [names[module] for module in parts.tail] == tail
    assert parts.num_layers == NUM_LAYERS
    assert parts.device == torch.device("cpu")


def test_finding_the_parts_leaves_the_model_as_it_was() -> None:
    model = FAMILY["llama"].build()
    before = state_of(model)
    find_parts(model)
    assert state_of(model) == before


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT asks for it
def test_a_peft_wrapper_is_looked_through_and_its_adapter_counts() -> None:
    family = FAMILY["llama_tied_grouped"]
    model = family.build()
    record = likely_records(model)[:1]
    plain = log_probs_by_exit(find_parts(model), record)
    wrapped = get_peft_model(model, LoraConfig(target_modules="all-linear", init_lora_weights=False)).eval()
    parts = find_parts(wrapped)
    adapted = log_probs_by_exit(parts, record)
    assert parts.model is wrapped.get_base_model()
    np.testing.assert_allclose(adapted[NUM_LAYERS][0], plain_log_probs(wrapped, record[0]), rtol=0, atol=1e-5)
    merged = wrapped.merge_and_unload()
    for k in ALL_LAYERS:
        assert np.abs(adapted[k][0] - plain[k][0]).max() > 0.01
        np.testing.assert_allclose(adapted[k][0], plain_log_probs(shorter(family, merged, k), record[0]), atol=2e-5)


@pytest.mark.parametrize("family", MULTI_STREAM, ids=family_names)
def test_a_model_with_several_residual_streams_is_refused(family: Family) -> None:
    model = family.build()
    with pytest.raises(CurateError, match=rf"^{type(model).__name__} cannot be scored by early exits: .*decoder layer"):
        find_parts(model)


def test_a_model_without_a_head_is_refused() -> None:
    model = LlamaModel(FAMILY["llama"].build().config)
    with pytest.raises(CurateError, match=r"LlamaModel cannot be scored .* no submodule returns last_hidden_state"):
        find_parts(model)


def test_a_model_whose_layers_are_not_in_one_list_is_refused() -> None:
    model = FAMILY["llama"].build()
    model.config.num_hidden_layers = 3
    with pytest.raises(CurateError, match="no list of 3 decoder layers"):
        find_parts(model)


# --- what a pass costs and what it leaves behind ---


def state_of(model: nn.Module) -> list[Any]:
    """Hooks and replaced forwards of every module."""
    return [(list(m._forward_hooks), list(m._forward_pre_hooks), m.__dict__.get("forward")) for m in model.modules()]


def test_only_kept_positions_are_kept() -> None:
    parts = find_parts(FAMILY["llama"].build())
    keep = torch.zeros((2, 9), dtype=torch.bool)
    keep[0, 3], keep[1, 1], keep[1, 7] = True, True, True
    hidden = exit_hidden(parts, torch.arange(18).reshape(2, 9), keep, [1, 4])
    assert [h.shape for h in hidden] == [(3, 64), (3, 64)]
    assert all(h.untyped_storage().nbytes() == 3 * 64 * 4 for h in hidden), "a view would keep the whole layer alive"


def test_the_pass_ends_after_the_last_layer_asked_for_with_the_same_numbers() -> None:
    model = FAMILY["llama"].build()
    parts, (ids, keep) = find_parts(model), padded(likely_records(model))
    everything = exit_hidden(parts, ids, keep, ALL_LAYERS)
    calls: list[int] = []
    handles = [b.register_forward_hook(lambda *_, k=k: calls.append(k)) for k, b in enumerate(parts.blocks, start=1)]
    early = exit_hidden(parts, ids, keep, [1, 2])
    for handle in handles:
        handle.remove()
    assert calls == [1, 2]
    assert all(torch.equal(a, b) for a, b in zip(early, everything[:2], strict=True))
    again = exit_hidden(parts, ids, keep, ALL_LAYERS)
    assert all(torch.equal(a, b) for a, b in zip(again, everything, strict=True)), "the early end left traces"


def test_a_pass_that_fails_midway_leaves_the_model_as_it_was() -> None:
    model = FAMILY["llama"].build()
    parts, (ids, keep) = find_parts(model), padded(likely_records(model))

    def fail(*_: Any) -> None:
        raise ValueError("broken layer")

    broken = parts.blocks[1].register_forward_hook(fail)
    before = state_of(model)
    with pytest.raises(ValueError, match="broken layer"):
        exit_hidden(parts, ids, keep, ALL_LAYERS)
    with pytest.raises(ValueError, match="broken layer"):
        find_parts(model)
    assert state_of(model) == before
    broken.remove()


@pytest.mark.parametrize("hooked", [False, True], ids=["plain", "with a forward of its own, as accelerate sets it"])
def test_the_head_fails_or_ends_with_the_own_forward_back_in_place(hooked: bool) -> None:
    model = FAMILY["llama"].build()
    parts = find_parts(model)
    if hooked:
        parts.backbone.forward = parts.backbone.forward
    before = state_of(model)
    logits = model(input_ids=torch.arange(9)[None]).logits
    with replayed_head(parts) as head:
        assert head(torch.ones(5, 64)).shape == (5, 128)
        assert state_of(model) != before
    assert state_of(model) == before
    with pytest.raises(RuntimeError, match=r"mat1 and mat2|size of tensor"), replayed_head(parts) as head:
        head(torch.ones(5, 63))
    assert state_of(model) == before
    assert torch.equal(model(input_ids=torch.arange(9)[None]).logits, logits)


def test_a_model_shortened_for_a_check_gets_its_layers_back() -> None:
    family = FAMILY["llama"]
    model = family.build()
    parts, before, record = find_parts(model), state_of(model), likely_records(model)[0]
    whole, two = plain_log_probs(model, record), plain_log_probs(shorter(family, model, 2), record)
    with first_layers(parts, 2):
        np.testing.assert_array_equal(plain_log_probs(model, record), two)
    with pytest.raises(ValueError, match="inside"), first_layers(parts, 2):
        raise ValueError("inside")
    assert state_of(model) == before
    assert len(parts.blocks) == NUM_LAYERS
    np.testing.assert_array_equal(plain_log_probs(model, record), whole)
