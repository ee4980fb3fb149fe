"""What all stages have in common: a key, the files they write, an entry in the manifest, and a closing line."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curate.models.memory import take_peak_memory
from curate.runs.atomic import replacing
from curate.runs.folder import RunFolder
from curate.runs.keys import Key
from curate.types import CurateError

logger = logging.getLogger(__name__)

_TABLES = (".parquet", ".npy")  # endings


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished stage reports; rows_in = rows_out + the sum of dropped.

    rows_in   records that it was given
    rows_out  records that it passed on
    dropped   how many it did not pass on, by reason
    details   further facts for the manifest, plain JSON values
    note      end of the closing line
    """

    rows_in: int
    rows_out: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a run.

    folder    the run folder
    name      its name in the manifest
    key       what its result depends on, by name
    products  the files that it writes; if one is missing or empty, the stage is not finished
    started   when it began, by the monotonic clock, seconds
    rows      opens the table among the products and returns its number of rows; it raises CurateError if the table is
              damaged, so that a stage is not called finished whose table the next one refuses
    """

    folder: RunFolder
    name: str
    key: Key
    products: tuple[Path, ...]
    started: float = field(default_factory=time.monotonic)
    rows: Callable[[], int] | None = None

    def holds(self) -> bool:
        """Say whether an earlier call finished the stage with exactly this key, and all its products are there.

        Raises:
            CurateError: its table is damaged, or has not as many rows as it had.
        """
        if not self.folder.is_done(self.name, self.key) or not all(map(_is_there, self.products)):
            return False
        record = self.folder.stage(self.name)
        if self.rows is not None and record is not None and (found := self.rows()) != record["in"]:
            table = next(str(path) for path in self.products if path.suffix in _TABLES)
            raise CurateError(
                f"{table} is damaged ({found:,} rows, it had {record['in']:,}): remove it, and the same command makes "
                "it again"
            )
        return True

    def is_finished(self) -> bool:
        """Say whether the stage holds, and log that it was finished before."""
        if self.holds():
            logger.info("%s: finished before", self.name)
            return True
        return False

    def refuse_change(self) -> None:
        """Refuse a key other than the one that the stage was finished with. For results that are never replaced.

        Raises:
            CurateError: the keys differ; it names what changed.
        """
        record = self.folder.stage(self.name)
        if record is not None:
            self.folder.require_same(self.name, record["key"], self.key)

    @contextmanager
    def replacing(self, path: Path) -> Iterator[Path]:
        """Give a temporary path that takes the place of `path` when the block ends without an error.

        From then on the stage is unfinished until `finish` enters it in the manifest.
        """
        with replacing(path) as temporary:
            yield temporary
            # Just before the replacement: after a kill between it and `finish`, the old entry would otherwise vouch
            # for the new file.
            self.folder.forget(self.name)

    def finish(self, outcome: Outcome) -> None:
        """Enter the stage in the manifest, and log its closing line: in, out, dropped by reason, seconds.

        Stages follow each other, so the memory counted since the stage before is that of this one.
        """
        seconds = time.monotonic() - self.started
        facts: dict[str, Any] = {"in": outcome.rows_in, "out": outcome.rows_out, "dropped": dict(outcome.dropped)}
        if (peak := take_peak_memory()) is not None:
            facts["peak_memory"] = peak
        self.folder.record(self.name, self.key, **facts, **outcome.details, seconds=round(seconds, 3))
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in outcome.dropped.items())
        logger.info(
            "%s: %s in, %s out%s; %.1f s%s",
            self.name,
            f"{outcome.rows_in:,}",
            f"{outcome.rows_out:,}",
            f", dropped {dropped}" if dropped else "",
            seconds,
            f", {outcome.note}" if outcome.note else "",
        )


def _is_there(product: Path) -> bool:
    """Say whether a product is there and not empty. A folder where a table belongs does not count."""
    if product.is_file():  # an empty table is damaged: what reads it says so
        return product.suffix in _TABLES or product.stat().st_size > 0
    return product.is_dir() and product.suffix not in (*_TABLES, ".safetensors")
