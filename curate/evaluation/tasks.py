"""Runs tasks of EleutherAI's lm-evaluation-harness on a model in memory; the only module that loads lm_eval.

Source: https://github.com/EleutherAI/lm-evaluation-harness (extra `eval`).
"""

from __future__ import annotations

import difflib
import importlib.util
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

from jinja2 import TemplateError
from tqdm import tqdm

from curate.evaluation.losses import evaluating
from curate.evaluation.task_results import TaskResult, task_results_of
from curate.tokens.rendering import Message, renderer
from curate.types import CurateError

_Template = Callable[..., str]
_OnProgress = Callable[[int, int | None], None]


def evaluate_tasks(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[str],
    *,
    include_path: str | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    chat: bool = False,
    now: datetime | None = None,
    on_progress: _OnProgress = lambda done, total: None,
) -> list[TaskResult]:
    """Run lm-eval tasks; return a result per task and metric, in the order of the tasks.

    Warning: lm-eval sets the global seeds of Python, numpy and torch to its own constants. So the same call gives the
    same result (langdetect, which IFEval uses, gets a seed from us), but code that draws random numbers afterwards must
    set its seed again.

    Args:
        model: a causal LM, as loaded or with an adapter; it is used without dropout and left as it was.
        tokenizer: the model's tokenizer.
        tasks: names of tasks, groups or tags.
        include_path: a folder of further task files (YAML); they may replace built-in tasks of the same name.
        limit: examples of each task; None for all.
        batch_size: examples computed at once.
        chat: whether prompts are written with the tokenizer's chat template (for models that were tuned with it).
        now: what the chat template reads as date and time (default: the moment of this call).
        on_progress: called with how many prompts or choices are done, and of how many (None until that is known).

    Raises:
        CurateError: lm-eval is not installed, a task is unknown or cannot be built, its data cannot be had, or a
            package that it needs is missing.
    """
    if not tasks:
        return []
    on_progress(0, None)
    manager = _manager(tasks, include_path)
    template = _at_moment(tokenizer, now or datetime.now()) if chat else None
    # lm-eval changes the tokenizer that it is given.
    padding_side, pad_token = tokenizer.padding_side, tokenizer.pad_token
    try:
        with evaluating(model), _quietly(), _explained(tasks), _langdetect_seeded():
            harness = _harness(model, tokenizer, batch_size, template, on_progress)
            return task_results_of(_run(harness, list(tasks), manager, limit=limit, chat=chat))
    finally:
        tokenizer.padding_side, tokenizer.pad_token = padding_side, pad_token


def check_tasks(tasks: Sequence[str], include_path: str | None = None) -> None:
    """Check, before hours are spent on training, that `evaluate_tasks` can run these tasks; download their data.

    Raises:
        CurateError: as in `evaluate_tasks`.
    """
    if tasks:
        manager = _manager(tasks, include_path)
        with _quietly(), _explained(tasks):
            manager.load(list(tasks))


def _manager(tasks: Sequence[str], include_path: str | None) -> Any:
    """Return a task manager that knows all of `tasks`."""
    if importlib.util.find_spec("lm_eval") is None:
        raise CurateError('evaluate.tasks needs lm-eval: pip install "lc-curate[eval]"')
    if include_path is not None and not Path(include_path).is_dir():
        raise CurateError(f"evaluate.include_path: expected a folder of lm-eval task files, got {include_path}")
    from lm_eval.tasks import TaskManager

    # Reading the index of the thousands of built-in tasks takes seconds: skipped if the person's folder has all tasks.
    if include_path is not None and not _unknown(tasks, own := TaskManager(None, include_path, False)):
        return own
    manager = TaskManager(include_path=include_path)
    if unknown := _unknown(tasks, manager):
        near = difflib.get_close_matches(unknown[0], manager.all_tasks, n=1)
        hint = f"did you mean {near[0]}?" if near else "see lm-eval ls tasks, or set evaluate.include_path"
        raise CurateError(f"evaluate.tasks: lm-eval knows no task {unknown[0]}; {hint}")
    return manager


def _unknown(tasks: Sequence[str], manager: Any) -> list[str]:
    known = set(manager.all_tasks)
    return [task for task in tasks if task not in known]


def _at_moment(tokenizer: Any, now: datetime) -> _Template:
    """Return lm-eval's `apply_chat_template` with a clock that stands still: its own would read today's date."""
    render = renderer(tokenizer, now)

    def template(chat_history: Sequence[Message], add_generation_prompt: bool = True) -> str:
        how = {"continue_final_message": not add_generation_prompt}
        try:
            return render(chat_history, how, add_generation_prompt)
        except TemplateError:  # lm-eval's own way with templates that know no system role
            others = [message for message in chat_history if message["role"] != "system"]
            return render(others, how, add_generation_prompt)

    return template


def _harness(model: Any, tokenizer: Any, batch_size: int, template: _Template | None, on_progress: _OnProgress) -> Any:
    """Return lm-eval's view of a model, which tells `on_progress` how many of its requests are done."""
    from lm_eval.models.huggingface import HFLM

    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    if template is not None:
        harness.apply_chat_template = template
    done = total = 0

    def finished(*_: Any) -> None:
        nonlocal done
        done += 1
        on_progress(done, total)

    def announced(run: Callable[..., Any]) -> Callable[..., Any]:
        def counted(requests: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
            nonlocal total
            total += len(requests)
            on_progress(done, total)
            return run(requests, *args, **kwargs)

        return counted

    harness.cache_hook.add_partial = finished  # lm-eval calls it once for each request, whether it caches or not
    for kind in ("loglikelihood", "loglikelihood_rolling", "generate_until"):
        setattr(harness, kind, announced(getattr(harness, kind)))
    return harness


def _run(harness: Any, tasks: list[str], manager: Any, *, limit: int | None, chat: bool) -> Any:
    """Return the answer of lm-eval's `simple_evaluate`."""
    from lm_eval import simple_evaluate

    with patch("lm_eval.evaluator.get_git_commit_hash"):  # it lets git write an error where no checkout is
        return simple_evaluate(
            model=harness,
            tasks=tasks,
            task_manager=manager,
            limit=limit,
            apply_chat_template=chat,
            log_samples=True,  # for the value of each example
        )


@contextmanager
def _quietly() -> Iterator[None]:
    """Let lm-eval log errors only, and tqdm draw no bars, while the context is open: our own say what matters."""
    logger = logging.getLogger("lm_eval")
    level, draw = logger.level, tqdm.__init__

    def hidden(self: Any, *args: Any, **kwargs: Any) -> None:
        draw(self, *args, **{**kwargs, "disable": True})

    logger.setLevel(logging.ERROR)
    try:
        # Not every bar of lm-eval and datasets has a switch, and tqdm's own (TQDM_DISABLE) is read when it is imported.
        with patch.object(tqdm, "__init__", hidden):
            yield
    finally:
        logger.setLevel(level)


def _langdetect_seeded() -> AbstractContextManager[object]:
    """Give langdetect a seed while the context is open: without one it may call the same text another language."""
    if importlib.util.find_spec("langdetect") is None:
        return nullcontext()
    from langdetect import DetectorFactory

    return patch.object(DetectorFactory, "seed", 0)


@contextmanager
def _explained(tasks: Sequence[str]) -> Iterator[None]:
    """Turn errors inside the context into one that says what a task lacks: data, a package, or a package's resource."""
    names = ", ".join(tasks)
    try:
        yield
    except ImportError as error:
        raise CurateError(f"evaluate.tasks: {names} needs a further package ({_first_line(error)})") from error
    except (OSError, LookupError) as error:  # OSError: no connection, no file; LookupError: NLTK's resources
        raise CurateError(
            f"evaluate.tasks: the data of {names} cannot be had ({_first_line(error)}): download it while there is "
            "a network, or name local tasks with evaluate.include_path"
        ) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip(" *\t") for line in str(error).splitlines()]
    return next((line for line in lines if line), type(error).__name__)[:200]
