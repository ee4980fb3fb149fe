"""Estimates the seconds and the memory of every pass of the language model, from probes of a sample."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curate.models.device import resolve_device
from curate.models.memory import process_memory
from curate.pipeline.compute import fitting_tokens_per_batch, may_reuse_prefixes, settled_tokens_per_batch
from curate.pipeline.loaded import Loaded
from curate.pipeline.needed import passes_to_run
from curate.pipeline.probe_sample import Sample, tokens_of
from curate.pipeline.probe_scores import (
    FullPlan,
    ScoringCost,
    dropout_factor,
    full_plan,
    imbalances,
    measure_scoring,
    pass_seconds,
    seconds_to_mask,
)
from curate.pipeline.probe_stages import bytes_of
from curate.pipeline.subnets import dropout_settings, ifd_model, masked_settings
from curate.probe.estimate import PROCESSES, MemoryEstimate, StageEstimate, seconds_by_processes
from curate.scoring.ifd import alone
from curate.scoring.score import ScoringModel, full_model
from curate.tokens.control import make_codec
from curate.types import TokenStore


@dataclass(frozen=True, slots=True)
class StageCosts:
    """What some stages will take.

    stages            seconds of each of them
    memory            of those that load a model
    tokens_per_batch  what score.tokens_per_batch=auto becomes here; None if it was not tried
    """

    stages: tuple[StageEstimate, ...] = ()
    memory: tuple[MemoryEstimate, ...] = ()
    tokens_per_batch: int | None = None


@dataclass(frozen=True, slots=True)
class _Probed:
    """A scoring model and what was measured of it.

    scorer        the model
    store         the sample in its tokens
    full          batches of the whole input, without shared prefixes
    cost          what its batches cost
    load_seconds  to load it and run the self-test
    base          seconds of one forward pass over the whole input, with the last exit only
    stored        whether the complexity pass stores the full model's log-probabilities, so that further passes need
                  not compute them
    """

    scorer: ScoringModel
    store: TokenStore
    full: FullPlan
    cost: ScoringCost
    load_seconds: float
    base: float
    stored: bool = False


def estimate_scores(sample: Sample, folder: Path) -> StageCosts:
    """Return what the passes of the language model will take, in the order in which a run makes them.

    Passes with the same model load it once; the first of them pays for the loading.

    Args:
        sample: the input.
        folder: takes what is written on the way.
    """
    recipe = sample.recipe
    names = [name for name in passes_to_run(recipe, [recipe.select], complexity=False) if name != "columns"]
    small = ifd_model(recipe).name != recipe.model.name
    own = [name for name in names if name != "ifd" or not small]
    found = [_estimate_own_model(sample, folder, own)] if own else []
    if small and "ifd" in names:
        found.append(_estimate_small_model(sample, folder))
    stages = {stage.name: stage for part in found for stage in part.stages}
    memory = tuple(peak for part in found for peak in part.memory)
    tokens_per_batch = found[0].tokens_per_batch if found else None
    return StageCosts(tuple(stages[name] for name in names), memory, tokens_per_batch)


def _estimate_own_model(sample: Sample, folder: Path, names: list[str]) -> StageCosts:
    """Return what the passes `names` of the scoring model will take."""
    recipe, store = sample.recipe, sample.store
    # Not `sample.loaded`, which would keep the model: its memory is to be free when training is measured.
    loaded = Loaded(trust_remote_code=recipe.model.trust_remote_code, offload_folder=folder / "offload")
    started, process = time.perf_counter(), process_memory(resolve_device())
    scorer = loaded.scoring_model(recipe.model, recipe.score.exits)
    load_seconds, size = time.perf_counter() - started, settled_tokens_per_batch(recipe)
    reuse = "complexity" in names and may_reuse_prefixes(lambda: scorer, store, size)
    if sample.fit_batches:
        size = fitting_tokens_per_batch(lambda: scorer, store, size, reuse_prefixes=reuse)
    shares_prefixes = full_plan(store, sample.records_per_row, size, reuse_prefixes=reuse)
    whole = full_plan(store, sample.records_per_row, size, reuse_prefixes=False) if reuse else shares_prefixes
    # Measured once: what a batch costs is a function of its tokens, and so holds for every plan and pass.
    cost = measure_scoring(scorer, store, shares_prefixes.plan, folder)
    base = pass_seconds(cost, whole, store, full_model(scorer))
    stored = "complexity" in names and scorer.layers[-1] == scorer.parts.num_layers
    probed = _Probed(scorer, store, whole, cost, load_seconds, base, stored)
    stages = []
    for number, name in enumerate(names):
        if name == "complexity":
            seconds, plan = pass_seconds(cost, shares_prefixes, store, scorer), shares_prefixes
        else:
            seconds, plan = _seconds_of_pass(sample, probed, name), whole
        alone_seconds = load_seconds if number == 0 else 0.0
        stages.append(_stage(name, alone_seconds, seconds, plan, base))
    memory = tuple(MemoryEstimate(name, bytes_of(scorer.parts.model), cost.activations, process) for name in names)
    return StageCosts(tuple(stages), memory, size)


def _estimate_small_model(sample: Sample, folder: Path) -> StageCosts:
    """Return what IFD with a small model will take, which tokenises the records once more."""
    recipe, model = sample.recipe, ifd_model(sample.recipe)
    loaded = Loaded(trust_remote_code=model.trust_remote_code, offload_folder=folder / "offload")
    started = time.perf_counter()
    store = tokens_of(sample, sample.examples, model, folder / "tokens-ifd")
    records = sample.records * (sample.read_seconds + (time.perf_counter() - started) / len(store))
    started, process = time.perf_counter(), process_memory(resolve_device())
    scorer = full_model(loaded.scoring_model(model, recipe.score.exits))
    load_seconds = time.perf_counter() - started
    full = full_plan(store, sample.records_per_row, settled_tokens_per_batch(recipe), reuse_prefixes=False)
    cost = measure_scoring(scorer, store, full.plan, folder)
    probed = _Probed(scorer, store, full, cost, load_seconds, pass_seconds(cost, full, store, scorer))
    stage = _stage("ifd", records + load_seconds, _seconds_of_pass(sample, probed, "ifd"), full, probed.base)
    memory = MemoryEstimate("ifd", bytes_of(scorer.parts.model), cost.activations, process)
    return StageCosts((stage,), (memory,))


def _seconds_of_pass(sample: Sample, probed: _Probed, name: str) -> float:
    """Return the seconds of a further score in one process, without loading the model."""
    return {"ifd": _ifd_seconds, "masked": _masked_seconds, "dropout": _dropout_seconds}[name](sample, probed)


def _ifd_seconds(sample: Sample, probed: _Probed) -> float:
    model = ifd_model(sample.recipe)
    opening = make_codec(sample.loaded.tokenizer(model.name, model.revision), ()).opening
    responses = alone(probed.store, opening).tokens
    size = settled_tokens_per_batch(sample.recipe)
    without = full_plan(responses, sample.records_per_row, size, reuse_prefixes=False)
    with_prompt = 0.0 if probed.stored else probed.base
    return with_prompt + pass_seconds(probed.cost, without, responses, full_model(probed.scorer))


def _masked_seconds(sample: Sample, probed: _Probed) -> float:
    # Sparsity 0 is the model itself (see `subnets`).
    asked = masked_settings(sample.recipe.score.masked).sparsity
    sparsity = [fraction for fraction in asked if fraction or not probed.stored]
    scorer = full_model(probed.scorer)
    return sum(probed.base + seconds_to_mask(scorer, fraction) for fraction in sparsity)


def _dropout_seconds(sample: Sample, probed: _Probed) -> float:
    rates = dropout_settings(sample.recipe.score.dropout).rates
    # One rate stands for all: the rate changes which outputs are zero, not how many are computed.
    rate = float(np.median(rates))
    factor = dropout_factor(full_model(probed.scorer), probed.cost, probed.store, probed.full.plan, rate)
    return len(rates) * factor * probed.base


def _stage(name: str, alone_seconds: float, seconds: float, full: FullPlan, base: float) -> StageEstimate:
    """Return the estimate of a pass: `alone_seconds` in every process, `seconds` divided among them.

    Seconds over `base` are its price in forward passes.
    """
    divided = seconds_by_processes(alone_seconds, seconds, imbalances(full.plan, PROCESSES))
    return StageEstimate(name, divided, seconds / base if base else None)
