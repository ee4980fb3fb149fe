"""Finds which files of a folder are read, which are not and why; refuses a folder that would be read only in part."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable
from pathlib import Path

from curate.read.file_names import EXTENSIONS, refuse_duplicate_files, refuse_missing_shards, refuse_mixed_splits
from curate.read.json_text import printable
from curate.read.kinds import PACKED, Listing, Skipped, is_records
from curate.read.saved import is_saved, list_saved
from curate.types import CurateError

# Files that may hold records in a form that is not read. A folder with one is refused, as part of its data would be
# left out.
_UNREADABLE = (
    *(".xlsx", ".xls", ".xlsm", ".ods", ".bz2", ".xz", ".lz4", ".br", ".zip", ".7z", ".rar", ".tar", ".tgz"),
    *(".pkl", ".pickle", ".npy", ".npz", ".h5", ".hdf5", ".orc", ".avro", ".db", ".sqlite", ".sqlite3", ".duckdb"),
    *(".xml", ".tfrecord", ".msgpack", ".mdb", ".sas7bdat", ".dta", ".rds", ".json5", ".hjson", ".pt", ".pth"),
)
# Endings that are added to the whole name of a data file, as in a.jsonl.md5: checksums, signatures, notes. No data.
_ATTACHMENTS = (
    *(".md5", ".sha1", ".sha256", ".sha512", ".crc", ".sig", ".asc", ".lock", ".idx", ".index", ".license", ".md"),
    *(".txt", ".log", ".html", ".yaml", ".yml", ".metadata"),
)
_RUN = ".curate"  # the file that `runs.folder` puts into the folder of a run
_DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json")  # `datasets` writes these beside the data


def list_folder(folder: Path, split: str) -> Listing:
    """Return the files of a folder that hold its records, sorted by name, and what is not read.

    A data set that `datasets` saved is read as its own files say: of several splits, `split`.

    Raises:
        CurateError: there is nothing to read, or a file that looks like data cannot be read; names say different
            splits, the same data is there twice, or a shard is missing; a saved data set lacks the split or a file;
            it is the folder of a run.
    """
    if (folder / _RUN).is_file():
        raise CurateError(
            f"{printable(str(folder))} is the folder of a run, not of records; what a selection kept is in "
            "selections/NAME there, as kept.json, kept.jsonl, kept.csv or kept.parquet"
        )
    if is_saved(folder):
        return list_saved(folder, split)
    files, skipped = _sort_out(sorted(folder.iterdir()))
    if not files:
        raise CurateError(f"no file to read in the folder {printable(str(folder))}{_instead(folder, skipped)}")
    refuse_mixed_splits(folder, files)
    refuse_duplicate_files(files)
    refuse_missing_shards(files)
    return files, skipped


def list_pattern(pattern: Path) -> Listing:
    """Return the files that a name with `*` stands for, sorted by name, and the rest of the folder as not read.

    Splits are not told from the names here: a pattern is how a person chooses files from a folder of several splits.

    Raises:
        CurateError: no file has such a name; one that has it cannot be read; the same data is there twice, or a shard
            is missing.
    """
    entries = sorted(pattern.parent.iterdir())
    meant = [entry for entry in entries if fnmatch.fnmatchcase(entry.name, pattern.name)]
    files, skipped = _sort_out(meant)
    if not files:
        raise CurateError(f"no file to read is called {printable(str(pattern))}")
    refuse_duplicate_files(files)
    refuse_missing_shards(files)
    others = (Skipped(printable(str(entry)), "not named by data.path") for entry in entries if entry not in meant)
    return files, (*skipped, *others)


def _sort_out(entries: Iterable[Path]) -> Listing:
    """Divide entries of a folder into files to read and entries that are not read."""
    files, skipped = [], []
    for entry in entries:
        why = _why_not(entry)
        if why:
            skipped.append(Skipped(printable(str(entry)), why))
        else:
            files.append(entry)
    return files, tuple(skipped)


def _why_not(entry: Path) -> str | None:
    """Return why an entry of a folder is not read; None if it is read.

    Raises:
        CurateError: it looks like data and cannot be read.
    """
    suffixes = [suffix.lower() for suffix in entry.suffixes]
    extension = next((suffix for suffix in reversed(suffixes[-2:]) if suffix not in PACKED), "")
    if entry.name.startswith((".", "_")):
        return "hidden"
    if entry.is_dir():
        inside = _first_inside(entry)
        return f"a subfolder with data of its own ({inside})" if inside else "a subfolder without data"
    if entry.name in _DESCRIPTIONS:
        return "it describes data"
    if entry.name.startswith("cache-") and extension == ".arrow":
        return "a cache of datasets"
    if entry.is_symlink() and not entry.exists():
        raise CurateError(f"{printable(str(entry))} is a link to a file that is not there")
    if extension in EXTENSIONS and entry.is_file():
        return None
    # In names such as data.jsonl.part and data.csv.xz, an ending in the middle says that this is data.
    hints = [suffix for suffix in suffixes if suffix in (*EXTENSIONS, *_UNREADABLE)]
    if (hints and suffixes[-1] not in _ATTACHMENTS) or (entry.is_file() and is_records(entry)):
        raise CurateError(
            f"{printable(str(entry))} looks like data and is not read (read are {', '.join(EXTENSIONS)}, and these "
            "with .gz or .zst): convert or rename it, or move it out of the folder"
        )
    return "not a file of records"


def _first_inside(folder: Path) -> str | None:
    """Return the first file of a subfolder, at any depth, whose name looks like data; None if there is none."""
    for parent, folders, names in os.walk(folder):
        folders.sort()  # os.walk then visits them in this order
        for name in sorted(names):
            path = Path(parent, name)
            if {suffix.lower() for suffix in path.suffixes[-2:]} & {*EXTENSIONS, *_UNREADABLE} and name[0] not in "._":
                return printable(str(path.relative_to(folder.parent)))
    return None


def _instead(folder: Path, skipped: tuple[Skipped, ...]) -> str:
    inside = [item for item in skipped if "data of its own" in item.why]
    if not inside:
        return f"; expected {', '.join(EXTENSIONS)}, or these with .gz or .zst"
    return f"; it holds folders with data: give one of them, e.g. data.path={inside[0].name}"
