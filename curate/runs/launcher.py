"""What a launcher (`accelerate launch`, `torchrun`) says of this process, in environment variables."""

from __future__ import annotations

import os
from pathlib import Path

from curate.types import CurateError

_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")


def forget_empty() -> None:
    """Take variables that a launcher sets, and that are empty here (`WORLD_SIZE= curate ...`), for not set at all.

    The number of a process among an unknown number is left over from somewhere, and is not set either. Other libraries
    read them too, each in its own way.
    """
    for name in _VARIABLES:
        if not os.environ.get(name, "x").strip():
            del os.environ[name]
    if "WORLD_SIZE" not in os.environ:
        for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            os.environ.pop(name, None)


def is_launched() -> bool:
    """Say whether a launcher started this process, and others that it is to meet."""
    return bool(os.environ.get("MASTER_ADDR"))


def launcher_rank() -> int:
    """Return the rank that a launcher gave this process; 0 without a launcher. Known before the processes meet."""
    return number_from_launcher("RANK", 0)


def number_from_launcher(name: str, default: int) -> int:
    """Return a number that a launcher sets; `default` without a launcher.

    Raises:
        CurateError: the variable holds no number.
    """
    text = os.environ.get(name, str(default))
    if not text.isascii() or not text.isdigit():
        raise CurateError(f"expected a number in the environment variable {name}, got {text!r}; a launcher sets it")
    return int(text)


def asked_of_launcher() -> int:
    """Return how many processes `accelerate launch` was asked for, by flag or configuration file.

    It does not tell its children, so the parent's command line is read. 1 if the parent is another program.
    """
    try:
        words = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:  # not Linux
        return 1
    launchers = (i for i, word in enumerate(words[:5]) if word == "launch" or word.endswith("accelerate-launch"))
    launch = next(launchers, 0)
    if not any("accelerate" in word for word in words[1 : launch + 1]):
        return 1
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    asked = launch_command_parser().parse_args(words[launch + 1 :])
    configured = asked.config_file or (Path(default_config_file).is_file() and not asked.cpu)
    if asked.num_processes is None and configured:
        return int(load_config_from_file(asked.config_file).num_processes)
    return int(asked.num_processes or 1)
