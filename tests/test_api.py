"""From Python: what is handed in does not matter, only what it says; and a run can be gone on with, or is refused."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import alpaca_records
from datasets import Dataset, DatasetDict
from hypothesis import given
from hypothesis import strategies as st
from real import real
from transformers import AutoModelForCausalLM, AutoTokenizer

import curate
from curate.api import SelectSettings
from curate.api.bars import shown
from curate.config import Data, Recipe, Select, recipe_with
from curate.models.in_memory import tokenizer_in_memory, weights_in_memory
from curate.pipeline.given import put_records
from curate.read.files import open_source, read_records
from curate.runs.folder import RunFolder
from curate.types import CurateError

SETTINGS = {"score.exits": 3, "embed.model": "embedder"}
Quiet = Callable[[str, int, int | None, str], None]


def silent(stage: str, done: int, total: int | None, unit: str) -> None:
    """Show no progress."""


def start(records: Any, dir: str, *, model: Any = "llama", progress: Quiet = silent, **more: Any) -> curate.Run:
    return curate.run(records, model=model, dir=dir, settings=SETTINGS, progress=progress, **more)


def from_folder(folder: str = "llama") -> dict[str, Any]:
    """A model and its tokenizer, as a person loads them."""
    return {
        "model": AutoModelForCausalLM.from_pretrained(folder),
        "tokenizer": AutoTokenizer.from_pretrained(folder),
    }


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def at_work(folder: str) -> set[str]:
    """The stages that a call counts something of."""
    seen = set[str]()

    def show(stage: str, done: int, total: int | None, unit: str) -> None:
        if unit:
            seen.add(stage)

    start(alpaca_records(), folder, progress=show)
    return seen


@pytest.fixture
def first(workplace: Path) -> curate.Run:
    return start(alpaca_records(), "first")


# Records


def test_it_does_not_matter_in_what_the_records_are(first: curate.Run) -> None:
    records = alpaca_records()
    runs = [
        first,
        start(Dataset.from_list(records), "dataset"),
        start(pd.DataFrame(records), "frame"),
        start("alpaca.json", "path"),
        start(Path("alpaca.json"), "Path"),
        start((record for record in records), "generator"),
    ]
    tables = [run.path.joinpath("scores.parquet").read_bytes() for run in runs]
    assert len({*tables}) == 1
    assert tables[0] == Path("run/scores.parquet").read_bytes()  # of the command line, which has also trained
    kept = [run.kept().to_list() for run in runs]
    assert all(one == kept[0] for one in kept)
    assert [run.selection()["kept"].sum() for run in runs] == [8] * len(runs)


@given(
    st.lists(
        st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5),
            st.recursive(
                st.none()
                | st.booleans()
                | st.integers(-(2**62), 2**62)
                | st.floats(allow_nan=False, allow_infinity=False)
                | st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
                lambda inner: (
                    st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=2)
                ),
                max_leaves=5,
            ),
            min_size=1,
            max_size=4,
        ),
        min_size=1,
        max_size=5,
    )
)
def test_records_are_read_as_they_were_handed_in(tmp_path_factory: pytest.TempPathFactory, records: list[Any]) -> None:
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    put_records(folder, records)
    data = Data(path=str(folder.path / "records.jsonl"))
    assert [record.fields for record in read_records(open_source(data), data)] == records


def test_what_is_missing_in_a_frame_is_null_and_lists_in_it_are_lists(tmp_path: Path) -> None:
    from curate.api.records import rows

    frame = pd.DataFrame(
        {
            "messages": [np.array([{"role": "user", "content": "a"}], dtype=object), None],
            "score": [1.5, math.nan],
            "count": pd.array([1, None], dtype="Int64"),
            "time": [pd.NaT, pd.NaT],
            "text": ["x", None],
        }
    )
    put_records(RunFolder(tmp_path), rows(frame))
    lines = (tmp_path / "records.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"messages": [{"role": "user", "content": "a"}], "score": 1.5, "count": 1, "time": None, "text": "x"},
        {"messages": None, "score": None, "count": None, "time": None, "text": None},
    ]


@pytest.mark.parametrize(
    ("records", "told"),
    [
        ({"instruction": "a"}, r"records: expected a list of dicts, a Dataset, a DataFrame or a path, got dict"),
        (
            DatasetDict(train=Dataset.from_list([{"a": 1}])),
            r'got DatasetDict; of several splits give one: records\["tr',
        ),
        (7, r"records: expected .* got int"),
        (["text"], r"record 0: expected a dict with texts as keys, got 'text'"),
        (
            [{"instruction": "a", "output": "b"}, {1: "a"}],
            r"record 1: expected a dict with texts as keys, got \{1: 'a'\}",
        ),
        ([{"output": math.nan}], r"record 0: expected values that JSON can hold \(Out of range float values"),
        ([{"output": b"a"}], r"record 0: expected values that JSON can hold \(got bytes\).*a Parquet file"),
        ([{"output": "\ud800"}], r"record 0: expected values that JSON can hold \('utf-8' codec can't encode"),
        ([], r"records: expected at least one, got none"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), r"records: expected a DataFrame with every column once"),
        ([{"question": "a"}], r"the format was not recognised; keys seen: 'question'"),
        ("alpacas.json", r"no such file or folder: alpacas.json; did you mean alpaca.json\?"),
    ],
)
def test_records_that_are_none_are_refused_and_no_folder_is_left(workplace: Path, records: Any, told: str) -> None:
    with pytest.raises(CurateError, match=told):
        start(records, "fresh")
    assert not Path("fresh").exists()


# The same call again, and others


def test_the_same_call_again_computes_nothing(first: curate.Run) -> None:
    before = {name: (first.path / name).stat().st_mtime_ns for name in files(first.path)}
    assert at_work("first") == set()
    after = {name: (first.path / name).stat().st_mtime_ns for name in files(first.path)}
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed <= {"status.json", ".lock", "records.jsonl"}


def test_a_run_keeps_to_its_threads_and_the_caller_to_theirs(workplace: Path) -> None:
    before = torch.get_num_threads()
    seen = set[int]()

    def show(stage: str, done: int, total: int | None, unit: str) -> None:
        if unit:
            seen.add(torch.get_num_threads())

    try:
        torch.set_num_threads(1)
        run = start(alpaca_records(), "first")
        (run.path / "scores.parquet").unlink()
        torch.set_num_threads(2)
        start(alpaca_records(), "first", progress=show)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == {1}


def test_other_records_in_the_same_folder_are_refused(first: curate.Run) -> None:
    before = files(first.path)
    others = [*alpaca_records(), {"instruction": "One", "input": "", "output": "more.", "skill": "x"}]
    with pytest.raises(CurateError, match="first was begun with other records: give those again, or another dir"):
        start(others, "first")
    with pytest.raises(CurateError, match="changed: data "):
        start("alpaca.json", "first")
    assert {k: v for k, v in files(first.path).items() if k != "status.json"} == {
        k: v for k, v in before.items() if k != "status.json"
    }
    assert first.kept().to_list() == start(alpaca_records(), "first").kept().to_list()


def test_another_share_selects_again_and_scores_nothing(first: curate.Run) -> None:
    scores = (first.path / "scores.parquet").stat().st_mtime_ns
    run = start(alpaca_records(), "first", keep=4)
    assert len(run.kept()) == 4
    assert (first.path / "scores.parquet").stat().st_mtime_ns == scores


@pytest.mark.parametrize("stage", ["tokens", "scores", "embeddings"])
def test_an_interrupted_cell_is_run_again_and_comes_to_the_same(
    first: curate.Run, stage: str, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupt(name: str, done: int, total: int | None, unit: str) -> None:
        if name == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(alpaca_records(), "again", progress=interrupt)
    with caplog.at_level(logging.WARNING, "curate"):
        run = curate.open("again")
    goes_on = r"the last call \(curate run\) was interrupted; the same curate.run\(...\) goes on with what is finished"
    # the calls before may have been logged too, if another test has let the command line set the level
    told = [record.getMessage() for record in caplog.records if record.name == "curate.api.opened"]
    assert told[0].startswith("again: the last call (curate run) was interrupted; the same curate.run(...)")
    assert "was interrupted" in repr(run)
    if stage != "embeddings":
        with pytest.raises(CurateError, match=rf"again holds no scores yet: {goes_on}"):
            run.scores()
    with pytest.raises(CurateError, match=rf"again holds no selection 'main', there is none yet: {goes_on}"):
        run.kept()
    start(alpaca_records(), "again")
    assert "interrupted" not in repr(run)
    for name in ("scores.parquet", "embeddings.npy", "clusters.parquet", "selections/main/selection.parquet"):
        assert (run.path / name).read_bytes() == (first.path / name).read_bytes()


def test_a_run_that_failed_or_was_killed_says_so(first: curate.Run) -> None:
    status = first.path / "status.json"
    (first.path / "scores.parquet").unlink()
    status.write_text(json.dumps({"verb": "score", "state": "failed", "message": "CurateError: no memory"}))
    with pytest.raises(
        CurateError, match=r"curate score\) failed \(no memory\); the same call, once that is mended, goes on"
    ):
        first.scores()
    status.write_text(json.dumps({"verb": "run", "state": "running"}))
    with pytest.raises(CurateError, match=r"is still running, or was killed; the same curate.run\(...\) goes on"):
        first.scores()
    status.write_text(json.dumps({"verb": "run", "state": "done"}))
    with pytest.raises(CurateError, match=r"first holds no scores yet: curate score makes them"):
        first.scores()


# What a run holds


def test_open_finds_what_run_has_made(first: curate.Run) -> None:
    run = curate.open("first")
    assert repr(run) == repr(first) == "Run('first': 78 of 80 records scored; 8 kept in main)"
    assert run.selections() == ["main"]
    scores = run.scores()
    assert scores["row"].tolist() == list(range(80))
    assert scores["status"].value_counts().to_dict() == {"scored": 78, "empty_response": 1, "too_long": 1}
    assert scores["complexity"].notna().sum() == 78
    assert curate.open("run").kept().to_list() == run.kept().to_list()  # of the command line


def test_kept_is_what_the_kept_file_holds(first: curate.Run) -> None:
    lines = (first.path / "selections/main/kept.jsonl").read_text(encoding="utf-8").splitlines()
    kept = first.kept()
    assert isinstance(kept, Dataset)
    assert kept.to_list() == [json.loads(line) for line in lines]
    rows = np.flatnonzero(first.selection()["kept"])
    assert kept.to_list() == [alpaca_records()[row] for row in rows]
    assert curate.open("run").kept().to_list() == json.loads(Path("run/selections/main/kept.json").read_text())


def test_a_field_of_a_few_records_is_none_elsewhere_and_one_of_several_types_is_refused(workplace: Path) -> None:
    records: list[dict[str, Any]] = [dict(record) for record in alpaca_records()]
    for row in range(1, 80):
        records[row]["note"] = "n"
    run = start(records, "noted", keep=78 - 1)
    assert run.kept()["note"][:2] == [None, "n"]
    records[1]["note"] = 5
    run = start(records, "mixed", keep=78 - 1)
    with pytest.raises(CurateError, match=r"kept.jsonl cannot be a Dataset \(.*\): read it as it is"):
        run.kept()


def test_select_changes_only_selections(first: curate.Run) -> None:
    def others() -> dict[str, bytes]:
        own = ("selections/hard/", "status.json", "manifest.json", ".lock")
        return {name: data for name, data in files(first.path).items() if not name.startswith(own)}

    before, stages = others(), RunFolder(first.path).manifest()["stages"]
    hard = first.select(name="hard", method="top", order="highest", keep=5)
    assert others() == before
    now = RunFolder(first.path).manifest()["stages"]
    assert {name: now[name] for name in stages} == stages
    assert set(now) - set(stages) == {"selections/hard", "selections/hard/trainers"}
    scores = first.scores()
    scored = scores[scores["status"] == "scored"]
    order = scored.sort_values(["complexity", "row"], ascending=[False, True])["row"].tolist()
    rows = np.flatnonzero(first.selection("hard")["kept"]).tolist()
    assert set(rows) <= set(order[:7])  # two of them may be duplicates
    assert hard.to_list() == first.kept("hard").to_list() == [alpaca_records()[row] for row in rows]
    assert first.selections() == ["hard", "main"]


def test_select_starts_from_the_recipe_of_the_run_wherever_one_stands(
    first: curate.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(alpaca_records(), "first", keep=3)
    monkeypatch.chdir(tmp_path)
    run = curate.open("workplace/first")
    assert len(run.select(name="same")) == 3
    assert len(run.select(name="more", keep="50%")) == 40


def test_a_run_folder_that_was_moved_brings_its_records(first: curate.Run, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    first.path.rename(moved)
    assert len(curate.open(moved).select(name="five", keep="5%")) == 4


def test_select_takes_the_settings_of_its_section() -> None:
    assert set(get_type_hints(SelectSettings)) == set(Select.model_fields)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"kep": 3}, r"unknown key select.kep; did you mean select.keep\?"),
        ({"keep": 0.1}, r'a share is written with a percent sign: expected "10%"'),
        ({"by": "ifd"}, r"has no score column ifd: run curate score with score.ifd=true"),
        ({"keep": 79}, r"79"),
    ],
)
def test_select_refuses_by_name(first: curate.Run, settings: Any, told: str) -> None:
    with pytest.raises(CurateError, match=told):
        first.select(name="new", **settings)
    assert first.selections() == ["main"]


def test_other_mistakes_are_told(first: curate.Run) -> None:
    with pytest.raises(CurateError, match=r"got nowhere: no such folder"):
        curate.open("nowhere")
    with pytest.raises(
        CurateError, match=r"expected the folder of a run \(run.dir\), got llama: a folder, but not of a"
    ):
        curate.open("llama")
    with pytest.raises(CurateError, match=r"no selection 'five', there are main: run.select\(name='five', ...\) makes"):
        first.kept("five")
    with pytest.raises(CurateError, match=r"settings: select.keep is said by an argument of its own"):
        curate.run("alpaca.json", model="llama", dir="new", settings={"select.keep": 3}, progress=silent)
    with pytest.raises(CurateError, match=r'expected settings by "section.key", such as "score.exits", got \'exits\''):
        curate.run("alpaca.json", model="llama", dir="new", settings={"exits": 3}, progress=silent)
    with pytest.raises(CurateError, match=r"unknown key score.exit; did you mean score.exits\?"):
        curate.run("alpaca.json", model="llama", dir="new", settings={"score.exit": 3}, progress=silent)
    with pytest.raises(CurateError, match=r"tokenizer: that of llama is loaded with it"):
        start("alpaca.json", "new", tokenizer=AutoTokenizer.from_pretrained("llama"))
    assert not Path("new").exists()


def test_an_embedder_that_is_not_there_is_told_before_anything_is_scored(workplace: Path) -> None:
    with pytest.raises(CurateError, match="nobody"):
        curate.run(
            "alpaca.json", model="llama", dir="new", settings={**SETTINGS, "embed.model": "./nobody"}, progress=silent
        )
    assert not Path("new/scores.parquet").exists()


def test_settings_of_a_recipe_are_python_values() -> None:
    recipe = recipe_with(Recipe(), {"prompt.system": "null", "data.path": Path("a/b"), "score.exits": [4, 2]})
    assert (recipe.prompt.system, recipe.data.path, recipe.score.exits) == ("null", "a/b", (2, 4))
    assert recipe_with(recipe, {"prompt.system": None}).prompt.system is None
    assert recipe_with(recipe, {}) == recipe


# A model in memory


def test_a_model_in_memory_is_scored_as_from_its_folder_to_the_bit(first: curate.Run) -> None:
    loaded = from_folder()
    run = start(alpaca_records(), "memory", **loaded)
    assert (run.path / "scores.parquet").read_bytes() == (first.path / "scores.parquet").read_bytes()
    assert run.kept().to_list() == first.kept().to_list()
    assert start(alpaca_records(), "memory", **from_folder()).kept().to_list() == first.kept().to_list()


def test_a_model_in_training_mode_is_scored_as_it_is_used(first: curate.Run) -> None:
    loaded = from_folder()
    loaded["model"].config.attention_dropout = 0.0
    loaded["model"].train()
    run = start(alpaca_records(), "memory", **loaded)
    assert not loaded["model"].training
    assert run.scores()["complexity"].equals(first.scores()["complexity"])


def test_a_run_of_a_model_in_memory_goes_on_with_no_other(workplace: Path) -> None:
    loaded = from_folder()
    start(alpaca_records(), "memory", **loaded)
    with torch.no_grad():
        loaded["model"].model.layers[2].mlp.up_proj.weight[3, 5] += 1e-3
    changed = r"changed: model \(in memory: .* -> in memory: .*\)\. Set them back, or start afresh with another run.dir"
    with pytest.raises(CurateError, match=changed):
        start(alpaca_records(), "memory", **loaded)
    with pytest.raises(CurateError, match=r"changed: model \(in memory: "):
        start(alpaca_records(), "memory")
    with pytest.raises(CurateError, match=r"changed: model "):
        start(alpaca_records(), "memory", **from_folder("chat"))
    assert len(curate.open("memory").select(name="five", keep="5%")) == 4  # which needs no model


def test_an_interrupted_run_of_a_model_in_memory_refuses_another_one(workplace: Path) -> None:
    def interrupt(name: str, done: int, total: int | None, unit: str) -> None:
        if name == "scores":
            raise KeyboardInterrupt

    loaded = from_folder()
    with pytest.raises(KeyboardInterrupt):
        start(alpaca_records(), "memory", progress=interrupt, **loaded)
    weight = loaded["model"].lm_head.weight
    with torch.no_grad():
        weight[7] += 1
        with pytest.raises(CurateError, match=r"changed: model \(in memory"):
            start(alpaca_records(), "memory", **loaded)
        weight.copy_(from_folder()["model"].lm_head.weight)
    with pytest.raises(CurateError, match=r"changed: tokenizer \(in memory"):
        start(alpaca_records(), "memory")
    assert len(start(alpaca_records(), "memory", **loaded).kept()) == 8


@pytest.fixture
def loaded(llama: Path) -> dict[str, Any]:
    return from_folder(str(llama))


def test_every_weight_and_the_configuration_tell_models_apart(loaded: dict[str, Any], llama: Path) -> None:
    model = loaded["model"]
    known = weights_in_memory(model)
    assert known == weights_in_memory(from_folder(str(llama))["model"])
    swept = 0
    for weight in model.state_dict().values():
        place = tuple(size - 1 for size in weight.shape)
        old = weight[place].clone()
        weight[place] += 1
        assert weights_in_memory(model) != known
        weight[place] = old
        swept += 1
    assert swept == 4 * 9 + 3
    assert weights_in_memory(model) == known
    model.config.rms_norm_eps *= 2
    assert weights_in_memory(model) != known


def test_a_large_weight_is_sampled_from_its_first_to_its_last_number() -> None:
    from curate.models.in_memory import _BLOCK, _HASHED_WHOLE, _NUM_BLOCKS, _sample

    whole = torch.arange(_HASHED_WHOLE)
    assert _sample(whole) is whole
    sample = _sample(torch.arange(5_000_001))
    assert (len(sample), int(sample[0]), int(sample[-1])) == (_BLOCK * _NUM_BLOCKS, 0, 5_000_000)
    assert len(sample.unique()) == len(sample)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_every_precision_are_hashed(loaded: dict[str, Any], dtype: torch.dtype) -> None:
    known = weights_in_memory(loaded["model"])
    assert weights_in_memory(loaded["model"].to(dtype)) != known


def test_a_tokenizer_is_known_by_what_it_does_and_not_by_how_it_was_last_called(loaded: dict[str, Any]) -> None:
    tokenizer = loaded["tokenizer"]
    known = tokenizer_in_memory(tokenizer)
    tokenizer.pad_token = "</s>"
    padded = tokenizer_in_memory(tokenizer)
    assert padded != known  # another special token
    tokenizer(["one", "another text"], padding=True, truncation=True, max_length=1)
    assert tokenizer_in_memory(tokenizer) == padded
    tokenizer.chat_template = "{{ messages }}"
    assert tokenizer_in_memory(tokenizer) != padded


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # by peft
def test_what_cannot_be_scored_from_memory_is_refused(loaded: dict[str, Any], workplace: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import T5Config, T5ForConditionalGeneration

    def refused(told: str, model: Any, tokenizer: Any = loaded["tokenizer"], **more: Any) -> None:
        with pytest.raises(CurateError, match=told):
            start(alpaca_records(), "new", model=model, tokenizer=tokenizer, **more)
        assert not Path("new").exists()

    model = loaded["model"]
    refused(r"model: expected a hub id, a folder or a transformers model, got Linear", torch.nn.Linear(1, 1))
    refused(r"tokenizer: a model in memory needs its fast tokenizer beside it, got nothing", model, None)
    refused(r"expected float32, bfloat16 or float16 weights, got float64", from_folder("llama")["model"].double())
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=8, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2))
    refused(r"expected a decoder-only language model, got the encoder-decoder t5", t5)
    with torch.device("meta"):
        nowhere = AutoModelForCausalLM.from_config(model.config)
    refused(r"expected one whose weights are all in memory, got one without model.embed_tokens.weight", nowhere)
    adapted = get_peft_model(model, LoraConfig(target_modules="all-linear"))
    refused(r"got PeftModel; merge the adapter first: model.merge_and_unload\(\)", adapted)
    with pytest.raises(CurateError, match=r"settings: model.dtype is said by .* or by the model in memory"):
        curate.run("alpaca.json", dir="new", settings={"model.dtype": "float16"}, progress=silent, **from_folder())


def test_a_model_that_was_never_saved_has_a_name_too(workplace: Path) -> None:
    loaded = from_folder()
    torch.manual_seed(1)
    loaded["model"] = type(loaded["model"])(type(loaded["model"].config)(**loaded["model"].config.to_diff_dict()))
    loaded["model"].config._name_or_path = ""
    loaded["model"].name_or_path = ""
    run = start(alpaca_records(), "unsaved", **loaded)
    assert len(run.kept()) == 8
    assert "name: in-memory\n" in (run.path / "recipe.yaml").read_text()


def test_a_model_in_memory_is_scored_in_its_own_precision(workplace: Path) -> None:
    loaded = from_folder()
    rounded = loaded["model"].to(torch.bfloat16)  # with its rotary frequencies, so another model than the next one
    loaded["model"] = AutoModelForCausalLM.from_pretrained("llama", dtype=torch.bfloat16)
    assert weights_in_memory(loaded["model"]) != weights_in_memory(rounded)
    run = start(alpaca_records(), "half", **loaded)
    assert "dtype: bfloat16\n" in (run.path / "recipe.yaml").read_text()
    by_name = curate.run(
        alpaca_records(), model="llama", dir="named", settings={**SETTINGS, "model.dtype": "bfloat16"}, progress=silent
    )
    assert (run.path / "scores.parquet").read_bytes() == (by_name.path / "scores.parquet").read_bytes()


def test_a_real_model_in_memory(workplace: Path) -> None:
    folder = real("models/stories260K")
    loaded = from_folder(str(folder))
    settings = {"embed.model": "embedder", "select.method": "top", "data.limit": 20}
    one, other = (
        curate.run("alpaca.json", dir=dir, settings=settings, progress=silent, **how)
        for dir, how in (("memory", loaded), ("folder", {"model": folder}))
    )
    assert (one.path / "scores.parquet").read_bytes() == (other.path / "scores.parquet").read_bytes()


def test_a_selection_that_needs_embeddings_says_how_they_are_made(workplace: Path) -> None:
    how: Any = {"model": "llama", "dir": "top", "keep": "10%", "progress": silent}
    run = curate.run(alpaca_records(), settings={**SETTINGS, "select.method": "top"}, **how)
    for settings in ({"method": "clusters"}, {"method": "k_center"}, {"near_duplicates": 0.9}):
        with pytest.raises(CurateError, match="holds no embeddings yet") as caught:
            run.select(name="other", keep=5, **settings)
        assert "with {'select.name': 'other', 'select." in str(caught.value)
    assert run.selections() == ["main"]
    stage = run._stages()["scores"]
    again = curate.run(
        alpaca_records(), settings={**SETTINGS, "select.method": "clusters", "select.name": "other"}, **how
    )
    assert again.selections() == ["main", "other"]
    assert len(again.select(name="third", method="k_center", keep=5)) == 5
    assert again._stages()["scores"] == stage, "scored once"


def test_a_mistaken_selection_is_not_taken_for_work_that_is_left(first: curate.Run) -> None:
    with pytest.raises(CurateError, match="no score column ifd"):
        first.select(name="other", method="top", by="ifd")
    with pytest.raises(CurateError) as caught:
        first.kept("another")
    assert str(caught.value).endswith("there are main: run.select(name='another', ...) makes it")
    assert "failed (select.by: " in repr(first)
    assert "the same call, once that is mended, goes on" in repr(first)


def test_optional_kernels_of_a_library_are_no_word_to_the_caller(caplog: pytest.LogCaptureFixture) -> None:
    library = logging.getLogger("bitsandbytes")
    before = library.level
    with shown(silent):
        library.getChild("backends").warning("Failed to load a kernel")
    assert not caplog.records
    assert library.level == before, "what the caller has set is put back"
