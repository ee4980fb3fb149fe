"""How a base model is named in what is published."""

from __future__ import annotations

from pathlib import Path


def published_name(name: str) -> str:
    """Return a hub id as it is; of a local folder a name that begins with a dot, and holds no absolute path.

    That is the path from the working directory where the folder lies below it, else only its last part. A bare name
    would fetch whatever the hub has under it; one with a dot is refused until somebody writes the right path there.

    >>> published_name("Qwen/Qwen2.5-0.5B")
    'Qwen/Qwen2.5-0.5B'
    """
    if not Path(name).is_dir():
        return name
    path, here = Path(name).resolve(), Path.cwd().resolve()
    return f"./{path.relative_to(here) if path.is_relative_to(here) else path.name}"
