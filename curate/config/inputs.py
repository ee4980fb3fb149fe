"""Where a run lives, what it reads, how a record becomes text, and which model scores it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field, field_validator

from curate.config.base import LocalPath, Section, parse_keep
from curate.types import Dtype, Format, Quantization, Role, Template, TooLong

_FILE_KINDS = ("json", "jsonl", "ndjson", "csv", "tsv", "parquet", "arrow")


class Run(Section):
    """Where a run lives."""

    dir: LocalPath = Field("runs/default", description="run folder; everything a run writes is inside")
    seed: int = Field(
        0, ge=0, lt=2**31, description="seed of everything random; clusters, selection and training may have their own"
    )
    hang_timeout: float = Field(
        900.0, gt=0, description="seconds without progress of another process after which all processes end"
    )


class Data(Section):
    """What is read."""

    path: LocalPath = Field("", description="a file, a folder of shards, a data set saved by save_to_disk, or a hub id")
    split: str = Field("train", description="split of a hub data set, or of one saved by save_to_disk")
    format: Literal["auto"] | Format = Field(
        "auto", description="how records are laid out; auto looks at the keys of the first records"
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="which of your fields is which of ours, e.g. {instruction: question, output: answer}",
    )
    roles: dict[str, Role] = Field(
        default_factory=dict,
        description="what your roles mean, e.g. {bot: assistant}",
    )
    numbers: Literal["refuse", "text"] = Field(
        "refuse", description="a number, true or false where a text is expected; text: what JSON writes for it"
    )
    delimiter: Literal["comma", "semicolon", "tab", "pipe"] | None = Field(
        None, description="what stands between the cells of a CSV file; default: a comma, in .tsv a tab"
    )
    limit: int | None = Field(None, gt=0, description="read only the first so many records")
    on_error: Literal["fail", "skip"] = Field(
        "fail", description="a broken record ends the run, or is skipped and counted"
    )
    max_record_bytes: int = Field(10_000_000, gt=0, description="a larger record is refused")
    holdout: int | str = Field(
        0,
        description="a share or a count of the records, drawn with run.seed, kept out of every selection",
    )

    @field_validator("format", mode="before")
    @classmethod
    def _format(cls, value: Any) -> Any:
        if value in _FILE_KINDS:
            raise ValueError(
                f"what kind of file it is ({value}) is told from the file; expected how a record is laid out: auto, "
                "alpaca, messages, sharegpt or prompt_completion"
            )
        return value

    @field_validator("delimiter", mode="before")
    @classmethod
    def _delimiter(cls, value: Any) -> Any:
        """The characters themselves are understood too; the words need no quotes in a shell or a recipe."""
        words = {",": "comma", ";": "semicolon", "\t": "tab", "\\t": "tab", "|": "pipe"}
        return words.get(value, value) if isinstance(value, str) else value

    @field_validator("holdout", mode="before")
    @classmethod
    def _holdout(cls, value: object) -> int | str:
        return 0 if value in (0, "0", "0%") else parse_keep(value)


class Prompt(Section):
    """How a record becomes text."""

    template: Literal["auto"] | Template = Field(
        "auto", description="auto: the tokenizer's chat template where it has one, else alpaca"
    )
    system: str | None = Field(None, description="system message for records that have none")
    max_length: int | None = Field(
        None, gt=1, description="longest record in tokens; default: 2048 or the model's own limit"
    )
    too_long: TooLong = Field("drop", description="a longer record gets a status, or loses the end of its response")
    now: str | None = Field(
        None, description="date and time that a chat template is told (ISO 8601); default: when the run began"
    )

    @field_validator("now")
    @classmethod
    def _now(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                datetime.fromisoformat(value)
            except ValueError:
                raise ValueError(f"expected a date such as 2026-05-01 or 2026-05-01T09:30:00, got {value!r}") from None
        return value


class Model(Section):
    """The causal language model that scores."""

    name: LocalPath = Field("", description="a hub id, a local folder, or a .gguf file")
    revision: str | None = Field(None, description="commit, tag or branch of a hub model")
    dtype: Dtype = Field("auto", description="auto: float32 on a CPU, bfloat16 on a GPU that has it, else float16")
    quantization: Quantization = Field(
        "none", description="load the scoring model in 8 or 4 bits, through bitsandbytes"
    )
    device_map: str | None = Field(None, description="auto: spread one model over devices, RAM and disk")
    attention: str | None = Field(None, description="transformers' attn_implementation; default: its choice")
    trust_remote_code: bool = Field(False, description="run code that comes with the model")
    allow_tokens: tuple[str, ...] = Field(
        (), description="control tokens that data text may use as such (tool-call markers)"
    )
