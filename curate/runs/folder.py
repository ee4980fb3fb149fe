"""The run folder: atomic writes, the manifest with its fingerprints, the lock, and status.json.

Everything that other programs read is written to a temporary name, flushed to the disk and renamed: it is there
whole or not at all. The manifest records a stage after its file is in place, so a kill between the two only
publishes the same bytes again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.runs.atomic import DISK_FULL, remove, write_json
from curate.runs.keys import Key, changed_names, fingerprint
from curate.runs.lock import hold
from curate.types import CurateError

logger = logging.getLogger(__name__)

MARKER = ".curate"
"""The name of the file that marks a folder as that of a run."""

RECORDS = "records.jsonl"
"""The name of the file that holds records which were handed in from memory."""

# What a folder may hold before its first run: a recipe that a person put there, and what a refused start has left.
_MAY_BE_THERE = {"recipe.yaml", ".lock", "status.json"}
_PARTS = ("work", "selections", "comparison")  # the folders of a run
_LEFTOVER = re.compile(r"\.(?P<name>.+)\.[0-9a-f]+\.curate-(?P<kind>tmp|old)")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths and records of one run."""

    path: Path

    @property
    def work(self) -> Path:
        """Scratch: tokens, unfinished chunks, training checkpoints. Safe to delete once a run is done."""
        return self.path / "work"

    def selection(self, name: str) -> Path:
        """The folder of a named selection."""
        return self.path / "selections" / name

    def manifest(self) -> dict[str, Any]:
        """The manifest as it stands; empty before the first stage."""
        try:
            text = (self.path / "manifest.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            return {"stages": {}}
        except (OSError, UnicodeDecodeError) as error:
            raise CurateError(f"cannot read {self.path / 'manifest.json'}: {error}") from None
        try:
            manifest: dict[str, Any] = json.loads(text)
            if not isinstance(manifest["stages"], dict):
                raise TypeError
        except (ValueError, LookupError, TypeError, RecursionError):
            raise CurateError(
                f"{self.path / 'manifest.json'} is not the manifest of a run; use another run.dir"
            ) from None
        return manifest

    def stage(self, name: str) -> dict[str, Any] | None:
        """What the manifest says of a finished stage, or None."""
        stage = self.manifest()["stages"].get(name)
        if stage is None:
            return None
        if not isinstance(stage, dict) or not isinstance(stage.get("key", {}), dict):
            raise CurateError(
                f"{self.path / 'manifest.json'}: what it says of {name} is damaged; remove that part, and the stage is "
                "done again"
            )
        return stage

    def record(self, name: str, key: Key, **facts: Any) -> None:
        """Enter a finished stage: its key, the key's fingerprint, and facts (counts, seconds)."""
        manifest = self.manifest()
        manifest["stages"][name] = {"fingerprint": fingerprint(key), "key": dict(key), **facts}
        write_json(self.path / "manifest.json", manifest)

    def forget(self, name: str) -> None:
        """Strike a stage from the manifest: the last thing before a result is replaced by that of another key.

        Were the process killed between the replacement and its record, the new result would pass for the old one.
        """
        manifest = self.manifest()
        if manifest["stages"].pop(name, None) is not None:
            write_json(self.path / "manifest.json", manifest)

    def describe(self, **facts: Any) -> None:
        """Enter facts about the whole run (versions, device, seed), beside those that are there (an estimate)."""
        manifest = self.manifest()
        stages = manifest.pop("stages")
        write_json(self.path / "manifest.json", {**manifest, **facts, "stages": stages})

    def is_done(self, name: str, key: Key) -> bool:
        """Whether a stage was finished with this very key."""
        stage = self.stage(name)
        return stage is not None and stage.get("fingerprint") == fingerprint(key)

    def require_same(self, name: str, old: Key, new: Key) -> None:
        """Refuse to continue immutable work whose settings or inputs changed.

        Raises:
            CurateError: naming what changed and both values.
        """
        if changed := changed_names(old, new):
            what = ", ".join(f"{n} ({_short(old.get(n))} -> {_short(new.get(n))})" for n in changed)
            raise CurateError(
                f"{self.path} holds {name} made with other settings or inputs; changed: {what}. "
                "Set them back, or start afresh with another run.dir."
            )

    def is_ours(self) -> bool:
        """Say whether this is the folder of a run: it has our marker, or the manifest of a run."""
        if (self.path / MARKER).is_file():
            return True
        try:
            return (self.path / "manifest.json").is_file() and "stages" in self.manifest()
        except CurateError:
            return False

    def claim(self, *, begin: bool) -> None:
        """Make the folder ours, or refuse it. A run folder is new, empty, or that of a run.

        Args:
            begin: the verb may begin a run; only then is a folder made.

        Raises:
            CurateError: the folder holds other people's files, a part of it is a link, or there is no run to go on
                with.
        """
        if not begin and not self.is_ours():
            raise CurateError(f"{self.path} holds no run yet: run curate run or curate score with this run.dir first")
        try:
            if not self.is_ours():
                if self.path.is_dir() and (others := sorted({p.name for p in self.path.iterdir()} - _MAY_BE_THERE)):
                    raise CurateError(
                        f"run.dir {self.path} holds files that are not of a run ({others[0]}): expected a new or empty "
                        "folder, give another run.dir"
                    )
                self.path.mkdir(parents=True, exist_ok=True)
                # Not under a temporary name: a second start at the same moment would take that for a stranger's file.
                (self.path / MARKER).write_text("The folder of a curate run. What a run writes is inside.\n")
        except OSError as error:
            if error.errno in DISK_FULL:
                raise
            raise CurateError(f"cannot write to run.dir {self.path}: {error.strerror}") from None
        parts = [self.path / ".lock", *(p for name in _PARTS for p in _with_inside(self.path / name))]
        for part in parts:
            if part.is_symlink():
                raise CurateError(f"{part} is a link: expected a folder or file of the run itself")
        if self.work.exists() and not self.work.is_dir():
            raise CurateError(f"{self.work} is a file: expected a folder of the run, remove it")

    def abandon(self, before: Collection[str], made: Sequence[Path]) -> None:
        """Remove what a start has left where nothing was begun. Only under the lock.

        `before` names what the folder held; `made` is the folder and those above it that were not there, it first.
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
        """Hold the folder for this process; the system lets go of it when the process ends, however it ends.

        Raises:
            CurateError: another run holds it, or the folder cannot be written.
        """
        with hold(self.path):
            yield

    def clean(self) -> None:
        """Remove what a killed run left half-written, and put back what it moved aside. Only under the lock."""
        for folder in ("", "work/**/", "selections/", "selections/*/", "comparison/"):
            for leftover in self.path.glob(f"{folder}.*.curate-*"):
                match = _LEFTOVER.fullmatch(leftover.name)
                if match is None or leftover.parent.is_symlink():
                    continue  # somebody else's
                place = leftover.with_name(match["name"])
                if match["kind"] == "tmp" or place.exists():
                    remove(leftover)
                else:
                    os.rename(leftover, place)
        remove(self.work / "launches")
        remove(self.work / "heartbeats")

    def status(self, verb: str, state: str, exit_code: int | None, message: str, *, launch: str = "") -> None:
        """Write status.json: launchers flatten every exit code to 1, this keeps the real one.

        The first failure of a launch stays: that the others were then ended is not the news.
        """
        path = self.path / "status.json"
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
            old = json.loads(path.read_text(encoding="utf-8"))
            if old["launch"] == launch and old["state"] == "failed":
                return
        write_json(path, {"verb": verb, "state": state, "exit_code": exit_code, "message": message, "launch": launch})


def _with_inside(folder: Path) -> list[Path]:
    """A folder and what is directly in it; not what is behind a link."""
    return [folder, *(sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else [])]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
