"""lm-eval on a model in memory: a tiny local task whose answers are known, and what is said where something lacks."""

from __future__ import annotations

import importlib.util
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import WORDS, small_tokenizer

from curate.config import load_recipe
from curate.evaluation.task_results import TaskResult, task_results_of
from curate.evaluation.tasks import _at_moment, evaluate_tasks
from curate.models.load import load_model, load_tokenizer
from curate.pipeline import perform
from curate.types import CurateError

needs_lm_eval = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason='lm-eval is not installed: pip install "lc-curate[eval]"'
)
# Other people's deprecations: lm-eval and what it loads.
quiet = pytest.mark.filterwarnings("ignore")

TASK = """\
task: tiny_choice
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


@pytest.fixture
def model_and_tokenizer(llama: Path) -> tuple[Any, Any]:
    return load_model(str(llama)), load_tokenizer(str(llama))


def write_task(folder: Path, docs: list[dict[str, Any]]) -> Path:
    folder.mkdir()
    data = folder / "docs.jsonl"
    data.write_text("".join(json.dumps(doc) + "\n" for doc in docs), encoding="utf-8")
    (folder / "tiny_choice.yaml").write_text(TASK.format(data=data), encoding="utf-8")
    return folder


def likelier(model: Any, tokenizer: Any, question: str, choices: list[str]) -> int:
    """The choice that the model finds likelier after the question, by a plain forward pass."""
    import torch

    sums = []
    for choice in choices:
        context = tokenizer(question)["input_ids"]
        ids = tokenizer(f"{question} {choice}")["input_ids"]
        log_probs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        sums.append(sum(float(log_probs[t - 1, ids[t]]) for t in range(len(context), len(ids))))
    return int(sums[1] > sums[0])


@needs_lm_eval
@quiet
def test_accuracy_is_the_share_of_examples_whose_answer_the_model_finds_likelier(
    model_and_tokenizer: tuple[Any, Any], tmp_path: Path
) -> None:
    model, tokenizer = model_and_tokenizer
    words = ["red", "blue", "river", "city", "poem", "tree", "count", "name"]
    docs = []
    for i, word in enumerate(words):
        choices = [words[i - 1], words[i - 3]]
        best = likelier(model, tokenizer, f"why {word}?", choices)
        docs.append({"question": f"why {word}?", "choices": choices, "answer": best if i < 5 else 1 - best})
    task = write_task(tmp_path / "tasks", docs)
    side = tokenizer.padding_side
    model.train()
    found = evaluate_tasks(model, tokenizer, ["tiny_choice"], include_path=str(task), batch_size=3)
    assert [(r.task, r.metric, r.value, r.samples, r.higher_is_better) for r in found] == [
        ("tiny_choice", "acc", 5 / 8, 8, True)
    ]
    assert found[0].stderr == pytest.approx((5 / 8 * 3 / 8 / 7) ** 0.5)
    assert (found[0].values, found[0].weights) == ((1.0,) * 5 + (0.0,) * 3, (1.0,) * 8)
    assert (model.training, tokenizer.padding_side) == (True, side)
    limited = evaluate_tasks(model, tokenizer, ["tiny_choice"], include_path=str(task), limit=5)
    assert [(r.value, r.samples) for r in limited] == [(1.0, 5)]


@needs_lm_eval
@quiet
def test_a_metric_of_the_whole_set_has_no_values_of_examples(
    model_and_tokenizer: tuple[Any, Any], tmp_path: Path
) -> None:
    docs = [{"question": "why?" * i, "choices": ["red", "blue"], "answer": 0} for i in range(1, 5)]
    task = write_task(tmp_path / "tasks", docs)
    whole = TASK.format(data=task / "docs.jsonl").replace("multiple_choice", "generate_until")
    whole = whole.replace("acc\n    aggregation: mean", "bleu\n    aggregation: bleu")
    how = 'generation_kwargs: {until: ["."], max_gen_toks: 3}\n'
    (task / "tiny_choice.yaml").write_text(whole + how, encoding="utf-8")
    (found,) = evaluate_tasks(*model_and_tokenizer, ["tiny_choice"], include_path=str(task))
    assert (found.metric, found.samples, found.values, found.by_record) == ("bleu", 4, None, None)


def test_the_values_of_examples_stand_in_their_order_with_the_number_of_their_parts() -> None:
    """As lm-eval answers: samples of all filters in one list, here not in order; IFEval's metric has lists of marks."""

    def sample(doc: int, rule: str, marks: list[bool], right: float) -> dict[str, Any]:
        return {"doc_id": doc, "filter": rule, "inst": marks, "right": right, "pairs": ("text", 1), "twice": right}

    samples = [
        sample(1, "none", [True, False, False], 0.0),
        sample(0, "none", [True], 1.0),
        sample(0, "last", [False], 0.0),
        sample(1, "last", [True, True, True], 1.0),
    ]
    scores = {"inst": 0.5, "right": 0.5, "pairs": 0.7, "twice": 1.0, "gone": 0.5}
    answer = {
        "results": {"quiz": {"alias": "quiz", **{f"{name},none": value for name, value in scores.items()}}},
        "samples": {"quiz": samples},
        "n-samples": {"quiz": {"original": 2, "effective": 2}},
        "higher_is_better": {"quiz": {}},
    }
    found = {result.metric: (result.values, result.weights) for result in task_results_of(answer)}
    assert found == {
        "inst": ((1.0, pytest.approx(1 / 3)), (1.0, 3.0)),
        "right": ((1.0, 0.0), (1.0, 1.0)),
        "pairs": (None, None),  # texts
        "twice": (None, None),  # not their mean
        "gone": (None, None),
    }


@needs_lm_eval
@quiet
@pytest.mark.parametrize(("kind", "requests"), [("multiple_choice", 12), ("generate_until", 6)])
def test_requests_are_counted_and_nobody_else_draws_a_bar(
    kind: str,
    requests: int,
    model_and_tokenizer: tuple[Any, Any],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tqdm import tqdm

    monkeypatch.chdir(tmp_path)
    docs = [{"question": "why?" * i, "choices": ["red", "blue"], "answer": 0} for i in range(1, 7)]
    task = write_task(tmp_path / "tasks", docs)
    if kind == "generate_until":
        whole = TASK.format(data=task / "docs.jsonl").replace("multiple_choice", kind).replace("acc", "exact_match")
        how = 'generation_kwargs: {until: ["."], max_gen_toks: 3}\n'
        (task / "tiny_choice.yaml").write_text(whole + how, encoding="utf-8")
    seen: list[tuple[int, int | None]] = []
    evaluate_tasks(
        *model_and_tokenizer,
        ["tiny_choice"],
        include_path=str(task),
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(0, None), *((done, requests) for done in range(requests + 1))]
    said = capfd.readouterr().err
    assert "it/s" not in said
    assert "git" not in said, "lm-eval asks for the commit of a checkout, and here is none"
    list(tqdm(range(3)))
    assert "3/3" in capfd.readouterr().err, "a person's own bars are drawn again afterwards"


def test_a_chat_template_is_told_the_time_of_the_run() -> None:
    """As lm-eval calls it: with a generation prompt, or going on with an answer that the task begins."""
    tokenizer = small_tokenizer(
        chat_template="{{ strftime_now('%d %b %Y') }}{% for m in messages %}"
        "{{ raise_exception('no system') if m.role == 'system' }}<s>{{ m.role }}\n{{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
    )
    template = _at_moment(tokenizer, datetime(2024, 3, 9))
    asked = [{"role": "user", "content": "why?"}]
    assert template(asked, add_generation_prompt=True) == "09 Mar 2024<s>user\nwhy?</s><s>assistant\n"
    begun = [*asked, {"role": "assistant", "content": "the sum"}]
    assert template(begun, add_generation_prompt=False) == "09 Mar 2024<s>user\nwhy?</s><s>assistant\nthe sum"
    assert template([{"role": "system", "content": "x"}, *asked]) == template(asked)


@needs_lm_eval
@quiet
def test_tasks_are_asked_through_the_chat_template_at_the_time_of_the_run(llama: Path, tmp_path: Path) -> None:
    model, tokenizer = load_model(str(llama)), load_tokenizer(str(llama))
    tokenizer.chat_template = "{{ strftime_now('%B') }}{% for m in messages %} {{ m.content }}{% endfor %} "
    choices = [["red", "blue"], ["river", "city"], ["poem", "tree"], ["count", "name"]]
    docs = [
        {"question": "why?", "choices": pair, "answer": likelier(model, tokenizer, "March why?", pair)}
        for pair in choices
    ]
    task = write_task(tmp_path / "tasks", docs)
    found = evaluate_tasks(
        model, tokenizer, ["tiny_choice"], include_path=str(task), chat=True, now=datetime(2024, 3, 9)
    )
    assert [result.value for result in found] == [1.0]


@needs_lm_eval
@quiet
def test_an_unknown_task_is_named_with_the_nearest_known_one(
    model_and_tokenizer: tuple[Any, Any], tmp_path: Path
) -> None:
    task = write_task(tmp_path / "tasks", [{"question": "a?", "choices": ["b", "c"], "answer": 0}])
    with pytest.raises(CurateError, match=r"knows no task tiny_choise; did you mean tiny_choice\?"):
        evaluate_tasks(*model_and_tokenizer, ["tiny_choise"], include_path=str(task))


@needs_lm_eval
@quiet
def test_a_task_whose_data_cannot_be_had_is_named(model_and_tokenizer: tuple[Any, Any], tmp_path: Path) -> None:
    task = write_task(tmp_path / "tasks", [{"question": "a?", "choices": ["b", "c"], "answer": 0}])
    (task / "docs.jsonl").unlink()
    with pytest.raises(CurateError, match=r"the data of tiny_choice cannot be had .*evaluate.include_path"):
        evaluate_tasks(*model_and_tokenizer, ["tiny_choice"], include_path=str(task))


@needs_lm_eval
def test_a_missing_folder_of_tasks_is_named(tmp_path: Path) -> None:
    with pytest.raises(CurateError, match=r"evaluate.include_path: expected a folder .* got .*nowhere"):
        evaluate_tasks(None, None, ["tiny_choice"], include_path=str(tmp_path / "nowhere"))


def test_without_lm_eval_the_package_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CurateError, match=r'needs lm-eval: pip install "lc-curate\[eval\]"'):
        evaluate_tasks(None, None, ["hellaswag"])


@needs_lm_eval
@quiet
@pytest.mark.usefixtures("workplace")
def test_a_comparison_runs_a_task_once_for_each_cell_and_for_the_untuned_model(tmp_path: Path) -> None:
    """And again with the same adapter where a file of the task changed."""
    docs = [{"question": f"{word}?", "choices": ["red", "river"], "answer": 0} for word in ("why", "who", "where")]
    task = write_task(tmp_path / "own tasks", docs)
    words = (
        "data.holdout=12",
        "compare.selectors=[random]",
        "compare.seeds=1",
        "compare.keep=[8]",
        "compare.baselines=[untuned]",
        "compare.keep_adapters=true",
        "evaluate.tasks=[tiny_choice]",
        f"evaluate.include_path={task}",
        "evaluate.task_batch_size=2",
        "run.dir=compared",
    )

    def done() -> tuple[set[tuple[str, str, int | None]], dict[str, int], bytes]:
        perform("compare", load_recipe(None, [*WORDS, *words]))
        rows = json.loads(Path("compared/comparison.json").read_text())["rows"]
        found = [*Path("compared/comparison").glob("*/cell.json"), *Path("compared/work/untuned").glob("tasks-*.json")]
        weights = Path("compared/comparison/random-8-seed0/adapter/adapter_model.safetensors").read_bytes()
        accuracies = {
            (row["selector"], row["metric"], row["difference"] and row["difference"]["records"])
            for row in rows
            if row["set"] == "tiny_choice"
        }
        return accuracies, {path.name: path.stat().st_mtime_ns for path in found}, weights

    rows, times, weights = done()
    assert rows == {("random", "acc", None), ("untuned", "acc", 3)}, "compared example by example"
    assert len(times) == 2
    assert done() == (rows, times, weights)
    (stored,) = Path("compared/work/untuned").glob("tasks-*.json")
    for damaged in ("", "[]", "{}", '{"tasks": [{}]}'):
        stored.write_text(damaged)
        assert done()[0] == rows
        assert json.loads(stored.read_text())["tasks"][0]["task"] == "tiny_choice"
    times = done()[1]
    (task / "tiny_choice.yaml").write_text((task / "tiny_choice.yaml").read_text().replace("}}", "}}!", 1))
    again = done()
    assert (again[0], again[2]) == (rows, weights)
    assert again[1]["cell.json"] != times["cell.json"]
    assert len(again[1]) == 3


needs_ifeval = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("lm_eval", "langdetect", "immutabledict", "nltk")),
    reason='IFEval\'s checkers are not installed: pip install "lc-curate[eval]"',
)
RECIPES = Path(__file__).parents[1] / "recipes" / "tasks"


@pytest.fixture
def ifeval_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory holds ifeval.jsonl with one prompt of two instructions."""
    doc = {
        "key": 1,
        "prompt": "Name a city in three words or more, without a comma.",
        "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
        "kwargs": [{}, {"relation": "at least", "num_words": 3}],
    }
    (tmp_path / "ifeval.jsonl").write_text(json.dumps(doc) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)


@needs_ifeval
@quiet
def test_ifeval_from_a_file_is_checked_by_lm_evals_own_checkers(
    ifeval_file: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nltk
    from lm_eval.tasks import TaskManager

    monkeypatch.setattr(nltk.data, "find", lambda name: name)  # neither instruction needs it
    task = TaskManager(include_path=str(RECIPES), include_defaults=False).load(["ifeval_local"])["tasks"][
        "ifeval_local"
    ]
    (doc,) = task.test_docs()
    answers = {"The city of Rome": [True, True], "Rome, the eternal city": [False, True], "Rome": [True, False]}
    for answer, followed in answers.items():
        found = task.process_results(doc, [answer])
        assert found["inst_level_strict_acc"] == followed
        assert found["prompt_level_strict_acc"] == all(followed)
    assert task.doc_to_text(doc) == doc["prompt"]


@needs_ifeval
@quiet
def test_ifeval_without_sentence_tables_is_refused_before_anything_is_generated(
    ifeval_file: None, model_and_tokenizer: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import nltk

    def find(name: str) -> str:
        raise LookupError("\n***\n  Resource 'punkt_tab' not found.\n")

    monkeypatch.setattr(nltk.data, "find", find)
    monkeypatch.setattr(nltk, "download", lambda name: False)  # lm-eval tries the network by itself
    model, tokenizer = model_and_tokenizer
    monkeypatch.setattr(model, "generate", None)
    with pytest.raises(CurateError, match=r"data of ifeval_local cannot be had \(Resource 'punkt_tab' not found"):
        evaluate_tasks(model, tokenizer, ["ifeval_local"], include_path=str(RECIPES))


@needs_ifeval
@quiet
def test_languages_are_told_alike_in_every_call(model_and_tokenizer: tuple[Any, Any], tmp_path: Path) -> None:
    """Of text in no language langdetect draws one by chance; its seed is left as it was."""
    from langdetect import DetectorFactory, detect

    unclear = "**Title**\n\n1. 3\n2. 4"
    assert len({detect(unclear) for _ in range(200)}) > 1
    docs = [{"question": unclear, "choices": ["red", "river"], "answer": 0}] * 40
    folder = write_task(tmp_path / "languages", docs)
    (folder / "checks.py").write_text(
        "from langdetect import detect\n\n\ndef english(doc, results):\n"
        '    return {"acc": float(detect(doc["question"]) == "en")}\n'
    )
    task = folder / "tiny_choice.yaml"
    task.write_text(f"{task.read_text()}process_results: !function checks.english\n")
    (result,) = evaluate_tasks(*model_and_tokenizer, ["tiny_choice"], include_path=str(folder))
    assert result.value in (0, 1), "the same of all forty"
    assert DetectorFactory.seed is None


def test_no_task_needs_nothing() -> None:
    found: list[TaskResult] = evaluate_tasks(None, None, [])
    assert found == []
