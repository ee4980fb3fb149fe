"""Which files of a folder are read, which are not and why, and where reading on would be a mistake."""

from __future__ import annotations

import fnmatch
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.read.json_text import excerpt, printable
from curate.read.kinds import PACKED, is_records
from curate.types import CurateError

_EXTENSIONS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".feather")
_UNREADABLE = (  # what holds records that we do not read: a folder with such a file is not read by half
    *(".xlsx", ".xls", ".xlsm", ".ods", ".bz2", ".xz", ".lz4", ".br", ".zip", ".7z", ".rar", ".tar", ".tgz"),
    *(".pkl", ".pickle", ".npy", ".npz", ".h5", ".hdf5", ".orc", ".avro", ".db", ".sqlite", ".sqlite3", ".duckdb"),
    *(".xml", ".tfrecord", ".msgpack", ".mdb", ".sas7bdat", ".dta", ".rds", ".json5", ".hjson", ".pt", ".pth"),
)
_BESIDE = (  # what stands beside a file of data under its whole name: sums, signatures, notes
    *(".md5", ".sha1", ".sha256", ".sha512", ".crc", ".sig", ".asc", ".lock", ".idx", ".index", ".license", ".md"),
    *(".txt", ".log", ".html", ".yaml", ".yml", ".metadata"),
)
_DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json")
_SPLITS = {  # the words that `datasets` knows and others that people use, standing alone between signs and digits
    **dict.fromkeys(("train", "training", "trn", "trainset", "trainingset"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "valset", "validset", "devset"), "validation"),
    **dict.fromkeys(("test", "tests", "testing", "tst", "testset", "eval", "evals", "evaluation", "evalset"), "test"),
    **dict.fromkeys(("heldout", "holdout", "benchmark"), "test"),
}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")  # trainData is two
_SHARD = re.compile(r"(\d+)[-_. ]?of[-_. ]?(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or subfolder beside the data that is not read: its name (printable) and why."""

    name: str
    why: str


Listing = tuple[list[Path], tuple[Skipped, ...]]


def list_folder(folder: Path, split: str) -> Listing:
    """The files of a folder that hold its records, sorted by name, and what is not read.

    A folder written by `datasets` (save_to_disk) is read as that says: of several splits, `split`.

    Raises:
        CurateError: nothing to read; a file that looks like data and cannot be read; names that say different splits,
            the same file twice, or shards of which one is not there; a saved data set without that split or without
            one of its files.
    """
    if (folder / "dataset_dict.json").is_file():
        return _saved_splits(folder, split)
    if (folder / "state.json").is_file() and ((folder / "dataset_info.json").is_file() or any(folder.glob("*.arrow"))):
        return _saved(folder)
    files, skipped = _sort_out(folder, sorted(folder.iterdir()))
    if not files:
        raise CurateError(f"no file to read in the folder {printable(str(folder))}{_instead(folder, skipped)}")
    _refuse_splits(folder, files)
    _refuse_twice_or_gaps(files)
    return files, skipped


def list_pattern(pattern: Path) -> Listing:
    """The files that a name with `*` means, sorted by name; the rest of the folder is not read.

    Naming files so is the way on where a folder holds several splits, so names are not looked at again.

    Raises:
        CurateError: no file has such a name, or one that has cannot be read.
    """
    entries = sorted(pattern.parent.iterdir())
    meant = [entry for entry in entries if fnmatch.fnmatchcase(entry.name, pattern.name)]
    files, skipped = _sort_out(pattern.parent, meant)
    if not files:
        raise CurateError(f"no file to read is called {printable(str(pattern))}")
    _refuse_twice_or_gaps(files)
    others = (Skipped(printable(str(entry)), "not named by data.path") for entry in entries if entry not in meant)
    return files, (*skipped, *others)


def _sort_out(folder: Path, entries: Iterable[Path]) -> Listing:
    files, skipped = [], []
    for entry in entries:
        why = _why_not(entry)
        if why:
            skipped.append(Skipped(printable(str(entry)), why))
        else:
            files.append(entry)
    return files, tuple(skipped)


def _why_not(entry: Path) -> str | None:
    """Why an entry of a folder is not read; None if it is.

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
    if extension in _EXTENSIONS and entry.is_file():
        return None
    hints = [suffix for suffix in suffixes if suffix in (*_EXTENSIONS, *_UNREADABLE)]  # data.jsonl.part, data.csv.xz
    if (hints and suffixes[-1] not in _BESIDE) or (entry.is_file() and is_records(entry)):
        raise CurateError(
            f"{printable(str(entry))} looks like data and is not read (read are {', '.join(_EXTENSIONS)}, and these "
            "with .gz or .zst): convert or rename it, or move it out of the folder"
        )
    return "not a file of records"


def _first_inside(folder: Path) -> str | None:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if {suffix.lower() for suffix in path.suffixes[-2:]} & {*_EXTENSIONS, *_UNREADABLE} and name[0] not in "._":
                return printable(str(path.relative_to(folder.parent)))
    return None


def _instead(folder: Path, skipped: tuple[Skipped, ...]) -> str:
    inside = [item for item in skipped if "data of its own" in item.why]
    if not inside:
        return f"; expected {', '.join(_EXTENSIONS)}, or these with .gz or .zst"
    return f"; it holds folders with data: give one of them, e.g. data.path={inside[0].name}"


def split_of(name: str) -> str | None:
    """The split that a file's name says: train, validation or test; None if it says none.

    >>> split_of("alpaca_dev-00000-of-00002.parquet"), split_of("dataTest.json"), split_of("contest.json")
    ('validation', 'test', None)
    """
    words = [word.lower() for word in _WORD.findall(re.sub(r"(?i)(?<![a-z])(held|hold)[-_ ]?out", "heldout", name))]
    return next((_SPLITS[word] for word in words if word in _SPLITS), None)


def _refuse_splits(folder: Path, files: list[Path]) -> None:
    """Refuse files of which some are for validation or test and others are not: together they would be mixed."""
    splits = [split_of(file.name) for file in files]
    held_out = next((i for i, split in enumerate(splits) if split not in (None, "train")), None)
    if held_out is None or len(set(splits)) == 1:
        return
    other = next(i for i, split in enumerate(splits) if split != splits[held_out])
    wanted = files[next((i for i, split in enumerate(splits) if split == "train"), other)].name
    pattern = re.sub(r"\d+", "*", wanted, count=1) if re.search(r"\d{2,}", wanted) else wanted
    raise CurateError(
        f"the files of {printable(str(folder))} are different splits by their names ({excerpt(files[held_out].name)} "
        f"is {splits[held_out]}, {excerpt(files[other].name)} is {splits[other] or 'none'}): say which, e.g. "
        f"data.path={printable(str(folder / pattern))} (a * stands for any characters)"
    )


def _refuse_twice_or_gaps(files: list[Path]) -> None:
    """Refuse data that is there twice, and shards called I-of-N of which not all N are there.

    The same data twice is one file under two names, or one name in two formats or packed and unpacked: a share of the
    records would be a share of both.
    """
    shards: dict[str, set[int]] = {}
    counts, stems = dict[str, int](), dict[str, Path]()
    for file in files:
        other = stems.setdefault(_stem(file), file)
        if other is not file:
            raise CurateError(
                f"{printable(str(other))} and {printable(file.name)} are the same data: remove one, or name one "
                f"(data.path={printable(str(file))})"
            )
        if shard := _SHARD.search(file.name):
            name = file.name[: shard.start()] + "*" + file.name[shard.end(1) :]
            shards.setdefault(name, set()).add(int(shard[1]))
            counts[name] = int(shard[2])
    for name, numbers in shards.items():
        count = counts[name]
        first = min(numbers) if min(numbers) < 2 else 0  # some count from 1
        if len(numbers) != count or max(numbers) != first + count - 1:
            raise CurateError(
                f"{printable(str(files[0].parent / name))}: expected {count} shards by their names, got "
                f"{len(numbers)}: fetch the missing ones, or rename the files to use these alone"
            )


def _stem(file: Path) -> str:
    """What tells a file's data: its place on the disk where it is a link, else its name without format and packing."""
    path = file.resolve()
    while path.suffix.lower() in (*_EXTENSIONS, *PACKED):
        path = path.with_suffix("")
    return str(path)


def _saved_splits(folder: Path, split: str) -> Listing:
    """The files of one split of a DatasetDict; the others are not read."""
    names = _json(folder / "dataset_dict.json").get("splits")
    if not isinstance(names, list) or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise CurateError(f"{printable(str(folder / 'dataset_dict.json'))} is damaged: expected a list of splits")
    if split not in names:
        raise CurateError(
            f"{printable(str(folder))} is a saved data set with the splits {', '.join(map(printable, names))}, got "
            f"data.split={split}"
        )
    files, skipped = _saved(folder / split)
    others = (Skipped(printable(str(folder / name)), "another split") for name in names if name != split)
    return files, (*skipped, *others)


def _saved(folder: Path) -> Listing:
    """The files that a saved data set names in its state.json, in that order; caches beside them are not read."""
    entries = _json(folder / "state.json").get("_data_files")
    names = [entry.get("filename") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    files = [folder / name for name in names if isinstance(name, str) and Path(name).name == name]
    if not files or len(files) < len(names):
        raise CurateError(f"{printable(str(folder / 'state.json'))} is damaged: expected the names of its files")
    missing = next((file for file in files if not file.is_file()), None)
    if missing:
        raise CurateError(f"the saved data set {printable(str(folder))} lacks its file {printable(missing.name)}")
    others = sorted(entry for entry in folder.glob("*.arrow") if entry not in files)
    return files, tuple(Skipped(printable(str(entry)), "not named by state.json") for entry in others)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise CurateError(f"a saved data set lacks {printable(str(path))}") from None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise CurateError(f"{printable(str(path))}, which a saved data set is read by, is damaged")
    return value
