"""Asks an OpenAI-compatible server, with the standard library alone.

The API key is read from the environment when a question is asked. It is not written to any message, log or file, and
not sent to another address: redirects are refused.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from email.message import Message
from typing import IO, Any
from urllib.parse import urlsplit

from curate.types import CurateError

logger = logging.getLogger(__name__)

_MAX_REPLY_BYTES = 1 << 20  # a server that sends without end must not fill the memory
_MAX_FAILURES = 5  # then the server is down, and hundreds of further questions would each wait for it
_TRY_AGAIN = {408, 409, 425, 429}  # HTTP: timeout, conflict, too early, too many requests; and every 5xx


def connect(
    base_url: str,
    model: str,
    *,
    api_key_env: str = "OPENAI_API_KEY",
    timeout: float = 60.0,
    waits: Sequence[float] = (1.0, 4.0, 16.0),
) -> Callable[[str], str | None]:
    """Return a function from a prompt to the server's reply; it returns None where no usable reply came.

    While the server is busy, fails (5xx) or does not answer, the question is asked again after each of `waits` seconds.
    If there is still no reply, the function returns None, and the caller counts it as failed. After five such questions
    in a row it raises.

    Args:
        base_url: address of the server; `/chat/completions` is appended.
        model: name of the model on the server.
        api_key_env: environment variable that holds the key; unset or empty means that the server needs none.
        timeout: seconds to wait for a connection and for each part of a reply.
        waits: seconds before each further try.

    Raises:
        CurateError: base_url is no http address. The returned function raises it where the server refuses (4xx: a wrong
            key, model or address), or has not answered five questions in a row.
    """
    parts = urlsplit(base_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.password:
        raise CurateError("judge.base_url: expected an address such as http://localhost:8000/v1, without a password")
    url = base_url.rstrip("/") + "/chat/completions"
    opener = urllib.request.build_opener(_NoRedirect())
    in_a_row = 0

    def ask(prompt: str) -> str | None:
        """Return the server's reply to one prompt; None if no usable reply came after all tries."""
        nonlocal in_a_row
        # Temperature 0: the same question should get the same verdict.
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 0}
        key = os.environ.get(api_key_env, "")
        problem, hint = "", f"; is the key in {api_key_env} the right one?" if key else f"; {api_key_env} is not set"
        for wait in (0.0, *waits):
            time.sleep(wait)
            answer, problem = _post(opener, url, body, key, timeout, hint)
            if answer is not None:
                in_a_row = 0
                return _content(answer)
        in_a_row += 1
        logger.warning("the judge gave no answer: %s", problem)
        if in_a_row >= _MAX_FAILURES:
            raise CurateError(
                f"the judge at {url} gave no answer {in_a_row} times in a row ({problem}): is it running?"
            )
        return None

    return ask


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses every redirect: the key belongs to one address."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        return None


def _post(
    opener: urllib.request.OpenerDirector, url: str, body: Any, key: str, timeout: float, hint: str
) -> tuple[Any, str]:
    """Return the server's JSON, or None and the reason if another try may help; `hint` goes into errors about the key.

    Raises:
        CurateError: the server refuses, and would refuse again.
    """
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310 - the scheme was checked
    if key:
        # A second safeguard: urllib does not carry this header over to another address.
        request.add_unredirected_header("Authorization", f"Bearer {key}")
    try:
        with opener.open(request, timeout=timeout) as response:
            return json.loads(response.read(_MAX_REPLY_BYTES)), ""
    except urllib.error.HTTPError as error:
        with error:
            if error.code < 500 and error.code not in _TRY_AGAIN:
                said = error.read(_MAX_REPLY_BYTES).decode("utf-8", "replace")
                what = _printable(said, key) + (hint if error.code in {401, 403} else "")
                raise CurateError(f"the judge at {url} refuses with {error.code}: {what}") from None
            return None, f"HTTP {error.code}"
    except (OSError, http.client.HTTPException) as error:
        return None, _printable(str(getattr(error, "reason", error)) or type(error).__name__, key)
    except (ValueError, RecursionError):
        return None, "a reply that is not JSON"


def _content(answer: Any) -> str | None:
    """Return the text of the first choice; None where there is none."""
    try:
        content = answer["choices"][0]["message"]["content"]
    except (LookupError, TypeError):
        return None
    return content if isinstance(content, str) else None


def _printable(text: str, key: str) -> str:
    """Return the beginning of a server's words on one line, without the key and control characters."""
    if key:  # a server may repeat the key in its refusal
        text = text.replace(key, "***")
    return "".join(c if c.isprintable() else " " for c in text).strip()[:200] or "no reason given"
