"""The run folder: where its files lie, its manifest, its lock, and status.json.

A stage is entered in the manifest after its files are in place. A process that is killed between the two does the
stage again and writes the same bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from curate.runs.atomic import DISK_FULL, remove, write_json
from curate.runs.keys import Key, changed_names, fingerprint
from curate.runs.lock import hold
from curate.runs.manifest import Manifest, StageRecord, read_manifest, stage_record, stage_records
from curate.runs.special import refuse_special_inside
from curate.types import CurateError

MARKER = ".curate"
"""The name of the file that marks a folder as a run folder."""

RECIPE, COMPARISON_RECIPE = "recipe.yaml", "comparison.yaml"
"""The names of the files that hold the recipes of a run and of its last comparison."""

COMPARISON = "comparison.json"
"""The name of the file that holds the table of a comparison."""

RECORDS = "records.jsonl"
"""The name of the file for records that are handed in from memory."""

# What a folder may hold before its first run: a recipe that a person put there, and what a refused start has left.
_MAY_BE_THERE = {RECIPE, ".lock", "status.json"}
_PARTS = ("work", "selections", "comparison")  # the folders of a run
# Names that `atomic.replacing` gives while it writes: .NAME.TOKEN.curate-tmp, and -old for what it moves aside.
_LEFTOVER = re.compile(r"\.(?P<name>.+)\.[0-9a-f]+\.curate-(?P<kind>tmp|old)")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run: paths, manifest, status."""

    path: Path

    @property
    def work(self) -> Path:
        """Scratch folder: tokens, unfinished chunks, training checkpoints. It may be deleted once a run is done."""
        return self.path / "work"

    def selection(self, name: str) -> Path:
        """Return the folder of a named selection."""
        return self.path / "selections" / name

    def manifest(self) -> Manifest:
        """Return the manifest as it stands; one without stages before the first is finished."""
        return read_manifest(self.path / "manifest.json")

    def stage(self, name: str) -> StageRecord | None:
        """Return what the manifest says of a stage; None if the stage is not finished."""
        return stage_record(self.manifest(), name, self.path / "manifest.json")

    def stages(self) -> dict[str, StageRecord]:
        """Return what the manifest says of all finished stages, in its order."""
        return stage_records(self.manifest(), self.path / "manifest.json")

    def record(self, name: str, key: Key, **facts: Any) -> None:
        """Enter a finished stage in the manifest: its key, the key's fingerprint, and facts (counts, seconds)."""
        manifest = self.manifest()
        entry = {"fingerprint": fingerprint(key), "key": dict(key), **facts}
        manifest["stages"][name] = cast("StageRecord", entry)  # a stage may store facts that no program reads
        write_json(self.path / "manifest.json", manifest)

    def forget(self, name: str) -> None:
        """Remove a stage from the manifest, just before its result is replaced by that of another key.

        If the process is killed between the replacement and the new entry, an entry that still stood there would
        describe the old result beside the new file.
        """
        manifest = self.manifest()
        if manifest["stages"].pop(name, None) is not None:
            write_json(self.path / "manifest.json", manifest)

    def describe(self, **facts: Any) -> None:
        """Enter facts about the whole run in the manifest (versions, device, seed); other facts stay."""
        manifest = {**self.manifest(), **facts}
        stages = manifest.pop("stages")
        write_json(self.path / "manifest.json", {**manifest, "stages": stages})  # the long part comes last

    def is_done(self, name: str, key: Key) -> bool:
        """Say whether a stage was finished with exactly this key."""
        stage = self.stage(name)
        return stage is not None and stage.get("fingerprint") == fingerprint(key)

    def require_same(self, name: str, old: Key, new: Key) -> None:
        """Refuse to continue work that was begun with another key.

        Raises:
            CurateError: the keys differ; it names what changed, with both values.
        """
        if changed := changed_names(old, new):
            what = ", ".join(f"{n} ({_short(old.get(n))} -> {_short(new.get(n))})" for n in changed)
            raise CurateError(
                f"{self.path} holds {name} made with other settings or inputs; changed: {what}. "
                "Set them back, or start afresh with another run.dir."
            )

    def holds_run(self) -> bool:
        """Say whether the folder is that of a run: it has the marker file, or the manifest of a run."""
        if (self.path / MARKER).is_file():
            return True
        try:
            return (self.path / "manifest.json").is_file() and "stages" in self.manifest()
        except CurateError:
            return False

    def claim(self, *, begin: bool) -> None:
        """Mark the folder as that of a run, or refuse it. It must be new, empty, or the folder of a run already.

        Args:
            begin: whether the verb may begin a run; only then is a folder made.

        Raises:
            CurateError: the folder holds files of something else, or a pipe or device; a part of it is a link; there is
                no run yet, and the verb cannot begin one.
        """
        if not begin and not self.holds_run():
            raise CurateError(f"{self.path} holds no run yet: run curate run or curate score with this run.dir first")
        try:
            if not self.holds_run():
                if self.path.is_dir() and (others := sorted({p.name for p in self.path.iterdir()} - _MAY_BE_THERE)):
                    raise CurateError(
                        f"run.dir {self.path} holds files that are not of a run ({others[0]}): expected a new or empty "
                        "folder, give another run.dir"
                    )
                self.path.mkdir(parents=True, exist_ok=True)
                # Without a temporary name: a second start at the same moment would refuse the folder because of it.
                (self.path / MARKER).write_text("The folder of a curate run. What a run writes is inside.\n")
        except OSError as error:
            if error.errno in DISK_FULL:
                raise
            raise CurateError(f"cannot write to run.dir {self.path}: {error.strerror}") from None
        refuse_special_inside(self.path)
        # A link could lead a run's own clean-up (`remove`, `clean`) into a folder that belongs to something else.
        parts = [self.path / ".lock", *(p for name in _PARTS for p in _with_inside(self.path / name))]
        for part in parts:
            if part.is_symlink():
                raise CurateError(f"{part} is a link: expected a folder or file of the run itself")
        if self.work.exists() and not self.work.is_dir():
            raise CurateError(f"{self.work} is a file: expected a folder of the run, remove it")

    def undo_start(self, before: Collection[str], made: Sequence[Path]) -> None:
        """Remove what a failed start has left, if no stage had begun. Call it only while the lock is held.

        Args:
            before: names of what the folder held before the start.
            made: the folders that the start made, the innermost first.
        """
        left = {".lock", "status.json", MARKER, RECORDS}
        remove(self.work / "launches")
        remove(self.work / "heartbeats")
        with contextlib.suppress(OSError):  # not empty, or not there
            self.work.rmdir()
        if {path.name for path in self.path.iterdir()} - set(before) <= left:
            for name in left - set(before):
                remove(self.path / name)
            with contextlib.suppress(OSError):
                for path in made:
                    path.rmdir()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the folder for this process. The system frees the lock when the process ends, also after a kill.

        Raises:
            CurateError: another run holds it, or the folder cannot be written.
        """
        with hold(self.path):
            yield

    def clean(self) -> None:
        """Remove what a killed run left half-written, and put back what it had moved aside.

        Call it only while the lock is held: files that another process is writing look the same.
        """
        for folder in ("", "work/**/", "selections/", "selections/*/", "comparison/"):
            for leftover in self.path.glob(f"{folder}.*.curate-*"):
                match = _LEFTOVER.fullmatch(leftover.name)
                if match is None or leftover.parent.is_symlink():
                    continue  # not made by `replacing`
                place = leftover.with_name(match["name"])
                if match["kind"] == "tmp" or place.exists():
                    remove(leftover)
                else:
                    os.rename(leftover, place)
        # Files by which the processes of one launch talk to each other; those of earlier launches are of no use.
        remove(self.work / "launches")
        remove(self.work / "heartbeats")

    def write_status(self, verb: str, state: str, exit_code: int | None, message: str, *, launch: str = "") -> None:
        """Write status.json, which holds the real exit code: accelerate launch and torchrun return 1 for every failure.

        The first failure of a launch is kept. The failures that follow only say that the launcher ended the others.

        Args:
            verb: what was called.
            state: running, done, failed or interrupted.
            exit_code: None while it runs.
            message: for a person.
            launch: see `Processes`.
        """
        path = self.path / "status.json"
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
            old = json.loads(path.read_text(encoding="utf-8"))
            if old["launch"] == launch and old["state"] == "failed":
                return
        write_json(path, {"verb": verb, "state": state, "exit_code": exit_code, "message": message, "launch": launch})


def _with_inside(folder: Path) -> list[Path]:
    """Return a folder and what is directly in it; of a link only the link."""
    return [folder, *(sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else [])]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
