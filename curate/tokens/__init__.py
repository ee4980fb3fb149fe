"""Turns examples into token ids, and marks which of them are the response.

From an example to its text, in reading order:

    prompts.py     the text of a conversation, and where in it the responses stand
    chat.py        where the responses stand in what a chat template wrote
    rendering.py   what a chat template writes, at a fixed date and time
    alike.py       places the many responses of a long chat from few renderings
    tool_calls.py  arguments of tool calls, in the spelling that a template can write
    prepare.py     all of it: an example to its text, or to the reason why it has none

From text to tokens:

    lengths.py     how many tokens a model can take
    vocabulary.py  how much text a token can stand for, and ids without an embedding
    control.py     keeps control tokens inside a record's text ordinary text
    encode.py      text to ids, with the characters that each covers
    tokenize.py    examples to ids and the response mask, which scoring and training share
    labels.py      what a model is trained to say: the marked tokens and the end token
    remarks.py     what there is to tell about records that are not scored, each kind once
    store.py       tokens on disk, memory-mapped
    saved.py       the tokenizer on disk beside them
    pieces.py      tokens as a person reads them
"""
