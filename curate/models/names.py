"""Names base models in published files, without paths of this machine."""

from __future__ import annotations

from pathlib import Path


def published_name(name: str) -> str:
    """Return the name of a base model for publication: a hub id unchanged, a local folder as a path that starts "./".

    The path is relative to the working directory if the folder lies below it, else only the folder's own name. The dot
    matters: programs look up a bare name on the hub, and might fetch another model. A path that does not exist they
    refuse, and a person can correct it.

    >>> published_name("Qwen/Qwen2.5-0.5B")
    'Qwen/Qwen2.5-0.5B'
    """
    if not Path(name).is_dir():
        return name
    path, here = Path(name).resolve(), Path.cwd().resolve()
    return f"./{path.relative_to(here) if path.is_relative_to(here) else path.name}"
