"""Keeps a run on disk: its folder, atomic files, lock, processes and stages. Knows nothing of what is computed.

In reading order:

    atomic.py     writes a file so that it is whole or absent
    keys.py       what a result depends on, by name, and its fingerprint
    folder.py     the run folder: manifest with fingerprints, status.json
    lock.py       one run at a time works in a folder
    processes.py  processes of one launch: who am I, wait for a file, notice one that hangs
    stage.py      what all stages have in common: key, products, record, closing line
    launch.py     one call of a verb: folder held, processes found, outcome written down
"""
