"""What is refused before a model reads tokens, what training takes from the store, and how tokens are shown."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import chat_templates
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real import real
from test_tokens import anything, byte_level, conversation, one, pair, shared, solid, unigram
from transformers import BloomConfig, GPT2Config, GPTJConfig, JambaConfig, LlamaConfig, MambaConfig, OPTConfig

from curate.pipeline.tokens import _way_on
from curate.tokens.labels import training_labels
from curate.tokens.lengths import check_max_length, learned_positions
from curate.tokens.pieces import pieces
from curate.tokens.store import open_tokens, training_examples, write_tokens
from curate.tokens.tokenize import check_template, tokenize
from curate.tokens.vocabulary import check_embedding, tokens_beyond
from curate.types import END, SCORED, CurateError, Example, Tokens, Turn

CHATML = byte_level(chat_templates.CHATML)
ROWS = len(CHATML) - len(chat_templates.ORDINARY)


# ---------------------------------------------------------------------------------------------------------------------
# Tokens beyond the embedding


def test_a_token_beyond_the_embedding_is_refused_with_its_name_and_row() -> None:
    thought = CHATML.convert_tokens_to_ids("<think>")
    records = [pair("q", "a", row=0), pair("q", "<think>a", row=1)]
    options = {"template": "chat", "max_length": 99, "allow_tokens": ["<think>"], "vocabulary_rows": ROWS}
    with pytest.raises(CurateError) as refused:
        list(tokenize(records, CHATML, **options))  # type: ignore[arg-type]
    first, second = str(refused.value).splitlines()
    assert f"row 1 holds the token '<think>' with id {thought}, but the model's embedding has {ROWS} rows" in first
    assert "resize_token_embeddings" in second


def test_ids_that_no_text_uses_may_stand_beyond_the_embedding() -> None:
    records = [pair("q", "<think>a"), pair("q", "a")]
    found = list(tokenize(records, CHATML, template="chat", max_length=99, vocabulary_rows=ROWS))
    assert [tokens.status for tokens in found] == ["scored", "scored"]
    assert list(tokens_beyond(CHATML, ROWS)) == list(chat_templates.ORDINARY)
    assert tokens_beyond(CHATML, len(CHATML)) == {}


def test_a_record_that_is_not_scored_may_hold_any_token() -> None:
    (found,) = tokenize([pair("q", "a " * 99)], CHATML, template="chat", max_length=9, vocabulary_rows=1)
    assert found.status == "too_long"


def test_a_template_whose_own_tokens_lie_beyond_is_refused_before_any_record() -> None:
    qwen = byte_level(chat_templates.QWEN3)
    with pytest.raises(CurateError, match=r"the prompt template writes the token '<think>' with id"):
        check_template(qwen, ROWS, template="chat")
    check_template(CHATML, ROWS, template="chat")


def test_stored_tokens_are_checked_against_the_embedding(tmp_path: Path) -> None:
    records = [pair("q", " ", row=0), pair("q", "a", row=1), pair("q", "<think>a", row=2), pair("q", "a", row=3)]
    found = tokenize(records, CHATML, template="chat", max_length=99, allow_tokens=["<think>"])
    list(write_tokens((_with_digest(tokens) for tokens in found), tmp_path / "tokens"))
    store = open_tokens(tmp_path / "tokens")
    check_embedding(store, CHATML, len(CHATML))
    with pytest.raises(CurateError, match="row 2 holds the token '<think>'"):
        check_embedding(store, CHATML, ROWS)


def test_the_example_of_the_field_is_refused_where_its_template_needs_the_new_tokens() -> None:
    tokenizer = shared("base-7m")
    rows = len(tokenizer)
    tokenizer.add_tokens(["[PAD]"])
    for name in "a", "p":
        said = json.loads(real(f"field/07-tokens-beyond-embedding/{name}.json").read_text())
        records = [pair(r["instruction"], r["output"], row=row) for row, r in enumerate(said)]
        options = {"template": "alpaca", "max_length": 512, "vocabulary_rows": rows}
        assert all(t.status == "scored" for t in tokenize(records, tokenizer, **options))  # type: ignore[arg-type]
    with pytest.raises(CurateError, match=r"row 0 holds the token '\[PAD\]'"):
        list(tokenize(records, tokenizer, allow_tokens=["[PAD]"], **options))  # type: ignore[arg-type]


def _with_digest(tokens: Tokens) -> Tokens:
    return replace(tokens, id=f"{tokens.row:064x}")


# ---------------------------------------------------------------------------------------------------------------------
# Positions


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        (GPT2Config(n_positions=64), 64),
        (OPTConfig(max_position_embeddings=64), 64),
        (GPTJConfig(n_positions=64), 64),
        (LlamaConfig(max_position_embeddings=64), np.inf),
        (BloomConfig(), np.inf),
        (MambaConfig(), np.inf),
        (JambaConfig(max_position_embeddings=64), np.inf),
    ],
)
def test_only_a_table_of_positions_ends(config, positions) -> None:  # type: ignore[no-untyped-def]
    assert learned_positions(config) == positions
    check_max_length(64, config, "model")
    if positions == 64:
        with pytest.raises(CurateError, match=r"at most 64, the positions that m has, got 65; give .*max_length=64"):
            check_max_length(65, config, "m")
    else:
        check_max_length(10**6, config, "m")


# ---------------------------------------------------------------------------------------------------------------------
# Training from the store


@settings(max_examples=30, deadline=None)
@given(
    texts=st.lists(st.lists(solid | st.just(""), min_size=2, max_size=5), min_size=1, max_size=5),
    template=st.sampled_from(["chat", "alpaca", "plain"]),
    too_long=st.sampled_from(["drop", "trim"]),
    eos=st.sampled_from([None, 1]),
    data=st.data(),
)
def test_training_from_the_store_is_training_from_the_records(texts, template, too_long, eos, data) -> None:  # type: ignore[no-untyped-def]
    records = [Example(row, f"{row:064x}", conversation(*said).turns) for row, said in enumerate(texts)]
    found = list(tokenize(records, CHATML, template=template, max_length=80, too_long=too_long))
    scored = [tokens.row for tokens in found if tokens.status == "scored"]
    rows = data.draw(st.permutations(scored))[: data.draw(st.integers(0, len(scored)))]
    with TemporaryDirectory() as folder:
        list(write_tokens(found, Path(folder, "tokens")))
        store = open_tokens(Path(folder, "tokens"))
        stored = list(training_examples(store, np.array(rows, np.int64), eos))
        del store
    assert stored == [training_labels(found[row], eos) for row in rows]


@pytest.mark.parametrize("template", ["alpaca", "plain"])
def test_the_end_follows_the_last_response_not_a_later_turn(template: str) -> None:
    for after in ["bye now"], ["bye now", ""]:
        tokens = one(conversation("q:\n", "the cat", *after), CHATML, template)
        ids, labels = training_labels(tokens, 1)
        assert CHATML.decode(ids).endswith("the cat</s>")
        assert CHATML.decode([i for i in labels if i >= 0]) == "the cat</s>"
        assert len(ids) == len(labels) < len(tokens.input_ids)


# ---------------------------------------------------------------------------------------------------------------------
# Tokens as people read them


@pytest.mark.parametrize("build", [byte_level, unigram])
@settings(max_examples=60, deadline=None)
@given(texts=st.lists(anything, min_size=2, max_size=4))
def test_the_texts_of_all_pieces_are_the_decoded_record(build, texts) -> None:  # type: ignore[no-untyped-def]
    tokenizer = PIECES.setdefault(build, build(chat_templates.CHATML))
    tokens = one(conversation(*texts), tokenizer, "chat")
    shown = pieces(tokens, tokenizer)
    whole = tokenizer.decode(tokens.input_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    assert "".join(piece.text for piece in shown) == whole
    assert [piece.id for piece in shown] == tokens.input_ids.tolist()
    assert [SCORED * piece.scored + END * piece.end for piece in shown] == tokens.marks.tolist()


PIECES: dict[object, object] = {}


def test_a_character_of_several_tokens_is_shown_with_its_last() -> None:
    shown = pieces(one(pair("q", "the 🦊 cat"), CHATML, "chat"), CHATML)
    scored = [piece.text for piece in shown if piece.scored]
    assert "".join(scored) == "the 🦊 cat"
    assert any("🦊" in text for text in scored)
    assert "" in scored
    assert [piece.text for piece in shown if piece.end] == ["<|im_end|>"]
    assert next(piece for piece in shown if not piece.scored).text == "<|im_start|>"


@pytest.mark.parametrize("name", ["base-7m", "stories260K", "tokenizer-gpt2", "gpt2-slm"])
def test_pieces_of_real_tokenizers_are_readable(name: str) -> None:
    tokenizer = shared(name)
    record = Example(0, "", (Turn("user", "Say  hello:\n"), Turn("assistant", "Hello, wörld 😀!\n\tBye.")))
    tokens = one(record, tokenizer, "plain")
    whole = tokenizer.decode(tokens.input_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    assert "".join(piece.text for piece in pieces(tokens, tokenizer)) == whole


@pytest.mark.parametrize(
    ("status", "reason", "template", "helps"),
    [
        ("too_long", "longer than 64 tokens (prompt.max_length)", "chat", "prompt.max_length .* prompt.too_long=trim"),
        ("unscorable", "the prompt alone fills prompt.max_length (64)", "alpaca", "^raise prompt.max_length[^,]*$"),
        (
            "unscorable",
            "tools are used, and only a chat template has a place for them",
            "alpaca",
            "^score them with a m",
        ),
        ("unscorable", "the chat template refuses it: no", "chat", "prompt.template=alpaca"),
        ("unscorable", "no token of a response is left to score", "alpaca", "data.columns"),
        ("bad_record", "a.jsonl:1: broken JSON", "chat", "without data.on_error=skip"),
        ("empty_response", "no assistant turn says anything", "chat", "data.columns"),
    ],
)
def test_advice_is_what_helps_against_the_reason(status: str, reason: str, template: str, helps: str) -> None:
    assert re.search(helps, _way_on(status, reason, template))
