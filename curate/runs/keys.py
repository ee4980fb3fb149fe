"""Keys: what the result of a stage depends on, as JSON values by name. A stage with an equal key is not repeated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curate.runs.atomic import write_json
from curate.runs.digests import digest_of_blocks

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


def write_key(folder: Path, key: Key, *, with_files: bool = False) -> None:
    """Write key.json into a folder of unfinished work.

    Args:
        folder: the folder; it is made if it is missing.
        key: what the work depends on.
        with_files: also write digests of the files that lie in the folder now, though not in folders of it. They will
            not change: if one of them is damaged or lost, the work is started again.
    """
    paths = sorted(path for path in folder.iterdir() if path.is_file()) if with_files else []
    files = {path.name: digest_of_blocks(path) for path in paths}
    write_json(folder / "key.json", {"key": dict(key), "files": files})


def read_key(folder: Path) -> Key | None:
    """Return the key of a folder of unfinished work; None if it is missing, or it or a file of `write_key` is damaged.

    Unfinished work (chunks of scores, checkpoints) may be continued only with the key that it was begun with. Work
    without a readable key is therefore started again.
    """
    try:
        stored = json.loads((folder / "key.json").read_text(encoding="utf-8"))
        key, files = stored["key"], stored["files"]
        whole = all(digest_of_blocks(folder / name) == digest for name, digest in files.items())
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return key if whole and isinstance(key, dict) else None
