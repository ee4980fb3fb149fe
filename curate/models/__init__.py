"""Models on this machine, in reading order.

locate.py       where a model lies: a folder, a .gguf file, or a name on the hub
hub.py          which commit a name on the hub is, and its files in the cache
files.py        which files of a folder are loaded; damaged files, pickles and adapters are refused here
gguf.py         the header of a GGUF file
fingerprint.py  what tells models, tokenizers and embedders apart: one hash over what is loaded
weights.py      what weights say without being loaded, and what is refused before anything is paid
embedder.py     the same for the folder of an embedder; minilm.py is the default one as a package
load.py         configurations, tokenizers and models; quantize.py and device.py are how and where
checks.py       what is refused once a model is loaded
explain.py      what the libraries' errors mean
"""
