"""What other programs read: the kept records, their data card, and what training programs need to go on with them.

In reading order:

    kept.py       the chosen records, byte for byte as they came in
    records.py    what other programs have to know of that file: format, keys, roles
    copies.py     the same records as OpenAI messages, or as prompt and completion
    token_set.py  the same records as the token ids and labels that curate itself trains on
    agreement.py  whether a program that reads a copy arrives at those ids and labels
    trainers.py   dataset_info.json and a settings file for each of three training programs
    licence.py    the licence that the source states
    card.py       README.md, the data card
    adapter.py    what stands beside a LoRA adapter
    texts.py      reads templates/, the texts of these files
"""
