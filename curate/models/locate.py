"""Finds where a model is: a folder, a .gguf file, or a name on the hub."""

from __future__ import annotations

import difflib
import stat
from dataclasses import dataclass
from pathlib import Path

from curate.types import CurateError


@dataclass(frozen=True, slots=True)
class Location:
    """Where a model is.

    name    as the person wrote it
    folder  the local folder, or None for a name on the hub
    gguf    the GGUF file in it that is the model, else None
    """

    name: str
    folder: Path | None = None
    gguf: Path | None = None

    @property
    def source(self) -> str:
        """The first argument for `from_pretrained`."""
        return str(self.folder) if self.folder else self.name

    @property
    def options(self) -> dict[str, str]:
        """Further arguments for `from_pretrained`.

        The path of a GGUF file is absolute: transformers looks for a relative one in the working folder first.
        """
        return {"gguf_file": str(self.gguf.absolute())} if self.gguf else {}


def locate(name: str) -> Location:
    """Return where a model is: a local folder or .gguf file if it exists (~ is expanded), else a name on the hub.

    If the only weights in a folder are one .gguf file, that file is the model.

    Raises:
        CurateError: the name is empty, a file of another kind, a folder of several GGUF files, or a name that can only
            be a local path and does not exist.
    """
    if not name:
        raise CurateError("expected a hub id or a local folder as the model's name, got nothing")
    path = expand_home(name)
    kind = kind_of(path)
    if kind == "folder":
        return Location(name, path, _only_gguf(path, name))
    is_gguf = path.suffix.lower() == ".gguf"
    if kind == "file":
        if not is_gguf:
            raise CurateError(f"expected a model's folder, got the file {name}; {_instead_of(path)}")
        _refuse_split_gguf(path)
        return Location(name, path.parent, path)
    if is_gguf:
        raise CurateError(f"no GGUF file {name}{did_you_mean(path)}")
    # A hub id is NAME or OWNER/NAME: anything else was meant as a path.
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise CurateError(f"no model folder {name}{did_you_mean(path)}")
    return Location(name)


def _instead_of(file: Path) -> str:
    """Say what to give in place of a file: the model's folder, if it lies in one."""
    folder = file.absolute().parent
    if kind_of(folder / "config.json"):
        return f"give the folder that it lies in, {file.parent if file.parent != Path() else folder}"
    return (
        "no config.json lies beside it: expected a folder with config.json, tokenizer.json and safetensors, as "
        "save_pretrained writes it, or a .gguf file"
    )


def expand_home(name: str) -> Path:
    """Return a path with ~ expanded.

    Raises:
        CurateError: ~ is followed by a name that no user has.
    """
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise CurateError(f"{name}: {error}") from error


def kind_of(path: Path) -> str | None:
    """Say what a path leads to: "folder", "file", or None for nothing.

    Raises:
        CurateError: the folder above it may not be entered; it is a pipe, a socket or a device, of which a read may
            never end.
    """
    try:
        mode = path.stat().st_mode
    except PermissionError as error:
        raise CurateError(f"no permission to look at {path}") from error
    except (OSError, ValueError):  # too long for a path, or with a NUL: there is no such file
        return None
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise CurateError(f"{path} is a pipe, a socket or a device: expected a file or a folder")
    return "folder" if stat.S_ISDIR(mode) else "file"


def did_you_mean(path: Path) -> str:
    """Return "; did you mean ...?" for the most similar name in the same folder, to end a message with, or ""."""
    wanted = path.suffix.lower() == ".gguf"
    try:
        found = [p.name for p in path.parent.iterdir() if (p.suffix.lower() == ".gguf" if wanted else p.is_dir())]
    except (OSError, ValueError):
        return ""
    near = difflib.get_close_matches(path.name, found, n=1, cutoff=0.5)
    return f"; did you mean {path.parent / near[0]}?" if near else ""


def _only_gguf(folder: Path, name: str) -> Path | None:
    """Return the one .gguf file of a folder without safetensors; None if there is none; refuse several."""
    if any(folder.glob("*.safetensors")) or kind_of(folder / "model.safetensors.index.json"):
        return None
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() == ".gguf")
    if len(files) > 1 and not all("-of-" in path.name for path in files):
        raise CurateError(f"{name} holds {len(files)} GGUF files: give one of them, e.g. {files[0]}")
    for path in files:
        _refuse_split_gguf(path)
    return files[0] if files else None


def _refuse_split_gguf(path: Path) -> None:
    # transformers reads one GGUF file only: the layers of the other parts would be missing.
    if "-of-" in path.stem and path.stem.rpartition("-of-")[2].isdigit():
        raise CurateError(f"{path} is a part of a split GGUF file: join the parts with llama-gguf-split --merge first")
