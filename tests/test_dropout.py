"""Dropout subnets: masks that follow from the record alone, on exactly what blocks add to the residual stream."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from families import FAMILIES, NUM_LAYERS, Family, plain_log_probs
from hypothesis import given
from hypothesis import strategies as st
from test_score import FAMILY, STATUS, by_row, conversations, fail_where, record, scorer_of, table_of
from torch import Tensor, nn

from curate.scoring import dropout
from curate.scoring.branches import find_branches
from curate.scoring.dropout import (
    branch_dropout,
    drop_from,
    dropout_confidence,
    dropout_subnets,
    keep_mask,
    mix,
    record_keys,
    score_dropout,
)
from curate.scoring.parts import find_parts
from curate.scoring.score import full_model, score_batch
from curate.types import SCORED, CurateError, TokenStore

# What each block adds to its stream, by name, in the order of the calls. Read off the architectures' own code.
MODERN = ("self_attn", "mlp")
NORMED = ("post_attention_layernorm", "post_feedforward_layernorm")
ADDED: dict[str, tuple[str, ...]] = {
    "llama": MODERN,
    "llama_tied_grouped": MODERN,
    "mistral_window": MODERN,
    "qwen2": MODERN,
    "qwen3": MODERN,
    "mixtral": MODERN,
    "qwen3_moe": MODERN,
    "olmoe": MODERN,
    "gpt_oss": MODERN,
    "gemma": MODERN,
    "gemma2": NORMED,
    "gemma3": NORMED,
    "gemma4": (*NORMED, "post_per_layer_input_norm"),
    "phi": MODERN,
    "phi3_window": MODERN,
    "gpt2": ("attn", "mlp"),
    "gptj": ("attn", "mlp"),
    "gpt_neo": ("attn", "mlp"),
    "gpt_neox_parallel": ("attention", "mlp"),
    "gpt_neox_serial": ("attention", "mlp"),
    "opt": ("self_attn", "fc2"),
    "cohere": MODERN,
    "cohere2": MODERN,
    "granite": MODERN,
    "olmo2": NORMED,
    "falcon": ("self_attention", "mlp"),
    "falcon_alibi": ("self_attention", "mlp"),
    "stablelm": MODERN,
    "bloom": ("self_attention.dense", "mlp.dense_4h_to_h"),
    "mpt": ("attn", "ffn.down_proj"),
    "starcoder2_window": MODERN,
    "smollm3": MODERN,
    "glm4": ("post_self_attn_layernorm", "post_mlp_layernorm"),
    "nemotron": MODERN,
    "minicpm3": MODERN,
}
REFUSED = {"opt_post_norm_projected"}  # its norms stand on the stream itself
SUPPORTED = tuple(family for family in FAMILIES if family.name not in REFUSED)
RATES, SEED = (0.1, 0.5, 0.9), 7
_ALL_BITS = (1 << 64) - 1


def names(family: Family) -> str:
    return family.name


def splitmix(state: int) -> int:
    """SplitMix64's output function in whole numbers, as its authors print it."""
    z = state & _ALL_BITS
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _ALL_BITS
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _ALL_BITS
    return z ^ (z >> 31)


def slow_mask(id_: bytes, seed: int, rate: float, number: int, length: int, width: int) -> npt.NDArray[np.bool_]:
    """What is kept of one record's branch [length, width], one number after the other."""
    golden, out = 0x9E3779B97F4A7C15, np.empty((length, width), bool)
    key = int.from_bytes(hashlib.sha256(f"curate dropout {seed} {rate!r} ".encode() + id_).digest()[:8], "little")
    for t in range(length):
        state = splitmix(key + ((number << 32) + t + 1) * golden)
        for h in range(width):
            word = splitmix(state + (h // 2 + 1) * golden)
            half = word >> 32 if h % 2 else word & 0xFFFFFFFF
            signed = half - (1 << 32) if half >> 31 else half
            out[t, h] = signed + (1 << 31) >= round(rate * (1 << 32))
    return out


def branches_by_name(model: Any, family: str) -> list[nn.Module]:
    return [block.get_submodule(name) for block in find_parts(model).blocks for name in ADDED[family]]


@contextmanager
def slow_dropout(modules: Sequence[nn.Module], id_: bytes, rate: float) -> Iterator[None]:
    """Masks by the slow rule on the outputs of modules that see one record without padding."""

    def wrapped(number: int, forward: Any) -> Any:
        def dropped(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            first = output if isinstance(output, Tensor) else output[0]
            width = first.shape[-1]
            mask = slow_mask(id_, SEED, rate, number, first.numel() // width, width)
            ours = first * torch.from_numpy(mask).view(first.shape) / (1 - rate)
            return ours if isinstance(output, Tensor) else (ours, *output[1:])

        return dropped

    for number, module in enumerate(modules):
        module.forward = wrapped(number, module.forward)
    try:
        yield
    finally:
        for module in modules:
            del module.forward


@pytest.fixture
def llama() -> Any:
    return FAMILY["llama"].build()


# --- what is added to the stream ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", SUPPORTED, ids=names)
def test_every_block_adds_what_its_architecture_says(family: Family, dtype: torch.dtype) -> None:
    model = family.build(dtype=dtype)
    assert [m for layer in find_branches(find_parts(model)) for m in layer] == branches_by_name(model, family.name)


@pytest.mark.parametrize("family", SUPPORTED, ids=names)
def test_with_every_branch_silent_the_stream_passes_through(family: Family) -> None:
    model = family.build()
    parts, streams = find_parts(model), []
    for layer in find_branches(parts):
        for module in layer:
            module.register_forward_hook(silent)
    for block in parts.blocks:
        block.register_forward_hook(
            lambda m, a, k, out: streams.append((a[0] if a else k["hidden_states"], out)), with_kwargs=True
        )
    with torch.no_grad():
        parts.backbone(input_ids=torch.arange(3, 12)[None], use_cache=False)
    assert len(streams) == NUM_LAYERS
    for before, after in streams:
        torch.testing.assert_close(after if isinstance(after, Tensor) else after[0], before, rtol=0, atol=0)


def silent(module: nn.Module, args: Any, output: Any) -> Any:
    return output * 0 if isinstance(output, Tensor) else (output[0] * 0, *output[1:])


def test_the_sweep_knows_every_family() -> None:
    assert len(SUPPORTED) == len(ADDED) == 35
    assert {family.name for family in FAMILIES} == ADDED.keys() | REFUSED


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_norm_on_the_stream_itself_is_refused(name: str) -> None:
    parts = find_parts(FAMILY[name].build())
    with pytest.raises(
        CurateError, match=r"score\.dropout: expected decoder layers of OPTForCausalLM to add .* got 0 "
    ):
        dropout_subnets(parts, RATES, seed=SEED)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in parts.model.modules())


def test_a_branch_changed_behind_its_back_is_refused(llama: Any) -> None:
    parts = find_parts(llama)
    attention = parts.blocks[1].post_attention_layernorm

    def meddle(module: nn.Module, args: Any) -> None:
        args[0][:, 0, :3] += 1.0  # a slice of the stream itself

    attention.register_forward_pre_hook(meddle)
    with pytest.raises(CurateError, match="in layer 2"):
        find_branches(parts)


def test_one_module_called_in_two_layers_is_refused(llama: Any) -> None:
    parts = find_parts(llama)
    parts.blocks[2].mlp = parts.blocks[0].mlp
    with pytest.raises(CurateError, match="no dropout score"):
        find_branches(parts)


# --- the masks ---


def test_the_hash_is_splitmix64() -> None:
    states = [0, 1, 1234567, _ALL_BITS, 1 << 63]
    signed = torch.tensor([s - (1 << 64) if s >> 63 else s for s in states])
    assert [n % (1 << 64) for n in mix(signed).tolist()] == [splitmix(s) for s in states]


@given(
    ids=st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=3),
    number=st.integers(0, 300),
    length=st.integers(1, 5),
    width=st.integers(1, 7),
    rate=st.sampled_from([0.0, 0.1, 0.25, 0.9]),
)
def test_masks_are_those_of_the_slow_rule(ids: list[bytes], number: int, length: int, width: int, rate: float) -> None:
    keys = torch.from_numpy(record_keys(np.array([np.void(i) for i in ids]), rate, SEED))
    fast = keep_mask(keys, number, length, width, rate).numpy()
    slow = np.array([slow_mask(i, SEED, rate, number, length, width) for i in ids])
    np.testing.assert_array_equal(fast, slow)


def test_a_longer_or_wider_batch_has_the_same_masks_where_both_are() -> None:
    keys = torch.arange(5) * 12345
    whole = keep_mask(keys, 3, 20, 9, 0.4)
    assert torch.equal(keep_mask(keys[[4, 1]], 3, 7, 9, 0.4), whole[[4, 1], :7])
    assert torch.equal(keep_mask(keys, 3, 20, 6, 0.4), whole[..., :6])


def test_masks_of_other_seeds_rates_records_branches_and_positions_are_unrelated() -> None:
    ids = np.array([np.void(bytes([i]) * 32) for i in range(2)])
    base = keep_mask(keys_of(ids, 0.5, 0), 0, 100, 200, 0.5)
    others = {
        "record": base[1],
        "position": base[0].roll(1, 0),
        "branch": keep_mask(keys_of(ids, 0.5, 0), 1, 100, 200, 0.5)[0],
        "layer": keep_mask(keys_of(ids, 0.5, 0), 2, 100, 200, 0.5)[0],
        "seed": keep_mask(keys_of(ids, 0.5, 1), 0, 100, 200, 0.5)[0],
        "rate": keep_mask(keys_of(ids, 0.25, 0), 0, 100, 200, 0.5)[0],
        "channel": base[0].roll(1, 1),
    }
    for name, other in others.items():  # 20,000 fair coins agree on a half, within five standard deviations
        assert float((base[0] == other).double().mean()) == pytest.approx(0.5, abs=5 * 0.5 / 20_000**0.5), name


def keys_of(ids: npt.NDArray[Any], rate: float, seed: int) -> Tensor:
    return torch.from_numpy(record_keys(ids, rate, seed))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_mean_over_many_masks_is_the_branch_itself(rate: float) -> None:
    hidden = torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(0)).double()
    keys, many = torch.arange(20_000), hidden.expand(20_000, 3, 8)
    dropped = drop_from(many, rate, keys, 5)
    deviation = hidden.abs() * (rate / (1 - rate) / len(keys)) ** 0.5
    assert bool(((dropped.mean(0) - hidden).abs() <= 5 * deviation).all())
    kept = dropped[dropped != 0] / many[dropped != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - rate)), rtol=1e-12, atol=0)
    share = (dropped == 0).double().mean((0, 1, 2))
    assert float(share) == pytest.approx(rate, abs=5 * (rate * (1 - rate) / dropped.numel()) ** 0.5)


def test_half_precision_is_scaled_once_and_rounded_once() -> None:
    hidden = torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(1)).bfloat16()
    dropped = drop_from(hidden, 0.3, torch.arange(2), 0)
    exact = (hidden.double() / 0.7).bfloat16()
    assert torch.equal(dropped[dropped != 0], exact[dropped != 0])


# --- the score ---


@pytest.mark.parametrize("family", SUPPORTED, ids=names)
def test_a_batch_scores_as_slow_masks_on_each_record_alone(family: Family, tmp_path: Path) -> None:
    model, records = family.build(), conversations(4)
    store, scorer = table_of(records, tmp_path), scorer_of(model)
    rows = np.array([3, 0, 2])
    scores = score_dropout(scorer, dropout_subnets(scorer.parts, RATES, seed=SEED), store, rows)
    assert scores.log_prob.shape == (3, len(RATES))
    moved = 0.0
    for row, found in by_row(scores).items():
        scored = records[row].marks[1:] == SCORED
        plain = plain_log_probs(model, records[row].input_ids)[scored].mean()
        for rate, log_prob in zip(RATES, found.log_prob, strict=True):
            with slow_dropout(branches_by_name(model, family.name), bytes.fromhex(records[row].id), rate):
                slow = plain_log_probs(model, records[row].input_ids)[scored]
            assert log_prob == pytest.approx(slow.mean(), rel=1e-5)
            moved = max(moved, abs(slow.mean() - plain))
        confidence = np.mean(np.exp(found.log_prob.astype(float)))
        assert dropout_confidence(found.log_prob[None])[0] == pytest.approx(confidence, rel=1e-12)
    assert moved > 1e-3, "a mask that changes nothing would agree by itself"


def test_rate_zero_is_the_model_itself(llama: Any, tmp_path: Path) -> None:
    store, scorer, rows = table_of(conversations(8), tmp_path), scorer_of(llama), np.array([0, 1, 2, 3])
    found = score_dropout(scorer, dropout_subnets(scorer.parts, (0.0,), seed=SEED), store, rows)
    plain = score_batch(full_model(scorer), store, rows)
    np.testing.assert_array_equal(found.log_prob, plain.log_prob)
    np.testing.assert_array_equal(found.confidence, plain.confidence)


@pytest.mark.parametrize("name", ["llama", "mistral_window", "gpt_neox_parallel", "bloom"])
def test_batches_order_and_padding_move_nothing(name: str, tmp_path: Path) -> None:
    store, scorer = table_of(conversations(20), tmp_path), scorer_of(FAMILY[name].build())
    subnets = dropout_subnets(scorer.parts, RATES, seed=SEED)
    rows = np.flatnonzero(store.rows["status"] == STATUS["scored"])
    alone = [score_dropout(scorer, subnets, store, np.array([row])) for row in rows]
    expected = {int(row): scores.log_prob[0] for row, scores in zip(rows, alone, strict=True)}
    longest = rows[store.rows["needed"][rows].argmax()]
    batches = [rows, rows[::-1], *(np.array([row, longest]) for row in rows if row != longest)]
    for batch in batches:
        for row, scores in by_row(score_dropout(scorer, subnets, store, batch)).items():
            np.testing.assert_allclose(scores.log_prob, expected[row], rtol=0, atol=2e-6 * np.abs(expected[row]).max())


def test_the_same_record_elsewhere_and_another_seed(llama: Any, tmp_path: Path) -> None:
    ids, marks = [5, 6, 7, 8, 9], [0, 0, 1, 1, 1]
    one = table_of([record(0, ids, marks)], tmp_path / "one")
    two = table_of([record(0, [9, 9, 9], [0, 1, 1]), record(1, ids, marks)], tmp_path / "two")
    scorer = scorer_of(llama)

    def found(store: TokenStore, row: int, seed: int) -> npt.NDArray[np.float32]:
        subnets = dropout_subnets(scorer.parts, RATES, seed=seed)
        return score_dropout(scorer, subnets, store, np.array([row])).log_prob[0]

    np.testing.assert_array_equal(found(one, 0, SEED), found(two, 1, SEED))
    assert (np.abs(found(one, 0, SEED) - found(one, 0, SEED + 1)) > 1e-4).all()


def test_out_of_memory_halves_a_batch_and_moves_nothing(llama: Any, tmp_path: Path) -> None:
    store, scorer, rows = table_of(conversations(8), tmp_path), scorer_of(llama), np.array([5, 0, 7, 1, 3])
    subnets = dropout_subnets(scorer.parts, RATES, seed=SEED)
    whole = score_dropout(scorer, subnets, store, rows)
    fail_where(scorer, lambda ids: len(ids) > 2, MemoryError())
    halved = score_dropout(scorer, subnets, store, rows)
    assert halved.split
    np.testing.assert_array_equal(halved.rows, rows)
    np.testing.assert_allclose(halved.log_prob, whole.log_prob, rtol=1e-5)


def test_one_record_that_never_fits_has_as_many_empty_columns_as_rates(llama: Any, tmp_path: Path) -> None:
    store, scorer = table_of(conversations(3), tmp_path), scorer_of(llama)
    subnets = dropout_subnets(scorer.parts, RATES, seed=SEED)
    fail_where(scorer, lambda ids: True, MemoryError())
    scores = score_dropout(scorer, subnets, store, np.array([0, 1]))
    assert (scores.status == STATUS["out_of_memory"]).all()
    assert np.isnan(scores.log_prob).all()
    assert scores.log_prob.shape == (2, len(RATES))


def test_nothing_is_left_on_the_model(llama: Any, tmp_path: Path) -> None:
    store, scorer = table_of(conversations(3), tmp_path), scorer_of(llama)
    subnets, rows = dropout_subnets(scorer.parts, RATES, seed=SEED), np.array([0, 1])
    before = score_batch(scorer, store, rows)
    score_dropout(scorer, subnets, store, rows)
    interrupted = interrupt_inside(subnets.branches)
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in llama.modules())
    np.testing.assert_array_equal(score_batch(scorer, store, rows).log_prob, before.log_prob)


def interrupt_inside(branches: Sequence[nn.Module]) -> Any:
    def run() -> None:
        with branch_dropout(branches, 0.5, torch.zeros(1, dtype=torch.long)):
            raise KeyboardInterrupt

    return run


def test_confidence_is_the_mean_of_inverse_perplexities() -> None:
    log_prob = np.array([[-1.0, -2.0], [0.0, -np.inf], [np.nan, -1.0]])
    found = dropout_confidence(log_prob)
    assert found[:2].tolist() == pytest.approx([(np.exp(-1) + np.exp(-2)) / 2, 0.5])
    assert np.isnan(found[2])


# --- faults that the slow rule must see ---


@pytest.mark.parametrize("fault", ["masks shifted by a position", "layers swapped", "no scaling"])
def test_a_broken_mask_is_noticed(fault: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plain = dropout.keep_mask
    if fault == "masks shifted by a position":
        monkeypatch.setattr(dropout, "keep_mask", lambda *a: plain(*a).roll(1, 1))
    elif fault == "no scaling":
        monkeypatch.setattr(dropout, "drop_from", lambda h, rate, keys, n: drop_from(h, rate, keys, n) * (1 - rate))
    else:
        subnets = dropout.DropoutSubnets
        monkeypatch.setattr(dropout, "DropoutSubnets", lambda b, r, s: subnets((*b[2:4], *b[:2], *b[4:]), r, s))
    with pytest.raises(AssertionError, match="comparison failed"):
        test_a_batch_scores_as_slow_masks_on_each_record_alone(FAMILY["llama"], tmp_path)
