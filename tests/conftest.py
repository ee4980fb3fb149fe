"""What several test files share: tiny models built once a session, a small data set, and runs on them."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from real import USED

hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")

NUM_LAYERS = 4
VOCABULARY = 512
MAX_POSITIONS = 128
WORDS = (
    "data.path=alpaca.json",
    "model.name=llama",
    "embed.model=embedder",
    "run.dir=run",
    "score.exits=3",
    "train.max_steps=2",
    "train.rank=2",
)
_WORDS = "red blue sum name river list write count short poem tree why who seven city describe sort half word of the a"

_PREAMBLE = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
    "response that appropriately completes the request.\n\n### Instruction:\n### Input:\n\n### Response:\n"
)


def alpaca_records(count: int = 80, seed: int = 0) -> list[dict[str, str]]:
    """Alpaca records of varied length: every seventh with an input, row 5 empty, row 9 over-long, row 11 like row 4."""
    rng = random.Random(seed)
    words = _WORDS.split()

    def text(low: int, high: int) -> str:
        return " ".join(rng.choices(words, k=rng.randint(low, high)))

    records = []
    for row in range(count):
        given = text(2, 5) if row % 7 == 0 else ""
        records.append({"instruction": f"{text(2, 8)} é {row}?", "input": given, "output": text(1, 15), "skill": "x"})
    records[5]["output"] = " \n"
    records[9]["output"] = text(200, 200)
    records[11] = records[4] | {"skill": "y"}
    return records


def write_json_array(path: Path, records: Sequence[Any]) -> Path:
    """One record a line, as data sets are often laid out; text in other scripts as it is."""
    lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    return path


def small_tokenizer(**options: Any) -> Any:
    """A byte-level BPE tokenizer trained on the words of `alpaca_records`; every text is made of its tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [" ".join(record.values()) for record in alpaca_records(200, seed=1)]
    tokenizer.train_from_iterator([*texts, _PREAMBLE] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", **options)


def save_llama(folder: Path, *, hidden: int = 32, layers: int = NUM_LAYERS, chat_template: str | None = None) -> Path:
    """A random Llama of asserted size in a folder, with its tokenizer; its weights are far from their initial ones."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    vocabulary, width = VOCABULARY, 2 * hidden
    torch.manual_seed(hidden)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=MAX_POSITIONS,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config)
    # embeddings and head; per layer q and o, half as wide k and v, three of the MLP, two norms; the last norm
    per_layer = 3 * hidden * hidden + 3 * hidden * width + 2 * hidden
    assert model.num_parameters() == 2 * vocabulary * hidden + layers * per_layer + hidden
    model.save_pretrained(folder)
    tokenizer = small_tokenizer()
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)
    return folder


def split_weights(folder: Path) -> None:
    """Put the weights of a model folder into two shards with an index."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {key: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, key in enumerate(sorted(weights))}
    for shard in set(places.values()):
        part = {key: weight for key, weight in weights.items() if places[key] == shard}
        save_file(part, folder / shard, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a four-layer random Llama without a chat template."""
    return save_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def chat_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a smaller Llama with other weights and a chat template."""
    template = (
        "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
    )
    return save_llama(tmp_path_factory.mktemp("models") / "chat", hidden=16, layers=2, chat_template=template)


@pytest.fixture(scope="session")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a sentence-transformers model: a random BERT of one layer, mean pooling."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("embedder")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    BertModel(config).save_pretrained(folder / "bert")
    small_tokenizer(pad_token="</s>", model_max_length=64).save_pretrained(folder / "bert")
    body = Transformer(str(folder / "bert"))
    SentenceTransformer(modules=[body, Pooling(16)], device="cpu").save(str(folder / "model"), create_model_card=False)
    return folder / "model"


@pytest.fixture(scope="session")
def _workplace(tmp_path_factory: pytest.TempPathFactory, llama: Path, chat_llama: Path, embedder: Path) -> Path:
    """Models, data and a finished run, all under names that are relative to one folder."""
    from curate.config import load_recipe
    from curate.pipeline import perform

    folder = tmp_path_factory.mktemp("workplace")
    for name, source in {"llama": llama, "chat": chat_llama, "embedder": embedder}.items():
        shutil.copytree(source, folder / name)
    write_json_array(folder / "alpaca.json", alpaca_records())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        perform("run", load_recipe(None, WORDS))
    return folder


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _workplace: Path) -> Path:
    """The working directory: a copy of models, data and a finished run in `run`, made with WORDS."""
    folder = tmp_path / "workplace"
    shutil.copytree(_workplace, folder)
    monkeypatch.chdir(folder)
    return folder


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand what a worker of pytest-xdist counted to the process that sums up."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["real"] = sorted(USED)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Collect what a worker counted."""
    USED.update(getattr(node, "workeroutput", {}).get("real", ()))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many tests read real data or models, so that their absence does not pass for success."""
    terminalreporter.write_line(f"{len(USED)} tests read real data or models")
