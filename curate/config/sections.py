"""The recipe: one typed model per stage, read from strict YAML with dotted overrides.

A recipe is a YAML mapping of sections (run, data, prompt, ...); `section.key=value` words override it.
Unknown keys, duplicate keys and bad values are refused by name, with the nearest valid one.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _boolean(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[str(info.field_name)]
        if field.annotation is not bool and any(isinstance(v, bool) for v in (value if _is_list(value) else [value])):
            raise ValueError("expected no boolean; YAML reads yes, no, on and off as booleans: quote them if words")
        return value


class Run(_Section):
    """Where a run lives."""

    dir: str = Field("runs/default", description="run folder; everything a run writes is inside")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of everything random")
    hang_timeout: float = Field(
        900.0, gt=0, description="seconds without progress of another process after which all processes end"
    )


class Data(_Section):
    """What is read."""

    path: str = Field("", description="a file, a folder of shards, or a hub id")
    split: str = Field("train", description="split of a hub data set")
    format: Literal["auto", "alpaca", "messages", "sharegpt", "prompt_completion"] = Field(
        "auto", description="how records are laid out; auto looks at the keys of the first records"
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="our name: your name, where your fields are called differently"
    )
    limit: int | None = Field(None, gt=0, description="read only the first so many records")
    on_error: Literal["fail", "skip"] = Field("fail", description="what a broken record does")
    max_record_bytes: int = Field(10_000_000, gt=0, description="a larger record is refused")


class Prompt(_Section):
    """How a record becomes text."""

    template: Literal["auto", "chat", "alpaca", "plain"] = Field(
        "auto", description="auto: the tokenizer's chat template where it has one, else alpaca"
    )
    system: str | None = Field(None, description="system message for records that have none")
    max_length: int | None = Field(
        None, gt=1, description="longest record in tokens; default: 2048 or the model's own limit"
    )
    too_long: Literal["drop", "trim"] = Field(
        "drop", description="a longer record gets a status, or loses the end of its response"
    )


class Model(_Section):
    """The causal language model that scores."""

    name: str = Field("", description="a hub id or a local folder")
    revision: str | None = Field(None, description="commit, tag or branch of a hub model")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: float32 on a CPU, bfloat16 on a GPU that has it, else float16"
    )
    quantization: Literal["none", "8bit", "4bit"] = Field("none", description="through bitsandbytes")
    device_map: str | None = Field(None, description="auto: spread one model over devices, RAM and disk")
    attention: str | None = Field(None, description="transformers' attn_implementation; default: its choice")
    trust_remote_code: bool = Field(False, description="run code that comes with the model")
    allow_tokens: tuple[str, ...] = Field(
        (), description="control tokens that data text may use as such (tool-call markers)"
    )


class Score(_Section):
    """What is computed for every record."""

    exits: int | Literal["all"] | tuple[int, ...] = Field(5, description="a count, all, or a list of layers (from 1)")
    tokens_per_batch: int | Literal["auto"] = Field(
        "auto", description="padded tokens in one batch at most; auto finds what suits the device, and stores it"
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


class Embed(_Section):
    """How records become vectors."""

    model: str = Field("sentence-transformers/all-MiniLM-L6-v2", description="a hub id or a local folder")
    text: Literal["instruction", "prompt", "full"] = Field("instruction", description="which text is embedded")
    batch_size: int = Field(64, gt=0, description="texts in one batch")


class Cluster(_Section):
    """How vectors become clusters (FAISS k-means)."""

    count: int | Literal["auto"] = Field("auto", description="auto: sqrt(N/2) within 8 and 1024")
    spherical: bool = Field(True, description="centroids on the unit sphere")
    iterations: int = Field(25, gt=0, description="rounds of k-means")

    @field_validator("count")
    @classmethod
    def _count(cls, value: Any) -> Any:
        if isinstance(value, int) and value < 1:
            raise ValueError("count is at least 1")
        return value


class Select(_Section):
    """Which records are kept."""

    name: str = Field("main", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="name of the selection")
    method: Literal["clusters", "top", "random", "longest"] = Field("clusters", description="the rule")
    by: str = Field("complexity", description="score column to sort by")
    exits: tuple[int, ...] | None = Field(None, description="recompute complexity from this subset of the stored exits")
    order: Literal["lowest", "highest"] = Field("lowest", description="which end of the score is kept")
    keep: int | str = Field("10%", description="a share of the input rows, or a count")
    quota: Literal["proportional", "equal"] = Field("proportional", description="records per cluster")
    min_response_tokens: int = Field(1, ge=1, description="shorter responses are never kept")
    duplicates: Literal["drop", "keep"] = Field("drop", description="exact duplicates of a kept record")

    @field_validator("keep")
    @classmethod
    def _keep(cls, value: Any) -> Any:
        number = value if isinstance(value, int) else value.strip().removesuffix("%").strip()
        try:
            share = float(number)
            whole = int(share)
        except (ValueError, OverflowError):
            raise ValueError(f'keep is a share such as "10%" or a count, got {value!r}') from None
        if isinstance(value, str) and value.strip().endswith("%"):
            if not 0 < share <= 100:
                raise ValueError(f"a share lies above 0% and up to 100%, got {value!r}")
            return value.strip()
        if share != whole or share < 1:
            raise ValueError(f'keep is a share such as "10%" or a whole count from 1, got {value!r}')
        return whole


class Train(_Section):
    """The LoRA adapter."""

    model: str | None = Field(None, description="model to train; default: model.name")
    revision: str | None = Field(None, description="commit, tag or branch of train.model")
    quantization: Literal["none", "8bit", "4bit"] = Field("none", description="4bit is QLoRA")
    rank: int = Field(16, gt=0, description="LoRA r")
    alpha: float = Field(32, gt=0, description="LoRA alpha")
    dropout: float = Field(0.05, ge=0, lt=1, description="LoRA dropout")
    target_modules: str | tuple[str, ...] = Field("all-linear", description="modules that get an adapter")
    learning_rate: float = Field(2e-4, gt=0, description="peak learning rate")
    scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup"] = Field("cosine", description="shape")
    warmup: float = Field(0.03, ge=0, lt=1, description="share of the steps spent warming up")
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


class Recipe(_Section):
    """A whole run."""

    run: Run = Field(default_factory=Run)
    data: Data = Field(default_factory=Data)
    prompt: Prompt = Field(default_factory=Prompt)
    model: Model = Field(default_factory=Model)
    score: Score = Field(default_factory=Score)
    embed: Embed = Field(default_factory=Embed)
    cluster: Cluster = Field(default_factory=Cluster)
    select: Select = Field(default_factory=Select)
    train: Train = Field(default_factory=Train)
