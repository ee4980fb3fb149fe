"""What each further score computes: its parts, and how their numbers become columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from curate.config import Dropout, Masked, Model, Recipe, SmallModel
from curate.models.fingerprint import tokenizer_fingerprint, weight_fingerprint
from curate.pipeline.compute import batch_scores, settled_tokens_per_batch
from curate.pipeline.job import Job
from curate.pipeline.parts import BatchFunction, Part
from curate.pipeline.tokens import tokens_for
from curate.runs.keys import Key, fingerprint
from curate.scoring.batches import BatchPlan, plan_batches_of
from curate.scoring.dropout import dropout_confidence, dropout_subnets, score_dropout
from curate.scoring.ifd import alone, ifd, pool_alone
from curate.scoring.masks import masked_loss, masked_weights
from curate.scoring.score import ScoringModel, full_model
from curate.tables.score_columns import read_exit
from curate.tokens.control import make_codec
from curate.tokens.store import open_tokens
from curate.types import BatchScores, FloatArray, TokenStore

ABOUT = {
    "ifd": {
        "ifd": "exp(log_prob_alone - log_prob) of the full model; high = the prompt helps little = hard; "
        "arXiv 2308.12032, with a small model 2402.00530",
        "log_prob_alone": "mean log-probability of the response tokens without their prompt, nats per token",
    },
    "masked": {
        "masked_loss": "mean over L1-masked subnets of the mean response cross-entropy, nats per token; high = hard; "
        "arXiv 2402.05356 v2",
    },
    "dropout": {
        "dropout_confidence": "mean over dropout rates of 1/perplexity; high = easy; arXiv 2402.05356 v1",
    },
}
"""The columns of each further score: formula, direction, source."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What the main process finds out for a further score.

    opening  ids that the tokenizer writes before a text
    tokens   folder of the tokens of another model, below work/; empty if those of the scoring model are taken
    stored   the full model's log-probabilities stand in scores.parquet already, and are not computed again
    """

    opening: list[int] = field(default_factory=list)
    tokens: str = ""
    stored: bool = False


@dataclass(frozen=True, slots=True)
class FurtherScore:
    """A further score: what is computed, and how it becomes columns.

    parts    what is computed, one after the other
    columns  from the numbers of every part and subnet, in order, to float64 [N] by column
    about    what each column is, for the metadata
    """

    parts: list[Part]
    columns: Callable[[Sequence[BatchScores]], dict[str, FloatArray]]
    about: Mapping[str, str]


def pass_key(job: Job, name: str) -> Key:
    """Return what a further score depends on, by name."""
    key = {name: value for name, value in job.settled.scores_key.items() if name != "score.exits"}
    key["tokens"] = fingerprint(job.settled.tokens_key)
    score = job.recipe.score
    if name == "masked":
        key["score.masked.sparsity"] = list(masked_settings(score.masked).sparsity)
    if name == "dropout":
        key["score.dropout.rates"] = list(dropout_settings(score.dropout).rates)
        key["seed"] = job.recipe.run.seed
    if name == "ifd" and isinstance(score.ifd, SmallModel):
        key["model"] = weight_fingerprint(score.ifd.model, revision=score.ifd.revision)
        key["tokenizer"] = tokenizer_fingerprint(score.ifd.model, revision=score.ifd.revision)
    return key


def set_up(job: Job, name: str, work: Path) -> Setup:
    """Find out what the parts of a further score are made of; called by the main process."""
    stored = _is_full_model_scored(job)
    if name != "ifd":
        return Setup(stored=stored)
    model = ifd_model(job.recipe)
    folder = ""
    if isinstance(job.recipe.score.ifd, SmallModel):
        folder = f"{work.name}/tokens"
        tokens_for(job, model, job.folder.work / folder)
    opening = make_codec(job.loaded.tokenizer(model.name, model.revision), ()).opening
    return Setup(opening.tolist(), folder, stored and not folder)


def further_score(job: Job, name: str, store: TokenStore, setup: Setup) -> FurtherScore:
    """Return what a further score computes; every process of a launch comes to the same."""
    return {"ifd": _ifd, "masked": _masked_score, "dropout": _dropout_score}[name](job, store, setup)


def _ifd(job: Job, store: TokenStore, setup: Setup) -> FurtherScore:
    """The response given its prompt (unless complexity has scored that) and alone, a forward pass over each."""
    model = ifd_model(job.recipe)
    if setup.tokens:
        store = open_tokens(job.folder.work / setup.tokens)
    responses = alone(store, np.array(setup.opening, np.int64))
    given = _part(job, "ifd: with the prompt", 0, store, lambda: _load(job, model), reuse_prefixes=False)
    without = _part(job, "ifd: without it", 1, responses.tokens, lambda: _load(job, model), reuse_prefixes=False)

    def columns(scores: Sequence[BatchScores]) -> dict[str, FloatArray]:
        log_prob_alone = pool_alone(responses, [scores[-1]], len(store))
        log_prob = _stored_log_prob(job) if setup.stored else scores[0].log_prob[:, -1]
        return {"ifd": ifd(log_prob_alone, log_prob), "log_prob_alone": log_prob_alone}

    return FurtherScore([without] if setup.stored else [given, without], columns, ABOUT["ifd"])


def _masked_score(job: Job, store: TokenStore, setup: Setup) -> FurtherScore:
    """One subnet after the other: weights are masked once for all chunks of this process, and restored."""
    asked = masked_settings(job.recipe.score.masked).sparsity
    sparsity = [fraction for fraction in asked if fraction or not setup.stored]
    plan = _plan(job, store)

    @contextmanager
    def subnet(number: int) -> Iterator[BatchFunction]:
        model = _load(job, job.recipe.model)
        with masked_weights(model.parts, sparsity[number]):
            yield batch_scores(lambda: model, store, plan)

    part = Part("masked", _folder(job, "masked", 0), store, plan, len(sparsity), subnet)

    def columns(scores: Sequence[BatchScores]) -> dict[str, FloatArray]:
        subnets = [subnet.log_prob[:, -1].astype(np.float64) for subnet in scores]
        taken_over = len(asked) - len(sparsity)  # of sparsity 0, which is the model itself
        whole = [_stored_log_prob(job)] * taken_over if taken_over else []
        return {"masked_loss": masked_loss(np.stack([*whole, *subnets], axis=1))}

    return FurtherScore([part], columns, ABOUT["masked"])


def _dropout_score(job: Job, store: TokenStore, setup: Setup) -> FurtherScore:
    """All rates batch by batch. Prefixes are not reused: the masks of a record cover all of its tokens."""
    rates, plan = dropout_settings(job.recipe.score.dropout).rates, _plan(job, store)

    @contextmanager
    def subnet(number: int) -> Iterator[BatchFunction]:
        model = _load(job, job.recipe.model)
        subnets = dropout_subnets(model.parts, rates, seed=job.recipe.run.seed)
        yield lambda batch: score_dropout(model, subnets, store, plan.rows_of_batch(batch))

    part = Part("dropout", _folder(job, "dropout", 0), store, plan, 1, subnet, columns=len(rates))

    def columns(scores: Sequence[BatchScores]) -> dict[str, FloatArray]:
        return {"dropout_confidence": dropout_confidence(scores[0].log_prob)}

    return FurtherScore([part], columns, ABOUT["dropout"])


def _is_full_model_scored(job: Job) -> bool:
    """Whether complexity was scored with the last layer among its exits."""
    record = job.folder.stage("scores")
    return record is not None and record["key"]["score.exits"][-1] == job.settled.num_layers


def _stored_log_prob(job: Job) -> FloatArray:
    return read_exit(job.folder.path / "scores.parquet", "log_prob", job.settled.num_layers)


def _part(
    job: Job, name: str, number: int, store: TokenStore, load: Callable[[], ScoringModel], *, reuse_prefixes: bool
) -> Part:
    """A part that the full model computes, once."""
    plan = plan_batches_of(store, settled_tokens_per_batch(job.recipe), reuse_prefixes=reuse_prefixes)

    @contextmanager
    def whole_model(subnet: int) -> Iterator[BatchFunction]:
        yield batch_scores(load, store, plan)

    return Part(name, _folder(job, "ifd", number), store, plan, 1, whole_model)


def _plan(job: Job, store: TokenStore) -> BatchPlan:
    return plan_batches_of(store, settled_tokens_per_batch(job.recipe), reuse_prefixes=False)


def _folder(job: Job, name: str, number: int) -> Path:
    return job.folder.work / f"scores-{name}" / f"part-{number}"


def _load(job: Job, model: Model) -> ScoringModel:
    with job.launch.heartbeat.kept_up():
        return full_model(job.loaded.scoring_model(model, job.recipe.score.exits))


def ifd_model(recipe: Recipe) -> Model:
    """Return the model that scores IFD: the scoring model, or a small one in its place."""
    small = recipe.score.ifd
    if not isinstance(small, SmallModel):
        return recipe.model
    return recipe.model.model_copy(
        update={"name": small.model, "revision": small.revision, "quantization": "none", "device_map": None}
    )


def masked_settings(setting: bool | Masked) -> Masked:
    """Return score.masked with its defaults where it is only true."""
    return setting if isinstance(setting, Masked) else Masked()


def dropout_settings(setting: bool | Dropout) -> Dropout:
    """Return score.dropout with its defaults where it is only true."""
    return setting if isinstance(setting, Dropout) else Dropout()
