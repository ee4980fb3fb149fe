"""Types that cross a stage boundary, and `CurateError`, the error for a person's mistakes.

Nothing here computes: frozen dataclasses carry what the functions of the other modules take and return. In order of the
stages: `Record` (as read), `Example` (a conversation), `Tokens` (ids and marks; `TokenStore` on disk), `BatchScores`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

Role = Literal["system", "user", "assistant", "tool"]
Format = Literal["alpaca", "messages", "sharegpt", "prompt_completion"]
Status = Literal["scored", "empty_response", "too_long", "unscorable", "non_finite", "out_of_memory", "bad_record"]
# Options that recipes and functions share; each is written once, here. A new choice starts here.
Template = Literal["chat", "alpaca", "plain"]
TooLong = Literal["drop", "trim"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quantization = Literal["none", "8bit", "4bit"]
Exits = int | Literal["all"] | tuple[int, ...]
EmbeddingText = Literal["instruction", "prompt", "full"]
Method = Literal["clusters", "top", "random", "longest", "flexrand", "k_center"]
End = Literal["lowest", "highest"]
Quota = Literal["proportional", "equal"]
Duplicates = Literal["drop", "keep"]

# Stored tokens and chunks of scores hold the index: a new status goes to the end.
STATUSES: tuple[Status, ...] = get_args(Status)

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# Marks of a token, in `Tokens.marks`: CONTEXT is read by the model, SCORED is scored and trained on, END is trained on.
CONTEXT, SCORED, END = 0, 1, 2


class CurateError(Exception):
    """A person's mistake or a limit of the machine; the message says what was expected, what was got and what to do.

    The command line prints the message on one or two lines and exits with 2, without a traceback.
    """


@dataclass(frozen=True, slots=True)
class Record:
    """One input record as it was read; its format is not interpreted yet.

    row      position in the input, counted from 0 over all files
    file     name of the file it came from, as the person wrote it
    line     line of the file on which the record starts, from 1 (0 where the file has no lines: Parquet, hub)
    raw      the record's own bytes in a text file (JSON object, CSV line); None where the file is no text
    fields   the parsed record; None if it could not be parsed
    problem  why it could not be parsed, else None; set under data.on_error=skip only
    """

    row: int
    file: str
    line: int
    raw: bytes | None
    fields: Mapping[str, Any] | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation.

    role     system, user, assistant or tool
    content  its text
    input    Alpaca's optional input, written in a section of its own; only on user turns
    extra    further keys of a message that a chat template may read (tool_calls, reasoning_content, name, ...)
    """

    role: Role
    content: str
    input: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Example:
    """One record as a conversation, whatever its input format was.

    row        position in the input, from 0
    id         SHA-256 (hex) of the canonical record: turns, tools and variables, not further fields
               (of the raw bytes if the record is bad)
    turns      an optional system turn first, then user, assistant and tool turns
    tools      tool definitions for a chat template, or None
    problem    set if the record is bad (data.on_error=skip); turns is then empty
    variables  what else a chat template is given, by name: documents, enable_thinking, chat_template_kwargs's own
    unread     names of the record's fields of which nothing was made
    """

    row: int
    id: str
    turns: tuple[Turn, ...]
    tools: tuple[Mapping[str, Any], ...] | None = None
    problem: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    unread: frozenset[str] = field(default=frozenset(), compare=False)


@dataclass(frozen=True, slots=True)
class Tokens:
    """One example as the model sees it; T tokens.

    row, id       as in `Example`
    status        "scored" (to be scored), or why not: empty_response, too_long, unscorable, bad_record
    truncated     whether the response's end was cut to fit prompt.max_length
    input_ids     int32 [T]; empty unless status is "scored"
    marks         uint8 [T]: CONTEXT, SCORED (a response token: scored, and trained on) or END (the end
                  token the chat template wrote after a response: trained on, not scored)
    control_hits  how many control tokens stood in the record's own text and were encoded as ordinary text
    reason        why it is not scored, in words that many records share, so that they can be counted; "" if scored
    notes         what a person should know about a record that is scored, in such words too
    """

    row: int
    id: str
    status: Status
    truncated: bool
    input_ids: npt.NDArray[np.int32]
    marks: npt.NDArray[np.uint8]
    control_hits: int = 0
    reason: str = ""
    notes: tuple[str, ...] = ()


# A row of `TokenStore.rows`; packed, so ten million rows take 540 MB.
ROW = np.dtype(
    [
        ("end", np.int64),
        ("needed", np.int32),
        ("scored", np.int32),
        ("control_hits", np.int32),
        ("status", np.uint8),
        ("truncated", np.bool_),
        ("id", "V32"),  # not "S32", of which numpy drops zero bytes at the end
    ]
)


@dataclass(frozen=True, slots=True)
class TokenStore:
    """The tokens of all records, one record after the other, memory-mapped; N input records.

    input_ids  int32 [total tokens]
    marks      uint8 [total tokens]: CONTEXT, SCORED or END
    rows       ROW [N], a row per input record:
                 end        where its tokens end; they start where the previous row's tokens end
                 needed     how many of its tokens the model must see: those before the last SCORED token,
                            which is only predicted
                 scored     how many of its tokens are SCORED
                 status     index into STATUSES
                 id         the 32 bytes of its SHA-256
                 truncated, control_hits   as in `Tokens`
    """

    input_ids: npt.NDArray[np.int32]
    marks: npt.NDArray[np.uint8]
    rows: npt.NDArray[np.void]

    def __len__(self) -> int:
        """Return N, the number of input records."""
        return len(self.rows)

    def span(self, row: int) -> slice:
        """Return the slice of `input_ids` and `marks` that holds the tokens of a row."""
        return slice(int(self.rows["end"][row - 1]) if row else 0, int(self.rows["end"][row]))


@dataclass(frozen=True, slots=True)
class BatchScores:
    """Scores of R records at E exits (or in E subnets).

    rows        int64 [R], rows of the token store
    status      uint8 [R], index into STATUSES: scored, non_finite or out_of_memory
    confidence  float32 [R, E], mean probability of the response tokens; NaN unless scored
    log_prob    float32 [R, E], mean log-probability of the response tokens, nats per token; NaN unless scored
    split       whether a batch ran out of memory and was computed in parts
    """

    rows: IntArray
    status: npt.NDArray[np.uint8]
    confidence: npt.NDArray[np.float32]
    log_prob: npt.NDArray[np.float32]
    split: bool = False
