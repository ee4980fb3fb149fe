"""GGUF files: read, told apart, and scored as the safetensors model that they were made from."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import NUM_LAYERS, VOCABULARY, alpaca_records, write_json_array

from curate.config import load_recipe
from curate.models.fingerprint import tokenizer_fingerprint, weight_fingerprint
from curate.models.gguf import BLOCKS, read_gguf_header
from curate.models.load import load_config, load_model, load_tokenizer
from curate.models.locate import locate
from curate.models.precheck import check_weights
from curate.models.weights import weight_facts
from curate.pipeline import perform
from curate.tables.score_columns import read_column
from curate.types import CurateError

CPU = torch.device("cpu")
_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_LAYER_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf(model: Any, vocabulary: dict[str, Any], path: Path) -> None:
    """Write a Llama in float32 as llama.cpp's converter does: its names, and rotary pairs side by side in q and k."""
    gguf = pytest.importorskip("gguf", reason="the extra `gguf` is not installed")
    config, writer = model.config, gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    tokens = sorted(vocabulary["vocab"], key=vocabulary["vocab"].get)
    tokens += [f"<unused{i}>" for i in range(config.vocab_size - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in ("<s>", "</s>") else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in vocabulary["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for key, weight in model.state_dict().items():
        stem, array = key.removesuffix(".weight"), weight.numpy()
        if stem in _NAMES:
            name = _NAMES[stem]
        else:
            _, _, layer, rest = stem.split(".", 3)
            part = _LAYER_NAMES[rest]
            name = f"blk.{layer}.{part}"
            if part in heads:
                halves = array.reshape(heads[part], 2, array.shape[0] // heads[part] // 2, array.shape[1])
                array = halves.swapaxes(1, 2).reshape(array.shape)
        writer.add_tensor(f"{name}.weight", np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def written(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four-layer Llama as one GGUF file."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    vocabulary = json.loads((llama / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    write_gguf(load_model(str(llama), device=CPU), vocabulary, path)
    return path


@pytest.fixture
def file(written: Path, tmp_path: Path) -> Path:
    """A copy of that file in a folder of its own."""
    (tmp_path / "folder").mkdir()
    return Path(shutil.copy(written, tmp_path / "folder"))


def test_it_is_loaded_as_the_model_it_was_made_from(
    written: Path, llama: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = load_model(str(written), device=CPU)
    assert capfd.readouterr() == ("", "")
    assert not getattr(model, "is_quantized", False)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.equal(model(ids).logits, load_model(str(llama), device=CPU)(ids).logits)
    text = "Write a short poem é about seven trees?"
    assert load_tokenizer(str(written))(text)["input_ids"] == load_tokenizer(str(llama))(text)["input_ids"]


def test_it_is_scored_as_the_model_it_was_made_from(written: Path, llama: Path, tmp_path: Path) -> None:
    data = write_json_array(tmp_path / "alpaca.json", alpaca_records(20))
    columns = []
    for name in (written, llama):
        run = tmp_path / f"run-{name.stem}"
        perform("score", load_recipe(None, [f"data.path={data}", f"model.name={name}", f"run.dir={run}"]))
        columns.append(read_column(run / "scores.parquet", "complexity"))
    assert np.isfinite(columns[0]).sum() > 15
    np.testing.assert_array_equal(*columns)


def test_a_folder_with_nothing_but_one_is_that_file(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert locate(str(file.parent)).gguf == file
    assert weight_fingerprint(str(file.parent)) == weight_fingerprint(str(file))
    assert load_config(str(file.parent)).num_hidden_layers == NUM_LAYERS
    monkeypatch.chdir(tmp_path)  # a file of the same name here must not be taken for it
    (tmp_path / file.name).write_bytes(b"GGUF")
    assert load_config(f"folder/{file.name}").num_hidden_layers == NUM_LAYERS
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_config(f"~/folder/{file.name}").num_hidden_layers == NUM_LAYERS


def test_its_header_tells_what_safetensors_tell(file: Path, llama: Path) -> None:
    ours, theirs = check_weights(str(file)), check_weights(str(llama))
    assert (ours.parameters, ours.embedding_rows, ours.num_layers) == (theirs.parameters, VOCABULARY, NUM_LAYERS)
    assert ours.bytes == file.stat().st_size
    assert read_gguf_header(file).number("block_count") == NUM_LAYERS


def test_the_header_is_read_as_the_library_reads_it(file: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="the extra `gguf` is not installed")
    theirs, ours = gguf.GGUFReader(file), read_gguf_header(file)
    assert ours.shapes == {tensor.name: tuple(int(n) for n in tensor.shape[::-1]) for tensor in theirs.tensors}
    fields = {name for name in theirs.fields if not name.startswith("GGUF.")}
    assert ours.values.keys() == fields
    assert ours.values["general.architecture"] == "llama"


def test_sizes_of_blocks_are_those_of_the_library() -> None:
    gguf = pytest.importorskip("gguf", reason="the extra `gguf` is not installed")
    theirs = {int(form): tuple(size) for form, size in gguf.GGML_QUANT_SIZES.items()}
    assert {form: size for form, size in theirs.items() if form in BLOCKS} == BLOCKS


def test_one_changed_byte_changes_both_fingerprints(file: Path) -> None:
    before = weight_fingerprint(str(file)), tokenizer_fingerprint(str(file))
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert weight_fingerprint(str(file)) != before[0]
    assert tokenizer_fingerprint(str(file)) != before[1]


@pytest.mark.parametrize("name", ["tokenizer.json", "additional_chat_templates/default.jinja"])
def test_what_the_library_reads_beside_it_is_in_the_fingerprint_of_the_tokenizer(
    file: Path, llama: Path, name: str
) -> None:
    def loaded() -> Any:
        tokenizer = load_tokenizer(str(file))
        return tokenizer("é <s>")["input_ids"], tokenizer.chat_template

    before, tokenizer, weights = loaded(), tokenizer_fingerprint(str(file)), weight_fingerprint(str(file))
    beside = file.parent / name
    beside.parent.mkdir(exist_ok=True)
    beside.write_text((llama / "tokenizer.json").read_text().replace('"<s>"', '"<z>"'))
    assert loaded() != before
    assert tokenizer_fingerprint(str(file)) != tokenizer
    assert weight_fingerprint(str(file)) == weights


@pytest.mark.parametrize("length", [0, 3, 20, 100, 5_000, 20_000, -20_000, -4_200, -1])
def test_a_file_that_ends_too_early_is_refused_by_name(file: Path, length: int) -> None:
    file.write_bytes(file.read_bytes()[:length])
    for look in (weight_facts, check_weights, lambda name: load_model(name, device=CPU)):
        with pytest.raises(CurateError, match=r"tiny\.gguf") as caught:
            look(str(file))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_header_is_an_error_in_one_line(file: Path, seed: int) -> None:
    rng, content = np.random.default_rng(seed), bytearray(file.read_bytes())
    for place in rng.integers(0, 400, 8):
        content[place] = int(rng.integers(256))
    content[4:8] = struct.pack("<I", int(rng.choice([1, 2, 3, 9])))
    file.write_bytes(content)
    for look in (weight_facts, load_config, load_tokenizer, lambda name: load_model(name, device=CPU)):
        try:
            look(str(file))
        except CurateError as error:
            assert "\n" not in str(error)  # noqa: PT017 - it need not be refused, but nothing else may come


def test_what_cannot_be_one_model_is_refused(file: Path) -> None:
    with pytest.raises(CurateError, match=r"no GGUF file .*tinny\.gguf; did you mean .*tiny\.gguf\?"):
        load_config(str(file.with_name("tinny.gguf")))
    shutil.copy(file, file.with_name("other.gguf"))
    with pytest.raises(CurateError, match=r"holds 2 GGUF files: give one of them, e\.g\. .*other\.gguf"):
        load_config(str(file.parent))
    part = file.rename(file.with_name("tiny-00001-of-00002.gguf"))
    with pytest.raises(CurateError, match="is a part of a split GGUF file: join the parts"):
        load_config(str(part))


def test_it_is_not_quantised_once_more(file: Path) -> None:
    with pytest.raises(CurateError, match="is unpacked as it is loaded: expected quantization=none"):
        load_model(str(file), quantization="4bit", device=CPU)


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for load in (load_config, load_tokenizer, load_model):
        with pytest.raises(CurateError, match=r'needs the package gguf: pip install "lc-curate\[gguf\]"'):
            load(str(tmp_path / "tiny.gguf"))
