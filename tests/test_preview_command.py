"""`curate preview`: what it shows is what a run stores and scores; it needs no weights and writes only its page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from chat_templates import LLAMA3, QWEN3, STRIPS
from conftest import small_tokenizer

from curate.cli import main
from curate.config import load_recipe
from curate.pipeline import perform
from curate.tokens.store import open_tokens, training_examples
from curate.types import END, SCORED, STATUSES

CALL = {"type": "function", "function": {"name": "get", "arguments": {"city": "Rome"}}}
CHATS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "red blue?"}, {"role": "assistant", "content": "blue <|im_end|></s> red"}],
    [
        {"role": "system", "content": "count"},
        {"role": "user", "content": "one \U0001f469\u200d\U0001f467"},
        {"role": "assistant", "content": "two \u202eabc \x1b[31m"},
        {"role": "user", "content": "three"},
        {"role": "assistant", "content": "four"},
    ],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "river city " * 60}],
    [{"role": "user", "content": "red city " * 90}, {"role": "assistant", "content": "b"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}],
    [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "sun", "name": "get"},
        {"role": "assistant", "content": "It is sunny."},
    ],
]
TEMPLATES = {"chatml": STRIPS, "llama3": LLAMA3, "qwen3": QWEN3, "alpaca": None}


def objects(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["preview", "--json", *words]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("too_long", ["trim", "drop"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_the_tokens_shown_are_those_that_a_run_stores_and_scores(
    template: str, too_long: str, capsys: pytest.CaptureFixture[str]
) -> None:
    small_tokenizer(chat_template=TEMPLATES[template]).save_pretrained("llama")
    lines = [json.dumps({"messages": turns}) + "\n" for turns in CHATS]
    Path("chats.jsonl").write_text("".join(lines), encoding="utf-8")
    words = ["data.path=chats.jsonl", "model.name=llama", "run.dir=new", f"prompt.too_long={too_long}"]
    before = objects(capsys, "--n", "99", *words)
    assert not Path("new").exists()
    perform("score", load_recipe(None, words))
    shown = objects(capsys, "--n", "99", *words)
    assert shown == before
    assert [list(record) for record in shown] == [["row", "id", "status", "template", "tokens"]] * len(CHATS)
    scores, store = pq.read_table("new/scores.parquet").to_pylist(), open_tokens(Path("new/work/tokens"))
    assert {record["status"] for record in shown} > {"scored", "empty_response"}
    for record, score in zip(shown, scores, strict=True):
        row, tokens, span = record["row"], record["tokens"], store.span(record["row"])
        assert (row, record["id"], record["status"]) == (score["row"], score["id"], score["status"])
        assert STATUSES[store.rows["status"][row]] == record["status"]
        assert [t["id"] for t in tokens] == store.input_ids[span].tolist()
        assert [t["scored"] for t in tokens] == (store.marks[span] == SCORED).tolist()
        assert [t["end"] for t in tokens] == (store.marks[span] == END).tolist()
        assert sum(t["scored"] for t in tokens) == (score["response_tokens"] or 0)
        assert len(tokens) == (score["prompt_tokens"] or 0) + (score["response_tokens"] or 0)


@pytest.mark.usefixtures("workplace")
def test_a_preview_needs_no_weights(capsys: pytest.CaptureFixture[str]) -> None:
    whole = objects(capsys, "data.path=alpaca.json", "model.name=llama")
    Path("llama/model.safetensors").unlink()
    assert objects(capsys, "data.path=alpaca.json", "model.name=llama") == whole
    assert [record["row"] for record in whole] == [0, 1, 2]


@pytest.mark.usefixtures("workplace")
def test_the_end_token_that_is_said_to_be_added_is_added(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data.path=alpaca.json", "model.name=llama", "run.dir=run", "prompt.too_long=trim"]
    perform("score", load_recipe(None, [*words[:2], "run.dir=trimmed", words[3]]))
    store = open_tokens(Path("trimmed/work/tokens"))
    rows = np.flatnonzero(store.rows["status"] == STATUSES.index("scored"))
    examples = dict(zip(rows.tolist(), training_examples(store, rows, 1), strict=True))
    assert store.rows["truncated"].any()
    capsys.readouterr()
    assert main(["preview", "--n", "99", *words[:2], "run.dir=trimmed", words[3]]) == 0
    heads = [line for line in capsys.readouterr().out.splitlines() if line.startswith("record ")]
    assert len(heads) == len(store.rows)
    for row, head in enumerate(heads):
        added = row in examples and len(examples[row][0]) > len(store.input_ids[store.span(row)])
        assert ("training adds </s>" in head) == added, head


@pytest.mark.usefixtures("workplace")
def test_rows_are_shown_by_number_and_one_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data.path=alpaca.json", "model.name=llama"]
    assert [record["row"] for record in objects(capsys, "--row", "7", "--row", "2", *words)] == [2, 7]
    assert main(["preview", "--row", "80", *words]) == 2
    message = "expected a row of the input, got 80: it has 80 records, counted from 0"
    assert message in capsys.readouterr().err


class Terminal:
    """A stream that says that it is a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    ("environment", "colored"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
    ids=str,
)
def test_colours_are_left_out_where_nobody_wants_or_sees_them(
    environment: dict[str, str], colored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    assert main(["preview", "data.path=alpaca.json", "model.name=llama"]) == 0
    assert ("\x1b[32;4m" in terminal.text) == colored
    assert ("[[" in terminal.text) != colored


@pytest.mark.usefixtures("workplace")
def test_a_page_takes_the_place_of_no_folder_and_stands_beside_json(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data.path=alpaca.json", "model.name=llama"]
    assert len(objects(capsys, "--html", "pages/tokens.html", *words)) == 3
    assert "Record 2" in Path("pages/tokens.html").read_text(encoding="utf-8")
    before = sorted(Path("chat").iterdir())
    assert main(["preview", "--html", "chat", *words]) == 2
    assert "expected a file to write the page to, got chat, which is a folder" in capsys.readouterr().err
    assert sorted(Path("chat").iterdir()) == before
    assert main(["preview", "--html", "alpaca.json/page.html", *words]) == 2
    assert "alpaca.json is no folder: expected one to write into" in capsys.readouterr().err
    assert main(["diff", "run", "main", "other", "--html", "chat"]) == 2
    assert "which is a folder" in capsys.readouterr().err
