"""Scores tokens with a language model and with smaller subnets of it.

The learning complexity (the first score), in reading order:

    parts.py         takes a decoder apart: blocks, final norm, head
    exits.py         what a copy of the model with only its first k layers would predict
    confidence.py    the maths, from logits to one number a record
    prefixes.py      finds what many records begin with
    prefix_cache.py  the keys and values of such a beginning, computed once
    batches.py       which records are computed together, in which order, by which process
    score.py         batches of tokens in, confidence and log-probability at every exit out
    selftest.py      proves on the model at hand that all this is right, or refuses it

Further scores:

    ifd.py           how much the prompt helps with the response
    masks.py         subnets by zeroing the smallest weights
    branches.py      finds what each attention and MLP adds to the residual stream
    dropout.py       subnets by dropout on what they add
"""
