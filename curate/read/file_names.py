"""Reads what file names say: formats, splits and shards; and refuses files that must not be read together."""

from __future__ import annotations

import re
from pathlib import Path

from curate.read.json_text import excerpt, printable
from curate.read.kinds import PACKED
from curate.types import CurateError

EXTENSIONS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".feather")
# Words that say which split a file is: those that `datasets` knows, and others that people use.
_SPLITS = {
    **dict.fromkeys(("train", "training", "trn", "trainset", "trainingset"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "valset", "validset", "devset"), "validation"),
    **dict.fromkeys(("test", "tests", "testing", "tst", "testset", "eval", "evals", "evaluation", "evalset"), "test"),
    **dict.fromkeys(("heldout", "holdout", "benchmark"), "test"),
}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")  # a capital starts a word, so trainData is two words
_SHARD = re.compile(r"(\d+)[-_. ]?of[-_. ]?(\d+)", re.IGNORECASE)


def split_of(name: str) -> str | None:
    """Return the split that a file's name says: train, validation or test; None if it says none.

    >>> split_of("alpaca_dev-00000-of-00002.parquet"), split_of("dataTest.json"), split_of("contest.json")
    ('validation', 'test', None)
    """
    words = [word.lower() for word in _WORD.findall(re.sub(r"(?i)(?<![a-z])(held|hold)[-_ ]?out", "heldout", name))]
    return next((_SPLITS[word] for word in words if word in _SPLITS), None)


def refuse_mixed_splits(folder: Path, files: list[Path]) -> None:
    """Refuse files of several splits by their names: test records would get into the selection.

    Files of one split are read, whichever it is. So are files of the train split beside files that say no split.

    Raises:
        CurateError: names two such files, and a pattern for data.path that takes one split.
    """
    splits = [split_of(file.name) for file in files]
    held_out = next((i for i, split in enumerate(splits) if split not in (None, "train")), None)
    if held_out is None or len(set(splits)) == 1:
        return
    other = next(i for i, split in enumerate(splits) if split != splits[held_out])
    wanted = files[next((i for i, split in enumerate(splits) if split == "train"), other)].name
    # train-00000-of-00002.jsonl becomes train-*-of-00002.jsonl, which takes all shards of the split.
    pattern = re.sub(r"\d+", "*", wanted, count=1) if re.search(r"\d{2,}", wanted) else wanted
    raise CurateError(
        f"the files of {printable(str(folder))} are different splits by their names ({excerpt(files[held_out].name)} "
        f"is {splits[held_out]}, {excerpt(files[other].name)} is {splits[other] or 'none'}): say which, e.g. "
        f"data.path={printable(str(folder / pattern))} (a * stands for any characters)"
    )


def refuse_duplicate_files(files: list[Path]) -> None:
    """Refuse data that is there twice: one file under two names, or one name in two formats or packed and unpacked.

    A kept tenth of such records would be taken from both.

    Raises:
        CurateError: names the two files.
    """
    seen = dict[str, Path]()
    for file in files:
        other = seen.setdefault(_content_name(file), file)
        if other is not file:
            raise CurateError(
                f"{printable(str(other))} and {printable(file.name)} are the same data: remove one, or name one "
                f"(data.path={printable(str(file))})"
            )


def refuse_missing_shards(files: list[Path]) -> None:
    """Refuse shards that are called I-of-N where not all N are there.

    Raises:
        CurateError: names the shards, and how many there are.
    """
    shards: dict[str, set[int]] = {}
    counts = dict[str, int]()
    for file in files:
        if shard := _SHARD.search(file.name):
            name = file.name[: shard.start()] + "*" + file.name[shard.end(1) :]
            shards.setdefault(name, set()).add(int(shard[1]))
            counts[name] = int(shard[2])
    for name, numbers in shards.items():
        count = counts[name]
        first = min(numbers) if min(numbers) < 2 else 0  # some programs count shards from 1
        if len(numbers) != count or max(numbers) != first + count - 1:
            raise CurateError(
                f"{printable(str(files[0].parent / name))}: expected {count} shards by their names, got "
                f"{len(numbers)}: fetch the missing ones, or rename the files to use these alone"
            )


def _content_name(file: Path) -> str:
    """Return a name that is equal for files with the same data: the path without format and packing.

    Links are followed, so a link and the file it points to have the same name.
    """
    path = file.resolve()
    while path.suffix.lower() in (*EXTENSIONS, *PACKED):
        path = path.with_suffix("")
    return str(path)
