"""Weights and tokenizers: what loads, what tells it from others, and what is refused, by message."""

from __future__ import annotations

import importlib.util
import json
import logging
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from real import real
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import (
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from curate.models.device import resolve_device, resolve_dtype
from curate.models.fingerprint import tokenizer_fingerprint, weight_fingerprint
from curate.models.load import load_config, load_model, load_tokenizer, text_config
from curate.models.precheck import check_weights
from curate.types import CurateError

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny Llama with an untied head, 4 layers, and a word tokenizer."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    # embeddings and head, then per layer q and o, k and v, the three of the MLP, two norms; the last norm
    assert model.num_parameters() == 2 * 64 * 32 + 4 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 64 * 32 + 2 * 32) + 32
    path = tmp_path / "tiny"
    model.save_pretrained(path)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(64)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(path)
    return path


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_model_loads_in_eval_mode_in_the_precision_asked_for(folder: Path) -> None:
    for dtype in ("float32", "bfloat16", "float16"):
        model = load_model(str(folder), dtype=dtype, device=CPU)
        assert not model.training
        assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)}
    assert (text_config(model).num_hidden_layers, text_config(model).vocab_size) == (4, 64)


def test_a_checkpoint_in_bfloat16_is_computed_in_float32_on_a_cpu(folder: Path) -> None:
    edit_weights(folder, lambda w: w.update({k: v.bfloat16() for k, v in w.items()}))
    edit_config(folder, dtype="bfloat16")
    assert load_model(str(folder), device=CPU).dtype == torch.float32


@pytest.mark.parametrize(
    ("dtype", "device", "expected"),
    [
        ("auto", "cpu", torch.float32),
        ("auto", "mps", torch.float16),
        ("float16", "cpu", torch.float16),
        ("bfloat16", "cuda", torch.bfloat16),
    ],
)
def test_auto_precision_follows_the_device(dtype: str, device: str, expected: torch.dtype) -> None:
    assert resolve_dtype(dtype, torch.device(device)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(("has_bfloat16", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_auto_on_a_gpu_is_bfloat16_only_where_the_gpu_has_it(
    monkeypatch: pytest.MonkeyPatch, has_bfloat16: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bfloat16)
    assert resolve_dtype("auto", torch.device("cuda", 1)) == expected


def test_each_process_takes_the_gpu_of_its_local_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert resolve_device() == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(CurateError, match=r"at most one process per GPU, got process 3 on 2"):
        resolve_device()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert resolve_device() == CPU


def test_nothing_is_printed_while_loading(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_model(str(folder), device=CPU)
    assert capfd.readouterr() == ("", "")


def test_layers_on_disk_give_the_same_logits(folder: Path, tmp_path: Path) -> None:
    layers = {f"model.layers.{i}": "disk" if i > 1 else "cpu" for i in range(4)}
    device_map = {
        "model.embed_tokens": "cpu",
        "model.norm": "cpu",
        "model.rotary_emb": "cpu",
        "lm_head": "cpu",
    } | layers
    ids_BT = torch.arange(12)[None]
    with torch.no_grad():
        whole = load_model(str(folder), device=CPU)(ids_BT).logits
        spread = load_model(str(folder), device_map=device_map, offload_folder=tmp_path / "offload")
        assert next(spread.model.layers[3].parameters()).is_meta
        assert torch.equal(spread(ids_BT).logits, whole)
        assert torch.equal(load_model(str(folder), device_map="auto")(ids_BT).logits, whole)


def test_a_device_map_is_refused_in_several_processes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(CurateError, match="device_map=auto spreads one model over all devices: launch one process"):
        load_model(str(folder), device_map="auto")


@pytest.mark.parametrize(("quantization", "limit"), [("8bit", 0.05), ("4bit", 0.4)])
@pytest.mark.parametrize("intermediate_size", [64, 80])  # 80 is no multiple of 32
def test_quantised_models_run_on_a_cpu(tmp_path: Path, quantization: str, limit: float, intermediate_size: int) -> None:
    pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=intermediate_size, num_hidden_layers=2, num_attention_heads=4
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    model = load_model(str(tmp_path), quantization=quantization, device=CPU)  # type: ignore[arg-type]
    assert model.is_quantized
    ids_BT = torch.arange(12)[None]
    with torch.no_grad():
        exact = load_model(str(tmp_path), device=CPU)(ids_BT).logits
        error = (model(ids_BT).logits - exact).norm() / exact.norm()
    assert 0 < error < limit


def test_without_bitsandbytes_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CurateError, match=r'quantization=4bit needs bitsandbytes: pip install "lc-curate\[quant'):
        load_model(str(folder), quantization="4bit", device=CPU)


def test_a_missing_head_is_refused_by_name(folder: Path) -> None:
    edit_weights(folder, lambda w: w.pop("lm_head.weight"))
    with pytest.raises(CurateError, match=r"lacks 1 weight\(s\) that would be random, lm_head\.weight among them"):
        load_model(str(folder), device=CPU)


def test_a_model_saved_without_its_head_is_refused(folder: Path) -> None:
    LlamaModel(load_config(str(folder))).save_pretrained(folder)
    with pytest.raises(CurateError, match=r"lm_head\.weight among them: expected a complete causal language model"):
        load_model(str(folder), device=CPU)


def test_a_tied_head_is_not_missing(folder: Path) -> None:
    edit_config(folder, tie_word_embeddings=True)
    edit_weights(folder, lambda w: w.pop("lm_head.weight"))
    model = load_model(str(folder), device=CPU)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_weight_of_another_shape_is_refused_by_name(folder: Path) -> None:
    edit_weights(folder, lambda w: w.update({"model.norm.weight": torch.ones(7)}))
    with pytest.raises(CurateError, match=r"expected model\.norm\.weight of shape \[32\] by its .*, got \[7\]"):
        load_model(str(folder), device=CPU)


def test_unused_weights_are_reported_and_do_no_harm(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit_weights(folder, lambda w: w.update({"value_head.weight": torch.ones(7)}))
    with caplog.at_level(logging.WARNING, "curate.models.load"):
        load_model(str(folder), device=CPU)
    assert "1 weight(s) are not part of the model and unused, e.g. value_head.weight" in caplog.text


@pytest.mark.parametrize(
    "weight", ["model.layers.1.self_attn.q_proj.bias", "model.norm.bias", "model.layers.0.mlp.up_proj.weight_scale_inv"]
)
def test_an_unused_part_of_a_module_is_refused_before_and_after_loading(folder: Path, weight: str) -> None:
    edit_weights(folder, lambda w: w.update({weight: torch.ones(32)}))
    for check in (check_weights, partial(load_model, device=CPU)):
        with pytest.raises(CurateError, match=f"its weights hold {re.escape(weight)}, and the model of its config"):
            check(str(folder))


@pytest.mark.parametrize("weight", ["model.layers.1.self_attn.bias", "model.layers.0.self_attn.rotary_emb.inv_freq"])
def test_buffers_of_older_libraries_do_no_harm(folder: Path, weight: str) -> None:
    edit_weights(folder, lambda w: w.update({weight: torch.ones(4)}))
    check_weights(str(folder))
    load_model(str(folder), device=CPU)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"\xff" * 8 + b[8:], lambda b: b""])
def test_damaged_safetensors_are_refused(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(CurateError, match=r"the weights of .*tiny are damaged"):
        load_model(str(folder), device=CPU)


def test_pickle_weights_are_never_opened(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CurateError, match=r"no safetensors weights; pickle weights .* are refused"):
        load_model(str(folder), device=CPU)


@pytest.mark.parametrize("model_type", ["llama_of_mine", "llama"])
def test_code_that_comes_with_a_model_never_runs(folder: Path, model_type: str, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    (folder / "code.py").write_text(f"open({str(marker)!r}, 'w')")
    auto_map = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    edit_config(folder, model_type=model_type, auto_map=auto_map)
    if model_type == "llama":  # the library's own class is used
        assert type(load_model(str(folder), device=CPU)) is LlamaForCausalLM
    else:
        with pytest.raises(CurateError, match="brings its own Python code, which is not run: read it"):
            load_model(str(folder), device=CPU)
    assert not marker.exists()


def test_code_that_comes_with_a_tokenizer_never_runs(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    (folder / "code.py").write_text(f"open({str(marker)!r}, 'w')")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"auto_map": {"AutoTokenizer": ["code.Tokenizer", None]}, "tokenizer_class": "Tokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(CurateError, match="brings its own Python code, which is not run: read it"):
        load_tokenizer(str(folder))
    assert not marker.exists()


def test_an_unknown_architecture_is_refused(folder: Path) -> None:
    edit_config(folder, model_type="llama_of_mine")
    with pytest.raises(CurateError, match=r"cannot load .*llama_of_mine.* does not recognize this architecture"):
        load_model(str(folder), device=CPU)


def test_an_encoder_is_refused_because_it_sees_later_tokens(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    )
    BertForMaskedLM(config).save_pretrained(tmp_path)
    with pytest.raises(CurateError, match=r"BertLMHeadModel\) is not a causal .* depend on later tokens"):
        load_model(str(tmp_path), device=CPU)


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    T5ForConditionalGeneration(T5Config(vocab_size=64, d_model=32, num_layers=1, num_heads=2, d_ff=32)).save_pretrained(
        tmp_path
    )
    with pytest.raises(CurateError, match="expected a decoder-only language model, got the encoder-decoder t5"):
        load_model(str(tmp_path), device=CPU)


def test_attention_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(
        CurateError, match=r'cannot load .*tiny: .*attn_implementation="bogus"` is not supported.*eager'
    ):
        load_model(str(folder), attention="bogus", device=CPU)
    if importlib.util.find_spec("flash_attn") is None:
        with pytest.raises(CurateError, match=r"cannot load .*tiny: .*FlashAttention2 .* installed"):
            load_model(str(folder), attention="flash_attention_2", device=CPU)


@pytest.mark.parametrize("load", [load_model, load_config, load_tokenizer, weight_fingerprint, tokenizer_fingerprint])
def test_names_that_lead_nowhere_say_what_to_do(load: Callable[[str], object], folder: Path) -> None:
    with pytest.raises(CurateError, match=r"no model folder .*tinny; did you mean .*tiny\?"):
        load(str(folder.with_name("tinny")))
    with pytest.raises(CurateError, match=r"expected a model's folder, got the file .*config\.json; give the .*tiny"):
        load(str(folder / "config.json"))
    with pytest.raises(CurateError, match=r"nobody/nothing .*cannot be had from the Hugging Face hub.*give its folder"):
        load("nobody/nothing")
    with pytest.raises(CurateError, match="expected a hub id or a local folder as the model's name, got nothing"):
        load("")


def test_a_folder_without_what_is_needed_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0", "added_tokens": [], "model": {"type": "Future"}}')
    with pytest.raises(CurateError, match=r"cannot load .*tiny"):
        load_tokenizer(str(folder))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CurateError, match=r"tiny has no tokenizer: expected tokenizer\.json in it"):
        load_tokenizer(str(folder))
    (folder / "config.json").write_text("{oops")
    with pytest.raises(CurateError, match="not a valid JSON file"):
        load_model(str(folder), device=CPU)


def test_a_tokenizer_is_fast_and_knows_where_tokens_end(folder: Path) -> None:
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer.is_fast
    assert tokenizer("w3", return_offsets_mapping=True)["offset_mapping"] == [(0, 2)]


def test_a_home_folder_is_understood(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_config("~/tiny").model_type == "llama"


def test_one_changed_byte_changes_the_fingerprint_of_a_small_model(folder: Path) -> None:
    file = folder / "model.safetensors"
    content = file.read_bytes()
    seen = {weight_fingerprint(str(folder))}
    places = (8, 20, len(content) // 3, len(content) - 1)
    for place in places:
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        seen.add(weight_fingerprint(str(folder)))
    file.write_bytes(content)
    edit_config(folder, rms_norm_eps=1e-3)
    seen.add(weight_fingerprint(str(folder)))
    assert len(seen) == len(places) + 2


def test_a_large_file_is_sampled_at_its_header_start_middle_and_end(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    header, size = (3 << 20).to_bytes(8, "little"), 100 << 20
    original = None
    changed = {}
    for place in (None, 9, (3 << 20) + 7, (3 << 20) + 100, size // 2 + 5, size - 1, 30 << 20):
        with file.open("wb") as stream:
            stream.write(header)
            stream.truncate(size)
            if place is not None:
                stream.seek(place)
                stream.write(b"x")
        fingerprint = weight_fingerprint(str(tmp_path))
        original = original or fingerprint
        changed[place] = fingerprint != original
    assert changed == {place: place not in (None, 30 << 20) for place in changed}  # 30 MiB: outside the samples


def test_weights_and_tokenizer_have_fingerprints_of_their_own(folder: Path) -> None:
    weights, tokenizer = weight_fingerprint(str(folder)), tokenizer_fingerprint(str(folder))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert weight_fingerprint(str(folder)) == weights
    assert tokenizer_fingerprint(str(folder)) != tokenizer


def test_a_copied_folder_keeps_its_fingerprint(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for file in sorted(folder.iterdir(), reverse=True):
        (copy / file.name).write_bytes(file.read_bytes())
    assert weight_fingerprint(str(copy)) == weight_fingerprint(str(folder))
    assert tokenizer_fingerprint(str(copy)) == tokenizer_fingerprint(str(folder))


@pytest.mark.parametrize(("name", "parameters", "layers"), [("stories260K", 260_032, 5), ("base-7m", 7_377_152, 8)])
def test_real_models_load(name: str, parameters: int, layers: int) -> None:
    folder = str(real(f"models/{name}"))
    model = load_model(folder, device=CPU)
    assert (model.num_parameters(), text_config(model).num_hidden_layers) == (parameters, layers)
    tokenizer = load_tokenizer(folder)
    assert max(tokenizer("Once upon a time")["input_ids"]) < model.config.vocab_size
