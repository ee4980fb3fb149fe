"""Every file of a model or an embedder, damaged in every way: loaded all the same, or refused in one line."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import save_llama, small_tokenizer, split_weights

from curate.diversity.embed import load_embedder
from curate.models.embedder import check_embedder, embedder_fingerprint
from curate.models.fingerprint import tokenizer_fingerprint, weight_fingerprint
from curate.models.load import load_config, load_model, load_tokenizer
from curate.models.precheck import check_weights
from curate.models.weights import weight_facts
from curate.types import CurateError

Damage = Callable[[Path], object]

CONTENTS = {
    "empty": b"",
    "a list": b"[]",
    "a list of an object": b"[{}]",
    "null": b"null",
    "a number": b"1",
    "a text": b'"x"',
    "an object": b"{}",
    "an open brace": b"{",
    "bytes": bytes(range(256)),
    "a hundred thousand brackets": b"[" * 100_000,
}
DAMAGES: dict[str, Damage] = {
    **{name: lambda path, content=content: path.write_bytes(content) for name, content in CONTENTS.items()},
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "gone": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a link to nowhere": lambda path: (path.unlink(), path.symlink_to("nowhere")),
}
MODEL: list[Callable[[str], Any]] = [
    weight_fingerprint,
    tokenizer_fingerprint,
    load_config,
    load_tokenizer,
    weight_facts,
    check_weights,
    lambda name: load_model(name, device=torch.device("cpu")),
]
EMBEDDER: list[Callable[[str], Any]] = [
    embedder_fingerprint,
    check_embedder,
    lambda name: load_embedder(name, device="cpu"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama in two shards, with every file that a tokenizer may have."""
    folder = save_llama(
        tmp_path_factory.mktemp("models") / "llama", hidden=16, layers=2, chat_template="{{ messages }}"
    )
    split_weights(folder)
    (folder / "special_tokens_map.json").write_text('{"bos_token": "<s>"}')
    (folder / "added_tokens.json").write_text("{}")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools }}")
    return folder


@pytest.fixture(scope="module")
def dense_embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedder of three modules with files of their own: a BERT, pooling, a linear layer."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules.dense import Dense
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("embedder")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=512, **sizes)).save_pretrained(folder / "bert")
    small_tokenizer(pad_token="</s>", model_max_length=64).save_pretrained(folder / "bert")
    modules = [Transformer(str(folder / "bert")), Pooling(16), Dense(16, 8)]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "model"), create_model_card=False)
    return folder / "model"


def verdicts(folder: Path, looks: list[Callable[[str], Any]]) -> list[str | None]:
    """What each look says: None, or the one line with which it refuses. Any other error goes on up."""
    said: list[str | None] = []
    for look in looks:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what a library thinks of an odd setting
                look(str(folder))
            said.append(None)
        except CurateError as error:
            said.append(str(error))
    assert not [line for line in said if line and "\n" in line]
    return said


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_a_model_is_said_in_one_line(model: Path, tmp_path: Path, damage: str) -> None:
    files = sorted(path.relative_to(model) for path in model.rglob("*") if path.is_file())
    assert len(files) == 11
    for file in files:
        folder = Path(shutil.copytree(model, tmp_path / file.name))
        DAMAGES[damage](folder / file)
        said = verdicts(folder, MODEL)
        if file.name in ("config.json", "model.safetensors.index.json") or file.suffix == ".safetensors":
            assert said[-1], (file, "a damaged model was loaded")
        if file.name == "tokenizer.json":
            assert said[3], "a damaged tokenizer was loaded"
        if CONTENTS.get(damage, b"{}") != b"{}" and file.suffix == ".json":
            assert any(file.name in line for line in said if line), (file, said)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_an_embedder_is_said_in_one_line(dense_embedder: Path, tmp_path: Path, damage: str) -> None:
    files = sorted(path.relative_to(dense_embedder) for path in dense_embedder.rglob("*") if path.is_file())
    assert len(files) == 10
    for file in files:
        folder = Path(shutil.copytree(dense_embedder, tmp_path / "-".join(file.parts)))
        DAMAGES[damage](folder / file)
        said = verdicts(folder, EMBEDDER)
        if file.suffix == ".safetensors" or file.parts in (("config.json",), ("tokenizer.json",)):
            assert said[-1], (file, "a damaged embedder was loaded")
        if CONTENTS.get(damage, b"{}") != b"{}" and file.suffix == ".json":
            assert said[-1], (file, damage)
            assert str(file) in said[-1], (file, said[-1])


def test_odd_values_inside_a_file_are_said_in_one_line(model: Path, dense_embedder: Path, tmp_path: Path) -> None:
    tried = 0
    for source, looks in ((model, MODEL[2:]), (dense_embedder, EMBEDDER[1:])):
        folder = Path(shutil.copytree(source, tmp_path / source.name))
        for path in sorted(folder.rglob("*config*.json")):
            content = path.read_text()
            for key in json.loads(content):
                for value in (None, [], -1):
                    path.write_text(json.dumps({**json.loads(content), key: value}))
                    verdicts(folder, looks)
                    tried += 1
            path.write_text(content)
    assert tried > 150


@pytest.mark.parametrize("template", [5, True, {"a": 1}, [{"name": "default", "template": 5}], [1]])
def test_a_chat_template_that_is_no_text_is_said_in_one_line(model: Path, tmp_path: Path, template: object) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    shutil.rmtree(folder / "additional_chat_templates")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))
    with pytest.raises(CurateError, match=r"chat_template|tokenizer") as caught:
        load_tokenizer(str(folder))
    assert "\n" not in str(caught.value)
