"""The evaluation stage: an adapter to evaluation.json and evaluation.parquet. Losses on references, tasks, a judge."""

from __future__ import annotations

import time
from itertools import islice
from typing import Any

from curate.evaluation.answers import generate, prompts_of
from curate.evaluation.judge import PairResult, judge_pairs
from curate.evaluation.server import connect
from curate.evaluation.summary import summarize
from curate.evaluation.tasks import check_tasks
from curate.pipeline.adapter import adapter_stage, verified_adapter
from curate.pipeline.features import base_key, trained_model
from curate.pipeline.job import Job
from curate.pipeline.losses import load_trained_model, losses_on, task_key, task_results, untuned_losses
from curate.pipeline.references import References, examples_of, references
from curate.pipeline.selection import selection_stage
from curate.pipeline.tokens import settled_now
from curate.pipeline.verified import verified_file
from curate.runs.atomic import write_json
from curate.runs.digests import digest_of_blocks
from curate.runs.stage import Outcome, Stage
from curate.tables.evaluation import SetLosses, count_losses, evaluation_json, write_evaluation
from curate.types import CurateError


def evaluate(job: Job) -> None:
    """Evaluate the adapter of a selection beside the untuned model, if that is not finished.

    Raises:
        CurateError: there is no adapter yet, or it was trained on another model; nothing to evaluate on; lm-eval is not
            installed; the judge does not answer.
    """
    # By the main process alone: losses, lm-eval tasks and the judge are not divided among processes.
    job.launch.from_main("evaluation", lambda: _evaluate(job), type(None))


def evaluation_stage(name: str) -> str:
    """Return the name of the stage that evaluates the adapter of a selection, in the manifest."""
    return f"{selection_stage(name)}/evaluation"


def _evaluate(job: Job) -> None:
    """Measure the adapter and the untuned model, and write evaluation.parquet, then evaluation.json."""
    started, name = time.monotonic(), job.recipe.select.name
    folder = job.folder.selection(name)
    adapter = job.folder.stage(adapter_stage(name))
    if adapter is None or not (folder / "adapter").is_dir():
        raise CurateError(f"{job.folder.path} holds no adapter of {name!r} yet: run curate train (or curate run)")
    weights, base = verified_adapter(job), base_key(job)
    job.folder.require_same(adapter_stage(name), {part: adapter["key"].get(part) for part in base}, base)
    sets = references(job)
    # Sets and task files come in by their content. The size of a batch moves a loss only in its last bits.
    ignored = {"sets", "tokens_per_batch", "task_batch_size"}
    settings = job.recipe.evaluate.model_dump(mode="json", exclude=ignored)
    key = {
        "adapter": adapter["fingerprint"],
        "sets": {wanted.name: dict(wanted.key) for wanted in sets},
        **{f"evaluate.{setting}": value for setting, value in settings.items()},
        **task_key(job),
    }
    products = (folder / "evaluation.json", folder / "evaluation.parquet")
    stage = Stage(job.folder, evaluation_stage(name), key, products, started, lambda: count_losses(products[1]))
    if stage.is_finished():
        verified_file(job.folder, stage.name, products[0], "evaluate")
        return
    check_tasks(job.recipe.evaluate.tasks, job.recipe.evaluate.include_path)
    untuned = untuned_losses(job, sets)
    model = load_trained_model(job, weights)
    adapted = losses_on(job, model, sets, of="the adapter")
    tasks, judged = task_results(job, model), _judged(job, model, sets[0])
    results = []
    for wanted in sets:
        results.append(SetLosses("untuned", wanted.name, untuned[wanted.name]))
        results.append(SetLosses("adapter", wanted.name, adapted[wanted.name]))
    with stage.replacing(products[1]) as temporary:
        write_evaluation(temporary, results)
    about = {"selection": name, "seconds": round(time.monotonic() - started, 1)}
    write_json(products[0], evaluation_json(results, tasks=tasks, judge=judged, about=about))
    records = sum(summarize(adapted[wanted.name]).records for wanted in sets)
    total = sum(len(adapted[wanted.name].loss) for wanted in sets)
    dropped = {"no_loss": total - records} if total > records else {}
    details = {"digests": {product.name: digest_of_blocks(product) for product in products}}
    stage.finish(Outcome(total, records, dropped, details, str(products[0])))


def _judged(job: Job, model: Any, wanted: References) -> PairResult | None:
    """Return how a judge compares the adapter's answers with the untuned model's; None without a judge.

    Args:
        job: the job.
        model: with the adapter.
        wanted: the set whose first evaluate.judge.limit requests are answered.
    """
    judge, prompt, trained = job.recipe.evaluate.judge, job.recipe.prompt, trained_model(job.recipe)
    if judge is None:
        return None
    ask = connect(judge.base_url, judge.model, api_key_env=judge.api_key_env)
    tokenizer = job.loaded.tokenizer(trained.name, trained.revision)
    examples = list(islice(examples_of(job, wanted), judge.limit))
    now = settled_now(prompt)
    prompts = prompts_of(examples, tokenizer, template=prompt.template, system=prompt.system, now=now)
    # What the judge reads as the request: of a conversation of several turns, what the user said last.
    requests = [next(t.content for t in reversed(e.turns) if t.role == "user") for e in examples]
    with job.launch.busy("answers for the judge"):
        ours = generate(model, tokenizer, prompts, max_new_tokens=judge.max_new_tokens)
        untuned = load_trained_model(job, None)
        other = generate(untuned, tokenizer, prompts, max_new_tokens=judge.max_new_tokens)
        return judge_pairs(requests, ours, other, ask)
