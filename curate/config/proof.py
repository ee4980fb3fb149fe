"""Defines the sections evaluate and compare: how an adapter is evaluated, and which selectors are compared."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from curate.config.base import LocalPath, Section, is_list, parse_keep
from curate.types import Format

# Only the names. What each selects is defined in curate/compare/selectors.py, which this room must not import.
SELECTORS = (
    "clusters",
    "top",
    "random",
    "random_per_cluster",
    "random_same_lengths",
    "longest",
    "perplexity",
    "ifd",
    "last_exit",
    "hard",
    "masked",
    "dropout",
    "flexrand",
    "k_center",
)


_MOST_SEEDS = 1_000  # each is trained


class EvaluationSet(Section):
    """A file of records with reference answers, on which the response loss is measured."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="its name in tables")
    path: LocalPath = Field(description="a file, a folder or a hub id, like data.path")
    split: str = Field("train", description="split of a hub data set, or of one saved by save_to_disk")
    format: Literal["auto"] | Format = Field("auto", description="layout of the records, like data.format")
    columns: dict[str, str] = Field(default_factory=dict, description="our name of a field: your name")
    limit: int | None = Field(None, gt=0, description="read at most this many records, from the start")


class Judge(Section):
    """An OpenAI-compatible server whose model rates answers; it is optional."""

    base_url: str = Field(description="address of the server, e.g. http://localhost:8000/v1")
    model: str = Field(description="name of the model on that server")
    api_key_env: str = Field(
        "OPENAI_API_KEY", description="environment variable that holds the key; the key itself is never stored"
    )
    limit: int = Field(100, gt=0, description="number of prompts that are answered and rated")
    max_new_tokens: int = Field(256, gt=0, description="longest answer in tokens")


class Evaluate(Section):
    """What is measured for the untuned model and the adapter."""

    sets: tuple[EvaluationSet, ...] = Field(
        (), description="files with reference answers, for the response loss: a list of {name, path, ...}"
    )
    holdout: bool = Field(True, description="also measure the response loss on the records of data.holdout, if any")
    tasks: tuple[str, ...] = Field((), description="names of lm-eval tasks (needs the extra eval)")
    include_path: LocalPath | None = Field(None, description="folder of your own lm-eval task files")
    task_limit: int | None = Field(None, gt=0, description="use at most this many examples of each task")
    task_batch_size: int = Field(8, gt=0, description="examples of a task that are computed at once")
    tokens_per_batch: int = Field(2_048, gt=0, description="most tokens in a batch, padding included")
    judge: Judge | None = Field(
        None, description="let a model on an OpenAI-compatible server rate answers: {base_url, model}; default: off"
    )


class Selector(Section):
    """A selector of a comparison: a name, and the settings of select.* that define it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="its name in the table")
    select: dict[str, Any] = Field(default_factory=dict, description="settings of select.*, e.g. {by: ifd}")
    lengths_of: str | None = Field(
        None, description="another selector of the comparison: keep as many records of each length as that one does"
    )


class Compare(Section):
    """Which selectors are compared. Each combination of selector, kept size and seed is trained and evaluated."""

    selectors: tuple[str | Selector, ...] = Field(
        ("clusters", "random", "longest"),
        description="built-in names (" + ", ".join(SELECTORS) + ") or {name, select: {...}}",
    )
    keep: tuple[int | str, ...] = Field(
        ("10%",),
        min_length=1,
        description="kept sizes: shares of the input rows, or counts; each is a block of the table",
    )
    seeds: int | tuple[int, ...] = Field(3, description="a count (seeds 0, 1, ...), or a list of seeds")
    budget: Literal["steps", "epochs", "tokens"] = Field(
        "steps",
        description="what every cell is trained for equally: optimizer steps, epochs, or response tokens",
    )
    baselines: tuple[Literal["untuned", "all"], ...] = Field(
        ("untuned", "all"), description="rows to compare with: the untuned model, and training on all records"
    )
    reference: str = Field(
        "random",
        description="the selector or baseline that the others are compared with; random says whether a selection is "
        "worth it, `all` whether a part does what everything does. Another one needs no new training",
    )
    labels: tuple[str, ...] = Field(
        (), description="fields of the records that hold somebody's judgement, to which the scores are compared"
    )
    keep_adapters: bool = Field(
        False,
        description="keep the adapter of every cell, so that sets and tasks that are added later need no training; "
        "by default they are deleted",
    )

    @field_validator("selectors")
    @classmethod
    def _selectors(cls, value: tuple[str | Selector, ...]) -> tuple[str | Selector, ...]:
        names = [item if isinstance(item, str) else item.name for item in value]
        if unknown := [item for item in value if isinstance(item, str) and item not in SELECTORS]:
            raise ValueError(f"unknown selector {unknown[0]}; built in: {', '.join(SELECTORS)}; or {{name, select}}")
        # A name is a row of the table and a folder of the run.
        if len(set(names)) != len(names) or not names:
            raise ValueError("selectors have distinct names, and there is at least one")
        if taken := {"untuned", "all"} & set(names):
            raise ValueError(f"{min(taken)} is a baseline (compare.baselines); give the selector another name")
        return value

    @field_validator("keep", mode="before")
    @classmethod
    def _keep(cls, value: object) -> object:
        return tuple(parse_keep(item) for item in value) if is_list(value) else value

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, value: int | tuple[int, ...]) -> int | tuple[int, ...]:
        if isinstance(value, int) and value > _MOST_SEEDS:
            raise ValueError(f"expected at most {_MOST_SEEDS:,} seeds, got {value:,}")
        seeds = range(value) if isinstance(value, int) else value
        if not seeds or len(set(seeds)) != len(seeds) or any(not 0 <= seed < 2**31 for seed in seeds):
            raise ValueError("seeds is a count from 1 or a list of distinct numbers")
        return value

    @field_validator("reference")
    @classmethod
    def _reference(cls, value: str, info: ValidationInfo) -> str:
        # What is refused itself is not in `data`: its own message is enough.
        if "selectors" not in info.data or "baselines" not in info.data:
            return value
        names = [item if isinstance(item, str) else item.name for item in info.data["selectors"]]
        names += info.data["baselines"]
        # Without random a comparison has no verdicts, which is a person's choice. Any other name was meant.
        if value not in ("random", *names):
            raise ValueError(f"expected one of {', '.join(names)}, got {value!r}")
        return value
