"""Writes settings with which TRL, axolotl and LLaMA-Factory train on the kept records as `curate train` does.

Each settings file names the token ids and labels of curate. That of TRL names the readable records instead if TRL makes
the same ids and labels of them. Comments in the files say how to read the records with another model.
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
    """A file or folder that a training program reads: its name, and the kind of its contents."""

    name: str
    kind: Kind

    @property
    def builder(self) -> str:
        """The builder of `datasets` that reads such a file."""
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

    The data that they name is written too: train.tokens/ with token ids and labels, and where the kept file cannot be
    read as it was scored, train.messages.jsonl (chat template) or train.prompt_completion.jsonl (other templates). The
    kept file is named without a folder, since it will be moved beside them. Training settings are those of the recipe.
    A hub model is named as the person wrote it. A local model is named by its path relative to the folder of the kept
    file, so that no absolute path is written.

    Args:
        records: what `describe_kept` returned.
        recipe: a settled recipe: prompt.template, prompt.max_length and model.dtype are not `auto`.
        folder: where to write; it holds none of these files yet.
        features: input ids and labels of each kept record, in order, as `curate train` uses them.
        tokenizer: tokenizer of the model to train.
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
        # Training adds an end token, which may exceed prompt.max_length by one; no program should cut it off.
        "max_length": max(recipe.prompt.max_length, longest),
    }
    for program in ("axolotl", "trl", "llamafactory"):
        text = texts.get_template(f"{program}.yaml.jinja").render(settings)
        (folder / f"{program}.yaml").write_text(text, encoding="utf-8")
    info = {f"curate_{recipe.select.name}": _llama_factory(records, readable, folder, recipe.prompt.system)}
    text = json.dumps(info, indent=2, ensure_ascii=False) + "\n"
    (folder / "dataset_info.json").write_text(text, encoding="utf-8")


def _readable_file(records: KeptRecords, recipe: Recipe, folder: Path, *, for_trl: bool = False) -> TrainingFile:
    """Return what a program should read: the kept file if it is read as it was scored, else a copy, else the tokens.

    A copy is written to `folder`. For TRL the kept file must be .jsonl in one of TRL's own formats.
    """
    template, system = recipe.prompt.template, recipe.prompt.system
    assert template != "auto", "settled before anything was tokenised"
    # TRL does not know Alpaca's keys, and takes the roles human and gpt of ShareGPT as they are.
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
    return TrainingFile(TOKENS, "tokens")  # several responses fit into neither form without a chat template


def _exact_file(file: TrainingFile, records: KeptRecords, folder: Path, tokenizer: SavedTokenizer) -> TrainingFile:
    """Return the readable file if TRL makes exactly the ids and labels of curate of it, else the tokens."""
    checks = {"messages": messages_agree, "texts": texts_agree}
    if records.beside:  # Arrow would give every record the variables of all others, as null
        return TrainingFile(TOKENS, "tokens")
    path = records.path if file.name == records.path.name else folder / file.name
    if file.kind in checks and checks[file.kind](path, folder / TOKENS, tokenizer):
        return file
    return TrainingFile(TOKENS, "tokens")


def _settings(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Return the values of the templates that come from the recipe; `folder` is that of the kept file."""
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
    """Return the entry of dataset_info.json for the kept file, or for a copy as messages.

    The copy is used if LLaMA-Factory would read the kept file otherwise than it was scored. That is so if the text of a
    message is in parts. It is also so if the records are no messages but were scored with a chat template:
    LLaMA-Factory joins instruction and input by one line end, and leaves out prompt.system.
    """
    columns, (role, content), file = dict(LLAMA_FACTORY[records.format]), records.words, records.path.name
    keys, roles = dict(records.keys), records.roles
    in_parts = records.format == "messages" and not records.usual
    if (records.is_chat and records.odd) or (not records.tools and (in_parts or readable.name == MESSAGES)):
        write_messages(records, folder / MESSAGES, system=system)
        file, role, content, columns = MESSAGES, "role", "content", dict(LLAMA_FACTORY["messages"])
        keys = {"messages": "messages"} | ({"tools": "tools"} if records.tools else {})
        roles = frozenset({"tool"})  # the roles of the copy are user, assistant, tool and system
    found = {theirs: next((keys[n] for n in names if n in keys), None) for theirs, names in columns.items()}
    # LLaMA-Factory's reader of OpenAI messages knows tool_calls, but adds a system text to records without tools.
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
    """Return the words for the roles, by LLaMA-Factory's names for them: for each role the word that occurs."""
    return {
        "user_tag": "human" if "human" in roles else "user",
        "assistant_tag": "gpt" if "gpt" in roles else "assistant",
        "observation_tag": "tool" if "tool" in roles else "observation",
        "function_tag": "function_call",
        "system_tag": "developer" if "developer" in roles else "system",
    }
