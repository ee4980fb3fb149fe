"""The run folder: atomic writes, the manifest with its fingerprints, the lock, and status.json.

Everything that other programs read is written to a temporary name, flushed to the disk and renamed: it is there
whole or not at all. The manifest records a stage after its file is in place, so a kill between the two only
publishes the same bytes again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.run.atomic import remove, write_json
from curate.types import CurateError

logger = logging.getLogger(__name__)

Key = Mapping[str, Any]  # what a stage's result depends on, by name; plain JSON values


def fingerprint(key: Key) -> str:
    """SHA-256 (hex) of a key's canonical JSON."""
    return hashlib.sha256(json.dumps(key, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def changed_names(old: Key, new: Key) -> list[str]:
    """Names whose values differ between two keys, sorted.

    >>> changed_names({"prompt.template": "alpaca", "data": 1}, {"prompt.template": "chat", "data": 1})
    ['prompt.template']
    """
    return sorted(name for name in {*old, *new} if old.get(name) != new.get(name))


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
        try:
            manifest: dict[str, Any] = json.loads(text)
            if not isinstance(manifest["stages"], dict):
                raise TypeError
        except (ValueError, LookupError, TypeError):
            raise CurateError(
                f"{self.path / 'manifest.json'} is not the manifest of a run; use another run.dir"
            ) from None
        return manifest

    def stage(self, name: str) -> dict[str, Any] | None:
        """What the manifest says of a finished stage, or None."""
        stage: dict[str, Any] | None = self.manifest()["stages"].get(name)
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
        """Enter facts about the whole run (versions, device, seed)."""
        write_json(self.path / "manifest.json", {**facts, "stages": self.manifest()["stages"]})

    def is_done(self, name: str, key: Key) -> bool:
        """Whether a stage was finished with this very key."""
        stage = self.stage(name)
        return stage is not None and stage["fingerprint"] == fingerprint(key)

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

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process; the system lets go of it when the process ends, however it ends.

        Raises:
            CurateError: another run holds it, or the folder cannot be written.
        """
        path = self.path / ".lock"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - held open as long as the lock
        except OSError as error:
            raise CurateError(f"cannot write to run.dir {self.path}: {error.strerror}") from None
        with file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # POSIX locks also hold across NFS clients
            except (BlockingIOError, PermissionError):  # which of the two depends on the system
                file.seek(0)
                raise CurateError(
                    f"another run works in {self.path} ({file.read().strip()}); wait or use another run.dir"
                ) from None
            except OSError as error:  # some shared file systems have no locks
                logger.warning("%s cannot be locked (%s): do not start two runs in it", self.path, error.strerror)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            yield

    def clean(self) -> None:
        """Remove what a killed run left half-written, and put back what it moved aside. Only under the lock."""
        for folder in ("", "work/", "work/*/", "selections/", "selections/*/"):
            for old in self.path.glob(f"{folder}.*.curate-old"):
                place = old.with_name(old.name[1:].rsplit(".", 2)[0])
                if place.exists():
                    remove(old)
                else:
                    os.rename(old, place)
            for temporary in self.path.glob(f"{folder}.*.curate-tmp"):
                remove(temporary)
        remove(self.work / "launches")
        remove(self.work / "heartbeats")

    def status(self, verb: str, state: str, exit_code: int | None, message: str, *, launch: str = "") -> None:
        """Write status.json: launchers flatten every exit code to 1, this keeps the real one.

        The first failure of a launch stays: that the others were then ended is not the news.
        """
        path = self.path / "status.json"
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            old = json.loads(path.read_text(encoding="utf-8"))
            if old["launch"] == launch and old["state"] == "failed":
                return
        write_json(path, {"verb": verb, "state": state, "exit_code": exit_code, "message": message, "launch": launch})


def read_key(folder: Path) -> Key | None:
    """Read the key stored beside unfinished work; None if none can be read, and so nothing can be gone on with."""
    try:
        key = json.loads((folder / "key.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return key if isinstance(key, dict) else None


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
