"""Reads lm-eval's results one by one, with the value of each example where a result is a mean over examples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from curate.evaluation.summary import ByRecord


@dataclass(frozen=True, slots=True)
class TaskResult:
    """One metric of one task.

    task              name of the task; a group's subtasks are tasks of their own
    metric            name of the metric, with its filter where it has one: acc, exact_match (strict-match)
    value             its value over all examples, in the metric's own unit
    stderr            standard error over examples; None where the task reports none
    samples           number of examples that were evaluated
    higher_is_better  direction of the metric
    values, weights   of each example, in the task's order, where `value` is their weighted mean; else None (BLEU). A
                      weight is 1, or how many parts of the example count (the instructions of an IFEval prompt)
    """

    task: str
    metric: str
    value: float
    stderr: float | None
    samples: int
    higher_is_better: bool
    values: tuple[float, ...] | None = None
    weights: tuple[float, ...] | None = None

    @property
    def by_record(self) -> ByRecord | None:
        """The examples, as records that a mean is over."""
        if self.values is None or self.weights is None:
            return None
        return ByRecord(np.array(self.values), np.array(self.weights))


def task_results_of(answer: Mapping[str, Any]) -> list[TaskResult]:
    """Return the results in an answer of lm-eval's `simple_evaluate`, in its order."""
    # A key is "metric,filter", and its standard error stands under "metric_stderr,filter".
    found = []
    for task, values in answer["results"].items():
        if task not in answer["n-samples"]:
            continue  # a group's own row is a mean of its tasks
        directions = answer["higher_is_better"].get(task, {})
        for key, value in values.items():
            metric, comma, rule = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, (int, float)):
                continue
            stderr = values.get(f"{metric}_stderr,{rule}")
            samples = [sample for sample in answer["samples"][task] if sample["filter"] == rule]
            result = TaskResult(
                task,
                metric if rule == "none" else f"{metric} ({rule})",
                float(value),
                float(stderr) if isinstance(stderr, (int, float)) and math.isfinite(stderr) else None,
                int(answer["n-samples"][task]["effective"]),
                directions.get(metric) is not False,  # where a task states no direction, higher is better
                *_examples(samples, metric, float(value)),
            )
            found.append(result)
    return found


def _examples(
    samples: Sequence[Mapping[str, Any]], metric: str, value: float
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return the value and weight of each example, if `value` is their weighted mean; else None twice.

    An example's value is a number, or a list of numbers of which each counts in the mean.
    """
    ordered = sorted(samples, key=lambda sample: int(sample["doc_id"]))
    try:
        parts = [np.atleast_1d(np.asarray(sample[metric], np.float64)).ravel() for sample in ordered]
    except (KeyError, TypeError, ValueError):  # texts, pairs of texts: what a corpus-level metric is computed from
        return None, None
    values = [float(part.mean()) if len(part) else 0.0 for part in parts]
    weights = [float(len(part)) for part in parts]
    # lm-eval does not say how a metric is averaged, so the mean itself must agree.
    if not sum(weights) or not math.isclose(np.dot(values, weights) / sum(weights), value, rel_tol=1e-9, abs_tol=1e-12):
        return None, None
    return tuple(values), tuple(weights)
