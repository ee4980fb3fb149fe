"""What results depend on, by name: the settings that a change of is refused or rebuilt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curate.config import Recipe
from curate.run.folder import Key, RunFolder


def settled(folder: RunFolder) -> Mapping[str, Any]:
    """What this run settled before; empty in a new folder."""
    stage = folder.stage("scores")
    if stage is not None:
        return stage["key"]  # type: ignore[no-any-return]  # JSON
    return read_key(folder.work / "scores") or read_key(folder.work / "tokens") or {}


def settle(recipe: Recipe, before: Mapping[str, Any]) -> Recipe:
    """The recipe with what a run settled `before` in place of every `auto`; all of it as it is in a new run."""
    data, prompt, model = recipe.data, recipe.prompt, recipe.model
    found = {name: before.get(name) for name in ("data.format", "prompt.template", "prompt.max_length", "model.dtype")}
    if data.format == "auto" and found["data.format"]:
        data = data.model_copy(update={"format": found["data.format"]})
    if prompt.template == "auto" and found["prompt.template"]:
        prompt = prompt.model_copy(update={"template": found["prompt.template"]})
    if prompt.max_length is None:
        prompt = prompt.model_copy(update={"max_length": found["prompt.max_length"]})
    if model.dtype == "auto" and found["model.dtype"]:
        model = model.model_copy(update={"dtype": found["model.dtype"]})
    return recipe.model_copy(update={"data": data, "prompt": prompt, "model": model})


def refuse_other_data(folder: RunFolder, recipe: Recipe, data: str) -> None:
    """Refuse data, by its SHA-256, and settings other than those of the tokens and scores that are there.

    Raises:
        CurateError: naming what changed.
    """
    before = settled(folder)
    now = {"data": data, **settings(settle(recipe, before))}
    folder.require_same("scores", {name: before.get(name) for name in now}, now)


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


def read_key(folder: Path) -> Key | None:
    """The key stored beside unfinished work; None if there is none that can be read, and so nothing to go on with."""
    try:
        key = json.loads((folder / "key.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return key if isinstance(key, dict) else None
