"""Turns examples into token ids, and marks which of them are the response.

From an example to its text, in reading order:

    prompts.py     writes a conversation as alpaca or plain text, with the positions of the responses
    chat.py        finds the positions of the responses in the text of a chat template
    deadline.py    ends a rendering that does not come to an end
    rendering.py   runs a chat template, at a fixed date and time
    alike.py       finds the responses of a long chat from few renderings
    tool_calls.py  writes arguments of tool calls as objects or as JSON text
    left_out.py    finds what a chat template does not write, and says which records hold it
    thoughts.py    says what a template does not write of an answer's thoughts
    variables.py   finds which variables a chat template reads, and says what of a record it does not get
    prepare.py     does all of this: an example to its text, or to the reason why it has none

From text to tokens:

    lengths.py     finds how many tokens a model can take
    vocabulary.py  finds how much text a token can stand for, and ids without an embedding
    control.py     keeps control tokens inside a record's text ordinary text
    encode.py      encodes text to ids, with the characters that each token covers
    tokenize.py    turns examples into ids and the response mask, which scoring and training share
    labels.py      makes training labels: the scored tokens and the end token
    remarks.py     counts the reasons why records are not scored
    store.py       keeps tokens on disk, memory-mapped
    saved.py       keeps the tokenizer on disk beside them
    pieces.py      shows tokens as a person reads them
"""
