"""A judge asked over a local server: what counts as a verdict, what as failed, and what a place is worth."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from curate.evaluation.judge import judge_answers, judge_pairs, parse_rating, parse_verdict
from curate.evaluation.server import connect
from curate.types import CurateError

KEY = "sk-not-to-be-told"
Respond = Callable[[str, int], tuple[int, Any]]
"""(prompt, how many questions there were before) -> (HTTP status, the reply's text or a whole body)."""


@contextmanager
def serving(respond: Respond) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An OpenAI-compatible server on this machine; yields its address and what it was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append({"path": self.path, "key": self.headers.get("Authorization"), **body})
            status, reply = respond(body["messages"][0]["content"], len(asked) - 1)
            if isinstance(reply, str):
                reply = {"choices": [{"message": {"role": "assistant", "content": reply}}]}
            data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(status)
            if status in (301, 302, 307):
                self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def shown(prompt: str) -> tuple[str, str]:
    """The answers that a judge sees, in their order."""
    found = re.search(r"<answer_A>\n(.*)\n</answer_A>\n\n<answer_B>\n(.*)\n</answer_B>", prompt, re.DOTALL)
    assert found
    return found[1], found[2]


def prefers_longer(prompt: str, _: int) -> tuple[int, str]:
    first, second = shown(prompt)
    return 200, f"By length.\n[[{'A' if len(first) > len(second) else 'B' if len(second) > len(first) else 'C'}]]"


REQUESTS = ["one?", "two?", "three?"]
NO_WAITS: tuple[float, ...] = ()


def test_the_better_answer_wins_whichever_place_it_has() -> None:
    with serving(prefers_longer) as (url, asked):
        result = judge_pairs(REQUESTS, ["long answer", "a", "same"], ["short", "longer", "size"], connect(url, "m"))
    assert (result.wins, result.losses, result.ties, result.failed) == (1, 1, 1, 0)
    assert (result.win_rate, result.first_place, result.turned) == (0.5, 0.5, 0)
    assert len(asked) == 6
    assert {(question["path"], question["model"], question["temperature"]) for question in asked} == {
        ("/v1/chat/completions", "m", 0)
    }
    assert all(request in question["messages"][0]["content"] for request, question in zip(REQUESTS, asked[::2]))  # noqa: B905


def test_a_judge_that_prefers_a_place_decides_nothing() -> None:
    with serving(lambda prompt, _: (200, "Clearly the second.\n[[B]]")) as (url, _):
        result = judge_pairs(REQUESTS, ["a"] * 3, ["b"] * 3, connect(url, "m"))
    assert (result.wins, result.losses, result.ties, result.turned) == (0, 0, 3, 3)
    assert (result.win_rate, result.first_place) == (0.5, 0.0)


def test_a_pair_that_is_judged_in_one_order_only_has_failed() -> None:
    def respond(prompt: str, before: int) -> tuple[int, str]:
        return (200, "[[A]]") if before != 1 else (200, "I cannot say.")

    with serving(respond) as (url, _):
        result = judge_pairs(REQUESTS, ["a"] * 3, ["b"] * 3, connect(url, "m"))
    assert (result.wins, result.losses, result.ties, result.failed) == (0, 0, 2, 1)


@pytest.mark.parametrize(
    "body",
    [
        b"garbage",
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        {"choices": []},
        {"choices": [{"message": {"content": None}}]},
        {"choices": "[[9]]"},
        [],
        "no mark",
        "[[11]]",
        "[[9]] or rather [[3]]",
    ],
)
def test_what_is_no_answer_is_counted_and_never_becomes_a_number(body: Any) -> None:
    def respond(prompt: str, before: int) -> tuple[int, Any]:
        return 200, body if "spoilt" in prompt else "Fine.\n[[7]]"

    with serving(respond) as (url, _):
        result = judge_answers(["a?", "b?"], ["spoilt", "good"], connect(url, "m", waits=NO_WAITS))
    assert (result.ratings, result.failed, result.mean) == ((None, 7), 1, 7.0)


def test_a_server_that_fails_for_a_while_is_asked_again_and_then_given_up() -> None:
    def respond(prompt: str, before: int) -> tuple[int, str]:
        return (500, "") if before < 2 or before in (3, 4, 5) else (200, "[[4]]")

    with serving(respond) as (url, asked):
        result = judge_answers(["a?", "b?", "c?"], ["1", "2", "3"], connect(url, "m", waits=(0.0, 0.0)))
    assert (result.ratings, result.failed) == ((4, None, 4), 1)
    assert len(asked) == 7


def test_a_server_that_never_answers_ends_the_matter() -> None:
    with (
        serving(lambda prompt, _: (503, "")) as (url, asked),
        pytest.raises(CurateError, match=r"gave no answer 5 times in a row \(HTTP 503\): is it running\?"),
    ):
        judge_answers(["a?"] * 100, ["x"] * 100, connect(url, "m", waits=(0.0,)))
    assert len(asked) == 10
    with pytest.raises(CurateError, match="gave no answer 5 times in a row"):  # nobody listens there any more
        judge_answers(["a?"] * 100, ["x"] * 100, connect(url, "m", waits=NO_WAITS))


def test_a_reply_that_does_not_come_in_time_is_given_up() -> None:
    done = threading.Event()

    def respond(prompt: str, before: int) -> tuple[int, str]:
        if before == 0:
            done.wait(5)
        return 200, "[[4]]"

    with serving(respond) as (url, _):
        ask = connect(url, "m", timeout=0.05, waits=NO_WAITS)
        first, second = ask("a"), connect(url, "m", waits=NO_WAITS)("b")
        done.set()
    assert (first, second) == (None, "[[4]]")


def test_the_key_goes_to_the_judge_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with serving(lambda prompt, _: (200, "[[4]]")) as (url, asked):
        connect(url, "m", api_key_env="MY_KEY")("a")
        connect(url, "m", api_key_env="NO_KEY")("a")
    assert [question["key"] for question in asked] == [f"Bearer {KEY}", None]
    with serving(lambda prompt, _: (302, "")) as (url, asked), pytest.raises(CurateError, match="refuses with 302"):
        connect(url, "m", api_key_env="MY_KEY")("a")
    assert [question["path"] for question in asked] == ["/v1/chat/completions"]
    with (
        serving(lambda prompt, _: (401, {"error": f"\x1b[31mbad key {KEY}\n"})) as (url, _),
        pytest.raises(CurateError, match=r"refuses with 401: .*bad key \*\*\*.*is the key in MY_KEY the right") as told,
    ):
        connect(url, "m", api_key_env="MY_KEY")("a")
    assert "\x1b" not in str(told.value)
    assert KEY not in str(told.value) + caplog.text
    assert told.value.__cause__ is None


def test_a_refusal_says_why_and_is_not_repeated() -> None:
    with (
        serving(lambda prompt, _: (404, {"error": "no model m"})) as (url, asked),
        pytest.raises(CurateError, match=r"refuses with 404: .*no model m"),
    ):
        connect(url, "m", waits=(0.0, 0.0))("a")
    assert len(asked) == 1


@pytest.mark.parametrize("url", ["ftp://x/v1", "file:///etc/passwd", "localhost:8000", "http://me:secret@host/v1", ""])
def test_only_an_http_address_without_a_password_is_a_judge(url: str) -> None:
    with pytest.raises(CurateError, match=r"judge.base_url: expected an address such as") as told:
        connect(url, "m")
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("[[A]]", "first"),
        ("Better: [[B]].\n\n", "second"),
        ("**[[C]]**", "tie"),
        ("The answer says [[B]].\nI prefer the other: [[A]]", "first"),
        ("[[A]]\nNo, wait.", None),
        ("[[D]]", None),
        ("[[a]]", None),
        ("[A]", None),
        ("A", None),
        ("", None),
        (None, None),
        ("[[A]] not [[B]]", None),
        ("[[A]] is what I would say if I had to", None),
    ],
)
def test_only_a_reply_that_ends_in_one_verdict_has_one(reply: str | None, verdict: str | None) -> None:
    assert parse_verdict(reply) == verdict


def test_ratings_are_whole_numbers_from_1_to_10() -> None:
    assert [parse_rating(f"[[{n}]]") for n in range(12)] == [None, *range(1, 11), None]
    assert [parse_rating(text) for text in ("[[+5]]", "[[05]]", "[[ 5 ]]", "[[٥]]", "[[5.0]]")] == [None] * 5


def test_braces_in_answers_are_text() -> None:
    with serving(prefers_longer) as (url, asked):
        judge_pairs(["{0} {x}?"], ["{first}"], ["{}"], connect(url, "m"))
    assert shown(asked[0]["messages"][0]["content"]) == ("{first}", "{}")


def test_answers_go_with_requests() -> None:
    with pytest.raises(CurateError, match=r"expected an answer for each of 2 requests, got \[1\]"):
        judge_answers(["a?", "b?"], ["x"], lambda prompt: None)
