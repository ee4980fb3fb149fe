"""The preview: scored can be told from unscored, with and without colour, and nothing steers the terminal."""

from __future__ import annotations

import re

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
