"""Templates: the wording byte for byte, and where the responses stand."""

import json

import chat_templates
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import TemplateError
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from curate.tokens.chat import chat
from curate.tokens.prompts import Rendered, alpaca, has_empty_turn, has_response, messages_of, plain, resolve_template
from curate.types import CurateError, Example, Turn

CALL = {"tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}]}
TOOLS = ({"type": "function", "function": {"name": "add"}},)


def example(*turns: Turn, tools=None) -> Example:
    return Example(0, "id", turns, tools)


def user(text: str, given: str = "") -> Turn:
    return Turn("user", text, given)


def assistant(text: str, **extra) -> Turn:
    return Turn("assistant", text, extra=extra)


def responses(rendered: Rendered | None) -> list[str]:
    assert rendered is not None
    return [rendered.text[r.start : r.stop] for r in rendered.responses]


def words_after(rendered: Rendered) -> list[str]:
    return [rendered.text[r.stop : r.close] for r in rendered.responses]


def tokenizer_with(template: str | None) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = template
    return tokenizer


def render_chat(template: str, *turns: Turn, tools=None) -> Rendered:
    tokenizer = tokenizer_with(template)

    def render(messages, add_generation_prompt):
        return tokenizer.apply_chat_template(
            messages, tools=tools, tokenize=False, add_generation_prompt=add_generation_prompt
        )

    return chat(messages_of(example(*turns)), render)


def test_alpaca_without_input_is_the_original_prompt():
    rendered = alpaca(example(user("Say hi."), assistant("Hi!")))
    assert rendered.text == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nSay hi.\n\n### Response:\nHi!"
    )
    assert responses(rendered) == ["Hi!"]


def test_alpaca_with_input_is_the_original_prompt():
    rendered = alpaca(example(user("Translate.", "Bonjour"), assistant("Hello")))
    assert rendered.text == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request."
        "\n\n### Instruction:\nTranslate.\n\n### Input:\nBonjour\n\n### Response:\nHello"
    )
    assert responses(rendered) == ["Hello"]


def test_further_alpaca_turns_add_their_own_blocks():
    rendered = alpaca(example(user("A"), assistant("B"), user("C", "D"), assistant("E")), system="Be brief.")
    assert rendered.text == (
        "Be brief.\n\n### Instruction:\nA\n\n### Response:\nB"
        "\n\n### Instruction:\nC\n\n### Input:\nD\n\n### Response:\nE"
    )
    assert responses(rendered) == ["B", "E"]


def test_a_system_turn_comes_before_the_system_setting():
    turns = Turn("system", "Own."), user("A"), assistant("B")
    assert alpaca(example(*turns), system="Setting.").text.startswith("Own.\n\n### Instruction:\nA")
    assert plain(example(*turns), system="Setting.").text == "Own.AB"
    assert messages_of(example(*turns), system="Setting.")[0]["content"] == "Own."
    assert messages_of(example(*turns[1:]), system="Setting.")[0] == {"role": "system", "content": "Setting."}


def test_an_empty_system_turn_leaves_the_alpaca_sentence():
    assert alpaca(example(Turn("system", ""), user("A"), assistant("B"))).text.startswith("Below is an instruction")


def test_plain_joins_contents_as_they_stand():
    rendered = plain(example(user("2+2="), assistant("4"), user("\n3+3=", "?"), assistant(" 6 ")))
    assert rendered.text == "2+2=4\n3+3=\n\n? 6 "
    assert responses(rendered) == ["4", " 6 "]


@pytest.mark.parametrize("write", [alpaca, plain])
@pytest.mark.parametrize(
    "used",
    [
        example(user("A"), assistant("", **CALL), Turn("tool", "2"), assistant("2")),
        example(user("A"), assistant("call", **CALL)),
        example(user("A"), assistant("B"), tools=TOOLS),
    ],
)
def test_tools_need_a_chat_template(write, used):
    assert write(used) is None


@given(st.lists(st.tuples(st.text(), st.text(), st.text()), min_size=1, max_size=4), st.none() | st.text())
def test_responses_stand_where_alpaca_and_plain_say(exchanges, system):
    turns = [turn for a, b, c in exchanges for turn in (user(a, b), assistant(c))]
    for write in alpaca, plain:
        assert responses(write(example(*turns), system=system)) == [c for _, _, c in exchanges if c.strip()]


def test_messages_carry_input_and_extra_keys():
    messages = messages_of(example(user("A", "B"), assistant("", **CALL), Turn("tool", "2", extra={"name": "add"})))
    assert messages == [
        {"role": "user", "content": "A\n\nB"},
        {"role": "assistant", "content": "", **CALL},
        {"role": "tool", "content": "2", "name": "add"},
    ]


def test_a_tool_call_is_a_response_and_white_space_is_none():
    assert has_response(example(user("A"), assistant("", **CALL)))
    assert has_response(example(user("A"), assistant(" "), user("B"), assistant("x")))
    assert not has_response(example(user("A"), assistant(" \n\t\u2028\u3000")))
    assert not has_response(example(user("A")))


@pytest.mark.parametrize(
    ("asked", "chat_template", "used"),
    [
        ("auto", None, "alpaca"),
        ("auto", chat_templates.CHATML, "chat"),
        ("chat", chat_templates.CHATML, "chat"),
        ("alpaca", chat_templates.CHATML, "alpaca"),
        ("plain", None, "plain"),
    ],
)
def test_the_template_follows_the_tokenizer(asked, chat_template, used):
    assert resolve_template(asked, tokenizer_with(chat_template)) == used


def test_chat_needs_a_chat_template():
    with pytest.raises(CurateError, match="has no chat template; use alpaca or plain"):
        resolve_template("chat", tokenizer_with(None))


def test_an_unknown_template_is_refused_by_name():
    with pytest.raises(CurateError, match="auto, chat, alpaca, plain, got 'vicuna'"):
        resolve_template("vicuna", tokenizer_with(None))


TWO = user("q1"), assistant("a1"), user("q2"), assistant("a2")


@pytest.mark.parametrize(
    ("name", "found", "after"),
    [
        ("chatml", ["a1", "a2"], ["<|im_end|>\n"] * 2),
        ("llama2", ["a1", "a2"], [" </s>"] * 2),
        ("llama3", ["a1", "a2"], ["<|eot_id|>"] * 2),
        ("qwen3", ["a1", "<think>\n\n</think>\n\na2"], ["<|im_end|>\n"] * 2),
        ("forced_thought", ["a1", "a2"], ["<|im_end|>\n"] * 2),
        ("no_generation_prompt", ["a1", "a2"], ["</s>\n"] * 2),
        ("no_end_token", ["a1", "a2"], ["\n"] * 2),
        ("strips", ["a1", "a2"], ["<|im_end|>\n"] * 2),
        ("no_system", ["a1", "a2"], ["<|im_end|>\n"] * 2),
        ("hermes", ["a1", "a2"], ["<|im_end|>\n"] * 2),
        ("mistral", ["a1", "a2"], ["</s>"] * 2),
        ("qwen3_fields", ["a1", "<think>\n\n</think>\n\na2"], ["<|im_end|>\n"] * 2),
        ("deepseek", ["a1", "a2"], ["</s>"] * 2),
        ("llama3_date", ["a1", "a2"], ["<|eot_id|>"] * 2),
    ],
)
def test_both_responses_of_a_chat_are_found(name, found, after):
    rendered = render_chat(chat_templates.ALL[name], *TWO)
    assert responses(rendered) == found
    assert words_after(rendered) == after


def test_the_templates_above_are_all_of_them():
    assert len(chat_templates.ALL) == 14


def test_history_without_its_thoughts_is_scored_as_it_stands():
    turns = user("q1"), assistant("<think>\nt1\n</think>\n\na1"), user("q2"), assistant("<think>\nt2\n</think>\n\na2")
    rendered = render_chat(chat_templates.QWEN3, *turns)
    assert "t1" not in rendered.text
    assert responses(rendered) == ["a1", "<think>\nt2\n</think>\n\na2"]
    assert words_after(rendered) == ["<|im_end|>\n"] * 2


def test_a_system_text_in_the_first_user_turn_is_never_a_response():
    rendered = render_chat(chat_templates.LLAMA2, Turn("system", "sys"), *TWO)
    assert rendered.text.startswith("<s>[INST] <<SYS>>\nsys\n<</SYS>>\n\nq1 [/INST] a1 </s>")
    assert responses(rendered) == ["a1", "a2"]


@pytest.mark.parametrize(
    ("name", "response"),
    [("strips", "a b"), ("llama2", "a b"), ("llama3", "a b"), ("chatml", " \na b\n\n"), ("mistral", " \na b\n\n")],
)
def test_white_space_belongs_to_a_response_where_the_template_keeps_it(name, response):
    assert responses(render_chat(chat_templates.ALL[name], user("q"), assistant(" \na b\n\n"))) == [response]


@pytest.mark.parametrize("name", ["chatml", "hermes", "no_generation_prompt", "no_end_token"])
@pytest.mark.parametrize("text", ["x", "Q", "xQ", "<|im_end|>\n", "Assistant: x", "</s>\n</s>\n", "assistant\n"])
def test_a_response_that_looks_like_its_surroundings_is_found_whole(name, text):
    rendered = render_chat(chat_templates.ALL[name], user(text), assistant(text), user(text), assistant(text))
    assert responses(rendered) == [text, text]


def test_tool_calls_are_responses_and_tool_results_are_not():
    turns = user("1+1?"), assistant("Let me.", **CALL), Turn("tool", "2"), assistant("It is 2.")
    call = json.dumps(CALL["tool_calls"][0]["function"])
    rendered = render_chat(chat_templates.HERMES, *turns, tools=list(TOOLS))
    assert responses(rendered) == [f"Let me.\n<tool_call>\n{call}\n</tool_call>", "It is 2."]
    assert words_after(rendered) == ["<|im_end|>\n"] * 2


def test_a_call_without_text_ends_with_its_own_end_token():
    call = json.dumps(CALL["tool_calls"][0]["function"])
    rendered = render_chat(chat_templates.LLAMA3, user("q"), assistant("", **CALL), Turn("tool", "2"), assistant("2"))
    found = rendered.responses[0]
    assert rendered.text[found.start : found.close] == f"{call}<|eom_id|>"
    assert len(call) <= found.stop - found.start < len(f"{call}<|eom_id|>")  # a cut inside the end token scores nothing
    assert responses(rendered)[1] == "2"


def test_definitions_that_move_to_the_last_turn_are_never_scored():
    turns = user("q1"), assistant("a1"), user("q2"), assistant("a2")
    rendered = render_chat(chat_templates.MISTRAL, *turns, tools=list(TOOLS))
    assert rendered.text.startswith("<s>[INST]q1[/INST]a1</s>[AVAILABLE_TOOLS]")
    assert responses(rendered) == ["a1", "a2"]


def test_a_conversation_may_open_with_the_assistant_or_end_with_the_user():
    rendered = render_chat(chat_templates.CHATML, assistant("hello"), user("q"), assistant("a"), user("bye"))
    assert responses(rendered) == ["hello", "a"]


def test_a_turn_that_the_template_hides_is_not_scored():
    template = "{% for m in messages[-2:] %}<{{ m.content }}>{% endfor %}"
    assert responses(render_chat(template, *TWO)) == ["a2"]
    assert responses(render_chat("{% for m in messages %}{{ m.content if m.role == 'user' }}{% endfor %}", *TWO)) in (
        [],
        ["", ""],
    )


@pytest.mark.parametrize("blank", ["", " \n"])
def test_an_empty_turn_among_others_is_no_response(blank):
    turns = user("q1"), assistant(blank), user("q2"), assistant("a2")
    assert has_empty_turn(example(*turns))
    assert not has_empty_turn(example(*turns[2:]))
    assert not has_empty_turn(example(user("q"), assistant("", **CALL)))
    for rendered in alpaca(example(*turns)), plain(example(*turns)), render_chat(chat_templates.CHATML, *turns):
        assert responses(rendered) == ["a2"]


def test_the_refusal_of_a_template_comes_through():
    with pytest.raises(TemplateError, match="System role not supported"):
        render_chat(chat_templates.NO_SYSTEM, Turn("system", "s"), *TWO)
