"""The self-test: what is read rightly passes in every family and precision, what would be read wrongly is refused."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, NUM_LAYERS, Family
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from curate.scoring import selftest
from curate.scoring.exits import exit_hidden
from curate.scoring.parts import DecoderParts, find_parts
from curate.scoring.selftest import Check, confirm, run_checks
from curate.types import CurateError

FAMILY = {family.name: family for family in FAMILIES}
EXPERTS = {"mixtral", "qwen3_moe", "olmoe", "gpt_oss"}

LAST = "the last exit equals the model's own logits"
MIDDLE = "exit 2 equals the model's first 2 layers"
PADDED = "a padded record scores as it does alone"


def failed(parts: DecoderParts) -> set[str]:
    return {check.name for check in run_checks(parts) if not check.passed}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_family_passes_in_every_precision(family: Family, dtype: torch.dtype) -> None:
    checks = run_checks(find_parts(family.build(dtype=dtype)))
    assert [check.name for check in checks] == [LAST, MIDDLE, PADDED]
    if family.name in EXPERTS and dtype != torch.float32:
        checks = checks[:2]  # random routers are often near a tie, and a tie that falls the other way moves a token
    assert all(check.passed for check in checks), checks


def test_a_model_of_one_layer_passes() -> None:
    assert failed(find_parts(FAMILY["llama"].build(num_layers=1))) == set()


def test_the_checks_leave_the_model_as_it_was() -> None:
    model = FAMILY["llama"].build()
    ids = torch.arange(20)[None]
    before = model(input_ids=ids).logits
    confirm(find_parts(model))
    assert torch.equal(model(input_ids=ids).logits, before)
    assert len(model.model.layers) == model.config.num_hidden_layers == NUM_LAYERS


# --- mistakes of ours ---


class FrozenNorm(nn.Module):
    """The mistake of reusing the last layer's norm statistics at every exit."""

    def __init__(self, parts: DecoderParts) -> None:
        super().__init__()
        (self.norm,) = parts.tail
        parts.blocks[-1].register_forward_hook(self.remember)

    def remember(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self.last = output[-1]  # the record that is kept, in a batch of one as in the padded batch

    def forward(self, hidden_1NH: Tensor) -> Tensor:
        scale = self.last[: hidden_1NH.shape[1]].pow(2).mean(-1, keepdim=True).rsqrt()
        return self.norm.weight * hidden_1NH * scale


def test_a_dropped_tail_is_refused() -> None:
    parts = find_parts(FAMILY["llama"].build())
    assert {LAST, MIDDLE} <= failed(dataclasses.replace(parts, tail=()))


def test_norm_statistics_of_the_last_layer_are_refused() -> None:
    parts = find_parts(FAMILY["llama"].build())
    assert failed(dataclasses.replace(parts, tail=(FrozenNorm(parts),))) == {MIDDLE}


def test_positions_off_by_one_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(parts: DecoderParts, ids: Tensor, keep: Tensor, layers: Sequence[int], before: None) -> list[Tensor]:
        return exit_hidden(parts, ids, keep.roll(1, 1), layers)

    monkeypatch.setattr(selftest, "exit_hidden", late)
    assert {LAST, MIDDLE} <= failed(find_parts(FAMILY["llama"].build()))


def test_a_layer_off_by_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def early(parts: DecoderParts, ids: Tensor, keep: Tensor, layers: Sequence[int], before: None) -> list[Tensor]:
        return exit_hidden(parts, ids, keep, [k - 1 for k in layers])

    monkeypatch.setattr(selftest, "exit_hidden", early)
    assert {LAST, MIDDLE} <= failed(find_parts(FAMILY["llama"].build()))


@pytest.mark.parametrize("name", ["gemma2", "cohere", "granite", "minicpm3"])
def test_a_head_without_what_the_model_does_around_it_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = find_parts(FAMILY[name].build())
    bare = nn.Sequential(*parts.tail, parts.model.get_output_embeddings())
    monkeypatch.setattr(selftest, "replayed_head", lambda parts: nullcontext(bare))
    assert {LAST, MIDDLE} <= failed(parts)


# --- models that cannot be scored ---


def leak_from_the_same_record(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (args[0] + 0.1 * args[0].mean(1, keepdim=True), *args[1:])


def leak_from_other_records(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (args[0] + 0.1 * args[0].mean(0, keepdim=True), *args[1:])


@pytest.mark.parametrize("leak", [leak_from_the_same_record, leak_from_other_records])
def test_a_model_in_which_padding_or_neighbours_leak_is_refused(
    leak: Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]],
) -> None:
    parts = find_parts(FAMILY["llama"].build())
    parts.blocks[0].register_forward_pre_hook(leak)
    assert failed(parts) == {PADDED}
    with pytest.raises(CurateError, match=f"refused: expected that {PADDED}"):
        confirm(parts)


@pytest.mark.parametrize("leak", [None, leak_from_the_same_record, leak_from_other_records])
def test_rounding_of_large_logits_passes_and_a_leak_beside_it_does_not(
    leak: Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]] | None,
) -> None:
    """Trained models have logits of 30: in bfloat16 neighbouring ones stand 0.125 or 0.25 apart."""
    model = FAMILY["llama"].build(dtype=torch.bfloat16)
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, model.config.vocab_size, (1, 24)))
    with torch.no_grad():
        model.lm_head.weight.mul_(30 / model(input_ids=ids).logits.float().abs().amax(-1).mean())
    parts = find_parts(model)
    if leak is not None:
        parts.blocks[0].register_forward_pre_hook(leak)
    checks = {check.name: check for check in run_checks(parts)}
    assert 0.1 < checks[PADDED].tolerance <= 0.2
    assert checks[PADDED].passed is (leak is None), checks


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_small_steps_between_logits_leave_the_tolerance_as_it_is(dtype: torch.dtype) -> None:
    assert run_checks(find_parts(FAMILY["llama"].build(dtype=dtype)))[-1].tolerance == (
        1e-4 if dtype == torch.float32 else 0.08
    )


def test_a_model_that_is_still_in_training_mode_is_refused() -> None:
    model = FAMILY["gpt2"].build().train()  # GPT-2 drops a tenth
    with pytest.raises(CurateError, match="would be scored wrongly"):
        confirm(find_parts(model))


def test_a_model_whose_numbers_are_not_finite_is_refused() -> None:
    model = FAMILY["llama"].build()
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)
    with pytest.raises(CurateError, match=r"got nan.*; .*got nan.*; .*got nan"):
        confirm(find_parts(model))


def test_the_refusal_names_the_model_the_failed_check_and_a_way_out() -> None:
    parts = find_parts(FAMILY["llama"].build())
    with pytest.raises(CurateError) as caught:
        confirm(dataclasses.replace(parts, tail=(FrozenNorm(parts),)))
    message = str(caught.value)
    assert message.startswith(
        f"LlamaForCausalLM would be scored wrongly and is refused: expected that {MIDDLE} (within"
    )
    assert LAST not in message
    assert message.endswith("Try model.attention=eager, or score with another model.")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("attention", "dtype", "advice"),
    [
        ("sdpa", torch.bfloat16, "Try model.attention=eager or model.dtype=float32, or score with another model."),
        ("eager", torch.bfloat16, "Try model.dtype=float32, or score with another model."),
        ("eager", torch.float32, "Score with another model."),
    ],
)
def test_only_what_is_not_set_yet_is_advised(attention: str, dtype: torch.dtype, advice: str) -> None:
    model = FAMILY["llama"].build(dtype=dtype)
    model.set_attn_implementation(attention)
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)
    with pytest.raises(CurateError) as caught:
        confirm(find_parts(model))
    assert str(caught.value).endswith(f". {advice}")


def test_a_check_passes_up_to_its_tolerance_and_never_without_a_number() -> None:
    assert Check("law", 0.1, 0.1).passed
    assert not Check("law", 0.11, 0.1).passed
    assert not Check("law", math.nan, 0.1).passed
    assert not Check("law", math.inf, 0.1).passed


# --- quantised weights ---


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs the extra: quantization")
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", ["llama_tied_grouped", "opt", "mixtral"])
def test_quantised_weights_pass_and_a_mistake_on_them_does_not(name: str, bits: int, tmp_path: Path) -> None:
    FAMILY[name].build().save_pretrained(tmp_path)
    settings = BitsAndBytesConfig(**{f"load_in_{bits}bit": True})
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path, quantization_config=settings, dtype=torch.float32, device_map={"": "cpu"}
    )
    parts = find_parts(model.eval())
    assert model.is_quantized
    confirm(parts)
    assert LAST in failed(dataclasses.replace(parts, tail=()))
