"""Settings with which three training programs go on from the kept records as `curate train` would.

Each program is given the token ids and labels of curate themselves (TRL: the readable records where it makes these very
ids and labels of them), and is told how it reads the records with another model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from curate.config import Recipe
from curate.publish.agreement import messages_agree, texts_agree
from curate.publish.copies import MESSAGES, TEXTS, write_messages, write_texts
from curate.publish.records import LLAMA_FACTORY, KeptRecords
from curate.publish.texts import environment
from curate.publish.token_set import TABLE, TOKENS, Feature, write_token_set
from curate.tokens.saved import SavedTokenizer

Kind = Literal["alpaca", "messages", "sharegpt", "texts", "tokens"]


@dataclass(frozen=True, slots=True)
class TrainingFile:
    """What a training program reads: the name of a file or folder, and what is in it."""

    name: str
    kind: Kind

    @property
    def builder(self) -> str:
        """Name the part of `datasets` that reads such a file."""
        return {".csv": "csv", ".parquet": "parquet", ".tokens": "arrow"}.get(Path(self.name).suffix, "json")


def write_trainers(
    records: KeptRecords,
    recipe: Recipe,
    folder: Path,
    *,
    features: Iterable[Feature],
    tokenizer: SavedTokenizer,
) -> None:
    """Write dataset_info.json, llamafactory.yaml, axolotl.yaml and trl.yaml into `folder`.

    Beside them stands what they name: train.tokens/ (token ids and labels, as `datasets.load_from_disk` reads them),
    and train.messages.jsonl where a chat template was used, train.prompt_completion.jsonl where none was. The kept
    file itself is named without a folder: it is to stand beside them in the end. The settings are the recipe's. A hub
    model is named as the person wrote it, a local folder by its path from the kept file's folder, so that no absolute
    path is written.

    Args:
        records: what `describe_kept` returned.
        recipe: without `auto`: prompt.template, prompt.max_length and model.dtype are settled.
        folder: where to write; it holds none of these files yet.
        features: input ids and labels of each kept record, in order, as `curate train` trains on them.
        tokenizer: of the model to train.
    """
    longest = write_token_set(features, folder / TOKENS)
    readable = _readable_file(records, recipe, folder)
    files = {
        "axolotl": readable,
        "trl": _exact_file(_readable_file(records, recipe, folder, for_trl=True), records, folder, tokenizer),
    }
    texts = environment()
    assert recipe.prompt.max_length is not None, "settled before anything was tokenised"
    settings = _settings(recipe, records.path.parent) | {
        "files": files,
        "records": records,
        "tokens": TOKENS,
        "table": f"{TOKENS}/{TABLE}",
        # The end token that training adds may be one more than prompt.max_length; no program is to cut it off.
        "max_length": max(recipe.prompt.max_length, longest),
    }
    for program in ("axolotl", "trl", "llamafactory"):
        text = texts.get_template(f"{program}.yaml.jinja").render(settings)
        (folder / f"{program}.yaml").write_text(text, encoding="utf-8")
    info = {f"curate_{recipe.select.name}": _llama_factory(records, readable, folder, recipe.prompt.system)}
    text = json.dumps(info, indent=2, ensure_ascii=False) + "\n"
    (folder / "dataset_info.json").write_text(text, encoding="utf-8")


def _readable_file(records: KeptRecords, recipe: Recipe, folder: Path, *, for_trl: bool = False) -> TrainingFile:
    """The kept file if it is read as it was scored, else a copy of it, else the tokens."""
    template, system = recipe.prompt.template, recipe.prompt.system
    assert template != "auto", "settled before anything was tokenised"
    untouched = records.usual and system is None and (records.path.suffix == ".jsonl" or not for_trl)
    fitting: dict[str, Kind] = {"chat": "messages", "alpaca": "alpaca", "plain": "texts"}
    if untouched and template == "chat" and records.format == "sharegpt" and not for_trl:
        return TrainingFile(records.path.name, "sharegpt")
    own: dict[str, Kind] = {"messages": "messages", "alpaca": "alpaca", "prompt_completion": "texts"}
    if untouched and own.get(records.format) == fitting[template] and not (for_trl and template == "alpaca"):
        return TrainingFile(records.path.name, fitting[template])
    if template == "chat":
        write_messages(records, folder / MESSAGES, system=system)
        return TrainingFile(MESSAGES, "messages")
    if write_texts(records, folder / TEXTS, template=template, system=system):
        return TrainingFile(TEXTS, "texts")
    return TrainingFile(TOKENS, "tokens")  # several responses, and no chat template that could render them


def _exact_file(file: TrainingFile, records: KeptRecords, folder: Path, tokenizer: SavedTokenizer) -> TrainingFile:
    """The readable file if TRL makes the very ids and labels of it, else those."""
    checks = {"messages": messages_agree, "texts": texts_agree}
    path = records.path if file.name == records.path.name else folder / file.name
    if file.kind in checks and checks[file.kind](path, folder / TOKENS, tokenizer):
        return file
    return TrainingFile(TOKENS, "tokens")


def _settings(recipe: Recipe, folder: Path) -> dict[str, Any]:
    train, own = recipe.train, recipe.train.model is None
    model = recipe.model.name if train.model is None else train.model
    return {
        "name": recipe.select.name,
        "model": os.path.relpath(Path(model).resolve(), folder.resolve()) if Path(model).exists() else model,
        "revision": recipe.model.revision if own else train.revision,
        "dtype": recipe.model.dtype,
        "template": recipe.prompt.template,
        "train": train,
        "targets": None if train.target_modules == "all-linear" else train.target_modules,
        "accumulation": train.accumulation(),
        "seed": recipe.run.seed if train.seed is None else train.seed,
    }


def _llama_factory(records: KeptRecords, readable: TrainingFile, folder: Path, system: str | None) -> dict[str, Any]:
    """LLaMA-Factory's entry for the kept file, or for its copy as messages where it reads that one more exactly.

    It does so where a message's text is in parts, and where messages were scored that are written otherwise in the
    kept file: it would join instruction and input by one line end, and leave prompt.system out.
    """
    columns, (role, content), file = dict(LLAMA_FACTORY[records.format]), records.words, records.path.name
    keys, roles = dict(records.keys), records.roles
    in_parts = records.format == "messages" and not records.usual
    if (records.is_chat and records.odd) or (not records.tools and (in_parts or readable.name == MESSAGES)):
        write_messages(records, folder / MESSAGES, system=system)
        file, role, content, columns = MESSAGES, "role", "content", dict(LLAMA_FACTORY["messages"])
        keys = {"messages": "messages"} | ({"tools": "tools"} if records.tools else {})
        roles = frozenset({"tool"})  # the copy says user, assistant, tool, system
    found = {theirs: next((keys[n] for n in names if n in keys), None) for theirs, names in columns.items()}
    # Its reader of OpenAI messages knows tool_calls, but adds a system text to records without tools.
    openai = records.tools and role == "role"
    entry: dict[str, Any] = {
        "file_name": file,
        "formatting": ("openai" if openai else "sharegpt") if "messages" in columns else "alpaca",
        "columns": {theirs: key for theirs, key in found.items() if key is not None},
    }
    if "messages" in columns:
        entry["tags"] = {"role_tag": role, "content_tag": content} | _role_tags(roles)
    return entry


def _role_tags(roles: frozenset[str]) -> dict[str, str]:
    """What LLaMA-Factory calls a role: the word for it that occurs."""
    return {
        "user_tag": "human" if "human" in roles else "user",
        "assistant_tag": "gpt" if "gpt" in roles else "assistant",
        "observation_tag": "tool" if "tool" in roles else "observation",
        "function_tag": "function_call",
        "system_tag": "developer" if "developer" in roles else "system",
    }
