"""Keys: what a stage's result depends on, by name, and how two of them are compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Key = Mapping[str, Any]  # what a stage's result depends on, by name; plain JSON values


def fingerprint(key: Key) -> str:
    """SHA-256 (hex) of a key's canonical JSON."""
    return hashlib.sha256(json.dumps(key, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def changed_names(old: Key, new: Key) -> list[str]:
    """Names whose values differ between two keys, sorted.

    >>> changed_names({"prompt.template": "alpaca", "data": 1}, {"prompt.template": "chat", "data": 1})
    ['prompt.template']
    """
    return sorted(name for name in {*old, *new} if old.get(name) != new.get(name))


def read_key(folder: Path) -> Key | None:
    """Read the key stored beside unfinished work; None if none can be read, and so nothing can be gone on with."""
    try:
        key = json.loads((folder / "key.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return key if isinstance(key, dict) else None
