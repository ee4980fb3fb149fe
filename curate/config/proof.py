"""How an adapter is evaluated, and what is compared with what."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from curate.config.base import LocalPath, Section, is_list, parse_keep
from curate.types import Format

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


class EvaluationSet(Section):
    """A file of references that the response loss is measured on."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="its name in tables")
    path: LocalPath = Field(description="a file, a folder, or a hub id, as data.path")
    split: str = Field("train", description="split of a hub data set")
    format: Literal["auto"] | Format = Field("auto", description="how records are laid out")
    columns: dict[str, str] = Field(default_factory=dict, description="our name: your name")
    limit: int | None = Field(None, gt=0, description="read only the first so many records")


class Judge(Section):
    """An OpenAI-compatible server that rates answers; nothing needs it."""

    base_url: str = Field(description="where it answers, e.g. http://localhost:8000/v1")
    model: str = Field(description="the name of the model there")
    api_key_env: str = Field("OPENAI_API_KEY", description="environment variable that holds the key; no key is stored")
    limit: int = Field(100, gt=0, description="prompts that are answered and rated")
    max_new_tokens: int = Field(256, gt=0, description="longest answer")


class Evaluate(Section):
    """What is measured for the untuned model and the adapter."""

    sets: tuple[EvaluationSet, ...] = Field((), description="files of references: a list of {name, path, ...}")
    holdout: bool = Field(True, description="also on data.holdout, where there is one")
    tasks: tuple[str, ...] = Field((), description="lm-eval tasks (extra eval)")
    include_path: LocalPath | None = Field(None, description="folder of further lm-eval task files")
    task_limit: int | None = Field(None, gt=0, description="only the first so many examples of each task")
    tokens_per_batch: int = Field(2_048, gt=0, description="padded tokens in one batch at most")
    judge: Judge | None = Field(None, description="an OpenAI-compatible judge {base_url, model}; off")


class Selector(Section):
    """A selector of a comparison: a name, and settings of select.* that make it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="its name in the table")
    select: dict[str, Any] = Field(default_factory=dict, description="settings of select.* by key")
    lengths_of: str | None = Field(
        None, description="another selector of the comparison: keep as many records of each length as that one does"
    )


class Compare(Section):
    """Cells of selector x keep x seed, each selected, trained and evaluated."""

    selectors: tuple[str | Selector, ...] = Field(
        ("clusters", "random", "longest"),
        description="built-in names (" + ", ".join(SELECTORS) + ") or {name, select: {...}}",
    )
    keep: tuple[int | str, ...] = Field(
        ("10%",), min_length=1, description="shares of the input rows or counts, one block of the table each"
    )
    seeds: int | tuple[int, ...] = Field(3, description="a count (0, 1, ...) or a list")
    budget: Literal["steps", "epochs", "tokens"] = Field(
        "steps", description="what every cell gets the same of: train.max_steps, train.epochs, or response tokens seen"
    )
    baselines: tuple[Literal["untuned", "all"], ...] = Field(("untuned", "all"), description="rows to compare with")
    labels: tuple[str, ...] = Field((), description="fields of the records that hold somebody's judgement")
    keep_adapters: bool = Field(False, description="keep the adapter of every cell")

    @field_validator("selectors")
    @classmethod
    def _selectors(cls, value: tuple[str | Selector, ...]) -> tuple[str | Selector, ...]:
        names = [item if isinstance(item, str) else item.name for item in value]
        if unknown := [item for item in value if isinstance(item, str) and item not in SELECTORS]:
            raise ValueError(f"unknown selector {unknown[0]}; built in: {', '.join(SELECTORS)}; or {{name, select}}")
        if len(set(names)) != len(names) or not names:
            raise ValueError("selectors have distinct names, and there is at least one")
        return value

    @field_validator("keep", mode="before")
    @classmethod
    def _keep(cls, value: object) -> object:
        return tuple(parse_keep(item) for item in value) if is_list(value) else value

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, value: int | tuple[int, ...]) -> int | tuple[int, ...]:
        seeds = range(value) if isinstance(value, int) else value
        if not seeds or len(set(seeds)) != len(seeds) or any(not 0 <= seed < 2**31 for seed in seeds):
            raise ValueError("seeds is a count from 1 or a list of distinct numbers")
        return value
