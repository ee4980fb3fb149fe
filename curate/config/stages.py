"""What each stage from scores to adapter computes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from curate.config.base import LocalPath, Section, parse_keep
from curate.types import Duplicates, EmbeddingText, End, Exits, Method, Quantization, Quota

EFFECTIVE_BATCH = 16
"""Records that a training step takes, unless train.gradient_accumulation says otherwise."""


class SmallModel(Section):
    """The small model that scores IFD in place of the scoring model."""

    model: LocalPath = Field(description="a hub id or a local folder")
    revision: str | None = Field(None, description="commit, tag or branch of a hub model")


class Masked(Section):
    """The subnets of arXiv 2402.05356 v2: weights of smallest magnitude set to zero."""

    sparsity: tuple[float, ...] = Field(
        (0.0, 0.2, 0.36), min_length=1, description="fraction of the weights of every Linear that is zero, per subnet"
    )

    @field_validator("sparsity")
    @classmethod
    def _sparsity(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 <= fraction < 1 for fraction in value):
            raise ValueError("sparsities lie from 0 to below 1")
        return value


class Dropout(Section):
    """The subnets of arXiv 2402.05356 v1: dropout on what attention and MLP add to the stream."""

    rates: tuple[float, ...] = Field(
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), min_length=1, description="dropout rates, one subnet each"
    )

    @field_validator("rates")
    @classmethod
    def _rates(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 <= rate < 1 for rate in value):
            raise ValueError("dropout rates lie from 0 to below 1")
        return value


class Groups(Section):
    """Groups of records and what each keeps."""

    field: str = Field(description="field of the records whose values are the groups (source, language, ...)")
    bins: int | None = Field(
        None,
        ge=2,
        description="cut numbers into so many ranges of equally many records; the field may be one of our columns "
        "here: response_tokens, complexity, ifd, ...",
    )
    quota: Quota | dict[str, int | str] = Field(
        "proportional", description="proportional, equal, or a share or count for every value"
    )


class Score(Section):
    """What is computed for every record."""

    exits: Exits = Field(
        5,
        description="layers after which confidence is read: a count (evenly spaced), all, or a list of layers (from 1)",
    )
    tokens_per_batch: int | Literal["auto"] = Field(
        "auto", description="padded tokens in one batch at most; auto finds what suits the device, and stores it"
    )
    ifd: bool | SmallModel = Field(
        False, description="also score IFD; {model, revision} scores it with another (small) model: Superfiltering"
    )
    masked: bool | Masked = Field(
        False, description="also score the loss of L1-masked subnets; true or {sparsity: [...]}"
    )
    dropout: bool | Dropout = Field(False, description="also score confidence under dropout; true or {rates: [...]}")
    columns: LocalPath | None = Field(
        None, description="a parquet, jsonl or csv file of your own scores, joined by its column row or id"
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
    """How records become vectors."""

    model: LocalPath = Field("sentence-transformers/all-MiniLM-L6-v2", description="a hub id or a local folder")
    text: EmbeddingText = Field(
        "instruction", description="which text is embedded; full: the instruction with its input"
    )
    batch_size: int = Field(64, gt=0, description="texts in one batch")


class Cluster(Section):
    """How vectors become clusters (FAISS k-means)."""

    count: int | Literal["auto"] = Field("auto", description="auto: sqrt(N/2) within 8 and 1024")
    spherical: bool = Field(True, description="compare texts by direction only (cosine); false: plain k-means")
    iterations: int = Field(25, gt=0, description="rounds of k-means")
    seed: int | None = Field(None, ge=0, lt=2**31, description="default: run.seed")

    @field_validator("count")
    @classmethod
    def _count(cls, value: Any) -> Any:
        if isinstance(value, int) and value < 1:
            raise ValueError("count is at least 1")
        return value


class Select(Section):
    """Which records are kept."""

    name: str = Field("main", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="name of the selection")
    method: Method = Field(
        "clusters",
        description="clusters: the best by the order in every cluster; top: in all; flexrand: from easy and hard",
    )
    by: str = Field("complexity", description="score column to order by, or response_tokens, or random")
    exits: tuple[int, ...] | None = Field(None, description="recompute complexity from this subset of the stored exits")
    order: End = Field("lowest", description="which end of the score is kept")
    keep: int | str = Field("10%", description="a share of the input rows, or a count")
    quota: Quota = Field(
        "proportional", description="a cluster keeps in proportion to its size, or all keep the same number"
    )
    min_response_tokens: int = Field(1, ge=1, description="shorter responses are never kept")
    duplicates: Duplicates = Field("drop", description="of exact duplicates only the best is kept, or all may be")
    within: dict[str, tuple[float | None, float | None]] = Field(
        default_factory=dict, description="only rows whose column lies in [low, high]; either end may be null"
    )
    gamma: float = Field(0.25, gt=0, lt=1, description="flexrand: fraction of the records that counts as easy")
    near_duplicates: float | None = Field(
        None, gt=0, le=1, description="cosine from which a record of the same cluster counts as a near-duplicate"
    )
    groups: Groups | None = Field(
        None, description="a field of the records and how many of each of its values are kept"
    )
    seed: int | None = Field(None, ge=0, lt=2**31, description="default: run.seed")
    replace: bool = Field(
        False, description="select may remove what was trained on the selection of that name (adapter, evaluation)"
    )

    @field_validator("keep", mode="before")
    @classmethod
    def _keep(cls, value: object) -> int | str:
        return parse_keep(value)


class Train(Section):
    """The LoRA adapter."""

    model: LocalPath | None = Field(None, description="model to train; default: model.name")
    revision: str | None = Field(None, description="commit, tag or branch of train.model")
    quantization: Quantization = Field("none", description="load the model to train in 8 or 4 bits; 4bit is QLoRA")
    rank: int = Field(
        16, gt=0, description="LoRA r: how many numbers the adapter may learn per direction; more is larger"
    )
    alpha: float = Field(32, gt=0, description="LoRA alpha: the adapter is scaled by alpha / rank")
    dropout: float = Field(0.05, ge=0, lt=1, description="dropout on the input of the adapter while training")
    target_modules: str | tuple[str, ...] = Field("all-linear", description="modules that get an adapter")
    learning_rate: float = Field(2e-4, gt=0, description="peak learning rate")
    scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup"] = Field(
        "cosine", description="how the learning rate falls over the steps"
    )
    warmup: float = Field(0.03, ge=0, lt=1, description="fraction of the steps spent warming up")
    epochs: float = Field(3, gt=0, description="passes over the kept records")
    max_steps: int | None = Field(None, gt=0, description="stop after so many steps instead")
    batch_size: int = Field(4, gt=0, description="records per device and step")
    gradient_accumulation: int | None = Field(
        None, gt=0, description="batches per step; default: an effective batch of 16 over all processes"
    )
    gradient_checkpointing: bool = Field(False, description="less memory, more time")
    save_steps: int = Field(50, gt=0, description="steps between checkpoints")
    report_to: str = Field("none", description="none, tensorboard, wandb, ...")
    merge: bool = Field(False, description="also write a merged 16-bit model")
    seed: int | None = Field(None, ge=0, lt=2**31, description="default: run.seed")

    def accumulation(self, num_processes: int = 1) -> int:
        """Return the batches of a step: as set, else so many that a step takes 16 records over all processes."""
        if self.gradient_accumulation is not None:
            return self.gradient_accumulation
        return max(1, round(EFFECTIVE_BATCH / (self.batch_size * num_processes)))
