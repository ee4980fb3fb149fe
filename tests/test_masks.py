"""L1 masks: the same zeros as a slow sort, the same loss as a model that has them, and every weight back afterwards."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from accelerate import cpu_offload
from families import FAMILIES, NUM_LAYERS, Family, likely_records, plain_log_probs
from hypothesis import given
from hypothesis import strategies as st
from test_score import FAMILY, STATUS, conversations, scorer_of, table_of
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from curate.models.load import load_model
from curate.scoring import masks
from curate.scoring.masks import linear_weights, masked_loss, masked_weights
from curate.scoring.parts import DecoderParts, find_parts
from curate.scoring.score import full_model, join_subnets, score_batch
from curate.types import SCORED, CurateError

SPARSITIES = (0.0, 0.2, 0.36)
EXPERTS = {"mixtral", "qwen3_moe", "olmoe", "gpt_oss"}
STACKS = ("gate_up_proj", "down_proj")


def half_up(sparsity: float, n: int) -> int:
    """round(sparsity * n) with halves up, in whole numbers: sparsities here have two decimals at most."""
    return (round(100 * sparsity) * n + 50) // 100


def slowly_zeroed(weight: Tensor, count: int) -> Tensor:
    """A copy with the `count` smallest magnitudes zero: a stable sort, so ties go to the lower index."""
    flat = weight.detach().double().numpy().ravel().copy()
    flat[np.argsort(np.abs(flat), kind="stable")[:count]] = 0
    return torch.from_numpy(flat.reshape(weight.shape)).to(weight.dtype)


def slowly_masked(model: Any, sparsity: float) -> tuple[Any, int]:
    """A separate model with its weights zeroed, and how many matrices they were."""
    twin, count = copy.deepcopy(model), 0
    embeddings = twin.get_input_embeddings().weight
    with torch.no_grad():
        for name, module in list(twin.named_modules()):
            if isinstance(module, (nn.Linear, Conv1D)):
                zeroed = slowly_zeroed(module.weight, half_up(sparsity, module.weight.numel()))
                if module.weight is embeddings:
                    module.weight = nn.Parameter(zeroed)
                else:
                    module.weight.copy_(zeroed)
                count += 1
            elif name.endswith("experts"):
                for stack in (getattr(module, which) for which in STACKS):
                    for matrix in stack:
                        matrix.copy_(slowly_zeroed(matrix, half_up(sparsity, matrix.numel())))
                        count += 1
    return twin, count


def bytes_of(model: Any) -> dict[str, bytes]:
    """The bits of every parameter and buffer."""
    return {
        name: tensor.detach().contiguous().view(torch.uint8).numpy().tobytes() if tensor.dim() else str(tensor)
        for name, tensor in model.state_dict().items()
    }


@pytest.fixture
def llama() -> Any:
    return FAMILY["llama"].build()


# --- against a slow, separate computation ---


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_masked_model_is_a_copy_with_the_smallest_weights_zero(family: Family) -> None:
    model = family.build()
    parts, records = find_parts(model), likely_records(model)
    before, plain = bytes_of(model), [plain_log_probs(model, r) for r in records]
    for sparsity in SPARSITIES:
        twin, num_matrices = slowly_masked(model, sparsity)
        assert len(linear_weights(parts)) == num_matrices >= 4 * NUM_LAYERS
        with masked_weights(parts, sparsity):
            for record, unmasked in zip(records, plain, strict=True):
                ours = plain_log_probs(model, record)
                np.testing.assert_allclose(ours, plain_log_probs(twin, record), rtol=0, atol=1e-6)
                assert (np.abs(ours - unmasked).max() > 1e-3) == (sparsity > 0)
        assert bytes_of(model) == before


def test_experts_are_masked_one_by_one() -> None:
    swept = 0
    for name in sorted(EXPERTS):
        parts = find_parts(FAMILY[name].build())
        with masked_weights(parts, 0.36):
            for module in parts.blocks.modules():
                for stack in (w for w in module.parameters(recurse=False) if w.dim() == 3):
                    zeros = (stack == 0).flatten(1).sum(1)
                    assert zeros.tolist() == [half_up(0.36, stack[0].numel())] * len(stack)
                    swept += 1
    assert swept == 2 * NUM_LAYERS * len(EXPERTS)


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2", "mixtral"])
@pytest.mark.parametrize("tokens_per_batch", [1, 8])
def test_masked_loss_is_the_mean_cross_entropy_of_separate_models(
    name: str, tokens_per_batch: int, tmp_path: Path
) -> None:
    model, records = FAMILY[name].build(), conversations(8)
    store, scorer = table_of(records, tmp_path), full_model(scorer_of(model))
    rows = np.array([r.row for r in records if r.status == "scored"])
    twins = [slowly_masked(model, s)[0] for s in SPARSITIES]
    subnets = []
    for sparsity in SPARSITIES:
        with masked_weights(scorer.parts, sparsity):
            subnets.append(score_batch(scorer, store, rows))
    joined = join_subnets(subnets)
    np.testing.assert_array_equal(joined.rows, rows)
    for row, loss in zip(rows, masked_loss(joined.log_prob), strict=True):
        scored = records[row].marks[1:] == SCORED
        each = [-plain_log_probs(twin, records[row].input_ids)[scored].mean() for twin in twins]
        assert loss == pytest.approx(np.mean(each), rel=1e-5)


def test_a_tied_head_is_masked_and_the_embedding_is_not() -> None:
    model = FAMILY["qwen2"].build()
    parts, embedding, head = find_parts(model), model.get_input_embeddings(), model.get_output_embeddings()
    own = embedding.weight
    assert head.weight is own
    with masked_weights(parts, 0.36):
        assert embedding.weight is own
        assert not (own == 0).any()
        assert int((head.weight == 0).sum()) == half_up(0.36, own.numel())
    assert head.weight is embedding.weight is own
    assert own.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_parameters_that_share_memory_are_one_weight(dtype: torch.dtype) -> None:
    """A head that is another object over the embedding's memory, and a projection that two layers share so."""
    model = FAMILY["llama_tied_grouped"].build(dtype=dtype)
    embedding, layers = model.get_input_embeddings().weight, model.model.layers
    model.lm_head.weight = nn.Parameter(embedding.detach())
    layers[1].mlp.up_proj.weight = nn.Parameter(layers[0].mlp.up_proj.weight.detach())
    before, parts = bytes_of(model), find_parts(model)
    assert model.lm_head.weight is not embedding
    with masked_weights(parts, 0.36):
        assert not (embedding == 0).any()
        assert int((model.lm_head.weight == 0).sum()) == half_up(0.36, embedding.numel())
        for layer in layers[:2]:
            assert int((layer.mlp.up_proj.weight == 0).sum()) == half_up(0.36, layer.mlp.up_proj.weight.numel())
    assert bytes_of(model) == before


def test_weights_that_overlap_come_back_in_the_reverse_order() -> None:
    whole = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    before, saved = whole.clone(), []
    masks._zero_smallest(whole, 20, saved, keep=True)
    masks._zero_smallest(whole[2:6], 30, saved, keep=True)
    for zeroed in reversed(saved):
        masks._restore(*zeroed)
    assert same_bits(whole, before)


def test_embeddings_norms_biases_and_routers_stay() -> None:
    model = FAMILY["mixtral"].build()
    parts, before = find_parts(model), bytes_of(model)
    with masked_weights(parts, 0.36):
        changed = {name for name, value in bytes_of(model).items() if value != before[name]}
    last = {name.split(".")[-1] if "experts" in name else name.split(".")[-2] for name in changed}
    assert last == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj", "lm_head"}


# --- which weights exactly ---

MAGNITUDES = st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 3.0, 1e-40, -1e-40, 6e-8, np.inf, -np.inf])


@given(
    values=st.lists(MAGNITUDES | st.floats(-4, 4, width=16), min_size=1, max_size=60),
    width=st.integers(1, 7),
    share=st.sampled_from([0.0, 0.01, 0.2, 0.36, 0.5, 0.99]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
    piece=st.integers(1, 20),
    transposed=st.booleans(),
)
def test_the_smallest_are_zero_ties_to_the_lower_index_and_all_come_back(
    values: list[float], width: int, share: float, dtype: torch.dtype, piece: int, transposed: bool
) -> None:
    matrix = torch.tensor((values * width)[: len(values) // width * width or width], dtype=dtype).view(-1, width)
    matrix = matrix.t() if transposed else matrix
    before, count = matrix.clone(), masks._count(share, matrix.numel())
    assert count == half_up(share, matrix.numel())
    saved: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "_PIECE", piece)
        masks._zero_smallest(matrix, count, saved, keep=True)
    torch.testing.assert_close(matrix, slowly_zeroed(before, count), rtol=0, atol=0)
    for zeroed in saved:
        masks._restore(*zeroed)
    assert same_bits(matrix, before)


def same_bits(a: Tensor, b: Tensor) -> bool:
    kind = masks._AS_BITS[a.dtype]
    return torch.equal(a.view(kind), b.view(kind))


def test_weights_that_are_not_numbers_are_the_last_to_go_and_keep_their_bits() -> None:
    odd = torch.tensor([[0x7FC00001, 0x3F800000, 0x7F800000, 0]], dtype=torch.int32).view(torch.float32)
    before, saved = odd.clone(), []
    masks._zero_smallest(odd, 3, saved, keep=True)
    assert odd.isnan().tolist() == [[True, False, False, False]]
    assert odd[0, 1:].tolist() == [0, 0, 0]
    masks._restore(*saved[0])
    assert same_bits(odd, before)


def test_halves_are_rounded_up_on_the_number_as_written() -> None:
    assert [masks._count(0.5, n) for n in (1, 2, 3, 5)] == [1, 1, 2, 3]
    assert masks._count(0.36, 10**9 + 25) == 360_000_009
    assert masks._count(0.0, 7) == 0


# --- whatever happens, the weights come back ---


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, MemoryError])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_oss"])
def test_an_error_inside_restores_every_bit(name: str, error: type[BaseException]) -> None:
    model = FAMILY[name].build()
    before = bytes_of(model)

    def masked_until_it_breaks() -> None:
        with masked_weights(find_parts(model), 0.36):
            assert bytes_of(model) != before
            raise error

    with pytest.raises(error):
        masked_until_it_breaks()
    assert bytes_of(model) == before


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at", [0, 5, 40])
def test_an_interrupt_while_weights_are_being_zeroed_restores_every_bit(
    when: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = FAMILY["qwen2"].build()
    with torch.no_grad():  # zeros that were there before, of both signs
        for layer in model.model.layers:
            layer.mlp.up_proj.weight[:, :40] = torch.tensor([0.0, -0.0] * 20)
    parts, before, fill = find_parts(model), bytes_of(model), Tensor.masked_fill_
    calls = 0

    def interrupted(tensor: Tensor, mask: Tensor, value: float) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == at + 1 and when == "before":
            raise KeyboardInterrupt
        filled = fill(tensor, mask, value)
        if calls == at + 1:
            raise KeyboardInterrupt
        return filled

    monkeypatch.setattr(masks, "_PIECE", 1000)
    monkeypatch.setattr(Tensor, "masked_fill_", interrupted)
    with pytest.raises(KeyboardInterrupt), masked_weights(parts, 0.2):
        pytest.fail("it was interrupted before")
    assert calls == at + 1
    assert bytes_of(model) == before
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_comes_back_too(dtype: torch.dtype) -> None:
    model = FAMILY["llama_tied_grouped"].build(dtype=dtype)
    before = bytes_of(model)
    for _ in range(2):
        with masked_weights(find_parts(model), 0.36):
            zeros = sum(int((w == 0).sum()) for w in linear_weights(find_parts(model)))
            assert zeros == sum(half_up(0.36, w.numel()) for w in linear_weights(find_parts(model)))
        assert bytes_of(model) == before


def test_what_is_kept_aside_is_what_was_zeroed(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    restore = masks._restore

    def counted(piece: Tensor, values: Tensor, sum_of_bits: int) -> None:
        kept.append(len(values))
        restore(piece, values, sum_of_bits)

    monkeypatch.setattr(masks, "_restore", counted)
    parts = find_parts(llama)
    with masked_weights(parts, 0.36):
        pass
    assert sum(kept) == sum(half_up(0.36, w.numel()) for w in linear_weights(parts))


def test_weights_that_somebody_changed_meanwhile_are_not_passed_over(llama: Any) -> None:
    def meddle() -> None:
        with masked_weights(find_parts(llama), 0.2), torch.no_grad():
            llama.model.layers[1].mlp.up_proj.weight += 1.0

    with pytest.raises(AssertionError, match="bit for bit"):
        meddle()


def test_subnormals_come_back_where_the_processor_flushes_them(llama: Any) -> None:
    weight = llama.model.layers[1].mlp.up_proj.weight
    with torch.no_grad():
        weight[0, :8] = torch.tensor([1e-40, -1e-40, 0.0, -0.0, 1e-45, 3e-39, -3e-39, 1.0])
    before = bytes_of(llama)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush subnormals")
    try:
        for sparsity in (0.0002, 0.36):
            with masked_weights(find_parts(llama), sparsity):
                pass
    finally:
        torch.set_flush_denormal(False)
    assert bytes_of(llama) == before


# --- refusals ---


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs the extra: quantization")
@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_quantised_weights_are_refused(quantization: Any, llama_folder: Path) -> None:
    parts = find_parts(load_model(str(llama_folder), dtype="float32", quantization=quantization))
    with pytest.raises(CurateError, match=r"got quantised ones \(u?int8\).*model.quantization=none"):
        mask(parts)


def test_a_model_that_says_it_is_quantised_is_refused(llama: Any) -> None:
    parts, before = find_parts(llama), bytes_of(llama)
    llama.is_quantized = True
    with pytest.raises(CurateError, match="got quantised ones"):
        mask(parts)
    assert bytes_of(llama) == before


def test_offloaded_weights_are_refused(llama: Any) -> None:
    parts = find_parts(llama)
    cpu_offload(llama, torch.device("cpu"))
    with pytest.raises(CurateError, match=r"got some offloaded to CPU or disk: leave model\.device_map out"):
        mask(parts)


def mask(parts: DecoderParts) -> None:
    with masked_weights(parts, 0.2):
        pass


@pytest.fixture
def llama_folder(tmp_path: Path) -> Path:
    from conftest import save_llama

    return save_llama(tmp_path / "llama")


# --- subnets side by side ---


def test_a_record_that_one_subnet_could_not_score_has_no_number(llama: Any, tmp_path: Path) -> None:
    store, scorer = table_of(conversations(3), tmp_path), full_model(scorer_of(llama))
    one, two = (score_batch(scorer, store, np.array([0, 1, 2])) for _ in range(2))
    two.status[1], two.log_prob[1], two.confidence[1] = STATUS["non_finite"], np.nan, np.nan
    joined = join_subnets([one, two, one])
    assert joined.status.tolist() == [STATUS["scored"], STATUS["non_finite"], STATUS["scored"]]
    assert np.isnan(joined.log_prob).tolist() == [[False] * 3, [True] * 3, [False] * 3]
    loss: npt.NDArray[np.float64] = masked_loss(joined.log_prob)
    assert loss[0] == pytest.approx(-one.log_prob[0, 0])
    assert np.isnan(loss[1])
