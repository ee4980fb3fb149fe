"""Finds and loads models on this machine, and refuses models that would be scored wrongly.

Before a model is loaded, in reading order:

    locate.py       finds where a model is: a folder, a .gguf file, or a name on the hub
    hub.py          finds models of the hub in its cache, and fetches what the cache lacks
    files.py        lists the files of a folder that are loaded; refuses damaged files, pickles and adapters
    gguf.py         reads the header of a GGUF file
    fingerprint.py  computes one hash over the files that are loaded, of models, tokenizers and embedders
    weights.py      reads the headers of weights
    size.py         counts the parameters of a model from its configuration
    embedder.py     finds the files of an embedder, fingerprints and checks them
    minilm.py       finds the default embedder in its Python package
    names.py        names base models in published files

Loading:

    device.py       chooses the device and the precision, and describes the device
    quantize.py     chooses how weights are quantised
    load.py         loads configurations, tokenizers and models
    outline.py      refuses models of which no file holds some weight
    precheck.py     refuses models before their weights are read: all that can be told from configuration and headers
    checks.py       refuses loaded models with random weights, or that can see later tokens
    in_memory.py    checks and fingerprints a model and a tokenizer that the caller has loaded
    memory.py       measures memory: what a process holds, the peak of a stage, the growth in a piece of work
    explain.py      turns errors of the libraries into messages
"""
