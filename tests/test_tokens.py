"""The response mask: which tokens are scored, checked against references that count bytes and know the templates."""

import json
import math
import re
from types import SimpleNamespace

import chat_templates
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real import real
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, GPT2Config, LlamaConfig, PreTrainedTokenizerFast

from curate.tokens.labels import training_labels
from curate.tokens.lengths import default_max_length, fixed_rotary_length
from curate.tokens.tokenize import tokenize
from curate.types import CONTEXT, END, SCORED, CurateError, Example, Tokens, Turn

TEXT = [
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
    "### Instruction:\nTranslate the sentence.\n\n### Response:\nThe cat sat on the mat, and the dog watched it.\n",
    "<|im_start|>user\nWhat is 1+1?<|im_end|>\n<|im_start|>assistant\nIt is 2. 😀 é ü ∑ 汉字 नमस्ते</s> <tool_call>\n",
] * 4
CONTROL = (*chat_templates.SPECIAL, *chat_templates.ORDINARY)
CALL = {"tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}]}


def finish(backend: Tokenizer, opening: str | None, template: str | None) -> PreTrainedTokenizerFast:
    """The backend with control tokens added; with `opening`, <s> is written before a text and </s> after it."""
    if opening:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{opening} $A </s>", special_tokens=[(t, backend.token_to_id(t)) for t in (opening, "</s>")]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    tokenizer.add_tokens(list(chat_templates.ORDINARY))
    tokenizer.chat_template = template
    return tokenizer


def byte_level(template: str | None = None, opening: str | None = None) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=list(chat_templates.SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(TEXT, trainer)
    return finish(backend, opening, template)


def unigram(template: str | None = None, opening: str | None = "<s>") -> PreTrainedTokenizerFast:
    """A SentencePiece-like model whose own vocabulary holds the control tokens, with the best scores of all."""
    letters = [(c, -5.0) for c in sorted({c for text in TEXT for c in text.replace(" ", "▁")})]
    words = [("▁the", -2.0), ("▁cat", -2.5), ("ing", -3.0), ("▁", -2.0), ("se", -3.0)]
    vocab = [("<unk>", 0.0), *((token, 0.0) for token in chat_templates.SPECIAL), *words]
    vocab += [letter for letter in letters if letter[0] not in dict(vocab)]
    backend = Tokenizer(models.Unigram(vocab, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    backend.add_special_tokens(["<unk>", *chat_templates.SPECIAL])
    return finish(backend, opening, template)


@pytest.fixture(scope="module")
def gpt() -> PreTrainedTokenizerFast:
    return byte_level()


def shared(name: str) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(real(f"models/{name}"))


def example(*turns: Turn, row: int = 0, **other) -> Example:
    return Example(row, f"id{row}", turns, **other)


def pair(prompt: str, response: str, row: int = 0) -> Example:
    return example(Turn("user", prompt), Turn("assistant", response), row=row)


def conversation(*texts: str) -> Example:
    return example(*(Turn("user" if i % 2 == 0 else "assistant", text) for i, text in enumerate(texts)))


def one(given_example: Example, tokenizer, template: str, **options) -> Tokens:
    (tokens,) = tokenize([given_example], tokenizer, template=template, **{"max_length": 4096, **options})
    return tokens


def decode(tokenizer, tokens: Tokens, mark: int) -> str:
    return tokenizer.decode(tokens.input_ids[tokens.marks == mark])


# ---------------------------------------------------------------------------------------------------------------------
# References


def bytes_of(tokenizer, token_id: int) -> bytes:
    """The bytes behind a token of a byte-level vocabulary (GPT-2's printable alphabet) or of Llama's byte fallback."""
    token = tokenizer.convert_ids_to_tokens(int(token_id))
    if token in tokenizer.get_added_vocab():
        return token.encode()
    if isinstance(tokenizer.backend_tokenizer.decoder, decoders.ByteLevel):
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [b for b in range(256) if b not in printable]
        table = {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}
        return bytes(table[c] for c in token)
    if token.startswith("<0x") and len(token) == 6:
        return bytes([int(token[3:5], 16)])
    return token.replace("▁", " ").encode()


def marks_by_bytes(tokenizer, ids, segments: list[tuple[str, int]]) -> list[int]:
    """Marks of ids that spell the segments, (text, mark) each: a token has the mark of the character it ends in."""
    owner = [mark for text, mark in segments for char in text for _ in char.encode()]
    spelled, marks = b"", []
    for token_id in ids:
        spelled += bytes_of(tokenizer, token_id)
        marks.append(owner[len(spelled) - 1])
    assert spelled == "".join(text for text, _ in segments).encode()
    return marks


CHATS = {  # what each template writes around user and assistant texts, as (text, mark)
    "chatml": ("<|im_start|>user\n", "<|im_end|>\n", "<|im_start|>assistant\n", "<|im_end|>", "\n"),
    "no_system": ("<|im_start|>user\n", "<|im_end|>\n", "<|im_start|>assistant\n", "<|im_end|>", "\n"),
    "hermes": ("<|im_start|>user\n", "<|im_end|>\n", "<|im_start|>assistant\n", "<|im_end|>", "\n"),
    "no_end_token": ("<|im_start|>user\n", "\n", "<|im_start|>assistant\n", "", "\n"),
    "mistral": ("[INST]", "[/INST]", "", "</s>", ""),
}


def chat_segments(name: str, texts: tuple[str, ...]) -> list[tuple[str, int]]:
    before_user, after_user, before_answer, end, after = CHATS[name]
    segments = [("<s>", CONTEXT)] if name == "mistral" else []
    for i, text in enumerate(texts):
        if i % 2 == 0:
            segments.append((before_user + text + after_user, CONTEXT))
        else:
            segments += [(before_answer, CONTEXT), (text, SCORED), (end, END), (after, CONTEXT)]
    return segments


anything = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
        st.sampled_from(
            [*CONTROL, "😀", "e\u0301", "👩‍👩‍👧", "\u2028", "\x85", " ", "\n", "\n\n", "\t", "<", "<|im_", "the cat"]
        ),
    ),
    max_size=6,
).map("".join)
solid = anything.filter(str.strip)

# ---------------------------------------------------------------------------------------------------------------------
# Plain and Alpaca


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(st.tuples(anything, solid), min_size=1, max_size=3))
def test_plain_marks_equal_the_byte_count(gpt, texts):
    flat = tuple(text for exchange in texts for text in exchange)
    tokens = one(conversation(*flat), gpt, "plain")
    segments = [(text, SCORED if i % 2 else CONTEXT) for i, text in enumerate(flat)]
    if tokens.status == "scored":
        expected = marks_by_bytes(gpt, tokens.input_ids, segments)
        assert tokens.marks.tolist() == [CONTEXT, *expected[1:]]
        assert not set(tokens.input_ids.tolist()) & set(gpt.added_tokens_decoder)
        assert gpt.decode(tokens.input_ids) == "".join(flat)
    else:  # only where the one token of a text has no prediction
        assert tokens.status == "unscorable"
        assert len(gpt.tokenize("".join(flat))) <= 2


@settings(max_examples=50, deadline=None)
@given(instruction=anything, given_input=anything, response=solid)
def test_alpaca_marks_equal_the_byte_count(gpt, instruction, given_input, response):
    record = example(Turn("user", instruction, given_input), Turn("assistant", response))
    tokens = one(record, gpt, "alpaca")
    text = gpt.decode(tokens.input_ids)
    assert text.endswith(f"### Response:\n{response}")
    prompt = text[: len(text) - len(response)]
    assert tokens.marks.tolist() == marks_by_bytes(gpt, tokens.input_ids, [(prompt, CONTEXT), (response, SCORED)])


@pytest.mark.parametrize("name", ["base-7m", "stories260K", "tokenizer-gpt2"])
def test_real_tokenizers_agree_with_the_byte_count(name):
    tokenizer = shared(name)
    opening = 1 if name == "stories260K" else 0
    for prompt, response in [
        ("Say it:\n", "Hello there."),
        ("Say it:", "\n\nHello there.  \n"),
        ("q 😀", "😀é</s> and <|endoftext|> or <s>\u2028"),
        (" ", " é"),
        ("naïve", "té"),
        ("汉", "字 नमस्ते"),
    ]:
        tokens = one(pair(prompt, response), tokenizer, "plain")
        ids = tokens.input_ids[opening:]
        space = " " if opening else ""  # Llama writes a space before a text
        expected = marks_by_bytes(tokenizer, ids, [(space + prompt, CONTEXT), (response, SCORED)])
        assert tokens.marks[opening:].tolist() == ([CONTEXT, *expected[1:]] if not opening else expected)
        assert not set(ids.tolist()) & set(tokenizer.all_special_ids)
        assert tokenizer.decode(tokens.input_ids, skip_special_tokens=True) == prompt + response


def test_characters_that_a_tokenizer_does_not_know_are_scored_as_they_are_read():
    tokenizer = shared("gpt2-slm")
    tokens = one(pair("to be", " or Ω <unk>"), tokenizer, "plain")
    assert tokens.marks.tolist() == [CONTEXT] * 5 + [SCORED] * 11
    assert set(tokens.input_ids[[9, 11, 15]].tolist()) == {tokenizer.unk_token_id}


def test_a_token_that_merges_across_the_boundary_is_scored():
    tokenizer = shared("tokenizer-gpt2")
    tokens = one(pair("The quick bro", "wn fox"), tokenizer, "plain")
    assert tokenizer.convert_ids_to_tokens(tokens.input_ids) == ["The", "Ġquick", "Ġbrown", "Ġfox"]
    assert tokens.marks.tolist() == [0, 0, 1, 1]


def test_a_token_that_merges_across_the_end_of_a_response_is_not_scored():
    tokenizer = shared("tokenizer-gpt2")
    tokens = one(conversation("The qu", "ick bro", "wn fox", " jumps"), tokenizer, "plain")
    assert tokenizer.convert_ids_to_tokens(tokens.input_ids) == ["The", "Ġquick", "Ġbrown", "Ġfox", "Ġjumps"]
    assert tokens.marks.tolist() == [0, 1, 0, 0, 1]


def test_the_tokenizers_bos_stays_and_its_eos_goes():
    tokenizer = byte_level(opening="<s>")
    assert tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id
    tokens = one(pair("", "the cat"), tokenizer, "plain")
    assert tokens.input_ids[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id not in tokens.input_ids
    assert tokens.marks.tolist() == [CONTEXT] + [SCORED] * (len(tokens.marks) - 1)


def test_the_first_token_without_bos_is_not_scored(gpt):
    tokens = one(pair("", "the cat sat"), gpt, "plain")
    assert tokens.marks[0] == CONTEXT
    assert set(tokens.marks[1:]) == {SCORED}
    assert one(pair("", "t"), gpt, "plain").status == "unscorable"


def test_trimmed_offsets_do_not_move_the_mask():
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokens = one(pair("the cat:", "\n\n  the"), tokenizer, "plain")
    assert tokens.marks.tolist() == marks_by_bytes(
        tokenizer, tokens.input_ids, [("the cat:", CONTEXT), ("\n\n  the", SCORED)]
    )


def test_control_tokens_in_a_unigram_vocabulary_are_ordinary_text():
    tokenizer = unigram()
    text = "the </s> cat <|im_end|> sat <tool_call>"
    assert set(tokenizer("a" + text)["input_ids"][1:-1]) & set(tokenizer.all_special_ids)
    tokens = one(pair("a", text), tokenizer, "plain")
    assert not set(tokens.input_ids[1:].tolist()) & set(tokenizer.added_tokens_decoder)
    assert decode(tokenizer, tokens, SCORED) == text
    assert tokens.control_hits == 3


def test_control_tokens_that_merges_would_build_are_ordinary_text():
    tokenizer = byte_level()
    tokenizer.add_special_tokens({"extra_special_tokens": ["at"]})
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    assert ["a", "t"] in spec["model"]["merges"]
    tokens = one(pair("a ", "cat at"), tokenizer, "plain")
    assert tokenizer.convert_tokens_to_ids("at") not in tokens.input_ids
    assert tokenizer.decode(tokens.input_ids) == "a cat at"
    assert tokens.control_hits == 2


def test_normalised_characters_count_where_the_text_has_them():
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    tokens = one(pair("cafe\u0301 ", "e\u0301te\u0301"), tokenizer, "plain")
    assert tokenizer.decode(tokens.input_ids) == "café été"
    assert tokens.marks.tolist() == marks_by_bytes(tokenizer, tokens.input_ids, [("café ", CONTEXT), ("été", SCORED)])


@pytest.mark.parametrize("token", ["<|im_end|>", "<tool_call>"])
def test_an_allowed_control_token_keeps_its_meaning(gpt, token):
    record = pair("q ", f"call {token} </s>")
    assert one(record, gpt, "plain").control_hits == 2
    tokens = one(record, gpt, "plain", allow_tokens=[token])
    found = set(tokens.input_ids.tolist()) & set(gpt.added_tokens_decoder)
    assert found == {gpt.convert_tokens_to_ids(token)}
    assert tokens.control_hits == 1
    assert gpt.decode(tokens.input_ids) == f"q call {token} </s>"


def test_white_space_tokens_and_pieces_of_the_vocabulary_are_no_control_tokens():
    tokenizer = byte_level()
    assert "at" in json.loads(tokenizer.backend_tokenizer.to_str())["model"]["vocab"]
    tokenizer.add_tokens(["\n\n\n", "at"])
    tokens = one(pair("a\n\n\n", "at the cat"), tokenizer, "plain")
    assert {tokenizer.convert_tokens_to_ids(token) for token in ("\n\n\n", "at")} <= set(tokens.input_ids.tolist())
    assert tokens.control_hits == 0


# ---------------------------------------------------------------------------------------------------------------------
# Chat


@pytest.fixture(scope="module")
def chats() -> dict[str, PreTrainedTokenizerFast]:
    return {name: byte_level(template) for name, template in chat_templates.ALL.items()}


@settings(max_examples=80, deadline=None)
@given(name=st.sampled_from(sorted(CHATS)), texts=st.lists(st.tuples(anything, solid), min_size=1, max_size=3))
def test_chat_marks_equal_the_byte_count(chats, name, texts):
    flat = tuple(text for exchange in texts for text in exchange)
    tokenizer = chats[name]
    tokens = one(conversation(*flat), tokenizer, "chat")
    expected = marks_by_bytes(tokenizer, tokens.input_ids, chat_segments(name, flat))
    assert tokens.status == "scored"
    assert tokens.marks.tolist() == expected


@settings(max_examples=80, deadline=None)
@given(name=st.sampled_from(sorted(chat_templates.ALL)), texts=st.lists(solid, min_size=2, max_size=2))
def test_control_tokens_of_a_chat_are_those_of_the_template(chats, name, texts):
    tokenizer = chats[name]
    tokens = one(conversation(*texts), tokenizer, "chat")
    harmless = one(conversation("a", "b"), tokenizer, "chat")
    added = np.array(sorted(tokenizer.added_tokens_decoder))
    ours, theirs = (t.input_ids[np.isin(t.input_ids, added)].tolist() for t in (tokens, harmless))
    assert ours == theirs
    control = re.compile("|".join(map(re.escape, sorted(CONTROL, key=len, reverse=True))))
    assert tokens.control_hits == sum(len(control.findall(text)) for text in texts)


@pytest.mark.parametrize("build", [byte_level, unigram])
@pytest.mark.parametrize("name", sorted(chat_templates.ALL))
def test_benign_chats_encode_as_apply_chat_template_does(build, name):
    tokenizer = build(chat_templates.ALL[name])
    texts = "What is the cat?\n", " It is  the cat. é 😀", "\nand the dog?", "se the cat"
    tokens = one(conversation(*texts), tokenizer, "chat")
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    assert tokens.input_ids.tolist() == tokenizer.apply_chat_template(messages, tokenize=True)["input_ids"]


@pytest.mark.parametrize("build", [byte_level, unigram])
@pytest.mark.parametrize(
    ("name", "scored", "ends"),
    [
        ("chatml", "the cat.the dog.", "<|im_end|>" * 2),
        ("llama2", "the cat.the dog.", "</s>" * 2),
        ("llama3", "the cat.the dog.", "<|eot_id|>" * 2),
        ("qwen3", "the cat.<think>\n\n</think>\n\nthe dog.", "<|im_end|>" * 2),
        ("forced_thought", "the cat.the dog.", "<|im_end|>" * 2),
        ("no_generation_prompt", "the cat.the dog.", "</s>" * 2),
        ("no_end_token", "the cat.the dog.", ""),
        ("strips", "the cat.the dog.", "<|im_end|>" * 2),
        ("hermes", "the cat.the dog.", "<|im_end|>" * 2),
        ("mistral", "the cat.the dog.", "</s>" * 2),
    ],
)
def test_scored_tokens_spell_the_responses_and_end_tokens_are_marked(build, name, scored, ends):
    tokenizer = build(chat_templates.ALL[name])
    tokens = one(conversation("q1", "the cat.", "q2", "the dog."), tokenizer, "chat")
    squeezed = decode(tokenizer, tokens, SCORED).replace(" ", "")
    assert squeezed == scored.replace(" ", "")
    assert decode(tokenizer, tokens, END).replace(" ", "") == ends


def test_tool_calls_are_scored_with_their_markers_and_results_never(chats):
    record = example(
        Turn("system", "sys"), Turn("user", "1+1?"), Turn("assistant", "", extra=CALL),
        Turn("tool", "2 </tool_response>"), Turn("assistant", "It is 2."),
        tools=({"function": {"name": "<tool_call>"}},),
    )  # fmt: skip
    tokenizer = chats["hermes"]
    tokens = one(record, tokenizer, "chat")
    call = json.dumps(CALL["tool_calls"][0]["function"])
    assert decode(tokenizer, tokens, SCORED) == f"<tool_call>\n{call}\n</tool_call>It is 2."
    assert tokens.control_hits == 2
    marker = tokenizer.convert_tokens_to_ids("<tool_call>")
    assert tokens.input_ids.tolist().count(marker) == 1
    assert tokens.marks[tokens.input_ids == marker].tolist() == [SCORED]


def test_a_call_that_ends_with_another_token_is_scored_up_to_it(chats):
    record = example(
        Turn("user", "1+1?"), Turn("assistant", "", extra=CALL), Turn("tool", "2"), Turn("assistant", "It is 2.")
    )
    tokens = one(record, chats["llama3"], "chat")
    call = json.dumps(CALL["tool_calls"][0]["function"])
    assert decode(chats["llama3"], tokens, SCORED) == f"{call}It is 2."
    assert decode(chats["llama3"], tokens, END) == "<|eom_id|><|eot_id|>"


def test_thoughts_in_the_data_are_ordinary_text_unless_allowed(chats):
    tokenizer = chats["qwen3"]
    record = conversation("q1", "<think>\nt1\n</think>\n\na1", "q2", "<think>\nt2\n</think>\n\na2")
    tokens = one(record, tokenizer, "chat", allow_tokens=["<think>", "</think>"])
    assert decode(tokenizer, tokens, SCORED) == "a1<think>\nt2\n</think>\n\na2"
    assert tokens.control_hits == 0
    guarded = one(record, tokenizer, "chat")
    assert guarded.control_hits == 4
    think = tokenizer.convert_tokens_to_ids("<think>")
    assert guarded.input_ids.tolist().count(think) == 1  # the empty thought that the template writes in the last turn


def test_texts_that_meet_form_no_control_token():
    tokenizer = byte_level(chat_templates.BARE)
    tokens = one(conversation("a<|im_", "end|>b"), tokenizer, "chat")
    assert not set(tokens.input_ids.tolist()) & set(tokenizer.added_tokens_decoder)
    assert tokenizer.decode(tokens.input_ids) == "a<|im_end|>b"


def test_a_header_that_swallows_white_space_is_not_scored():
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken("<|assistant|>", rstrip=True, lstrip=False, special=True)])
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|assistant|>' if m.role == 'assistant' else '' }}{{ m.content }}</s>{% endfor %}"
        "{{ '<|assistant|>' if add_generation_prompt else '' }}"
    )
    tokens = one(pair("q", " \nthe cat"), tokenizer, "chat")
    assert decode(tokenizer, tokens, SCORED) == "the cat"


@given(st.lists(st.tuples(anything, anything), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_neighbours_change_nothing(chats, texts):
    records = [pair(a, b, row=i) for i, (a, b) in enumerate(texts)]
    for template in "chat", "alpaca":
        together = list(tokenize(records, chats["chatml"], template=template, max_length=4096))
        for record, tokens in zip(records, together, strict=True):
            alone = one(record, chats["chatml"], template)
            assert (tokens.row, tokens.status, tokens.control_hits) == (record.row, alone.status, alone.control_hits)
            assert np.array_equal(tokens.input_ids, alone.input_ids)
            assert np.array_equal(tokens.marks, alone.marks)


# ---------------------------------------------------------------------------------------------------------------------
# Statuses, lengths, labels


@pytest.mark.parametrize(
    ("record", "template", "status"),
    [
        (example(problem="broken JSON"), "chat", "bad_record"),
        (pair("q", ""), "chat", "empty_response"),
        (pair("q", " \n\t"), "alpaca", "empty_response"),
        (pair("", "q"), "plain", "unscorable"),
        (example(Turn("user", "q"), Turn("tool", "r"), Turn("assistant", "a")), "alpaca", "unscorable"),
        (example(Turn("system", "s"), Turn("user", "q"), Turn("assistant", "a")), "chat", "unscorable"),
        (pair("q", "a " * 5000), "plain", "too_long"),
    ],
)
def test_a_status_says_why_nothing_is_scored(chats, record, template, status):
    tokens = one(record, chats["no_system"], template)
    assert (tokens.status, len(tokens.input_ids), len(tokens.marks), tokens.truncated) == (status, 0, 0, False)
    assert tokens.input_ids.dtype == np.int32
    assert tokens.marks.dtype == np.uint8


def test_the_longest_sequence_that_fits_is_kept(gpt):
    record = pair("q ", "the cat sat on the mat")
    full = one(record, gpt, "plain")
    length = len(full.input_ids)
    assert one(record, gpt, "plain", max_length=length).status == "scored"
    assert one(record, gpt, "plain", max_length=length - 1).status == "too_long"
    trimmed = one(record, gpt, "plain", max_length=length - 1, too_long="trim")
    assert trimmed.truncated
    assert trimmed.input_ids.tolist() == full.input_ids[:-1].tolist()
    assert trimmed.marks.tolist() == full.marks[:-1].tolist()


def test_trimming_the_whole_response_leaves_nothing_to_score(gpt):
    tokens = one(pair("the cat sat " * 20, "a"), gpt, "plain", max_length=5, too_long="trim")
    assert (tokens.status, tokens.truncated, len(tokens.input_ids)) == ("unscorable", True, 0)


def test_what_follows_the_last_end_token_may_be_cut_without_loss(chats):
    full = one(conversation("q", "the cat", "bye"), chats["chatml"], "chat")
    needed = int(np.flatnonzero(full.marks)[-1]) + 1
    assert needed < len(full.marks)
    for too_long in "drop", "trim":
        tokens = one(conversation("q", "the cat", "bye"), chats["chatml"], "chat", max_length=needed, too_long=too_long)
        assert (tokens.status, tokens.truncated, len(tokens.marks)) == ("scored", False, needed)


def test_labels_are_responses_and_end_tokens(chats):
    tokens = one(conversation("q1", "the cat", "q2", "the dog"), chats["chatml"], "chat")
    ids, labels = training_labels(tokens, chats["chatml"].eos_token_id)
    assert ids == tokens.input_ids.tolist()
    assert labels == [i if mark else -100 for i, mark in zip(ids, tokens.marks.tolist(), strict=True)]
    assert chats["chatml"].decode([i for i in labels if i >= 0]) == "the cat<|im_end|>the dog<|im_end|>"


@pytest.mark.parametrize("template", ["alpaca", "plain"])
def test_without_an_end_token_eos_is_added_and_trained_on(gpt, template):
    tokens = one(pair("q ", "the cat"), gpt, template)
    ids, labels = training_labels(tokens, 1)
    assert ids == [*tokens.input_ids.tolist(), 1]
    assert labels[-1] == 1
    assert gpt.decode([i for i in labels[:-1] if i >= 0]).strip() == "the cat"
    assert training_labels(tokens, None)[0] == tokens.input_ids.tolist()


def test_a_truncated_response_gets_no_eos(gpt):
    tokens = one(pair("q ", "the cat sat on the mat"), gpt, "plain", max_length=6, too_long="trim")
    assert tokens.truncated
    assert training_labels(tokens, 1)[0] == tokens.input_ids.tolist()


@pytest.mark.parametrize(
    ("config", "model_max_length", "expected"),
    [
        (LlamaConfig(max_position_embeddings=4096), int(1e30), 2048),
        (LlamaConfig(max_position_embeddings=512), int(1e30), 512),
        (LlamaConfig(max_position_embeddings=4096), 1024, 1024),
        (GPT2Config(n_positions=128), int(1e30), 128),
    ],
)
def test_the_default_length_is_what_the_model_takes(config, model_max_length, expected):
    assert default_max_length(SimpleNamespace(model_max_length=model_max_length), config) == expected


@pytest.mark.parametrize("length", ["x", {}, [64]])
def test_a_length_that_is_no_number_is_told(length):
    tokenizer = SimpleNamespace(model_max_length=length, name_or_path="m")
    with pytest.raises(CurateError, match="m is damaged: expected a number as model_max_length, got"):
        default_max_length(tokenizer, LlamaConfig())


ROTARY = {"rope_theta": 10_000.0}
LONG = {**ROTARY, "rope_type": "longrope", "short_factor": [1.0], "long_factor": [4.0]}


@pytest.mark.parametrize(
    ("rotary", "expected"),
    [
        ({**ROTARY, "rope_type": "default"}, math.inf),
        ({**ROTARY, "rope_type": "llama3", "original_max_position_embeddings": 100}, math.inf),
        ({**ROTARY, "rope_type": "dynamic", "factor": 2.0}, 300),
        ({**ROTARY, "rope_type": "dynamic", "original_max_position_embeddings": 100}, 300),  # which it does not read
        ({**LONG, "original_max_position_embeddings": 100}, 100),
        ({"full": {**LONG, "original_max_position_embeddings": 100}, "sliding": {"rope_type": "default"}}, 100),
        (None, math.inf),
    ],
)
def test_where_positions_depend_on_the_batch_the_length_ends(rotary, expected):
    config = SimpleNamespace(rope_parameters=rotary, max_position_embeddings=300)
    config.get_text_config = lambda: config
    assert fixed_rotary_length(config) == expected
    assert default_max_length(SimpleNamespace(model_max_length=200), config) == min(expected, 200)


# ---------------------------------------------------------------------------------------------------------------------
# Mistakes


def test_an_unknown_allowed_token_is_refused_with_the_nearest(gpt):
    with pytest.raises(CurateError, match=r"'<tool_cal>' is no control token.*did you mean <tool_call>\?"):
        tokenize([], gpt, template="plain", max_length=8, allow_tokens=["<tool_cal>"])


def test_a_tokenizer_without_offsets_is_refused():
    slow = SimpleNamespace(is_fast=False, chat_template=None)
    with pytest.raises(CurateError, match=r"expected a tokenizer with a tokenizer\.json"):
        tokenize([], slow, template="plain", max_length=8)


def test_an_unknown_length_rule_is_refused(gpt):
    with pytest.raises(CurateError, match="drop or trim, got 'cut'"):
        tokenize([], gpt, template="plain", max_length=8, too_long="cut")


# ---------------------------------------------------------------------------------------------------------------------
# Real data


@pytest.mark.parametrize("name", ["base-7m", "stories260K"])
def test_alpaca_responses_are_spelled_by_their_scored_tokens(name):
    records = json.loads(real("data/alpaca_9k.json").read_text())[:500]
    tokenizer = shared(name)
    turns = [(Turn("user", r["instruction"], r["input"]), Turn("assistant", r["output"])) for r in records]
    found = list(tokenize((example(*t) for t in turns), tokenizer, template="alpaca", max_length=512))
    assert len(found) == 500
    for record, tokens in zip(records, found, strict=True):
        if tokens.status == "scored":
            assert decode(tokenizer, tokens, SCORED).strip() == record["output"].strip()
        else:
            assert tokens.status == ("too_long" if record["output"].strip() else "empty_response")
    assert sum(tokens.status == "scored" for tokens in found) > 400
