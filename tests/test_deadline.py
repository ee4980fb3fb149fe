"""A chat template that does not end, or takes all memory, is refused by name instead of being waited for."""

from __future__ import annotations

import signal
from datetime import datetime

import pytest
from test_tokens import byte_level

from curate.tokens import rendering
from curate.tokens.deadline import OverdueError, deadline
from curate.types import CurateError


def for_ever() -> None:
    while True:
        pass


def test_work_without_an_end_ends_and_the_signal_is_as_before() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(OverdueError), deadline(0.01):
        for_ever()
    with deadline(1_000):
        pass
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert signal.getsignal(signal.SIGALRM) == before


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "does not end within 0.1 s"),
        ("{% set l = [1] %}{% for i in l %}{% for j in range(99999) %}{% endfor %}{% endfor %}" * 50, "does not end"),
        ("{{ 'x' * 2 ** 62 }}", "takes more memory than there is"),
    ],
)
def test_a_template_without_an_end_is_refused_by_name(
    template: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "SECONDS", 0.1)
    tokenizer = byte_level(template)
    with pytest.raises(CurateError, match=rf"the chat template of .* {message}.*prompt\.template=alpaca"):
        rendering.renderer(tokenizer, datetime(2026, 1, 1))([{"role": "user", "content": "a"}], {}, False)
