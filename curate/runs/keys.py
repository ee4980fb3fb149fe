"""Keys: what the result of a stage depends on, as JSON values by name. A stage with an equal key is not repeated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Key = Mapping[str, Any]
"""What the result of a stage depends on, by name: {"data": its SHA-256, "prompt.template": "chat", ...}."""


def fingerprint(key: Key) -> str:
    """Return the SHA-256 (hex) of a key. The order of its names does not matter.

    >>> fingerprint({"data": 1, "seed": 0}) == fingerprint({"seed": 0, "data": 1})
    True
    """
    return hashlib.sha256(json.dumps(key, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def changed_names(old: Key, new: Key) -> list[str]:
    """Return the names whose values differ between two keys, sorted.

    >>> changed_names({"prompt.template": "alpaca", "data": 1}, {"prompt.template": "chat", "data": 1})
    ['prompt.template']
    """
    return sorted(name for name in {*old, *new} if old.get(name) != new.get(name))


def read_key(folder: Path) -> Key | None:
    """Return the key stored as key.json in a folder of unfinished work; None if it is missing or damaged.

    Unfinished work (chunks of scores, checkpoints) may be continued only with the key that it was begun with. Work
    without a readable key is therefore started again.
    """
    try:
        key = json.loads((folder / "key.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return key if isinstance(key, dict) else None
