"""Defines the sections score, embed, cluster, select and train: what each stage computes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from curate.config.base import LocalPath, Section, parse_keep
from curate.types import Duplicates, EmbeddingText, End, Exits, Method, Quantization, Quota

EFFECTIVE_BATCH = 16
"""Records per training step over all processes, unless train.gradient_accumulation is set."""


class SmallModel(Section):
    """A (small) model that scores IFD in place of the scoring model, as Superfiltering does (arXiv 2402.00530)."""

    model: LocalPath = Field(description="a hub id or a local folder")
    revision: str | None = Field(None, description="commit, tag or branch of a hub model")


class Masked(Section):
    """The subnets of arXiv 2402.05356 v2: weights of smallest magnitude set to zero."""

    # 20 % of the weights, then 20 % of those that are left: 1 - 0.8 * 0.8 = 0.36.
    sparsity: tuple[float, ...] = Field(
        (0.0, 0.2, 0.36),
        min_length=1,
        description="fraction of the weights of every Linear layer that is set to zero, one subnet each",
    )

    @field_validator("sparsity")
    @classmethod
    def _sparsity(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 <= fraction < 1 for fraction in value):
            raise ValueError("a sparsity is at least 0 and below 1")
        return value


class Dropout(Section):
    """The subnets of arXiv 2402.05356 v1: dropout on what attention and MLP add to the residual stream."""

    rates: tuple[float, ...] = Field(
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), min_length=1, description="dropout rates, one subnet each"
    )

    @field_validator("rates")
    @classmethod
    def _rates(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 <= rate < 1 for rate in value):
            raise ValueError("a dropout rate is at least 0 and below 1")
        return value


class Groups(Section):
    """Groups of records by the value of a field, and how many records each group keeps."""

    field: str = Field(description="field of the records whose values make the groups (source, language, ...)")
    bins: int | None = Field(
        None,
        ge=2,
        description="for a field of numbers: make this many groups, ranges with about equally many records; the field "
        "can then also be a score column (complexity, ifd, ...) or response_tokens",
    )
    quota: Quota | dict[str, int | str] = Field(
        "proportional",
        description="how many records each group keeps: proportional to its size, equal, or {value: share or count}",
    )


class Score(Section):
    """Which scores are computed for every record."""

    exits: Exits = Field(
        5,
        description="layers after which confidence is read: a count (evenly spaced), all, or a list of layers (from 1)",
    )
    tokens_per_batch: int | Literal["auto"] = Field(
        "auto", description="most tokens in a batch, padding included; auto: measured once on the device, then stored"
    )
    ifd: bool | SmallModel = Field(
        False, description="also score IFD; {model, revision}: with another, smaller model (Superfiltering)"
    )
    masked: bool | Masked = Field(
        False,
        description="also score the loss of subnets without their smallest weights; true or {sparsity: [...]}",
    )
    dropout: bool | Dropout = Field(False, description="also score confidence under dropout; true or {rates: [...]}")
    columns: LocalPath | None = Field(
        None, description="a parquet, jsonl or csv file of your own scores, joined by its column `row` or `id`"
    )

    @field_validator("exits")
    @classmethod
    def _exits(cls, value: Any) -> Any:
        if isinstance(value, int) and value < 1:
            raise ValueError("a count of exits is at least 1")
        if isinstance(value, tuple) and (not value or any(k < 1 for k in value) or len(set(value)) != len(value)):
            raise ValueError("a list of exits names distinct layers, counted from 1")
        return tuple(sorted(value)) if isinstance(value, tuple) else value

    @field_validator("tokens_per_batch")
    @classmethod
    def _tokens_per_batch(cls, value: Any) -> Any:
        if isinstance(value, int) and value < 1:
            raise ValueError("tokens_per_batch is at least 1")
        return value


class Embed(Section):
    """How records become embeddings."""

    model: LocalPath = Field(
        "sentence-transformers/all-MiniLM-L6-v2", description="embedding model: a hub id or a local folder"
    )
    text: EmbeddingText = Field(
        "instruction", description="which text of a record is embedded; full: the instruction with its input"
    )
    batch_size: int = Field(64, gt=0, description="texts in one batch")


class Cluster(Section):
    """How embeddings become clusters (FAISS k-means)."""

    count: int | Literal["auto"] = Field(
        "auto", description="number of clusters; auto: sqrt(N/2) for N records, at least 8 and at most 1024"
    )
    spherical: bool = Field(
        True, description="spherical k-means: only the direction of an embedding counts (cosine); false: plain k-means"
    )
    iterations: int = Field(25, gt=0, lt=2**31, description="rounds of k-means")
    seed: int | None = Field(None, ge=0, lt=2**31, description="seed of k-means; default: run.seed")

    @field_validator("count")
    @classmethod
    def _count(cls, value: Any) -> Any:
        if isinstance(value, int) and value < 1:
            raise ValueError("count is at least 1")
        return value


class Select(Section):
    """Which records are kept."""

    # A folder of the run has this name, so no path and no hidden file can be meant.
    name: str = Field("main", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="name of the selection")
    method: Method = Field(
        "clusters",
        description="clusters: the first of every cluster by `by` and `order`; top: the first of all records; "
        "random: any; longest: the longest responses; flexrand: easy and hard records; k_center: records far apart",
    )
    by: str = Field("complexity", description="a score column, response_tokens or random: what records are ordered by")
    exits: tuple[int, ...] | None = Field(
        None, description="recompute complexity from these exits only, a subset of those that were scored"
    )
    order: End = Field("lowest", description="keep the records with the lowest or with the highest values first")
    keep: int | str = Field("10%", description="how many records are kept: a share of the input rows, or a count")
    quota: Quota = Field(
        "proportional", description="how many records each cluster keeps: proportional to its size, or equal"
    )
    min_response_tokens: int = Field(1, ge=1, description="records with a shorter response are never kept")
    duplicates: Duplicates = Field(
        "drop", description="drop: of exact duplicates only the first by the order can be kept; keep: all can be"
    )
    within: dict[str, tuple[float | None, float | None]] = Field(
        default_factory=dict,
        description="keep only records with a column in a range, {column: [low, high]}; null leaves an end open",
    )
    gamma: float = Field(0.25, gt=0, lt=1, description="flexrand: fraction of the records that counts as easy")
    near_duplicates: float | None = Field(
        None,
        gt=0,
        le=1,
        description="pass over a record whose cosine to a kept record of its cluster is at least this; default: off",
    )
    groups: Groups | None = Field(
        None, description="a field of the records, and how many records are kept for each of its values"
    )
    seed: int | None = Field(None, ge=0, lt=2**31, description="seed of the selection; default: run.seed")
    replace: bool = Field(
        False,
        description="allow `curate select` to remove what was trained on the old selection of this name",
    )

    @field_validator("keep", mode="before")
    @classmethod
    def _keep(cls, value: object) -> int | str:
        return parse_keep(value)


class Train(Section):
    """How the LoRA adapter is trained on the kept records."""

    model: LocalPath | None = Field(None, description="model to train; default: model.name")
    revision: str | None = Field(None, description="commit, tag or branch of train.model")
    quantization: Quantization = Field("none", description="load the model to train in 8 or 4 bits; 4bit is QLoRA")
    rank: int = Field(
        16, gt=0, description="LoRA r: rank of the update of each weight matrix; a higher rank has more parameters"
    )
    alpha: float = Field(32, gt=0, description="LoRA alpha: the update is scaled by alpha / rank")
    dropout: float = Field(0.05, ge=0, lt=1, description="dropout on the input of the adapter during training")
    target_modules: str | tuple[str, ...] = Field("all-linear", description="modules that get an adapter")
    learning_rate: float = Field(2e-4, gt=0, description="peak learning rate")
    scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup"] = Field(
        "cosine", description="how the learning rate falls over the steps"
    )
    warmup: float = Field(0.03, ge=0, lt=1, description="fraction of the steps over which the learning rate rises")
    epochs: float = Field(3, gt=0, description="passes over the kept records")
    max_steps: int | None = Field(None, gt=0, description="train for this many steps instead of train.epochs")
    batch_size: int = Field(4, gt=0, lt=2**31, description="records per device and step")
    gradient_accumulation: int | None = Field(
        None, gt=0, description="batches per step; default: an effective batch of 16 over all processes"
    )
    gradient_checkpointing: bool = Field(
        False, description="compute activations again in the backward pass: less memory, more time"
    )
    save_steps: int = Field(50, gt=0, description="steps between checkpoints, from which training can go on")
    report_to: str = Field("none", description="where training is logged to: none, tensorboard, wandb, ...")
    merge: bool = Field(False, description="also write the whole model with the adapter merged into it, in 16 bits")
    seed: int | None = Field(None, ge=0, lt=2**31, description="seed of training; default: run.seed")

    def accumulation(self, num_processes: int = 1) -> int:
        """Return the batches of a step: as set, or as many as make 16 records a step over all processes.

        >>> Train(batch_size=4).accumulation(2), Train(batch_size=32).accumulation()
        (2, 1)
        """
        if self.gradient_accumulation is not None:
            return self.gradient_accumulation
        return max(1, round(EFFECTIVE_BATCH / (self.batch_size * num_processes)))
