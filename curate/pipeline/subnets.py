"""What each further score (IFD, masks, dropout) computes: its parts, and how their numbers become columns."""

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
    """What the main process finds out before a further score is computed.

    opening  ids that the tokenizer writes before a text (BOS); for ifd only
    tokens   folder below work/ with tokens of a small model; "" where the tokens of the scoring model are used
    stored   whether scores.parquet has the full model's log-probabilities already, so they are not computed again
    """

    opening: list[int] = field(default_factory=list)
    tokens: str = ""
    stored: bool = False


@dataclass(frozen=True, slots=True)
class FurtherScore:
    """A further score: what is computed, and how it becomes columns of scores.parquet.

    parts    what is computed, one part after the other
    columns  from the scores of every part and subnet, in order, to float64 [N] by name of the column
    about    what each column means, for the metadata of the table
    """

    parts: list[Part]
    columns: Callable[[Sequence[BatchScores]], dict[str, FloatArray]]
    about: Mapping[str, str]


def pass_key(job: Job, name: str) -> Key:
    """Return what a further score depends on, by name."""
    # Not the exits: a further score uses the full model, and stays valid when other exits are scored.
    key = {name: value for name, value in job.settled.scores_key.items() if name != "score.exits"}
    key["tokens"] = fingerprint(job.settled.tokens_key)
    score = job.recipe.score
    if name == "masked":
        key["score.masked.sparsity"] = list(masked_settings(score.masked).sparsity)
    if name == "dropout":
        key["score.dropout.rates"] = list(dropout_settings(score.dropout).rates)
        key["seed"] = job.recipe.run.seed  # of the dropout masks; the other scores draw nothing
    if name == "ifd" and isinstance(score.ifd, SmallModel):
        key["model"] = weight_fingerprint(score.ifd.model, revision=score.ifd.revision)
        key["tokenizer"] = tokenizer_fingerprint(score.ifd.model, revision=score.ifd.revision)
    return key


def set_up(job: Job, name: str, work: Path) -> Setup:
    """Return what must be known before a further score is computed. Called by the main process.

    With score.ifd.model the records are tokenised for the small model first.
    """
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
    """Return what a further score computes. Every process of a launch gets the same parts and chunks."""
    return {"ifd": _ifd, "masked": _masked_score, "dropout": _dropout_score}[name](job, store, setup)


def _ifd(job: Job, store: TokenStore, setup: Setup) -> FurtherScore:
    """Return IFD: two parts, the response after its prompt and the response alone.

    The first is left out where the complexity pass has stored it.
    """
    model = ifd_model(job.recipe)
    if setup.tokens:
        store = open_tokens(job.folder.work / setup.tokens)
    responses = alone(store, np.array(setup.opening, np.int64))
    given = _part(job, "ifd: with the prompt", 0, store, lambda: _load(job, model), reuse_prefixes=False)
    without = _part(job, "ifd: without it", 1, responses.tokens, lambda: _load(job, model), reuse_prefixes=False)

    def columns(scores: Sequence[BatchScores]) -> dict[str, FloatArray]:
        log_prob_alone = pool_alone(responses, [scores[-1]], len(store))  # a record may have several responses
        log_prob = _stored_log_prob(job) if setup.stored else scores[0].log_prob[:, -1]
        return {"ifd": ifd(log_prob_alone, log_prob), "log_prob_alone": log_prob_alone}

    return FurtherScore([without] if setup.stored else [given, without], columns, ABOUT["ifd"])


def _masked_score(job: Job, store: TokenStore, setup: Setup) -> FurtherScore:
    """Return the loss under L1 masks: one part with a subnet for every sparsity.

    The weights are masked once for all chunks of a process, and then restored.
    """
    asked = masked_settings(job.recipe.score.masked).sparsity
    # Sparsity 0 is the model itself; what complexity has stored of it is used.
    sparsity = [fraction for fraction in asked if fraction or not setup.stored]
    plan = _plan(job, store)

    @contextmanager
    def subnet(number: int) -> Iterator[BatchFunction]:
        model = _load(job, job.recipe.model)
        with masked_weights(model.parts, sparsity[number]):  # restored when the next subnet is opened
            yield batch_scores(lambda: model, store, plan)

    part = Part("masked", _folder(job, "masked", 0), store, plan, len(sparsity), subnet)

    def columns(scores: Sequence[BatchScores]) -> dict[str, FloatArray]:
        subnets = [subnet.log_prob[:, -1].astype(np.float64) for subnet in scores]
        num_stored = len(asked) - len(sparsity)
        whole = [_stored_log_prob(job)] * num_stored if num_stored else []
        return {"masked_loss": masked_loss(np.stack([*whole, *subnets], axis=1))}

    return FurtherScore([part], columns, ABOUT["masked"])


def _dropout_score(job: Job, store: TokenStore, setup: Setup) -> FurtherScore:
    """Return the confidence under dropout: one part, in which every batch is computed with all rates."""
    # No shared prefixes: the dropout mask of a record covers all of its tokens, also those of the prompt.
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
    """Say whether complexity was scored with the last layer among its exits, which is the full model."""
    record = job.folder.stage("scores")
    return record is not None and record["key"]["score.exits"][-1] == job.settled.num_layers


def _stored_log_prob(job: Job) -> FloatArray:
    return read_exit(job.folder.path / "scores.parquet", "log_prob", job.settled.num_layers)


def _part(
    job: Job, name: str, number: int, store: TokenStore, load: Callable[[], ScoringModel], *, reuse_prefixes: bool
) -> Part:
    """Return a part of ifd that the full model computes once."""
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
    with job.launch.busy("loading the model"):
        return full_model(job.loaded.scoring_model(model, job.recipe.score.exits))


def ifd_model(recipe: Recipe) -> Model:
    """Return the model that scores IFD: the scoring model, or the small one of score.ifd.model."""
    small = recipe.score.ifd
    if not isinstance(small, SmallModel):
        return recipe.model
    # model.quantization and model.device_map were chosen for the scoring model, which is larger.
    return recipe.model.model_copy(
        update={"name": small.model, "revision": small.revision, "quantization": "none", "device_map": None}
    )


def masked_settings(setting: bool | Masked) -> Masked:
    """Return the settings of score.masked; the defaults if it is only true or false."""
    return setting if isinstance(setting, Masked) else Masked()


def dropout_settings(setting: bool | Dropout) -> Dropout:
    """Return the settings of score.dropout; the defaults if it is only true or false."""
    return setting if isinstance(setting, Dropout) else Dropout()
