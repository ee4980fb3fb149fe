"""Which files a model is: where it lies, what is loaded of it, what tells it from others, what is refused unread."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import NUM_LAYERS, VOCABULARY, save_llama, split_weights
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from curate.models.files import weight_files
from curate.models.fingerprint import tokenizer_fingerprint, weight_fingerprint
from curate.models.load import load_config, load_model, load_tokenizer
from curate.models.locate import locate
from curate.models.precheck import check_weights
from curate.models.weights import count_layers, embedding_rows, weight_facts
from curate.types import CurateError

CPU = torch.device("cpu")
IDS = torch.arange(12)[None]


@pytest.fixture
def folder(llama: Path, tmp_path: Path) -> Path:
    """A copy of the four-layer Llama."""
    return Path(shutil.copytree(llama, tmp_path / "tiny"))


@pytest.fixture
def sharded(folder: Path) -> Path:
    """The same in two shards with an index."""
    split_weights(folder)
    return folder


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def edit_json(path: Path, **changes: object) -> None:
    write_json(path, json.loads(path.read_text()) | changes)


def logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return load_model(str(folder), device=CPU)(IDS).logits


def move_shard(folder: Path, old: str, new: str) -> None:
    """The index names another file for all weights of a shard."""
    index = folder / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    edit_json(index, weight_map={key: new if shard == old else shard for key, shard in places.items()})


def make_adapter(base: Path, out: Path) -> Path:
    """A LoRA adapter of a model, as PEFT saves it, with weights that change what the model says."""
    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    with warnings.catch_warnings():  # PEFT 0.21 reads an attribute that transformers 5.23 renamed
        warnings.simplefilter("ignore", FutureWarning)
        get_peft_model(load_model(str(base), device=CPU), config).save_pretrained(out)
    return out


# ---------------------------------------------------------------- where it lies


def test_names_with_spaces_and_number_signs_are_names(folder: Path) -> None:
    odd = folder.rename(folder.with_name("my model #2"))
    assert locate(str(odd)).folder == odd
    assert load_config(str(odd)).num_hidden_layers == NUM_LAYERS


def test_a_home_folder_is_understood_everywhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert weight_fingerprint("~/tiny") == weight_fingerprint(str(folder))
    assert tokenizer_fingerprint("~/tiny") == tokenizer_fingerprint(str(folder))
    assert check_weights("~/tiny") == check_weights(str(folder))
    with pytest.raises(CurateError, match="nobody_at_all"):
        locate("~nobody_at_all/tiny")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "a" * 300 + "/b"])
def test_impossible_names_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(CurateError) as caught:
        load_config(name)
    assert "\n" not in str(caught.value)


def test_a_folder_that_may_not_be_entered_is_said_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(CurateError, match=r"no permission to look at .*tiny"):
        load_config(str(folder))


def test_a_file_that_may_not_be_read_is_said_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(CurateError, match=r"cannot read .*config\.json: Permission denied"):
        load_config(str(folder))
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CurateError, match=r"cannot read .*: Permission denied"):
        weight_fingerprint(str(folder))


# ---------------------------------------------------------------- what is loaded is what is fingerprinted


def test_shards_load_as_the_whole_file_does(llama: Path, sharded: Path) -> None:
    assert torch.equal(logits(sharded), logits(llama))
    assert check_weights(str(sharded)).parameters == check_weights(str(llama)).parameters


def test_every_byte_of_a_shard_and_the_index_are_in_the_fingerprint(sharded: Path) -> None:
    seen = {weight_fingerprint(str(sharded))}
    for shard in sorted(sharded.glob("*-of-*.safetensors")):
        content = shard.read_bytes()
        shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        seen.add(weight_fingerprint(str(sharded)))
    edit_json(sharded / "model.safetensors.index.json", metadata={"total_size": 2})
    seen.add(weight_fingerprint(str(sharded)))
    assert len(seen) == 4


def test_code_that_a_model_brings_is_in_the_fingerprint_wherever_it_lies(folder: Path) -> None:
    for look in (weight_fingerprint, tokenizer_fingerprint):
        before = look(str(folder))
        (folder / "parts" / ".git").mkdir(parents=True, exist_ok=True)
        (folder / "parts" / ".git" / "hook.py").write_text("1")
        assert look(str(folder)) == before
        (folder / "parts" / "layers.py").write_text("1")
        assert look(str(folder)) != before
        (folder / "parts" / "layers.py").unlink()


def test_an_index_may_name_shards_of_any_name_and_they_are_fingerprinted(sharded: Path, llama: Path) -> None:
    """Also in a folder of their own; transformers loads what the index names."""
    old = "model-00001-of-00002.safetensors"
    (sharded / "parts").mkdir()
    (sharded / old).rename(sharded / "parts" / "first.safetensors")
    move_shard(sharded, old, "parts/first.safetensors")
    assert torch.equal(logits(sharded), logits(llama))
    before = weight_fingerprint(str(sharded))
    shard = sharded / "parts" / "first.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    assert weight_fingerprint(str(sharded)) != before


ALL = [
    weight_fingerprint,
    weight_facts,
    check_weights,
    lambda name: load_model(name, device=CPU),
]


@pytest.mark.parametrize("look", ALL)
def test_an_index_that_leads_outside_or_to_a_pickle_is_refused(look: Callable[[str], object], sharded: Path) -> None:
    old = "model-00001-of-00002.safetensors"
    shutil.copy(sharded / old, sharded.parent / "outside.safetensors")
    shutil.copy(sharded / old, sharded / "pytorch_model.bin")
    for new, message in (
        ("../outside.safetensors", r"index\.json names weights outside its folder, which are not read: \.\./outside"),
        (str(sharded.parent / "outside.safetensors"), "names weights outside its folder"),
        ("a/..\\../outside.safetensors", "names weights outside its folder"),
        ("pytorch_model.bin", r"names pytorch_model\.bin, no safetensors file; pickle weights .* are refused"),
    ):
        content = (sharded / "model.safetensors.index.json").read_text()
        move_shard(sharded, old, new)
        with pytest.raises(CurateError, match=message):
            look(str(sharded))
        (sharded / "model.safetensors.index.json").write_text(content)


@pytest.mark.parametrize("look", ALL)
def test_a_missing_shard_asks_for_another_download(look: Callable[[str], object], sharded: Path) -> None:
    (sharded / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CurateError, match=r"lacks model-00002-of-00002\.safetensors, file 2 of 2 .* download it"):
        look(str(sharded))
    (sharded / "model.safetensors.index.json").unlink()
    with pytest.raises(CurateError, match=r"no model\.safetensors\.index\.json that names its shards: download"):
        look(str(sharded))
    (sharded / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(CurateError, match=r"tiny holds no weights: expected model\.safetensors .*; download it again"):
        look(str(sharded))


def test_a_weight_that_the_index_places_in_a_shard_without_it_is_missed(sharded: Path) -> None:
    index = sharded / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    edit_json(index, weight_map=places | {"model.layers.9.weight": "model-00001-of-00002.safetensors"})
    with pytest.raises(CurateError, match=r"lacks 1 weight\(s\) that .*index\.json names, model\.layers\.9\.weight"):
        check_weights(str(sharded))


def test_a_link_to_a_blob_is_followed_and_its_content_counts(folder: Path, llama: Path) -> None:
    """The hub's cache is made of links out of the folder."""
    blob = folder.parent / "blob"
    (folder / "model.safetensors").rename(blob)
    (folder / "model.safetensors").symlink_to(blob)
    assert weight_fingerprint(str(folder)) == weight_fingerprint(str(llama))
    assert torch.equal(logits(folder), logits(llama))
    blob.write_bytes(blob.read_bytes()[:-1] + b"\x01")
    assert weight_fingerprint(str(folder)) != weight_fingerprint(str(llama))
    blob.unlink()
    with pytest.raises(CurateError, match="tiny holds no weights"):
        check_weights(str(folder))


def test_safetensors_are_loaded_where_a_pickle_lies_beside_them(folder: Path, llama: Path) -> None:
    torch.save({key: 0 * w for key, w in load_file(folder / "model.safetensors").items()}, folder / "pytorch_model.bin")
    assert torch.equal(logits(folder), logits(llama))
    assert weight_fingerprint(str(folder)) == weight_fingerprint(str(llama))


def test_weights_that_the_configuration_names_are_the_ones_that_count(folder: Path, llama: Path) -> None:
    """`transformers_weights` makes the library read another file than model.safetensors."""
    weights = load_file(folder / "model.safetensors")
    changed = weights | {"lm_head.weight": 2 * weights["lm_head.weight"]}
    save_file(changed, folder / "other.safetensors", metadata={"format": "pt"})
    edit_json(folder / "config.json", transformers_weights="other.safetensors")
    assert weight_files(folder, "tiny") == [folder / "other.safetensors"]
    torch.testing.assert_close(logits(folder), 2 * logits(llama))
    edit_json(folder / "config.json", transformers_weights="../other.safetensors")
    with pytest.raises(CurateError, match=r"config\.json names weights outside its folder"):
        weight_fingerprint(str(folder))


@pytest.mark.parametrize(
    ("settings", "key", "file"),
    [
        ("config.json", "configuration_files", "config.4.0.0.json"),
        ("tokenizer_config.json", "fast_tokenizer_files", "../tokenizer.4.0.0.json"),
    ],
)
def test_settings_that_send_the_library_to_other_files_are_refused(
    folder: Path, settings: str, key: str, file: str
) -> None:
    edit_json(folder / settings, **{key: [file]})
    shutil.copy(folder / settings, folder / file)
    load = load_config if settings == "config.json" else load_tokenizer
    with pytest.raises(CurateError, match=f"{settings} names other files to be read .{key}.*remove {key}"):
        load(str(folder))


def test_a_versioned_tokenizer_is_loaded_and_fingerprinted(folder: Path) -> None:
    edit_json(folder / "tokenizer_config.json", fast_tokenizer_files=["tokenizer.4.0.0.json"])
    versioned = folder / "tokenizer.4.0.0.json"
    versioned.write_text((folder / "tokenizer.json").read_text())
    before, ids = tokenizer_fingerprint(str(folder)), load_tokenizer(str(folder))("abc")["input_ids"]
    content = json.loads(versioned.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    write_json(versioned, content)
    assert load_tokenizer(str(folder))("abc")["input_ids"] == [ids[1], ids[0], ids[2]]
    assert tokenizer_fingerprint(str(folder)) != before


def test_a_distributed_checkpoint_is_not_read_in_place_of_the_model(folder: Path) -> None:
    """transformers prefers files of such names to model.safetensors."""
    shutil.copy(folder / "model.safetensors", folder / "shard-00001-model-00001-of-00001.safetensors")
    with pytest.raises(CurateError, match="holds a distributed checkpoint"):
        load_model(str(folder), device=CPU)


# ---------------------------------------------------------------- tokenizers


def test_named_chat_templates_are_in_the_tokenizers_fingerprint(chat_llama: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(chat_llama, tmp_path / "chat"))
    seen = {tokenizer_fingerprint(str(folder))}
    (folder / "additional_chat_templates").mkdir()
    for text in ("{{ messages }}", "{{ tools }}"):
        (folder / "additional_chat_templates" / "tool_use.jinja").write_text(text)
        assert load_tokenizer(str(folder)).chat_template["tool_use"] == text
        seen.add(tokenizer_fingerprint(str(folder)))
    edit_json(folder / "tokenizer_config.json", chat_template=[{"name": "tool_use", "template": "{{ 1 }}"}])
    seen.add(tokenizer_fingerprint(str(folder)))
    edit_json(folder / "config.json", model_type="qwen2")  # by it transformers picks the class
    seen.add(tokenizer_fingerprint(str(folder)))
    assert len(seen) == 5
    (folder / "generation_config.json").write_text("{}")
    (folder / "README.md").write_text("new")
    assert tokenizer_fingerprint(str(folder)) in seen


def test_a_model_without_a_vocabulary_is_refused(folder: Path) -> None:
    """GPT-2's tokenizer loads without its files, and knows no word."""
    (folder / "tokenizer.json").unlink()
    edit_json(folder / "config.json", model_type="gpt2")
    with pytest.raises(CurateError, match=r"tiny has no tokenizer: expected tokenizer\.json"):
        load_tokenizer(str(folder))


# ---------------------------------------------------------------- adapters


def test_an_adapter_beside_the_weights_is_not_loaded_and_said(
    folder: Path, llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = make_adapter(llama, tmp_path / "adapter")
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(adapter / file, folder / file)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(logits(folder), logits(llama))
    assert "the adapter beside the weights (adapter_config.json) is not loaded" in caplog.text
    assert weight_fingerprint(str(folder)) == weight_fingerprint(str(llama))


@pytest.mark.parametrize("beside", [(), ("tokenizer.json", "tokenizer_config.json"), ("config.json", "tokenizer.json")])
def test_an_adapter_given_as_the_model_is_said_to_be_one(llama: Path, tmp_path: Path, beside: tuple[str, ...]) -> None:
    adapter = make_adapter(llama, tmp_path / "adapter")
    for file in beside:
        shutil.copy(llama / file, adapter / file)
    for look in (*ALL, load_config, load_tokenizer, tokenizer_fingerprint):
        with pytest.raises(CurateError, match=rf"adapter is an adapter of {llama}, not a model: give {llama}"):
            look(str(adapter))


# ---------------------------------------------------------------- what headers say


def test_headers_tell_parameters_rows_and_layers(llama: Path) -> None:
    facts = weight_facts(str(llama))
    assert facts.parameters == load_model(str(llama), device=CPU).num_parameters()
    assert (facts.embedding_rows, facts.num_layers) == (VOCABULARY, NUM_LAYERS) == (embedding_rows(str(llama)), 4)
    assert facts.bytes == (llama / "model.safetensors").stat().st_size


def test_more_layers_in_the_weights_than_in_the_configuration_are_refused(tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "five", hidden=16, layers=5)
    assert check_weights(str(folder)).num_layers == 5
    edit_json(folder / "config.json", num_hidden_layers=3)
    with pytest.raises(CurateError, match=r"config\.json says 3 layers, its weights hold 5: expected a config"):
        check_weights(str(folder))
    with pytest.raises(CurateError, match=r"config\.json says 3 layers, its weights hold more \(model\.layers\.3\."):
        load_model(str(folder), device=CPU)


@pytest.mark.parametrize(
    ("changes", "attention", "message"),
    [
        ({}, "bogus", r"model\.attention=bogus cannot be used for .*not supported"),
        ({"rope_parameters": {"rope_type": "bogus", "rope_theta": 1e4}}, None, r"config\.json\): KeyError: 'bogus'"),
        ({"rope_scaling": {"type": "linear", "factor": "x"}}, None, r"config\.json\): TypeError"),
        ({"hidden_act": "bogus"}, None, r"config\.json\): KeyError: 'bogus'"),
    ],
)
def test_what_no_model_can_be_built_of_is_refused_before_the_weights_are_loaded(
    llama: Path, tmp_path: Path, changes: dict[str, Any], attention: str | None, message: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(llama, folder)
    edit_json(folder / "config.json", **changes)
    with pytest.raises(CurateError, match=message):
        check_weights(str(folder), attention=attention)
    with pytest.raises(CurateError, match=r"bogus|TypeError"):
        load_model(str(folder), attention=attention, device=CPU)


@pytest.mark.parametrize(
    ("names", "layers"),
    [
        (["transformer.h.0.attn.weight", "transformer.h.11.attn.weight"], 12),
        (["blk.2.attn_q.weight"], 3),
        (["model.layers.1.mlp.experts.63.up_proj.weight"], 2),
        (["model.vision_tower.layers.40.weight", "model.language_model.layers.5.weight"], 6),
        (["mtp.layers.3.weight", "lm_head.weight"], None),
        ([], None),
    ],
)
def test_layers_are_counted_by_the_names_of_the_decoders_weights(names: list[str], layers: int | None) -> None:
    assert count_layers(names) == layers


def test_layers_that_guess_ahead_are_not_too_many(folder: Path) -> None:
    edit_json(folder / "config.json", num_hidden_layers=3, num_nextn_predict_layers=1)
    assert check_weights(str(folder)).num_layers == 4


def test_a_file_without_weights_is_no_model(folder: Path) -> None:
    save_file({}, folder / "model.safetensors")
    for look in (check_weights, weight_facts, lambda name: load_model(name, device=CPU)):
        with pytest.raises(CurateError, match="weight files hold no weights at all: download it again"):
            look(str(folder))


# ---------------------------------------------------------------- the hub


@pytest.fixture
def cached(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model as org/tiny in the hub's cache; returns the folder of its commit."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    repository, commit = tmp_path / "hub" / "models--org--tiny", "0123456789" * 4
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    return Path(shutil.copytree(folder, repository / "snapshots" / commit))


def test_a_hub_model_is_known_by_its_commit_and_its_weights_are_looked_at(cached: Path) -> None:
    assert weight_fingerprint("org/tiny") == tokenizer_fingerprint("org/tiny") == cached.name
    assert check_weights("org/tiny").num_layers == NUM_LAYERS
    (cached / "model.safetensors").write_bytes(b"half")
    with pytest.raises(CurateError, match="the weights of org/tiny are damaged"):
        check_weights("org/tiny")
    (cached / "model.safetensors").unlink()
    with pytest.raises(CurateError, match=r"org/tiny holds no weights: .*; download it again"):
        check_weights("org/tiny")


def test_an_adapter_on_the_hub_is_said_to_be_one(cached: Path) -> None:
    for file in cached.iterdir():
        file.unlink()
    write_json(cached / "adapter_config.json", {"base_model_name_or_path": "org/base"})
    with pytest.raises(CurateError, match="org/tiny is an adapter of org/base, not a model"):
        weight_fingerprint("org/tiny")
