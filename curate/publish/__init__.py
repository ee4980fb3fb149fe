"""Writes what other programs read: the kept records, their data card, and settings of training programs.

In reading order:

    kept.py       writes the chosen records, byte for byte as they came in
    records.py    describes that file for other programs: format, keys, roles
    copies.py     writes the same records as OpenAI messages, or as prompt and completion
    token_set.py  writes the same records as the token ids and labels that curate itself trains on
    agreement.py  says whether TRL makes these ids and labels of a copy
    trainers.py   writes dataset_info.json, and a settings file for each of three training programs
    licence.py    reads the licence that the source states
    card.py       writes README.md, the data card
    adapter.py    writes the tokenizer and README.md of a LoRA adapter
    texts.py      reads the templates of these files, in templates/
"""
