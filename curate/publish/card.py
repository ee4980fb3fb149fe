"""What stands beside kept records for the next program: a data card, and settings for three training programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from curate.config import Data
from curate.read.examples import input_format, key_of, to_example
from curate.read.files import Source, load_hub, open_source, read_records
from curate.tokens import prompts
from curate.types import Example, Format, Record

_COLUMNS: dict[Format, dict[str, tuple[str, ...]]] = {  # LLaMA-Factory's name of a column: ours, the first there is
    "alpaca": {
        "prompt": ("instruction",),
        "query": ("input",),
        "response": ("output", "response"),
        "system": ("system",),
        "history": ("history",),
    },
    "prompt_completion": {"prompt": ("prompt",), "response": ("completion", "response")},
    "messages": {"messages": ("messages",), "tools": ("tools",)},
    "sharegpt": {"messages": ("conversations",), "system": ("system",), "tools": ("tools",)},
}
_USUAL: dict[Format, set[str]] = {  # what other programs expect these to be called
    "alpaca": {"instruction", "output"},
    "prompt_completion": {"prompt", "completion"},
    "messages": {"messages"},
    "sharegpt": {"conversations"},
}
_USES = (
    "`datasets.load_dataset` reads this folder; `dataset_info.json` is for LLaMA-Factory, `axolotl.yaml` and "
    "`trl.yaml` for the programs of these names (set what else you like)."
)
_LORA = {"learning_rate": 2e-4, "lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "output_dir": "adapter"}


@dataclass(frozen=True, slots=True)
class _Set:
    """A file of records as other programs see it.

    keys    our name: the key that occurs in the records
    roles   words for roles that occur, of conversations
    usual   axolotl reads it as it is: the usual keys only, and every message is plain text
    single  every record is one user turn and one assistant turn
    """

    file: str
    format: Format
    keys: Mapping[str, str]
    roles: frozenset[str]
    usual: bool
    single: bool
    count: int


def write_card(kept: Path, source: Source, data: Data, *, name: str, model: str, about: str = "") -> None:
    """Write README.md, dataset_info.json, axolotl.yaml and trl.yaml beside the file of kept records.

    README.md is a data card with `configs:` (so `datasets.load_dataset(folder)` gives the kept records) and the
    source's licence, `unknown` where neither a source folder's README.md nor the hub names one. Where TRL cannot read
    the records as they are (it knows neither Alpaca nor ShareGPT), a copy that it reads is written too:
    train.prompt_completion.jsonl (text, in the Alpaca template) or, for longer conversations, train.messages.jsonl.
    No file names a place on this machine.

    Args:
        kept: what `write_kept` returned.
        source: the input it came from.
        data: the settings the input was read with.
        name: the selection's name; the data set is called curate_NAME.
        model: the base model to put into the settings; of a local folder only the last part is used.
        about: Markdown for the data card: how the records were chosen.
    """
    records = _describe(kept, input_format(data, source), data)
    readable = records.usual and records.format in ("messages", "prompt_completion")
    copy = records if readable else _write_copy(kept, records, data)
    base = Path(model).name if Path(model).is_absolute() or Path(model).exists() else model
    axolotl = _axolotl(records if records.usual else copy)
    info = {f"curate_{name}": _llama_factory(copy if records.format == "messages" else records)}
    files = {
        "dataset_info.json": json.dumps(info, indent=2, ensure_ascii=False) + "\n",
        "axolotl.yaml": "# axolotl train axolotl.yaml, in this folder\n" + _yaml({"base_model": base} | axolotl),
        "trl.yaml": "# trl sft --config trl.yaml, in this folder\n" + _yaml({"model_name_or_path": base} | _trl(copy)),
        "README.md": _readme(records, name, _licence(source), about),
    }
    for file, text in files.items():
        (kept.parent / file).write_text(text, encoding="utf-8")


def _describe(kept: Path, format: Format, data: Data) -> _Set:
    keys: dict[str, str] = {}
    roles: set[str] = set()
    usual, single, count = True, True, 0
    for record, example in _examples(kept, format, data):
        fields = record.fields
        assert fields is not None, "a bad record is never kept"
        for name in (name for names in _COLUMNS[format].values() for name in names):
            key = key_of(name, fields, data.columns)
            keys |= {} if key is None else {name: key}
        messages = fields[keys["conversations" if format == "sharegpt" else "messages"]] if _is_chat(format) else []
        roles |= {message["from" if format == "sharegpt" else "role"] for message in messages}
        usual = usual and not any(isinstance(message.get("content"), list) for message in messages)
        single = single and [turn.role for turn in example.turns] == ["user", "assistant"]
        count += 1
    renamed = not _USUAL[format] <= keys.keys() or any(name != key for name, key in keys.items())
    usual = usual and not renamed and not keys.keys() & {"system", "history"}
    return _Set(kept.name, format, keys, frozenset(roles), usual, single, count)


def _examples(kept: Path, format: Format, data: Data) -> Iterator[tuple[Record, Example]]:
    own = data.model_copy(update={"path": str(kept), "limit": None, "max_record_bytes": sys.maxsize})
    for record in read_records(open_source(own), own):
        yield record, to_example(record, format, data.columns)


def _write_copy(kept: Path, records: _Set, data: Data) -> _Set:
    format: Format = "prompt_completion" if records.single and not _is_chat(records.format) else "messages"
    path = kept.parent / f"train.{format}.jsonl"
    with path.open("w", encoding="utf-8") as out:
        for _, example in _examples(kept, records.format, data):
            fields = _as_text(example, records.format) if format == "prompt_completion" else _as_messages(example)
            out.write(json.dumps(fields, ensure_ascii=False) + "\n")
    names = ("prompt", "completion") if format == "prompt_completion" else ("messages", "tools")
    keys = {name: name for name in names if name != "tools" or name in records.keys}
    return _Set(path.name, format, keys, frozenset({"user", "tool"}), True, records.single, records.count)


def _as_text(example: Example, format: Format) -> dict[str, str]:
    prompt, completion = (turn.content for turn in example.turns)
    if format == "alpaca":
        rendered = prompts.alpaca(example)
        assert rendered is not None, "a user and an assistant turn, without tools"
        prompt = rendered.text[: rendered.responses[0].start]
    return {"prompt": prompt, "completion": completion}


def _as_messages(example: Example) -> dict[str, Any]:
    """OpenAI messages; tools as JSON text, since Arrow would fill the keys that one tool has into all others."""
    messages = [
        {"role": turn.role, "content": "\n\n".join(part for part in (turn.content, turn.input) if part), **turn.extra}
        for turn in example.turns
    ]
    return {"messages": messages} | ({"tools": json.dumps(example.tools)} if example.tools else {})


def _is_chat(format: Format) -> bool:
    return format in ("messages", "sharegpt")


def _llama_factory(records: _Set) -> dict[str, Any]:
    columns = {
        theirs: next((records.keys[name] for name in names if name in records.keys), None)
        for theirs, names in _COLUMNS[records.format].items()
    }
    entry: dict[str, Any] = {
        "file_name": records.file,
        "formatting": "sharegpt" if _is_chat(records.format) else "alpaca",
        "columns": {theirs: key for theirs, key in columns.items() if key is not None},
    }
    if _is_chat(records.format):
        openai = records.format == "messages"
        entry["tags"] = {
            "role_tag": "role" if openai else "from",
            "content_tag": "content" if openai else "value",
            "user_tag": "human" if "human" in records.roles else "user",
            "assistant_tag": "gpt" if "gpt" in records.roles else "assistant",
            "observation_tag": "tool" if "tool" in records.roles else "observation",
            "system_tag": "system",
        }
    return entry


def _axolotl(records: _Set) -> dict[str, Any]:
    types: dict[Format, dict[str, Any]] = {
        "alpaca": {"type": "alpaca"},
        "messages": {"type": "chat_template", "field_messages": "messages"},
        "sharegpt": {
            "type": "chat_template",
            "field_messages": "conversations",
            "message_property_mappings": {"role": "from", "content": "value"},
            "roles": {
                "system": ["system"],
                "user": ["human", "user"],
                "assistant": ["gpt", "assistant", "function_call"],
                "tool": ["tool", "observation"],
            },
        },
        "prompt_completion": {
            "type": {
                "system_prompt": "",
                "field_instruction": "prompt",
                "field_output": "completion",
                "format": "{instruction}",
                "no_input_format": "{instruction}",
            }
        },
    }
    return {
        "datasets": [{"path": records.file, "ds_type": _builder(records.file)} | types[records.format]],
        "adapter": "lora",
        "lora_target_linear": True,
        "sequence_len": 2048,
        "micro_batch_size": 4,
        "gradient_accumulation_steps": 4,
        "num_epochs": 3,
        **_LORA,
    }


def _trl(records: _Set) -> dict[str, Any]:
    settings = {
        "datasets": [{"path": _builder(records.file), "data_files": records.file, "split": "train"}],
        "use_peft": True,
        "lora_target_modules": "all-linear",
        "max_length": 2048,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 4,
        "num_train_epochs": 3,
        "report_to": "none",
        **_LORA,
    }
    return settings | ({"assistant_only_loss": True} if records.format == "messages" else {})


def _builder(file: str) -> str:
    """The name under which `datasets` reads such a file."""
    return {".csv": "csv", ".parquet": "parquet"}.get(Path(file).suffix, "json")


def _readme(records: _Set, name: str, licence: str, about: str) -> str:
    files = [{"split": "train", "path": records.file}]
    head = _yaml({"license": licence, "configs": [{"config_name": "default", "data_files": files}]})
    text = f"{records.count:,} records ({records.format}), chosen by curate and left as they came in."
    return f"---\n{head}---\n\n# {name}\n\n{text} {_USES}\n" + (f"\n{about.strip()}\n" if about.strip() else "")


def _licence(source: Source) -> str:
    """The licence that a source folder's data card or the hub states, else "unknown"."""
    if source.kind == "hub":
        return str(load_hub(source).info.license or "unknown")
    card = Path(source.path) / "README.md"
    if source.kind != "folder" or not card.is_file():
        return "unknown"
    head = card.read_text(encoding="utf-8", errors="replace").split("---\n", 2)
    try:
        facts = yaml.safe_load(head[1]) if len(head) == 3 and not head[0].strip() else None
    except yaml.YAMLError:
        return "unknown"
    return str((facts.get("license") if isinstance(facts, dict) else None) or "unknown")


def _yaml(settings: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
