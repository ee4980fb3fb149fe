"""Keeps a run on disk: its folder, atomic files, lock, processes and stages. Knows nothing of what is computed.

In reading order:

    atomic.py     writes files so that a reader finds all or nothing
    digests.py    digests of files, by which a run notices that one was changed or replaced
    keys.py       what a result depends on, by name, and its fingerprint
    manifest.py   the types of manifest.json: what it says of the run and of every finished stage
    special.py    refuses pipes, sockets and devices in place of files of a run
    lock.py       lets only one run at a time work in a folder
    folder.py     the run folder: its paths, its manifest, status.json
    launcher.py   what a launcher says of this process, in environment variables
    processes.py  the processes of one launch: which one this is, waiting, noticing one that hangs
    stage.py      what all stages have in common: key, products, entry in the manifest, closing line
    launch.py     one call of a verb: the folder is locked, the processes meet, the outcome is written
"""
