"""The recipe: what is read, what is refused and how it is said, and that a recipe survives being written."""

from __future__ import annotations

import contextlib
import json
import os
import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from curate.cli.recipes import recipe_of
from curate.config import Groups, Recipe, SmallModel, dump_recipe, load_recipe, recipe_with
from curate.config.shipped import recipes_folder
from curate.types import CurateError

RECIPES = sorted(recipes_folder().glob("*.yaml"))
SECTIONS = {name: field.annotation for name, field in Recipe.model_fields.items()}

# design.md's list; what it leaves open stands as None.
DEFAULTS: dict[str, Any] = {
    "run.seed": 0,
    "data.split": "train",
    "data.format": "auto",
    "data.columns": {},
    "data.limit": None,
    "data.on_error": "fail",
    "data.max_record_bytes": 10_000_000,
    "prompt.template": "auto",
    "prompt.system": None,
    "prompt.max_length": None,
    "prompt.too_long": "drop",
    "model.revision": None,
    "model.dtype": "auto",
    "model.quantization": "none",
    "model.device_map": None,
    "model.attention": None,
    "model.trust_remote_code": False,
    "model.allow_tokens": (),
    "score.exits": 5,
    "score.tokens_per_batch": "auto",
    "embed.model": "sentence-transformers/all-MiniLM-L6-v2",
    "embed.text": "instruction",
    "embed.batch_size": 64,
    "cluster.count": "auto",
    "cluster.spherical": True,
    "cluster.iterations": 25,
    "select.name": "main",
    "select.method": "clusters",
    "select.by": "complexity",
    "select.exits": None,
    "select.order": "lowest",
    "select.keep": "10%",
    "select.quota": "proportional",
    "select.duplicates": "drop",
    "train.model": None,
    "train.quantization": "none",
    "train.rank": 16,
    "train.alpha": 32,
    "train.dropout": 0.05,
    "train.target_modules": "all-linear",
    "train.learning_rate": 2e-4,
    "train.scheduler": "cosine",
    "train.warmup": 0.03,
    "train.epochs": 3,
    "train.max_steps": None,
    "train.gradient_accumulation": None,
    "train.report_to": "none",
    "train.merge": False,
}


def setting(recipe: Recipe, key: str) -> Any:
    """The value of section.key."""
    section, _, name = key.partition(".")
    return getattr(getattr(recipe, section), name)


def refusal(*words: str, path: Path | None = None) -> str:
    """The message that these words, or this file, are refused with."""
    with pytest.raises(CurateError) as caught:
        load_recipe(path, words)
    message = str(caught.value)
    assert "\n" not in message
    return message


def recipe_file(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_defaults_are_those_of_the_contract() -> None:
    recipe = load_recipe()
    assert {key: setting(recipe, key) for key in DEFAULTS} == DEFAULTS


def test_every_key_has_a_description_and_every_section_a_sentence() -> None:
    described = 0
    for section in SECTIONS.values():
        assert isinstance(section, type)
        assert issubclass(section, BaseModel)
        assert (section.__doc__ or "").endswith(".")
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"
            described += 1
    assert described >= len(DEFAULTS)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_loads_and_says_on_its_first_line_what_it_is_for(path: Path) -> None:
    load_recipe(path)
    assert path.read_text(encoding="utf-8").startswith("# ")


def test_recipes_are_shipped() -> None:
    assert {"7b-24gb", "demo", "small"} <= {path.stem for path in RECIPES}


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("select.kep=5", "unknown key select.kep; did you mean select.keep?"),
        ("modle.name=x", "unknown key modle; did you mean model?"),
        ("train.lerning_rate=1", "unknown key train.lerning_rate; did you mean train.learning_rate?"),
        ("run.qqq=1", "unknown key run.qqq; valid: dir, seed"),
        ("zzz.x=1", "unknown key zzz; valid: run, data, prompt, model, score, embed, cluster, select, train"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_valid_one(word: str, hint: str) -> None:
    assert refusal(word).startswith(hint)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run:\n  seed: 1\n  seed: 2\n", "recipe line 3: the key 'seed' stands twice"),
        ("run: {seed: 1}\ndata: {}\nrun: {}\n", "recipe line 3: the key 'run' stands twice"),
        ("data:\n  columns: {a: b, a: c}\n", "recipe line 2: the key 'a' stands twice"),
        ("run:\n  1: 2\n", "recipe line 2: keys are words, got 1"),
        ("run:\n  yes: 2\n", "recipe line 2: keys are words, got True"),
        ("run:\n  ? [a]\n  : 2\n", "recipe line 2: keys are words, got ['a']"),
        ("- run\n", "is a mapping of sections, got list"),
        ("run: 5\n", "run: expected {dir, seed, hang_timeout}, got "),
        ("run: [1]\n", "run: expected {dir, seed, hang_timeout}, got "),
        ("run: {seed: 1\n", "is not valid YAML"),
        ("run:\n\tseed: 1\n", "is not valid YAML"),
        ("a: 1\n---\nb: 2\n", "is not valid YAML"),
        ("run: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        ("run: !!python/name:os.system\n", "could not determine a constructor"),
        ("x: &x {seed: 1}\nrun: {<<: *x}\n", "a reference (*x): write the value itself"),
        ("run: &x {seed: *x}\n", "a reference (*x): write the value itself"),
        ("run: {seed: !!int z}\n", "is not valid YAML"),
        ("[" * 1000, "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str, message: str) -> None:
    assert message in refusal(path=recipe_file(tmp_path, text))


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    assert "cannot read the recipe" in refusal(path=tmp_path / "absent.yaml")
    assert "cannot read the recipe" in refusal(path=tmp_path)
    (tmp_path / "latin.yaml").write_bytes("run: {dir: é}".encode("latin-1"))
    assert "is not UTF-8 text" in refusal(path=tmp_path / "latin.yaml")


@pytest.mark.parametrize("text", ["", "# nothing\n", "run:\ndata:\n", "\ufeffrun: {}\n"])
def test_an_empty_recipe_and_empty_sections_are_the_defaults(tmp_path: Path, text: str) -> None:
    assert load_recipe(recipe_file(tmp_path, text)) == Recipe()


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("train.learning_rate=1e-4", 1e-4),  # which YAML 1.1 takes for text
        ("train.learning_rate=2.0e-4", 2e-4),
        ("train.epochs=2", 2.0),
        ("score.exits=[4,2]", (2, 4)),
        ("score.exits=all", "all"),
        ("score.exits=7", 7),
        ("data.limit=100", 100),
        ("data.limit=null", None),
        ("data.limit=", None),
        ("prompt.system=You are: terse", "You are: terse"),
        ("prompt.system=Answer in C#, not F # or so", "Answer in C#, not F # or so"),
        ("prompt.system=null", None),
        ("prompt.system=  two blanks ", "  two blanks "),
        ('prompt.system="Hi" and "yo"', '"Hi" and "yo"'),
        ('prompt.system="a\\nb"', "a\nb"),
        ("model.name=my model #2", "my model #2"),
        ("model.name=*star", "*star"),
        ("run.dir=&a b", "&a b"),
        ("run.dir=!!python/name:os.system x", "!!python/name:os.system x"),
        ("run.dir=no", "no"),
        ("run.dir=2024", "2024"),
        ("data.path=2024-05-01", "2024-05-01"),
        ("data.columns={instruction: q #1, output: 'a, b'}", {"instruction": "q #1", "output": "a, b"}),
        ("model.allow_tokens=[<a #1>, &b, *c, '</x, y>']", ("<a #1>", "&b", "*c", "</x, y>")),
        ("model.allow_tokens=[]", ()),
        ("model.allow_tokens=[007, yes, 1.50, null]", ("007", "yes", "1.50", "null")),
        ("data.columns={instruction: 2024, output: no}", {"instruction": "2024", "output": "no"}),
        ("compare.labels=[2024, 'a #1']", ("2024", "a #1")),
        ("score.ifd={model: 007, revision: 0123456}", SmallModel(model="007", revision="0123456")),
        ("select.groups={field: 2024}", Groups(field="2024")),
        ("train.model=1.50", "1.50"),
        ("data.limit=010", 10),  # which YAML 1.1 takes for 8
        ("train.report_to=none", "none"),
        ("select.within={ifd: [null, 1.0]}", {"ifd": (None, 1.0)}),
        ("prompt.system='You are: terse'", "You are: terse"),
        ("run.dir='no'", "no"),
        ("run.dir=a=b", "a=b"),
        ("model.allow_tokens=['<tool>']", ("<tool>",)),
        ("train.target_modules=[q_proj, v_proj]", ("q_proj", "v_proj")),
        ("train.target_modules=all-linear", "all-linear"),
        ("model.trust_remote_code=true", True),
        ("select.keep=10%", "10%"),
        ("select.keep='100'", 100),
        ("select.keep=7", 7),
        ("select.keep=0.5%", "0.5%"),
    ],
)
def test_a_value_in_a_word_has_no_comments_anchors_or_tags(word: str, expected: Any) -> None:
    assert setting(load_recipe(None, [word]), word.partition("=")[0]) == expected


@pytest.mark.parametrize("text", ["prompt: {now: 2026-05-01}", "prompt:\n  now: '2026-05-01'\n"])
def test_dates_in_a_recipe_are_text(tmp_path: Path, text: str) -> None:
    assert load_recipe(recipe_file(tmp_path, text)).prompt.now == "2026-05-01"


def test_numbers_are_decimal_in_recipes_and_words(tmp_path: Path) -> None:
    text = "data: {limit: 010}\ntrain: {learning_rate: 1.5e-4, epochs: 2, dropout: .05}\nrun: {seed: +7}"
    recipe = load_recipe(recipe_file(tmp_path, text))
    assert (recipe.data.limit, recipe.run.seed) == (10, 7)
    assert (recipe.train.learning_rate, recipe.train.epochs, recipe.train.dropout) == (1.5e-4, 2.0, 0.05)
    for number in ("1:30", "0x10", "0b11", "0o17"):
        path = recipe_file(tmp_path, f"run: {{seed: {number}}}")
        for refused in (refusal(path=path), refusal(f"run.seed={number}")):
            assert refused.startswith("run.seed: expected whole number")
            assert refused.endswith(f", got '{number}'")


def test_the_reference_of_a_comparison_is_one_of_its_selectors_or_baselines() -> None:
    selectors = "compare.selectors=[{name: mine, select: {method: top}}, longest]"
    assert load_recipe(None, [selectors, "compare.reference=mine"]).compare.reference == "mine"
    assert load_recipe(None, [selectors]).compare.reference == "random", "nothing is compared, which is no mistake"
    expected = "compare.reference: expected one of mine, longest, untuned, all, got 'clusters'"
    assert refusal(selectors, "compare.reference=clusters") == expected
    assert "got 'all'" in refusal("compare.baselines=[]", "compare.reference=all")


def test_a_selector_has_not_the_name_of_a_baseline() -> None:
    message = "compare.selectors: all is a baseline (compare.baselines); give the selector another name"
    assert refusal("compare.selectors=[random, {name: all, select: {method: top}}]") == message


def test_one_word_where_a_list_is_meant_is_answered_with_how_lists_are_written() -> None:
    assert refusal("compare.labels=mine") == "compare.labels: expected list of text, written [one, another], got 'mine'"


@pytest.mark.parametrize(
    "word",
    [
        "run.seed=-1",
        "run.seed=1.5",
        "run.seed=no",
        "data.limit=yes",
        "data.limit=0",
        "data.format=alpaka",
        "data.columns=[a]",
        "prompt.max_length=1",
        "prompt.template=off",
        "model.dtype=fp8",
        "model.quantization=no",
        "model.allow_tokens=x",
        "score.exits=0",
        "score.exits=true",
        "score.exits=[]",
        "score.exits=[0]",
        "score.exits=[2,2]",
        "score.exits=[true]",
        "score.exits=every",
        "score.tokens_per_batch=0",
        "cluster.count=0",
        "select.keep=0",
        "select.keep=0%",
        "select.keep=101%",
        "select.keep=-5",
        "select.keep=0.1",
        "select.keep=1.5",
        "select.keep=ten",
        "select.keep=inf",
        "select.keep=nan%",
        "select.keep=10%%",
        "select.name=../up",
        "select.name=a/b",
        "select.name=.hidden",
        "select.name=",
        "select.exits=5",
        "select.method=best",
        "train.dropout=1",
        "train.learning_rate=.nan",
        "train.epochs=.inf",
        "train.rank=0",
        "train.merge=maybe",
    ],
)
def test_a_bad_value_is_refused_by_its_key(word: str) -> None:
    assert refusal(word).startswith(word.partition("=")[0] + ": ")


def test_a_bad_choice_is_answered_with_the_valid_ones() -> None:
    assert "auto or alpaca, messages, sharegpt, prompt_completion, got 'alpaka'" in refusal("data.format=alpaka")


@pytest.mark.parametrize("word", ["run", "run=1", "seed=1", "--seed=1"])
def test_a_word_that_sets_nothing_is_refused(word: str) -> None:
    assert refusal(word) == f"expected section.key=value, got {word!r}"


def test_words_in_other_habits_are_answered_with_how_a_setting_is_written() -> None:
    assert refusal("--data.path=x").endswith(": settings are written data.path=x, without dashes or blanks")
    assert refusal("data.path").endswith(": settings are written data.path=VALUE, without dashes or blanks")
    assert 'expected "10%", got 0.1' in refusal("select.keep=0.1")


@pytest.mark.parametrize("key", ["run.dir", "data.path", "model.name", "embed.model", "train.model", "score.columns"])
def test_a_tilde_is_the_home_folder_in_every_path(key: str) -> None:
    assert setting(load_recipe(None, [f"{key}=~/x #1"]), key) == os.path.expanduser("~/x #1")
    assert setting(load_recipe(None, [f"{key}=a~b"]), key) == "a~b"


@pytest.mark.parametrize("word", ["run.dir=~nobody-at-all/x", "evaluate.sets=[{name: a, path: ~nobody-at-all}]"])
def test_the_home_of_a_user_that_is_not_there_is_no_folder_of_that_name(word: str) -> None:
    assert "there is no user 'nobody-at-all' here" in refusal(word)
    with pytest.raises(CurateError, match="there is no user 'nobody-at-all' here"):
        recipe_of(["~nobody-at-all/recipe.yaml"])
    literal = word.replace("~", "./~")
    assert "./~nobody-at-all" in dump_recipe(load_recipe(None, [literal]))


@pytest.mark.parametrize("text", ["[1, 2", "{a: 1", "{a 1}", "[1] 2", "{a: 1, a: 2}", "[1 2"])
def test_a_list_or_mapping_that_does_not_end_is_refused(text: str) -> None:
    assert refusal(f"score.exits={text}").startswith(("the value of score.exits: expected ", "score.exits: "))


def test_words_change_the_file_and_later_words_earlier_ones(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, "run: {seed: 1, dir: here}\ndata: {columns: {input: context}}\n")
    words = ["run.seed=2", "run.seed=3", "data.columns.instruction=question"]
    recipe = load_recipe(path, words)
    assert (recipe.run.seed, recipe.run.dir) == (3, "here")
    assert recipe.data.columns == {"input": "context", "instruction": "question"}


def test_a_word_cannot_reach_into_what_is_no_section(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, "run: 5\ndata: {path: x}\n")
    assert "run is a section with keys of its own, got 5" in refusal("run.seed=1", path=path)
    assert "data.path has no keys of its own" in refusal("data.path.x=1", path=path)


KEYS = [f"{section}.{name}" for section, model in SECTIONS.items() for name in model.model_fields]  # type: ignore[union-attr]
WRONG: list[Any] = [
    *([[1]], [None], ["\0"], {"a": {"b": [1]}}, {"a": None}, {"\0": "a"}),
    *(10**30, -(10**30), float("nan"), float("inf"), "\0", "\ud83d", "x" * 5_000, object()),
]


@pytest.mark.parametrize("value", WRONG, ids=lambda value: repr(value)[:20])
def test_a_wrong_value_is_answered_with_its_key_and_never_with_an_error_of_a_library(value: Any) -> None:
    refused = {}
    for key in KEYS:
        try:
            recipe_with(Recipe(), {key: value})
        except CurateError as error:
            refused[key] = str(error)
    assert all(key in line for key, text in refused.items() for line in text.split("; valid: ")[0].split("; "))
    # What is left takes text of any length: names, paths, choices of a library.
    assert len(refused) == len(KEYS) or (isinstance(value, str) and len(value) == 5_000 and len(refused) > 60)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("score.exits=x", "score.exits: expected whole number or all or list of whole number, written [one, another]"),
        ("score.exits=[a]", "score.exits.0: expected whole number, got 'a'"),
        (
            "score.ifd={a: 1}",
            "score.ifd.model is missing, got {'a': 1}; unknown key score.ifd.a; valid: model, revision",
        ),
        ("score.masked={sparsit: [0]}", "unknown key score.masked.sparsit; did you mean score.masked.sparsity?"),
        ("select.groups={field: a, quota: {b: []}}", "select.groups.quota.b: expected whole number or text, got []"),
        ("compare.selectors=[3]", "compare.selectors.0: expected text or {name, select, lengths_of}, got 3"),
        ("select.within={ifd: [1]}", "select.within.ifd.1 is missing, got [1]"),
        (
            "evaluate.sets=[{name: a, path: b, limit: 0}]",
            "evaluate.sets.0.limit: expected a value greater than 0, got 0",
        ),
    ],
)
def test_a_wrong_value_inside_a_setting_is_named_by_its_place_and_all_that_it_may_be(word: str, message: str) -> None:
    assert refusal(word).startswith(message)


def test_an_emoji_that_json_escapes_as_two_halves_is_one_character(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, json.dumps({"prompt": {"system": "\N{PARTY POPPER}"}}))
    assert load_recipe(path).prompt.system == "\N{PARTY POPPER}"


def test_several_mistakes_are_told_at_once() -> None:
    message = refusal("run.seed=-1", "select.kep=1")
    assert "run.seed" in message
    assert "select.kep" in message


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
COUNT = st.integers(1, 10**6)
SHARE = st.decimals("0.01", "100", places=2).map(lambda share: f"{share}%")
LAYERS = st.lists(st.integers(1, 200), min_size=1, max_size=6, unique=True)
NAME = st.text(string.ascii_letters + string.digits + "._-", max_size=20).map(lambda rest: f"a{rest}")
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "run.dir": TEXT,
    "run.seed": st.integers(0, 2**31 - 1),
    "data.path": TEXT,
    "data.columns": st.dictionaries(TEXT, TEXT, max_size=3),
    "data.limit": st.none() | COUNT,
    "prompt.system": st.none() | TEXT,
    "model.allow_tokens": st.lists(TEXT, max_size=3),
    "score.exits": st.integers(1, 100) | LAYERS | st.just("all"),
    "score.tokens_per_batch": COUNT | st.just("auto"),
    "select.name": NAME,
    "select.keep": SHARE | COUNT,
    "select.exits": st.none() | LAYERS,
    "train.learning_rate": st.floats(1e-300, 1e300),
    "train.dropout": st.floats(0, 1, exclude_max=True),
    "train.target_modules": TEXT | st.lists(TEXT, max_size=3),
    "train.merge": st.booleans(),
}


@given(st.fixed_dictionaries({}, optional=VALUES))
def test_a_recipe_that_is_written_is_read_back_equal(values: dict[str, Any]) -> None:
    tree: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        section, _, name = key.partition(".")
        tree.setdefault(section, {})[name] = value
    recipe = Recipe.model_validate(tree)
    text = dump_recipe(recipe)
    assert Recipe.model_validate(yaml.safe_load(text)) == recipe
    words = [f"{section}.{name}={json.dumps(value)}" for section, own in tree.items() for name, value in own.items()]
    assert load_recipe(None, words) == recipe


def test_the_written_recipe_is_a_file_that_loads(tmp_path: Path) -> None:
    recipe = load_recipe(None, ["run.dir='no'", "prompt.system=日本 😀", "select.keep='12'"])
    path = recipe_file(tmp_path, dump_recipe(recipe))
    assert "日本" in path.read_text(encoding="utf-8")
    assert load_recipe(path) == recipe


@given(st.text(max_size=60))
def test_no_text_makes_the_reader_fail_in_another_way(text: str) -> None:
    for word in (f"run.dir={text}", f"score.exits={text}", text):
        with contextlib.suppress(CurateError):
            load_recipe(None, [word])
