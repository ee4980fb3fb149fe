"""What other training programs are handed: the recipe's settings, and the token ids and labels of curate itself."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import save_llama
from real import real

from curate.config import Recipe, load_recipe
from curate.publish.kept import write_kept
from curate.publish.records import KeptRecords, describe_kept
from curate.publish.token_set import Feature, read_token_set, write_token_set
from curate.publish.trainers import write_trainers
from curate.read.examples import read_examples
from curate.read.files import open_source
from curate.tokens.labels import training_labels
from curate.tokens.saved import save_tokenizer
from curate.tokens.tokenize import tokenize

ALPACA = {"instruction": "Add.", "input": "1 2", "output": "3"}
CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
MANY = [*CHAT, {"role": "user", "content": "go on"}, {"role": "assistant", "content": "no"}]
SHAREGPT = {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"x": {"type": "int"}}}}]
CALL = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": TOOLS[0]["function"]}]}
PARTS = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}, CHAT[1]]
MARKED = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}</s>"
    "{% endgeneration %}{% else %}{{ m['content'] }}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


def described(folder: Path, records: list[dict[str, Any]], recipe: Recipe) -> KeptRecords:
    """All of these records, kept."""
    source = open_source(recipe.data)
    out = folder / "run" / "selections" / "main"
    out.mkdir(parents=True)
    return describe_kept(write_kept(source, recipe.data, np.ones(len(records), bool), out), source, recipe.data)


def settled(folder: Path, records: list[dict[str, Any]], model: Path | str, *words: str, kind: str = "jsonl") -> Recipe:
    path = write_records(folder / f"in.{kind}", records)
    first = (f"data.path={path}", f"model.name={model}", "model.dtype=float32", "prompt.max_length=100")
    return load_recipe(None, [*first, *words])


def write_records(path: Path, records: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(records[0]))
            writer.writeheader()
            writer.writerows(records)
    elif path.suffix == ".json":
        path.write_text(json.dumps(records), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def trained_on(recipe: Recipe, tokenizer: Any) -> Iterator[Feature]:
    """Token ids and labels of all records, by the functions that training uses."""
    examples = read_examples(recipe.data, open_source(recipe.data))
    prompt = recipe.prompt
    assert prompt.max_length is not None
    tokens = tokenize(
        examples,
        tokenizer,
        template=prompt.template,
        system=prompt.system,
        max_length=prompt.max_length,
        too_long="trim",
    )
    for record in tokens:
        if record.status == "scored":
            yield training_labels(record, tokenizer.eos_token_id)


def handed_over(
    folder: Path, records: list[dict[str, Any]], model: Path, *words: str, kind: str = "jsonl"
) -> dict[str, Any]:
    """What stands beside the kept records in the end: {file name: its content, parsed}."""
    from transformers import AutoTokenizer

    recipe, tokenizer = settled(folder, records, model, *words, kind=kind), AutoTokenizer.from_pretrained(model)
    kept = described(folder, records, recipe)
    out = kept.path.parent
    saved = save_tokenizer(tokenizer, folder / "tokenizer", length_limit=100)
    write_trainers(kept, recipe, out, features=trained_on(recipe, tokenizer), tokenizer=saved)
    for path in out.rglob("*"):
        if path.is_file() and path != kept.path:
            assert str(folder).encode() not in path.read_bytes(), "no place on this machine"
    return dict(_parsed(out))


def _parsed(folder: Path) -> Iterator[tuple[str, Any]]:
    for path in sorted(path for path in folder.iterdir() if path.suffix in (".json", ".jsonl", ".md", ".yaml")):
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            yield path.name, [json.loads(line) for line in text.splitlines()]
        else:
            yield path.name, json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
            if path.name == "axolotl.yaml":
                yield OTHER_MODEL, yaml.safe_load(reading_records(text))


OTHER_MODEL = "axolotl.yaml for another model"


def reading_records(settings: str) -> str:
    """axolotl.yaml with the lines in force that it has for another model (the last of two equal keys holds)."""
    return re.sub(r"^# (datasets:|  .*)$", r"\1", settings, flags=re.MULTILINE)


# Settings


RECIPE = (
    "train.rank=8",
    "train.alpha=12",
    "train.dropout=0.1",
    "train.learning_rate=0.00001",
    "train.scheduler=linear",
    "train.warmup=0.1",
    "train.epochs=2",
    "train.max_steps=7",
    "train.batch_size=2",
    "train.gradient_checkpointing=true",
    "train.save_steps=3",
    "train.seed=5",
)


def test_every_program_is_given_the_settings_of_the_recipe(tmp_path: Path, llama: Path) -> None:
    files = handed_over(tmp_path, [ALPACA], llama, "prompt.template=alpaca", *RECIPE, "select.name=best")
    common = {"learning_rate": 1e-5, "lora_alpha": 12, "lora_dropout": 0.1, "max_steps": 7, "save_steps": 3, "seed": 5}
    steps = {"gradient_accumulation_steps": 8, "bf16": False, "fp16": False}
    hugging_face = {"lr_scheduler_type": "linear", "num_train_epochs": 2, "per_device_train_batch_size": 2}
    expected = {
        "trl.yaml": hugging_face
        | {"lora_r": 8, "warmup_steps": 0.1, "max_length": 100, "use_peft": True, "dtype": "float32"}
        | {"lora_target_modules": "all-linear", "gradient_checkpointing": True},
        "llamafactory.yaml": hugging_face
        | {"lora_rank": 8, "warmup_ratio": 0.1, "cutoff_len": 100, "stage": "sft", "do_train": True}
        | {"lora_target": "all", "disable_gradient_checkpointing": False, "finetuning_type": "lora"},
        "axolotl.yaml": {"lora_r": 8, "warmup_ratio": 0.1, "sequence_len": 100, "lr_scheduler": "linear"}
        | {"num_epochs": 2, "micro_batch_size": 2, "adapter": "lora", "lora_target_linear": True},
    }
    for name, settings in expected.items():
        assert {key: files[name].get(key) for key in settings | common | steps} == settings | common | steps, name


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_quantisation_and_modules_go_along(tmp_path: Path, llama: Path, bits: str) -> None:
    words = (f"train.quantization={bits}", "train.target_modules=[q_proj, v_proj]", "prompt.template=alpaca")
    files = handed_over(tmp_path, [ALPACA], llama, *words)
    trl, factory, axolotl = (files[name] for name in ("trl.yaml", "llamafactory.yaml", "axolotl.yaml"))
    assert trl[f"load_in_{bits}"] is axolotl[f"load_in_{bits}"] is True
    assert (factory["quantization_bit"], factory["quantization_method"]) == (int(bits[0]), "bnb")
    assert axolotl["adapter"] == {"4bit": "qlora", "8bit": "lora"}[bits]
    assert trl.get("bnb_4bit_quant_type") == {"4bit": "nf4", "8bit": None}[bits]
    assert trl["lora_target_modules"] == axolotl["lora_target_modules"] == ["q_proj", "v_proj"]
    assert factory["lora_target"] == "q_proj,v_proj"


def test_a_local_model_is_found_from_the_folder_and_a_hub_model_by_its_name(tmp_path: Path, llama: Path) -> None:
    names = {"trl.yaml": "model_name_or_path", "llamafactory.yaml": "model_name_or_path", "axolotl.yaml": "base_model"}
    files = handed_over(tmp_path, [ALPACA], llama, "prompt.template=alpaca")
    for file, key in names.items():
        assert not Path(files[file][key]).is_absolute()
        assert (tmp_path / "run" / "selections" / "main" / files[file][key]).resolve() == llama.resolve()
    words = ("prompt.template=alpaca", "train.model=owner/big", "train.revision=abc")
    (tmp_path / "hub").mkdir()
    files = handed_over(tmp_path / "hub", [ALPACA], llama, *words)
    assert {files[file][key] for file, key in names.items()} == {"owner/big"}
    revisions = (files["trl.yaml"], "model_revision"), (files["axolotl.yaml"], "revision_of_model")
    assert [settings[key] for settings, key in revisions] == ["abc", "abc"]


def test_what_they_train_lands_outside_of_what_is_replaced(tmp_path: Path, llama: Path) -> None:
    files = handed_over(tmp_path, [ALPACA], llama, "prompt.template=alpaca")
    run = (tmp_path / "run").resolve()
    folders = [(run / "selections/main" / files[f"{p}.yaml"]["output_dir"]).resolve() for p in PROGRAMS]
    assert folders == [run / f"trained-by-{program}" / "main" for program in PROGRAMS]


PROGRAMS = ("trl", "llamafactory", "axolotl")


def test_the_end_token_that_training_adds_is_not_cut_off(tmp_path: Path, llama: Path) -> None:
    lengths = {}
    for words in range(1, 40):
        (folder := tmp_path / str(words)).mkdir()
        files = handed_over(folder, [ALPACA | {"output": "é" * words}], llama, "prompt.template=alpaca")
        [(ids, _)] = read_token_set(folder / "run/selections/main/train.tokens")
        lengths[len(ids)] = {files["trl.yaml"]["max_length"], files["llamafactory.yaml"]["cutoff_len"]}
        assert files["axolotl.yaml"]["sequence_len"] in lengths[len(ids)]
    assert (lengths[100], lengths[101]) == ({100}, {101})


# Which file each program reads


@pytest.mark.parametrize(
    ("record", "words", "axolotl", "trl"),
    [
        (ALPACA, (), "kept.jsonl", "train.prompt_completion.jsonl"),
        (ALPACA, ("prompt.system=Be brief.",), "train.prompt_completion.jsonl", "train.prompt_completion.jsonl"),
        (ALPACA | {"history": [["a", "b"]]}, (), "train.tokens", "train.tokens"),
        ({"prompt": "a", "completion": "b"}, ("prompt.template=plain",), "kept.jsonl", "kept.jsonl"),
        ({"prompt": "a", "completion": "b"}, (), *["train.prompt_completion.jsonl"] * 2),
        ({"q": "a", "a": "b"}, ("data.columns={prompt: q, completion: a}",), *["train.prompt_completion.jsonl"] * 2),
        ({"messages": MANY}, (), "train.tokens", "train.tokens"),
    ],
)
def test_without_a_chat_template_they_read_the_text_that_was_scored(
    tmp_path: Path, llama: Path, record: dict[str, Any], words: tuple[str, ...], axolotl: str, trl: str
) -> None:
    words = ("prompt.template=alpaca", *words)
    files = handed_over(tmp_path, [record], llama, *words)
    assert files["axolotl.yaml"]["datasets"] == [{"path": "train.tokens"}]
    assert files[OTHER_MODEL]["datasets"][0]["path"] == axolotl
    file = "train.tokens/data-00000-of-00001.arrow" if trl == "train.tokens" else trl
    assert files["trl.yaml"]["datasets"][0]["data_files"] == file
    assert "assistant_only_loss" not in files["trl.yaml"]
    assert {name for name in files if name.startswith("train.")} == {axolotl, trl} - {"kept.jsonl", "train.tokens"}
    assert ("chat_template" in files[OTHER_MODEL]["datasets"][0]) is False


@pytest.mark.parametrize(
    ("record", "words", "axolotl", "copy"),
    [
        ({"messages": CHAT}, (), "kept.jsonl", None),
        ({"messages": CHAT}, ("prompt.system=Be brief.",), "train.messages.jsonl", MANY[:0]),
        (ALPACA, (), "train.messages.jsonl", [{"role": "user", "content": "Add.\n\n1 2"}]),
        (SHAREGPT, (), "kept.jsonl", CHAT[:1]),
        (SHAREGPT | {"system": "s"}, (), "train.messages.jsonl", [{"role": "system", "content": "s"}]),
        ({"messages": PARTS}, (), "train.messages.jsonl", CHAT[:1]),
    ],
)
@pytest.mark.parametrize("marked", [True, False])
def test_with_a_chat_template_they_read_messages_or_the_tokens_of_it(
    tmp_path: Path, record: dict[str, Any], words: tuple[str, ...], axolotl: str, copy: Any, marked: bool
) -> None:
    model = save_llama(
        tmp_path / "model",
        hidden=16,
        layers=1,
        chat_template=MARKED if marked else MARKED.replace("{% generation %}", "").replace("{% endgeneration %}", ""),
    )
    files = handed_over(tmp_path, [record], model, "prompt.template=chat", *words)
    assert files["axolotl.yaml"]["datasets"] == [{"path": "train.tokens"}]
    assert files[OTHER_MODEL]["datasets"][0]["path"] == axolotl
    assert files[OTHER_MODEL]["datasets"][0]["chat_template"] == "tokenizer_default"
    messages = "kept.jsonl" if copy is None else "train.messages.jsonl"
    read = files["trl.yaml"]["datasets"][0]["data_files"]
    assert read == (messages if marked else "train.tokens/data-00000-of-00001.arrow")
    assert files["trl.yaml"].get("assistant_only_loss", False) is marked
    if copy is not None:
        system = [{"role": "system", "content": "Be brief."}] if words else []
        assert files["train.messages.jsonl"][0]["messages"][: len(copy) + len(system)] == [*system, *copy]


def test_a_template_that_writes_the_date_is_handed_over_as_tokens(tmp_path: Path) -> None:
    """Its marks agree today, and tomorrow TRL would write another date."""
    model = save_llama(tmp_path / "model", hidden=16, layers=1, chat_template="{{ strftime_now('%d %B') }}" + MARKED)
    files = handed_over(tmp_path, [{"messages": CHAT}], model, "prompt.template=chat")
    assert files["trl.yaml"]["datasets"][0]["data_files"] == "train.tokens/data-00000-of-00001.arrow"


def test_the_copy_is_the_text_of_the_template(tmp_path: Path, llama: Path) -> None:
    records = [ALPACA, {"instruction": "Hi", "output": "Ho"}]
    files = handed_over(tmp_path, records, llama, "prompt.template=alpaca")
    first = (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n"
        "### Response:\n"
    )
    second = (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nHi\n\n### Response:\n"
    )
    expected = [{"prompt": first, "completion": "3"}, {"prompt": second, "completion": "Ho"}]
    assert files["train.prompt_completion.jsonl"] == expected


@pytest.mark.parametrize("text", ["a</s>b", "one two three four five " * 40], ids=["control token", "trimmed"])
def test_text_that_another_program_would_read_otherwise_is_handed_over_as_tokens(
    tmp_path: Path, llama: Path, text: str
) -> None:
    files = handed_over(tmp_path, [ALPACA, ALPACA | {"output": text}], llama, "prompt.template=alpaca")
    assert files["trl.yaml"]["datasets"][0]["path"] == "arrow"


# LLaMA-Factory's dataset_info.json


def info_of(folder: Path, record: dict[str, Any], model: Path, *words: str) -> dict[str, Any]:
    files = handed_over(folder, [record], model, "prompt.template=chat", *words)
    assert list(files["dataset_info.json"]) == ["curate_main"]
    assert files["llamafactory.yaml"]["dataset"] == "curate_main"
    entry: dict[str, Any] = files["dataset_info.json"]["curate_main"]
    assert set(entry["columns"].values()) <= files[entry["file_name"]][0].keys()
    return entry


def test_alpaca_columns_are_named(tmp_path: Path, llama: Path) -> None:
    assert info_of(tmp_path, ALPACA, llama, "prompt.template=alpaca") == {
        "file_name": "kept.jsonl",
        "formatting": "alpaca",
        "columns": {"prompt": "instruction", "query": "input", "response": "output"},
    }


@pytest.mark.parametrize(
    ("record", "words"),
    [(ALPACA, ()), ({"messages": CHAT}, ("prompt.system=Be brief.",)), (SHAREGPT, ("prompt.system=Be brief.",))],
)
def test_messages_are_named_where_messages_were_scored_that_the_kept_file_does_not_hold(
    tmp_path: Path, chat_llama: Path, record: dict[str, Any], words: tuple[str, ...]
) -> None:
    """It would join instruction and input by one line end where we have two, and leave prompt.system out."""
    entry = info_of(tmp_path, record, chat_llama, *words)
    assert (entry["file_name"], entry["formatting"]) == ("train.messages.jsonl", "sharegpt")
    assert entry["columns"] == {"messages": "messages"}
    tags = entry["tags"]
    assert [tags[f"{name}_tag"] for name in ("role", "content", "user", "assistant")] == [*CHAT[0], "user", "assistant"]


def test_tool_calls_have_a_tag_in_conversations(tmp_path: Path, chat_llama: Path) -> None:
    turns = [("human", "hi"), ("function_call", "{}"), ("observation", "2"), ("gpt", "two")]
    record = {"conversations": [{"from": a, "value": b} for a, b in turns], "tools": json.dumps(TOOLS)}
    entry = info_of(tmp_path, record, chat_llama)
    assert (entry["formatting"], entry["columns"]) == ("sharegpt", {"messages": "conversations", "tools": "tools"})
    assert entry["tags"] == {
        "role_tag": "from",
        "content_tag": "value",
        "user_tag": "human",
        "assistant_tag": "gpt",
        "observation_tag": "observation",
        "function_tag": "function_call",
        "system_tag": "system",
    }


@pytest.mark.parametrize("tools", [True, False])
def test_openai_messages_have_their_own_formatting_where_tools_are_used(
    tmp_path: Path, chat_llama: Path, tools: bool
) -> None:
    """Without tools its reader of them would add a system text of its own."""
    messages = [CHAT[0], CALL, {"role": "tool", "content": "2"}, CHAT[1]] if tools else CHAT
    entry = info_of(tmp_path, {"messages": messages} | ({"tools": TOOLS} if tools else {}), chat_llama)
    assert entry["formatting"] == ("openai" if tools else "sharegpt")
    tags = entry["tags"]
    assert (tags["role_tag"], tags["content_tag"], tags["function_tag"]) == ("role", "content", "function_call")
    assert tags["observation_tag"] == ("tool" if tools else "observation")


@pytest.mark.parametrize("spelling", ["text", "roles"])
def test_what_only_our_reader_understands_is_copied(tmp_path: Path, chat_llama: Path, spelling: str) -> None:
    talk = [{"from": "human", "value": "hi"}, {"from": "bing", "value": "hello"}]
    known = [talk[0], {"from": "gpt", "value": "hello"}]
    record = {"conversations": json.dumps(known) if spelling == "text" else talk}
    entry = info_of(tmp_path, record, chat_llama, *(["data.roles.bing=assistant"] if spelling == "roles" else []))
    assert entry["file_name"] == "train.messages.jsonl"
    assert entry["columns"] == {"messages": "messages"}
    tags = entry["tags"]
    assert [tags[f"{name}_tag"] for name in ("role", "content", "user", "assistant")] == [*CHAT[0], "user", "assistant"]


def test_every_record_of_its_own_tool_demo_has_tags_that_occur() -> None:
    path = real("data/formats/glaive_toolcall_en_demo.json")
    recipe = load_recipe(None, [f"data.path={path}"])
    records = describe_kept(path, open_source(recipe.data), recipe.data)
    assert (records.tools, records.roles) == (True, {"human", "gpt", "function_call", "observation"})


# The tokens


def test_the_token_set_is_what_datasets_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets.disable_progress_bars()
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 2**31 - 1, rng.integers(1, 9)) for _ in range(2500)]
    features = [(ids, np.where(rng.random(len(ids)) < 0.5, -100, ids)) for ids in rows]
    assert write_token_set(features, tmp_path / "set") == max(map(len, rows)) == 8
    expected = [(ids.tolist(), labels.tolist()) for ids, labels in features]
    assert list(read_token_set(tmp_path / "set")) == expected
    by_folder = datasets.load_from_disk(str(tmp_path / "set"))
    file = str(tmp_path / "set" / "data-00000-of-00001.arrow")
    by_file = datasets.load_dataset("arrow", data_files=file, split="train", cache_dir=str(tmp_path / "cache"))
    for dataset in (by_folder, by_file):
        assert [(row["input_ids"], row["labels"]) for row in dataset] == expected
        assert all(row["attention_mask"] == [1] * len(row["input_ids"]) for row in dataset)


def test_the_same_tokens_give_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write_token_set((([i, i + 1], [-100, i + 1]) for i in range(5)), tmp_path / name)
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "ab"]
    assert files[0] == files[1]
    assert len(files[0]) == 3
