"""Finds and loads models on this machine; refuses those that would be scored wrongly.

Before anything is paid, in reading order:

    locate.py       where a model lies: a folder, a .gguf file, or a name on the hub
    hub.py          which commit a name on the hub is, and its files in the cache
    files.py        which files of a folder are loaded; refuses damaged files, pickles and adapters
    gguf.py         the header of a GGUF file
    fingerprint.py  what tells models, tokenizers and embedders apart: one hash over what is loaded
    weights.py      what weights say without being loaded, and what is refused
    size.py         how large a model is, before its weights are read
    embedder.py     the same for the folder of an embedder
    minilm.py       the default embedder as a Python package
    names.py        how a base model is named in what is published

Loading:

    device.py       what this machine computes on, and in which precisions
    quantize.py     quantised weights, by bitsandbytes or from GGUF
    load.py         configurations, tokenizers and models
    outline.py      models without their numbers: which weights no file holds
    checks.py       what is refused once a model is loaded
    memory.py       a model and tokenizer that the caller has loaded
    explain.py      what the libraries' errors mean
"""
