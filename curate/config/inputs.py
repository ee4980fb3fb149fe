"""Defines the sections run, data, prompt and model: the folder, the input, its text, and the scoring model."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field, field_validator

from curate.config.base import LocalPath, Section, parse_keep
from curate.types import Dtype, Format, Quantization, Role, Template, TooLong

_FILE_KINDS = ("json", "jsonl", "ndjson", "csv", "tsv", "parquet", "arrow")  # often tried as data.format


class Run(Section):
    """The run folder, and what holds for the whole run."""

    dir: LocalPath = Field("runs/default", description="run folder: everything that a run writes is inside")
    seed: int = Field(
        0,
        ge=0,
        lt=2**31,  # FAISS takes a C int
        description="seed of everything random; clusters, selection and training can have seeds of their own",
    )
    hang_timeout: float = Field(
        900.0, gt=0, description="if a process makes no progress for so many seconds, all processes of the run end"
    )


class Data(Section):
    """The input: which records are read, and how."""

    path: LocalPath = Field("", description="a file, a folder of shards, a data set saved by save_to_disk, or a hub id")
    split: str = Field("train", description="split of a hub data set, or of one saved by save_to_disk")
    format: Literal["auto"] | Format = Field(
        "auto", description="layout of the records; auto: recognised from the keys of the first records"
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="our name of a field: your name, e.g. {instruction: question, output: answer}",
    )
    roles: dict[str, Role] = Field(
        default_factory=dict,
        description="your name of a role: ours (system, user, assistant or tool), e.g. {bot: assistant}",
    )
    numbers: Literal["refuse", "text"] = Field(
        "refuse",
        description="what to do with a number, true or false where a text is expected; text: take it as JSON writes it",
    )
    delimiter: Literal["comma", "semicolon", "tab", "pipe"] | None = Field(
        None, description="character between the cells of a CSV file; default: a comma, for .tsv a tab"
    )
    limit: int | None = Field(None, gt=0, description="read at most this many records, from the start")
    on_error: Literal["fail", "skip"] = Field(
        "fail", description="fail: a bad record ends the run; skip: bad records are left out and counted"
    )
    max_record_bytes: int = Field(10_000_000, gt=0, description="largest record in bytes; a larger one is a bad record")
    holdout: int | str = Field(
        0,
        description="records kept out of every selection, for evaluation: a share or a count, drawn with run.seed",
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
        """Return the name of a delimiter, also where the character itself is given.

        The setting has names because the characters need quotes in a shell or in YAML.
        """
        words = {",": "comma", ";": "semicolon", "\t": "tab", "\\t": "tab", "|": "pipe"}
        return words.get(value, value) if isinstance(value, str) else value

    @field_validator("holdout", mode="before")
    @classmethod
    def _holdout(cls, value: object) -> int | str:
        return 0 if value in (0, "0", "0%") else parse_keep(value)  # which refuses 0: nobody keeps no records


class Prompt(Section):
    """How a record becomes the text that the model reads."""

    template: Literal["auto"] | Template = Field(
        "auto", description="prompt template; auto: the tokenizer's chat template if it has one, else alpaca"
    )
    system: str | None = Field(None, description="system message for records that have none")
    max_length: int | None = Field(
        None, gt=1, description="longest record in tokens; default: 2048, or the model's own limit if that is lower"
    )
    too_long: TooLong = Field(
        "drop",
        description="drop: a longer record is not scored (status too_long); trim: the end of its response is cut",
    )
    now: str | None = Field(
        None, description="date and time (ISO 8601) for chat templates that print one; default: when the run began"
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
    dtype: Dtype = Field(
        "auto", description="number format; auto: float32 on a CPU, bfloat16 on a GPU that supports it, else float16"
    )
    quantization: Quantization = Field("none", description="load the scoring model in 8 or 4 bits, with bitsandbytes")
    device_map: str | None = Field(
        None, description="auto: spread the model over all devices, RAM and disk; default: one device"
    )
    attention: str | None = Field(
        None, description="attn_implementation of transformers, e.g. sdpa or eager; default: chosen by transformers"
    )
    trust_remote_code: bool = Field(False, description="run code that comes with the model")
    allow_tokens: tuple[str, ...] = Field(
        (),
        description="control tokens that keep their meaning in the text of records (e.g. tool-call markers); "
        "others there are read as plain text",
    )
