"""The preview: scored can be told from unscored, with and without colour, and nothing steers the terminal."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from report_run import HOSTILE, Elements

from curate.report.preview import Preview, PreviewToken, preview_html, preview_objects, preview_text
from curate.report.visible import visible

SGR = re.compile(r"\x1b\[[0-9;]*m")


def token(text: str, *, scored: bool = False, end: bool = False, special: bool = False) -> PreviewToken:
    return PreviewToken(len(text), text, scored, end, special)


CHAT = Preview(
    4,
    "ab" * 32,
    "scored",
    "chat",
    (
        token("<s>", special=True),
        token("user: hi\n"),
        token("Yes", scored=True),
        token(", sure", scored=True),
        token("</s>", end=True, special=True),
        token("\n"),
    ),
    truncated=True,
)
EMPTY = Preview(5, "cd" * 32, "empty_response", "chat", (), reason="the response is empty")


def test_without_colour_brackets_say_what_colour_would() -> None:
    lines = preview_text([CHAT, EMPTY], color=False).splitlines()
    assert lines[0] == "[[scored]]  not scored  <special>  {end token: trained on, not scored}"
    assert lines[2].startswith("record 4  abababababab  scored  template chat  2 of 6 tokens scored  truncated: ")
    assert lines[3:5] == ["<s>user: hi", "[[Yes, sure]]{</s>}"]
    assert lines[-1] == "record 5  cdcdcdcdcdcd  not scored: empty_response  template chat  the response is empty"


def test_without_colour_no_text_can_pass_for_scored_or_for_a_special_token() -> None:
    some = (token("<s>", special=True), token("a [[b]] <s> {c} "), token("[d]", scored=True), token("</s>", end=True))
    lines = preview_text([Preview(0, "id", "scored", "chat", some)], color=False).splitlines()
    assert lines[0] == "[[[scored]]]  not scored  <<special>>  {{end token: trained on, not scored}}"
    assert lines[3] == "<<s>>a [[b]] <s> {c} [[[[d]]]]{{</s>}}"


@given(st.lists(st.tuples(st.text("[]<>{}a", max_size=6), st.booleans()), max_size=6))
def test_brackets_that_mark_are_more_than_a_text_has_side_by_side(some: list[tuple[str, bool]]) -> None:
    shown = [Preview(0, "id", "scored", "plain", tuple(token(text, scored=scored) for text, scored in some))]
    legend, _, _, *body = preview_text(shown, color=False).split("\n")
    mark = legend[: legend.index("scored")]
    assert mark == "[" * len(mark)
    marked = sum(1 for i, (text, scored) in enumerate(some) if scored and not (i and some[i - 1][1]))
    runs = re.findall(r"\[+", "".join(body))
    assert sum(len(run) >= len(mark) for run in runs) == marked


def test_what_training_adds_and_what_stays_text_is_said() -> None:
    shown = replace(EMPTY, status="scored", tokens=(token("a"), token("b", scored=True)), reason="", control_hits=2)
    line = preview_text([replace(shown, adds="</s>")], color=False).splitlines()[2]
    assert "2 control tokens stand in its own text, read as ordinary text" in line
    assert line.endswith("training adds </s> at the end")
    assert "training adds" not in preview_text([CHAT], color=True)


def test_with_colour_scored_and_other_text_differ_in_style() -> None:
    text = preview_text([CHAT], color=True)
    assert "\x1b[32;4mYes, sure\x1b[0m" in text
    assert "\x1b[2muser: hi\x1b[0m\n" in text
    assert "\x1b[35m<s>\x1b[0m" in text
    assert "\x1b[33;1m{</s>}\x1b[0m" in text
    assert text.count("\x1b[0m") == text.count("\x1b[") / 2


tokens = st.builds(
    token,
    st.text(st.characters(exclude_categories=()), max_size=9),
    scored=st.booleans(),
    end=st.booleans(),
    special=st.booleans(),
)


@given(st.lists(tokens, max_size=9), st.booleans())
def test_no_token_steers_the_terminal(some: list[PreviewToken], color: bool) -> None:
    text = preview_text([Preview(0, "id", "scored", "plain", tuple(some))], color=color)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", SGR.sub("", text) if color else text)


@given(st.lists(tokens, max_size=9))
def test_the_page_shows_every_character_of_every_token_once(some: list[PreviewToken]) -> None:
    html = preview_html([Preview(0, "id", "scored", "plain", tuple(some))])
    body = "".join(Elements(html).words).partition("Record 0")[2]
    shown = visible("".join(t.text for t in some)).replace("\r", "\n")
    assert shown in body


def test_characters_that_nobody_sees_are_shown() -> None:
    order = "".join(chr(0xE0000 + ord(letter)) for letter in "obey")
    assert visible(f"ok{order}\xad") == "ok[U+E006F][U+E0062][U+E0065][U+E0079][U+00AD]"
    family = "\U0001f469\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f"
    assert visible(family) == family


def test_hostile_text_makes_no_element_and_no_request() -> None:
    some = tuple(token(text, scored=i % 2 == 0) for i, text in enumerate(HOSTILE))
    elements = Elements(preview_html([Preview(0, "id", "scored", "plain", some)]))
    assert not {"script", "img", "b", "link"} & {tag for tag, _ in elements.tags}
    assert all(visible(text) in elements.words for text in HOSTILE)
    policy = next(a["content"] for tag, a in elements.tags if tag == "meta" and "Content-Security" in str(a))
    assert "script-src 'none'" in str(policy)


def test_programs_get_the_promised_keys() -> None:
    (first, second) = preview_objects([CHAT, EMPTY])
    assert list(first) == ["row", "id", "status", "template", "tokens"]
    assert first["tokens"][2] == {"id": 3, "text": "Yes", "scored": True, "end": False}
    assert second == {"row": 5, "id": "cd" * 32, "status": "empty_response", "template": "chat", "tokens": []}
