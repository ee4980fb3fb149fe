"""What results depend on, by name: the settings that a change of is refused or rebuilt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curate.config import Recipe
from curate.runs import Key, RunFolder


def settled(folder: RunFolder) -> Mapping[str, Any]:
    """What this run settled before; empty in a new folder."""
    for candidate in (folder.work / "scores", folder.work / "tokens"):
        if (candidate / "key.json").exists():
            return read_key(candidate)
    stage = folder.stage("scores")
    return stage["key"] if stage else {}


def settings(recipe: Recipe) -> dict[str, Any]:
    """The settings that decide which tokens there are and which of them are scored."""
    data, prompt = recipe.data, recipe.prompt
    return {
        "data.split": data.split,
        "data.format": data.format,
        "data.columns": dict(sorted(data.columns.items())),
        "data.limit": data.limit,
        "data.on_error": data.on_error,
        "data.max_record_bytes": data.max_record_bytes,
        "prompt.template": prompt.template,
        "prompt.system": prompt.system,
        "prompt.max_length": prompt.max_length,
        "prompt.too_long": prompt.too_long,
        "model.allow_tokens": sorted(recipe.model.allow_tokens),
    }


def read_key(folder: Path) -> Key:
    """The key stored beside unfinished work."""
    key: Key = json.loads((folder / "key.json").read_text(encoding="utf-8"))
    return key
