"""Scores tokens with a language model and with smaller subnets of it.

The learning complexity (the first score), in reading order:

    parts.py         takes a decoder apart: blocks, final norm, head
    exits.py         reads what the first k layers of the model would predict
    confidence.py    computes one number a record from logits
    prefixes.py      finds the prefixes that many records share
    prefix_cache.py  computes the KV cache of a prefix once for all records that share it
    batches.py       plans which records are computed together, in which order, by which process
    score.py         scores a batch: tokens in, confidence and log-probability at every exit out
    selftest.py      checks on the model at hand that the numbers are right, or refuses the model

Further scores:

    ifd.py           measures how much the prompt helps with the response
    masks.py         makes subnets by zeroing the smallest weights
    branches.py      finds the modules (attention, MLP) whose outputs are added to the residual stream
    dropout.py       makes subnets by dropout on those outputs

This room only computes. A score becomes a pass of a run in the room pipeline: `needed.py` says which pass makes which
column, `subnets.py` what a pass computes and which key it has, and `passes.py` runs it. A new score is entered there
(see CONTRIBUTING.md).
"""
