"""Lists the files of a data set that `datasets` saved with save_to_disk, from its own description of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from curate.read.json_text import printable
from curate.read.kinds import Listing, Skipped
from curate.types import CurateError


def is_saved(folder: Path) -> bool:
    """Say whether `datasets` saved a data set in this folder: one split (Dataset) or several (DatasetDict)."""
    if (folder / "dataset_dict.json").is_file():
        return True
    # Others call files state.json too, so what else save_to_disk writes must be there.
    described = (folder / "dataset_info.json").is_file() or any(folder.glob("*.arrow"))
    return (folder / "state.json").is_file() and described


def list_saved(folder: Path, split: str) -> Listing:
    """Return the files of a saved data set in the order it says, and what is not read; of several splits, `split`.

    Raises:
        CurateError: the data set has several splits and not this one; its description is damaged or lacks a file.
    """
    return _list_split(folder, split) if (folder / "dataset_dict.json").is_file() else _list_files(folder)


def _list_split(folder: Path, split: str) -> Listing:
    """Return the files of one split of a DatasetDict, and the other splits as not read."""
    names = _read_json(folder / "dataset_dict.json").get("splits")
    # A split is a subfolder. A name with a path in it would lead out of the folder.
    if not isinstance(names, list) or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise CurateError(f"{printable(str(folder / 'dataset_dict.json'))} is damaged: expected a list of splits")
    if split not in names:
        raise CurateError(
            f"{printable(str(folder))} is a saved data set with the splits {', '.join(map(printable, names))}, got "
            f"data.split={split}"
        )
    files, skipped = _list_files(folder / split)
    others = (Skipped(printable(str(folder / name)), "another split") for name in names if name != split)
    return files, (*skipped, *others)


def _list_files(folder: Path) -> Listing:
    """Return the files that state.json names, in its order, and the other Arrow files as not read."""
    entries = _read_json(folder / "state.json").get("_data_files")
    names = [entry.get("filename") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    files = [folder / name for name in names if isinstance(name, str) and Path(name).name == name]
    if not files or len(files) < len(names):
        raise CurateError(f"{printable(str(folder / 'state.json'))} is damaged: expected the names of its files")
    missing = next((file for file in files if not file.is_file()), None)
    if missing:
        raise CurateError(f"the saved data set {printable(str(folder))} lacks its file {printable(missing.name)}")
    # `datasets` writes the caches of `map` and `filter` into the same folder; they are not among the named files.
    others = sorted(entry for entry in folder.glob("*.arrow") if entry not in files)
    return files, tuple(Skipped(printable(str(entry)), "not named by state.json") for entry in others)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise CurateError(f"a saved data set lacks {printable(str(path))}") from None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise CurateError(f"{printable(str(path))}, which a saved data set is read by, is damaged")
    return value
